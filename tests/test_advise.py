"""`crashsim advise`: what is at fault, what ends it, and that it was run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crashsim.advise import advise, lines
from crashsim.experiment.loader import plan
from crashsim.experiment.model import Experiment
from tests.cli_support import Program

BASE = """
device: {size: 1MiB%s}
workload: {kind: append-log, records: 40, rate: 2000/s%s}
sync: {call: %s, every: 1 records}
guest: {file_system: none}
"""
NO_SYNC = BASE.replace(", every: 1 records", "") % ("", "", "none")
ROOT = Path(__file__).parent.parent


def experiment(text: str) -> Experiment:
    return plan(text, "x.yaml").cases[0].experiment


def keys(text: str) -> list[tuple[str, ...]]:
    found = advise(experiment(text))
    assert not found.before.safe
    assert all(one.after.safe for one in found.advice)
    return [tuple(change.key for change in one.changes) for one in found.advice]


def test_a_program_without_syncs_is_told_where_one_is_missing() -> None:
    found = advise(experiment(NO_SYNC))
    (one,) = [one for one in found.advice if one.changes[0].key == "sync.call"]
    assert (one.changes[0].new, one.after.flushes) == ("fdatasync", 40)
    assert "no sync that succeeded lies between write 0 and it" in found.lost


@pytest.mark.parametrize("kind", ["private", "tmpfs", "hugetlbfs", "ram"])
def test_memory_that_is_no_file_on_a_disk_is_at_fault(kind: str) -> None:
    text = BASE % (f", backing: {{kind: {kind}}}", "", "fdatasync")
    if kind == "ram":  # every flush fails, so nothing is acknowledged and nothing promised
        assert advise(experiment(text)).before.safe
    else:
        assert ("device.backing.kind",) in keys(text)


def test_an_acknowledgement_before_its_sync_has_to_move_behind_it() -> None:
    assert ("workload.acknowledge",) in keys(BASE % ("", ", acknowledge: before-sync", "fdatasync"))


def test_a_disk_that_ignores_flush_is_at_fault() -> None:
    text = BASE % ("", "", "fdatasync") + "disk: {profile: ignores-flush}\n"
    assert keys(text) == [("disk.ignores_flush",), ("disk.plp",)]


@pytest.mark.parametrize("fault", ["corrupted", "dead"])
def test_a_disk_that_loses_again_what_it_kept_is_at_fault(fault: str) -> None:
    text = BASE % ("", "", "fdatasync") + f"disk: {{faults: {{{fault}: {{at: [12ms]}}}}}}\n"
    assert (f"disk.faults.{fault}",) in keys(text)
    assert ("disk.plp",) not in keys(text)
    if fault == "dead":
        assert "lost again" in advise(experiment(text)).lost


def test_a_monitor_that_reuses_results_is_at_fault() -> None:
    text = (ROOT / "experiments" / "firecracker-litmus.yaml").read_text(encoding="utf-8")
    (case,) = [
        case
        for case in plan(text, "x.yaml").cases
        if case.experiment.vmm == "firecracker-reused-result"
        and case.experiment.guest.driver == "concurrent"
    ]
    changed = [[change.key for change in one.changes] for one in advise(case.experiment).advice]
    assert ["vmm"] in changed and ["guest.driver"] in changed


def test_two_faults_need_two_changes() -> None:
    text = BASE % (", backing: {kind: private}", ", acknowledge: before-sync", "fdatasync")
    assert ("device.backing.kind", "workload.acknowledge") in keys(text)


def test_nothing_is_advised_where_nothing_is_lost() -> None:
    found = advise(experiment(BASE % ("", "", "fdatasync")))
    assert (found.before.safe, found.advice, found.redundant) == (True, (), 0)
    assert "no acknowledgement is ever lost" in lines("x", found)[0]


def test_syncs_with_nothing_stored_since_the_last_are_found_and_run_without() -> None:
    text = """
device: {size: 1MiB}
workload: {kind: write-ahead-log, records: 40, table_size: 64KiB, checkpoint_every: 10}
sync: {call: fdatasync, every: 1 records}
guest: {file_system: none}
"""
    found = advise(experiment(text))
    assert found.redundant > 0 and found.without_redundant is not None
    assert found.without_redundant.flushes == found.before.flushes - found.redundant
    assert found.without_redundant.safe


def test_a_recording_is_told_before_which_marks_a_flush_is_missing() -> None:
    path = ROOT / "experiments" / "sqlite-delete-off.yaml"
    case = plan(path.read_text(encoding="utf-8"), str(path)).cases[0]
    found = advise(case.experiment)
    (one,) = [one for one in found.advice if one.syncs]
    assert one.after.safe
    assert one.after.flushes == found.before.flushes + len(one.syncs)


def test_the_figures_are_those_of_the_report(program: Program) -> None:
    answer = program.run(NO_SYNC, "--json")
    (case,) = json.loads(answer.out)["cases"]
    found = advise(experiment(NO_SYNC)).before
    assert found.uncovered == case["uncovered_acknowledgements"]["max"]
    assert (found.flushes, found.wait_ns) == (case["flushes"], case["guest_wait_ns"])
