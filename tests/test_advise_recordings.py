"""`crashsim advise` of recordings: what never left the guest, and what a flush of the device
ends."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from crashsim.advise.changes import Typed
from crashsim.advise.guest_memory import MOST_MARKS, Removed
from crashsim.advise.search import Advice, Advised, advise
from crashsim.advise.sentences import lines
from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.checkers.spec import Files
from crashsim.experiment.loader import load
from tests.advise_truth import faults
from tests.checkers_support import after_requests, entries
from tests.cli_support import EXPERIMENTS, Program
from tests.log_writer import Entry, flush, mark, write, write_log
from tests.sqlite_truth import CHECKER

needs_e2fsprogs = pytest.mark.skipif(
    any(shutil.which(name, path=SYSTEM_PATH) is None for name in ("e2fsck", "debugfs")),
    reason="e2fsprogs is not installed",
)
# Sector n holds n once mark 'n' is given; with `ordered` never without the sectors before it.
CHECK = """
from crashsim.checkers import Verdict

def check(image, acks):
    there = [image[512 * n] == n for n in range(1, 9)]
    if not all(there[int(label) - 1] for label in acks.labels):
        return Verdict("finding", "lost")

def ordered(image, acks):
    there = [image[512 * n] == n for n in range(1, 9)]
    if sorted(there, reverse=True) != there:
        return Verdict("finding", "hole")
    return check(image, acks)
