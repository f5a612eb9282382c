"""Is the database of the SQLite recordings what it promised to be? (`experiments/recordings`)

The experiments beside this file name it as `sqlite_check.py:check_files`, which is called with the
files; `python3 sqlite_check.py {mnt} {acks}` is the same as a command. The program's transaction i
inserts key i and, from i = 3 on, changes key i - 3; so what is there tells which transactions are.
`app.db` is opened as the program would open it again, so SQLite recovers it from its journal or
log.

| outcome | the first of these that holds |
|---|---|
| `no database` | `app.db` is not there though the mark `ready` was given |
| `corrupt` | SQLite says that it is damaged, or `PRAGMA integrity_check` finds something |
| `unreadable` | SQLite fails for another reason, such as an error of the file system |
| `no table` | a sound database without the table that the mark `ready` stands for |
| `wrong value` | a key with a value that the program never gave it |
| `torn transaction` | one of the two changes of a transaction is there and the other is not |
| `hole` | a transaction is there and an earlier one is not |
| `lost acknowledged rows` | an acknowledged transaction is not there |
| `not created yet` | nothing is there and nothing was promised: ok |
| `ok` | none of these: ok |
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from crashsim.checkers import Acks, Verdict

DATABASE = "app.db"
_BACK = 3  # transaction i changes key i - 3
_USAGE = 2


def check_files(folder: Path, acks: Acks) -> Verdict:
    """The verdict on the database in a folder, which SQLite may write to."""
    return check_database(folder / DATABASE, acks.labels)


def check_database(path: Path, labels: Sequence[str]) -> Verdict:
    """`labels`: the recording's marks that were given by then."""
    promised = {int(label[4:]) for label in labels if label.startswith("ack ")}
    if not path.exists():
        return _nothing("no database", labels, f"there is no {path.name}")
    try:
        with closing(sqlite3.connect(path)) as database:
            database.text_factory = _text
            faults = [row[0] for row in database.execute("PRAGMA integrity_check")]
            if faults != ["ok"]:
                return Verdict("finding", "corrupt", "\n".join(map(str, faults)))
            if not database.execute("select 1 from sqlite_master where name = 'kv'").fetchone():
                return _nothing("no table", labels, "there is no table kv")
            rows = dict(database.execute("select k, v from kv order by k"))
    except sqlite3.OperationalError as error:
        return Verdict("finding", "unreadable", str(error))
    except sqlite3.DatabaseError as error:
        return Verdict("finding", "corrupt", str(error))
    return _compare(rows, promised)


def _text(raw: bytes) -> str:
    """Bytes that are no text are a wrong value, not an error."""
    return raw.decode("utf-8", "replace")


def _nothing(outcome: str, labels: Sequence[str], told: str) -> Verdict:
    if "ready" in labels:
        given = len(labels) - 1
        return Verdict("finding", outcome, f"{told}; {given} acknowledged and not there")
    return Verdict("ok", "not created yet", told)


def _compare(rows: dict[int, object], promised: set[int]) -> Verdict:
    """Rows against what the transactions would have left."""
    for key, value in rows.items():
        if value not in values(key):
            return Verdict("finding", "wrong value", f"key {key}: {value!r:.80}")
    changed = {key + _BACK for key, value in rows.items() if value == values(key)[1]}
    inserted = set(rows)
    torn = sorted(changed ^ {key for key in rows if key >= _BACK})
    if torn:
        side = "inserted" if torn[0] in inserted else "changed"
        other = "changed" if torn[0] in inserted else "inserted"
        told = f"transaction {torn[0]} has {side} its row and not {other} the other"
        return Verdict("finding", "torn transaction", told)
    there = len(inserted)
    if inserted != set(range(there)):
        missing = min(set(range(there)) - inserted)
        told = f"transaction {missing} is not there, {max(inserted)} is"
        return Verdict("finding", "hole", told)
    lost = sorted(promised - inserted)
    if lost:
        told = f"{len(lost)} acknowledged and not there, the first is {lost[0]}; {there} are there"
        return Verdict("finding", "lost acknowledged rows", told)
    return Verdict("ok", "ok")


@lru_cache(maxsize=1 << 14)
def values(key: int) -> tuple[str, str]:
    """What the program gives a key: first, and three transactions later."""
    first = hashlib.sha256(str(key).encode()).hexdigest() * (1 + key % 7)
    return first, hashlib.sha256(f"u{key + _BACK}".encode()).hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 fine, 1 a finding, 2 wrong usage."""
    if len(arguments) != 2:
        sys.stderr.write("usage: sqlite_check.py FOLDER ACKNOWLEDGEMENTS\n")
        return _USAGE
    folder, acks = map(Path, arguments)
    found = check_database(folder / DATABASE, acks.read_text(encoding="utf-8").splitlines())
    sys.stdout.write(f"outcome: {found.outcome}\n{found.message}\n")
    return int(found.kind != "ok")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
