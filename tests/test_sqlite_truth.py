"""What power cuts leave of the recorded databases, held against what SQLite promises.

Every test works with mounted images and, where that is not allowed, with e2fsck and debugfs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.by_function import FilesChecker
from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.checkers.spec import Files
from crashsim.experiment.loader import Case
from crashsim.explore.budget import Budget
from crashsim.explore.outcomes import said
from crashsim.explore.selection import plan
from crashsim.explore.state_runner import StateRunner
from crashsim.explore.survey import Exploration, explore
from crashsim.states import power_of_ten
from experiments.sqlite_check import check_files
from tests.checkers_support import RECORDINGS, after_requests, entries
from tests.cli_support import Program
from tests.sqlite_truth import (
    CHECKER,
    DOCUMENT,
    EXPERIMENTS,
    FILE_SYSTEM,
    NAMES,
    cases,
    ends,
    lost,
    subject_of,
)

FINDINGS = sorted((EXPERIMENTS / "findings").glob("*.crashsim-finding"))
NO_ACKS = Acks((), ())

pytestmark = pytest.mark.skipif(
    any(shutil.which(name, path=SYSTEM_PATH) is None for name in ("e2fsck", "debugfs")),
    reason="e2fsprogs is not installed",
)


@pytest.fixture
def checker() -> Iterator[FilesChecker]:
    made = Files(CHECKER).checker()
    yield made
    made.close()


def found_in(name: str, atom: str, states: int) -> Exploration:
    """A small exploration of a recording."""
    (case,) = (one for one in cases(name) if one.parameters["explore.atom"] == atom)
    return explore(subject_of(case), Budget(states), case.experiment.seed)


def of_the_database(found: Exploration) -> set[str]:
    """Outcomes that reject the database, not its file system."""
    return set(found.result.outcomes) - {"ok", "not created yet", *FILE_SYSTEM}


# Controls: what a run without a cut leaves is fine.


@pytest.mark.parametrize("name", NAMES)
def test_without_a_cut_what_reached_the_disk_is_sound(name: str, checker: FilesChecker) -> None:
    image, _ = after_requests(name, 1 << 30)
    assert checker.check(image, NO_ACKS).kind == "ok"


def test_without_a_cut_wal_full_has_what_it_acknowledged_at_every_mark(
    checker: FilesChecker,
) -> None:
    """Requests in order, not through the simulator: no state of ours can hide in it."""
    image, _ = after_requests("sqlite-wal-full", 0)
    labels: list[str] = []
    for entry in entries("sqlite-wal-full"):
        image[entry.offset : entry.offset + len(entry.content)] = entry.content
        if entry.label:
            labels.append(entry.label)
            acks = Acks(tuple(labels), tuple((n, n) for n in range(len(labels))))
            assert checker.check(image, acks).outcome == "ok", entry.label
    assert len(labels) == 101


def test_a_promise_that_is_broken_would_be_seen(checker: FilesChecker) -> None:
    """The control's own control: one more acknowledgement than the disk has."""
    marks = [n for n, entry in enumerate(entries("sqlite-wal-full"), 1) if entry.label]
    image, _ = after_requests("sqlite-wal-full", marks[10])
    _, more = after_requests("sqlite-wal-full", marks[11])
    assert checker.check(image, more).outcome == "lost acknowledged rows"


def test_a_disk_that_loses_nothing_leaves_wal_full_whole() -> None:
    target = subject_of(cases("sqlite-wal-full")[0])
    whole = [one for one in ends(target, every=9) if one.end == "all"]
    assert len(whole) >= 24
    assert {one.verdict.outcome for one in whole} == {"ok", "not created yet"}


# Each setting against its promise.


@pytest.mark.parametrize("case", cases("sqlite-wal-full"), ids=lambda case: case.name)
def test_wal_full_keeps_every_promise_in_the_middle_of_a_commit(case: Case) -> None:
    target = subject_of(case)
    seen = 0
    with StateRunner(target) as runner:
        for number in range(101, 105):  # two commits
            epoch = runner.enter(number)
            for step in plan(epoch, target.history.store_write, 40, case.experiment.seed):
                assert runner.check(step.choices).outcome == "ok"
                seen += 1
    assert seen > 80


def test_with_sectors_the_superblock_can_be_torn_and_with_pages_it_can_not() -> None:
    sectors = found_in("sqlite-delete-off", "512B", 10)
    torn = next(one for one in sectors.findings if one.outcome in FILE_SYSTEM)
    assert {torn.lost[0].offset, torn.kept[0].offset} == {1024, 1536}
    assert sectors.result.checked == sectors.result.images
    pages = found_in("sqlite-delete-off", "4KiB", 10)
    assert pages.result.checked == pages.result.images
    assert not set(pages.result.outcomes) & set(FILE_SYSTEM)


@pytest.mark.parametrize("name", ["sqlite-wal-normal", "sqlite-wal-normal-90s"])
def test_wal_normal_loses_transactions_and_damages_nothing(name: str) -> None:
    found = found_in(name, "4KiB", 122)
    assert found.findings
    assert of_the_database(found) <= {"no table", "lost acknowledged rows"}