"""
EXPERIMENT = """
device: {size: 64KiB}
workload: {kind: recording, log: a.log}
guest: {file_system: none}
explore: {states: 2000, check: {function: "check.py:%s"}}
"""


def sector(number: int) -> Entry:
    return write(number, bytes([number]) * 512)


def advised(program: Program, entries: list[Entry], check: str = "check") -> tuple[Advised, str]:
    """What is found, and in words."""
    write_log(program.folder / "a.log", entries)
    (program.folder / "check.py").write_text(CHECK)
    return found_in(program.write(EXPERIMENT % check))


def found_in(file: Path, *overrides: str) -> tuple[Advised, str]:
    found = advise(load(file, overrides).cases[0], Typed(str(file), overrides))
    return found, "\n".join(lines("x", found))


def test_what_had_come_to_the_device_needs_a_flush_before_its_mark(program: Program) -> None:
    log = [sector(1), flush(), mark("1"), sector(2), mark("2"), sector(3), flush(), mark("3")]
    found, said = advised(program, log)
    assert (found.unsent, found.exit_code) == (None, 0)
    (one,) = found.advice
    assert one.flushes is not None and one.explored is not None
    assert one.flushes.words == "after write 1 (before the mark '2')"
    assert not one.explored.failing
    assert "a flush of the device after write 1 (before the mark '2') [V2]" in said
    assert "record the program again with them" in said


def test_a_flush_is_never_offered_for_what_had_not_left_the_guest(program: Program) -> None:
    """Mark 2 is given before its write; nobody flushes in between."""
    log = [sector(1), mark("1"), mark("2"), sector(2), flush(), sector(3), mark("3"), flush()]
    found, said = advised(program, log)
    assert (found.advice, found.exit_code) == ((), 1)
    late = found.unsent
    assert late is not None and late.first is not None and late.arrival is not None
    assert (late.marks, late.tried, late.failing, late.damaged) == (3, 3, 1, 0)
    assert (late.first.label, late.first.outcome) == ("2", "lost")
    assert (late.arrival.write, late.arrival.offset, late.arrival.behind) == (1, 1024, "2")
    assert "What it promises was still in the guest's memory" in said
    assert "No flush of the device, and no disk, can replace the sync" in said
    assert "ends it: " not in said
    words = [*shlex.split(found.command)[1:], "--output", str(program.runs), "--workers", "1"]
    assert program(*words).code == 1
    (finding,) = program.results()["cases"][0]["exploration"]["findings"]
    assert finding["outcome"] == "lost"


def test_what_never_came_is_told_as_that(program: Program) -> None:
    found, said = advised(program, [sector(1), flush(), mark("1"), mark("4"), flush()])
    assert found.unsent is not None
    assert (found.unsent.arrival, found.exit_code) == (None, 1)
    assert "in the guest's memory, or nowhere" in said and "It never came to the device" in said


def test_a_mark_before_any_write_is_asked_of_what_the_device_held(program: Program) -> None:
    found, _ = advised(program, [mark("1"), sector(1), flush(), mark("1")])
    late = found.unsent
    assert late is not None and late.first is not None and late.arrival is not None
    assert (late.failing, late.first.number, late.arrival.write) == (1, 0, 0)
    assert late.arrival.behind == "1"


def test_what_fails_whatever_was_acknowledged_is_no_promise(program: Program) -> None:
    log = [sector(1), flush(), mark("1"), sector(3), flush(), mark("3"), sector(2), flush()]
    found, said = advised(program, log, "ordered")
    late = found.unsent
    assert late is not None and found.exit_code == 1
    assert (late.failing, late.damaged, late.first) == (0, 1, None)
    assert "0 of 2 marks for what they promise, 1 whatever was acknowledged" in said
    assert "Missing: " not in said


def test_flushes_that_only_order_are_called_needed_when_recovery_needs_them(
    program: Program,
) -> None:
    log = [sector(1), flush(), sector(2), flush(), mark("2"), sector(3), flush(), mark("3")]
    found, said = advised(program, log, "ordered")
    assert found.ordering is not None
    assert found.ordering.places.after_writes == (0,)
    assert found.ordering.worse == ("hole",) and "Needed: without them" in said
    found, said = advised(program, log)
    assert found.ordering is not None and found.ordering.worse == ()
    assert "which is no proof" in said and "Needed" not in said


def test_a_mark_that_was_not_judged_is_not_called_lost(program: Program) -> None:
    """The checker says no only every other time."""
    log = [sector(1), flush(), mark("1"), sector(2), flush(), mark("2")]
    write_log(program.folder / "a.log", log)
    (program.folder / "check.py").write_text(
        "from pathlib import Path\n"
        "from crashsim.checkers import Verdict\n"
        "def check(image, acks):\n"
        "    asked = Path(__file__).with_name('asked')\n"
        "    if acks.count == 1 and not asked.exists():\n"
        "        asked.touch()\n"
        "        return Verdict('finding', 'no')\n"
        "    asked.unlink(missing_ok=True)\n"
    )
    found, said = found_in(program.write(EXPERIMENT % "check"))
    assert found.explored is not None and not found.explored.failing
    assert (found.unsent, found.exit_code) == (None, 4)
    assert "Not established: not every state that was planned was judged" in said


def test_many_marks_are_tried_in_part_and_that_is_said(program: Program) -> None:
    log: list[Entry] = [sector(1), flush()]
    log += [mark("1") for _ in range(MOST_MARKS)] + [mark("2"), mark("2")]
    found, said = advised(program, log)
    assert found.unsent is not None
    assert (found.unsent.marks, found.unsent.tried) == (MOST_MARKS + 2, MOST_MARKS)
    assert f"{MOST_MARKS} marks tried of {MOST_MARKS + 2}" in said


def test_without_a_checker_nothing_is_said_of_what_the_guest_held(program: Program) -> None:
    write_log(program.folder / "a.log", [sector(1), mark("1"), sector(2), flush(), mark("2")])
    file = program.write(re.sub("explore.*", "", EXPERIMENT))
    found, said = found_in(file)
    assert found.exit_code == 1 and "ends it: " not in said
    assert "Not established: whether what was acknowledged had come to the device" in said


# --- SQLite ---------------------------------------------------------------------------------------


@cache
def sqlite(name: str, states: int) -> tuple[Advised, str]:
    one = ["sweep=null", "cases={}", "explore.atom=4KiB", f"explore.states={states}"]
    return found_in(EXPERIMENTS / f"sqlite-{name}.yaml", *one)


@needs_e2fsprogs
def test_of_sqlites_rollback_journal_a_sync_of_the_directory_is_missing() -> None:
    found, said = sqlite("delete-full", 10)
    assert (found.advice, found.exit_code) == ((), 1)
    assert found.before.uncovered == 0  # of what had come to the device nothing is lost
    late = found.unsent
    assert late is not None and late.arrival is not None and late.first is not None
    assert (late.failing, late.marks, late.damaged) == (101, 101, 0)
    assert late.removed == Removed("app.db-journal", 8, 8)
    assert "a sync of the directory / after app.db-journal is deleted, before the mark" in said
    assert "No flush of the device, and no disk, can replace the sync" in said
    assert "still in the guest's memory" in said
    # The same from the log alone, without the simulator and the states.
    log, checker = list(entries("sqlite-delete-full")), Files(CHECKER).checker()
    marks = [n for n, entry in enumerate(log, 1) if entry.label]
    some = marks[::20]
    kinds = [checker.check(*after_requests("sqlite-delete-full", n)).kind for n in some]
    assert kinds == ["finding"] * len(some)
    assert log[marks[0] - 1].label == late.first.label
    _, acks = after_requests("sqlite-delete-full", marks[0])
    upto = [n for n, entry in enumerate(log, 1) if entry.content][late.arrival.write]
    without, then = (after_requests("sqlite-delete-full", n)[0] for n in (upto - 1, upto))
    kinds = [checker.check(image, acks).kind for image in (without, then)]
    checker.close()
    assert kinds == ["finding", "ok"]


@needs_e2fsprogs
@pytest.mark.parametrize(("name", "file"), [("wal-normal-90s", "app.db-wal"), ("wal-off", "")])
def test_of_commits_that_are_not_synced_the_file_is_named_if_it_ever_came(
    name: str, file: str
) -> None:
    found, said = sqlite(name, 20)
    assert found.unsent is not None and found.unsent.removed is None
    assert (found.advice, found.exit_code) == ((), 1)
    assert "a sync of the directory" not in said
    if file:
        assert f"With it {file} has 824,032 bytes, not 4,096." in said
    else:
        assert "It never came to the device" in said


@needs_e2fsprogs
def test_in_wal_full_nothing_is_missing_and_the_order_of_flushes_is_needed() -> None:
    found, said = sqlite("wal-full", 430)
    assert (found.fine, found.unsent, found.exit_code) == (True, None, 0)
    assert found.ordering is not None
    assert found.ordering.worse == ("file system does not mount",)
    assert "the checker accepts all 430 states tried of 8,629 images" in said
    assert "Not established: what the checker says of the images that were not tried." in said


@needs_e2fsprogs
def test_what_is_advised_and_not_true_is_seen() -> None:
    """Of `make truth`."""
    name = "sqlite-wal-off"
    found, _ = sqlite("wal-off", 20)
    mine, late = found.explored, found.unsent
    assert mine is not None and late is not None
    findings = [{"known": one.known} for one in mine.reasons]
    run = {"checked": mine.checked, "failing": mine.failing, "findings": findings}
    assert list(faults(name, found, run)) == []
    helps = Advice((), None, found.before, mine, "")
    for wrong in (
        replace(found, explored=replace(mine, checked=mine.checked - 1)),
        replace(found, explored=replace(mine, reasons=())),
        replace(found, unsent=None),
        replace(found, unsent=replace(late, failing=100)),
        replace(found, advice=(helps,)),
    ):
        assert list(faults(name, wrong, run)), wrong


# --- ext4, made by e2fsprogs ----------------------------------------------------------------------


FILES = """
from crashsim.checkers import Verdict

