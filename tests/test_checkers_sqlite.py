"""The checker of the SQLite recordings: what it calls each state of the database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from crashsim.checkers import Acks
from crashsim.checkers.spec import Command, Files
from experiments.sqlite_check import check_database, check_files, values
from tests.checkers_support import after_requests

ROOT = Path(__file__).parents[1]
CHECKER = "experiments/sqlite_check.py"


def database(path: Path, transactions: int, extra: Sequence[str] = ()) -> Path:
    """What the recorded program leaves, and then some statements."""
    with closing(sqlite3.connect(path)) as made:
        made.execute("create table kv(k integer primary key, v text)")
        for i in range(transactions):
            made.execute("insert into kv values (?, ?)", (i, values(i)[0]))
            if i >= 3:
                made.execute("update kv set v = ? where k = ?", (values(i - 3)[1], i - 3))
        for statement in extra:
            made.execute(statement)
        made.commit()
    return path


def marks(acknowledged: int) -> list[str]:
    return ["ready", *(f"ack {i}" for i in range(acknowledged))]


def outcome(path: Path, acknowledged: int) -> str:
    return check_database(path, marks(acknowledged)).outcome


def test_the_formula_of_the_values_is_that_of_the_recordings() -> None:
    # sha256 of "7" once, and of "u10": computed with sha256sum.
    first, second = values(7)
    assert first == "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"
    assert second.startswith(sha256sum("u10"))
    assert values(8)[0] == sha256sum("8") * 2


def sha256sum(text: str) -> str:
    said = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True)
    return said.stdout.decode().split()[0]


def test_a_database_with_all_that_was_acknowledged_is_ok(tmp_path: Path) -> None:
    path = database(tmp_path / "app.db", 10)
    for acknowledged in (0, 5, 10):
        found = check_database(path, marks(acknowledged))
        assert (found.kind, found.outcome) == ("ok", "ok")


def test_a_row_that_was_acknowledged_and_is_not_there_is_lost(tmp_path: Path) -> None:
    assert outcome(database(tmp_path / "app.db", 10), 11) == "lost acknowledged rows"


def test_half_a_transaction_is_torn(tmp_path: Path) -> None:
    inserted_only = database(tmp_path / "a", 4, [f"update kv set v = '{values(0)[0]}' where k = 0"])
    assert outcome(inserted_only, 0) == "torn transaction"
    changed_only = database(tmp_path / "b", 4, [f"update kv set v = '{values(1)[1]}' where k = 1"])
    assert outcome(changed_only, 0) == "torn transaction"


def test_a_transaction_that_is_missing_between_others_is_a_hole(tmp_path: Path) -> None:
    hole = database(tmp_path / "app.db", 3, ["delete from kv where k = 1"])
    assert outcome(hole, 0) == "hole"


def test_a_value_that_was_never_written_is_wrong(tmp_path: Path) -> None:
    wrong = database(tmp_path / "app.db", 3, ["update kv set v = 'x' where k = 1"])
    assert outcome(wrong, 0) == "wrong value"


def test_a_damaged_page_is_corrupt(tmp_path: Path) -> None:
    path = database(tmp_path / "app.db", 100)
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 100 : 8192] = bytes(4096 - 100)
    path.write_bytes(damaged)
    assert outcome(path, 0) == "corrupt"
    path.write_bytes(b"no database at all" * 1000)
    assert outcome(path, 0) == "corrupt"


def test_what_is_no_text_is_a_wrong_value(tmp_path: Path) -> None:
    wrong = database(tmp_path / "app.db", 3, ["update kv set v = cast(x'ff' as text) where k = 1"])
    assert outcome(wrong, 0) == "wrong value"


def test_a_database_that_cannot_be_opened_is_unreadable_not_corrupt(tmp_path: Path) -> None:
    (tmp_path / "app.db").mkdir()
    assert outcome(tmp_path / "app.db", 0) == "unreadable"


def test_nothing_is_a_finding_only_after_ready_was_promised(tmp_path: Path) -> None:
    nothing, empty = tmp_path / "nothing", tmp_path / "empty"
    empty.touch()
    for path, called in ((nothing, "no database"), (empty, "no table")):
        assert check_database(path, []).outcome == "not created yet"
        assert check_database(path, []).kind == "ok"
        found = check_database(path, marks(2))
        assert (found.kind, found.outcome) == ("finding", called)
        assert found.message.endswith("2 acknowledged and not there")
    assert not nothing.exists()


def test_a_transaction_in_the_log_is_found(tmp_path: Path) -> None:
    """What is in the write-ahead log alone counts, as it does for the program."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("pragma journal_mode = wal")
    database(path, 5)
    whole, without_log = tmp_path / "whole", tmp_path / "without-log"
    whole.mkdir()
    without_log.mkdir()
    with closing(sqlite3.connect(path)) as made:
        made.execute("insert into kv values (5, ?)", (values(5)[0],))
        made.execute("update kv set v = ? where k = 2", (values(2)[1],))
        made.commit()
        (whole / "app.db").write_bytes(path.read_bytes())
        (whole / "app.db-wal").write_bytes((tmp_path / "app.db-wal").read_bytes())
        (without_log / "app.db").write_bytes(path.read_bytes())
    acks = Acks(tuple(marks(6)), ((0, 0),) * 7)
    assert check_files(whole, acks).outcome == "ok"
    assert check_files(without_log, acks).outcome == "lost acknowledged rows"


def command(folder: Path, labels: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of the checker as a command."""
    acks = folder / "acks"
    acks.write_text("".join(f"{label}\n" for label in labels))
    words = [sys.executable, CHECKER, str(folder), str(acks)]
    ended = subprocess.run(words, capture_output=True, check=False, cwd=ROOT, text=True)
    return ended.returncode, ended.stdout


def test_as_a_command_it_prints_the_outcome_and_ends_with_0_or_1(tmp_path: Path) -> None:
    database(tmp_path / "app.db", 4)
    assert command(tmp_path, marks(4)) == (0, "outcome: ok\n\n")
    code, said = command(tmp_path, marks(6))
    assert code == 1
    assert said.startswith("outcome: lost acknowledged rows\n2 acknowledged and not there")


def test_as_a_command_it_says_how_it_is_used() -> None:
    words = [sys.executable, CHECKER]
    ended = subprocess.run(words, capture_output=True, check=False, cwd=ROOT)
    assert ended.returncode == 2 and b"usage" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("name", ["sqlite-wal-full", "sqlite-delete-off"])
def test_a_whole_recording_is_ok_and_command_and_function_agree(name: str) -> None:
    """A control: every request has arrived, so nothing may be missing."""
    image, acks = after_requests(name, 1 << 30)
    if name == "sqlite-delete-off":
        acks = acks.first(0)  # it syncs nothing: all of it is still in the guest's memory
    by_function = Files(f"{CHECKER}:check_files").checker()
    by_command = Command(f"python3 {CHECKER} {{mnt}} {{acks}}").checker()
    found = by_function.check(image, acks)
    assert found.kind == "ok"
    again = by_command.check(image, acks)
    assert (again.kind, again.outcome) == (found.kind, found.outcome)
    by_function.close()
    by_command.close()