def test_wal_off_can_leave_a_damaged_database() -> None:
    found = found_in("sqlite-wal-off-90s", "4KiB", 82)
    corrupt = [one for one in found.findings if one.outcome == "corrupt"]
    assert corrupt
    assert any("still in the guest's memory" in one.story[-1] for one in corrupt)


def test_delete_full_may_take_back_the_last_transaction_and_no_other() -> None:
    (case,) = cases("sqlite-delete-full")[1:]
    both = [one for one in ends(subject_of(case), every=9) if one.acks > 1]
    assert {lost(one.verdict) for one in both} == {0, 1}


def _without_the_journal(folder: Path, acks: Acks) -> Verdict:
    (folder / "app.db-journal").unlink()
    return check_files(folder, acks)


def test_in_delete_full_it_is_the_journal_that_came_back_that_takes_it(
    checker: FilesChecker, tmp_path: Path
) -> None:
    marks = [n for n, entry in enumerate(entries("sqlite-delete-full"), 1) if entry.label]
    image, acks = after_requests("sqlite-delete-full", marks[50])
    assert checker.check(image, acks).outcome == "lost acknowledged rows"
    without = Files(f"{__name__}:_without_the_journal", folder=tmp_path).checker()
    assert without.check(image, acks).outcome == "ok"
    without.close()


def test_delete_off_had_written_nothing_when_it_acknowledged_everything() -> None:
    found = found_in("sqlite-delete-off", "4KiB", 10)
    assert found.result.outcomes == {"no database": 1, "not created yet": 2}


# The two ways to the files.


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_mounted_and_unpacked_files_give_the_same_outcomes() -> None:
    case = cases("sqlite-wal-off-90s")[1]
    mounted, unpacked = (
        [one.verdict.outcome for one in ends(subject_of(case, how), every=5)]
        for how in ("auto", "debugfs")
    )
    assert mounted == unpacked and {"corrupt", "no table"} < set(mounted)


def test_a_torn_superblock_is_told_without_the_place_of_our_copy() -> None:
    image, _ = after_requests("sqlite-delete-off", 0)
    for entry in entries("sqlite-delete-off"):
        if entry.content:
            image[1536:2048] = entry.content[1536:2048]
    made = Files(CHECKER, how="debugfs").checker()
    found = made.check(image, NO_ACKS)
    made.close()
    assert found.outcome == "file system cannot be repaired"
    assert "Superblock checksum does not match" in found.message
    assert "crashsim" not in found.message
    assert said(found) == "e2fsck ends with 8"


# The document.


def _rows() -> dict[tuple[str, str], list[str]]:
    """(recording, atom) -> cells of the document's table."""
    lines = re.findall(r"^\| ((?:wal|delete)-[a-z0-9-]+ \| \d.*) \|$", DOCUMENT.read_text(), re.M)
    cells = [line.split(" | ") for line in lines]
    return {(one[0], one[1]): one[2:] for one in cells}


def test_the_table_has_every_recording_with_both_atoms() -> None:
    assert len(_rows()) == 2 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_counts_the_states_that_there_are(name: str) -> None:
    for case in cases(name):
        wanted = case.experiment.explore
        assert wanted is not None
        there = sum(epoch.images for epoch in subject_of(case).space.epochs())
        checked, outcomes, _, _, causes = _rows()[
            name.removeprefix("sqlite-"), case.parameters["explore.atom"]
        ]
        told = re.fullmatch(r"([\d,]+) of (.*)", checked)
        assert told is not None and told[2] == power_of_ten(there)
        count = int(told[1].replace(",", ""))
        assert count == min(wanted.states, there)
        assert sum(int(n.replace(",", "")) for n in re.findall(r" ([\d,]+)(?:, |$)", outcomes)) in (
            count,
        )
        expect = case.experiment.expect
        names = [name for name, _ in re.findall(r"(.+?) ([\d,]+)(?:, |$)", outcomes)]
        bad = [name for name in names if name not in ("ok", "not created yet")]
        for one in expect.known:  # each happens, and there is nothing else
            assert any(one.is_called(name) for name in bad)
        assert all(any(one.is_called(name) for one in expect.known) for name in bad)
        assert str(expect.findings) == "== 0" and bool(bad) == bool(int(causes))


# Saved findings.


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Findings and recordings somewhere else."""
    shutil.copytree(RECORDINGS, tmp_path / "experiments" / "recordings")
    shutil.copytree(EXPERIMENTS / "findings", tmp_path / "experiments" / "findings")
    shutil.copy(EXPERIMENTS / "sqlite_check.py", tmp_path / "experiments")
    return tmp_path / "experiments" / "findings"


@pytest.mark.parametrize("file", FINDINGS, ids=lambda file: file.stem)
def test_a_saved_finding_fails_again_in_a_fresh_clone(
    program: Program, clone: Path, file: Path
) -> None:
    answer = program("replay", clone / file.name, "--trust")
    assert answer.code == 1
    expected, found = re.findall(r"^(?:expected|found): +(.*)$", answer.out, re.M)
    assert expected == found


def test_three_findings_are_kept() -> None:
    assert len(FINDINGS) == 3
    assert all(file.stat().st_size < 8192 for file in FINDINGS)