def check(folder, acks):
    files = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    if acks.count and (files.get("f") != "new" or "stop" in files):
        return Verdict("finding", "old")
"""


def ext4_with(folder: Path, *commands: str) -> bytes:
    """A file system with f, tmp and stop, changed by these commands of debugfs."""
    tree, image = folder / "tree", folder / "image"
    if not tree.exists():
        tree.mkdir()
        for name, text in (("f", "old"), ("tmp", "new"), ("stop", "")):
            (tree / name).write_text(text)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree), str(image), "1024")
    changed = folder / "changed"
    shutil.copy(image, changed)
    for command in commands:
        run("debugfs", "-w", "-R", command, str(changed))
    return changed.read_bytes()


def run(name: str, *words: str) -> None:
    path = shutil.which(name, path=SYSTEM_PATH)
    assert path is not None
    subprocess.run([path, *words], check=True, capture_output=True)


def blocks(old: bytes, new: bytes) -> list[Entry]:
    """What turns one image into the other."""
    at = [n for n in range(0, len(old), 4096) if old[n : n + 4096] != new[n : n + 4096]]
    return [write(n // 512, new[n : n + 4096]) for n in at]


def in_files(program: Program, before: bytes, after: bytes) -> tuple[Advised, str]:
    """A mark between two images, which both come to the device."""
    folder = program.folder
    (folder / "before.img").write_bytes(before)
    (folder / "check.py").write_text(FILES)
    again = write(0, before[:4096])
    write_log(folder / "a.log", [again, flush(), mark("1"), *blocks(before, after), flush()])
    text = EXPERIMENT.replace("64KiB", "4MiB").replace("a.log", "a.log, image: before.img")
    return found_in(program.write(text.replace("function", "files_function") % "check"))


RENAME = ("rm f", "ln tmp f", "unlink tmp")


@needs_e2fsprogs
@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        (("rm stop",), RENAME, "the directory / after tmp is renamed to f"),
        (RENAME, ("rm stop",), "the directory / after stop is deleted"),
    ],
)
def test_a_name_that_came_too_late_needs_a_sync_of_its_directory(
    program: Program, before: tuple[str, ...], after: tuple[str, ...], missing: str
) -> None:
    folder = program.folder
    found, said = in_files(program, ext4_with(folder, *before), ext4_with(folder, *before, *after))
    assert found.unsent is not None and found.unsent.failing == 1
    assert f"Missing: a sync of {missing}, before the mark." in said
    assert found.exit_code == 1


@needs_e2fsprogs
def test_a_content_that_came_too_late_blames_no_directory(program: Program) -> None:
    before = ext4_with(program.folder, *RENAME, "rm stop")
    at = before.index(b"new" + bytes(100))
    changed = before[:at] + b"old" + before[at + 3 :]
    found, said = in_files(program, changed, before)
    assert found.unsent is not None and found.unsent.removed is None
    assert "directory" not in said and "With it f has other content." in said
