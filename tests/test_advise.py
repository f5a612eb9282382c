"""`crashsim advise`: what is at fault, what ends it, and that it was run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crashsim import advise as advisor
from crashsim import advise_syncs
from crashsim.advise import MOST_RUNS, advise, lines
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
    assert one.syncs is not None
    assert one.syncs.words == "after the last write of each of 40 records"
    assert "no sync that succeeded lies between write 0 and it" in found.lost


def test_of_syncs_that_come_in_and_syncs_that_are_missing_all_are_told() -> None:
    text = BASE % ("", ", acknowledge: before-sync", "msync-async")
    found = advise(experiment(text.replace("every: 1 records", "every: 10 records")))
    words = [one.syncs.words for one in found.advice if one.syncs]
    assert words == [
        "after the last write of 4 of 40 records: 9, 19, 29, 39",
        "after the last write of each of 40 records",
    ]
    assert [one.prompt for one in found.advice] == [False, True]


def test_of_several_devices_only_the_syncs_that_come_in_are_told() -> None:
    text = """
devices:
  - {size: 1MiB}
  - {size: 1MiB, name: second, sync: {call: none}}
workload: {kind: append-log, records: 4}
sync: {call: fdatasync}
guest: {file_system: none}
"""
    found = advise(experiment(text))
    (one,) = [one for one in found.advice if one.syncs]
    assert one.changes[0].key == "devices.1.sync.call" and one.syncs is not None
    assert one.syncs.words == "after the last write of 4 of 8 records: 4-7"


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
    assert (found.before.safe, found.advice) == (True, ())
    assert (found.idle, found.ordering) == (None, None)
    assert "no acknowledgement is ever lost" in lines("x", found)[0]


def test_a_recording_is_told_before_which_marks_a_flush_is_missing() -> None:
    path = ROOT / "experiments" / "sqlite-delete-off.yaml"
    case = plan(path.read_text(encoding="utf-8"), str(path)).cases[0]
    found = advise(case.experiment)
    (one,) = [one for one in found.advice if one.syncs]
    assert one.after.safe and one.syncs is not None
    assert one.after.flushes == found.before.flushes + len(one.syncs.after_writes)
    assert one.syncs.words == "before each of 100 marks: 'ack 0', 'ack 1', 'ack 2', ..., 'ack 99'"
    assert "no flush that succeeded lies between the mark before it and it" in found.lost


def test_to_acknowledge_nothing_any_more_is_no_advice() -> None:
    text = BASE.replace("records: 40", "records: 9") % ("", ", acknowledge: before-sync", "fsync")
    found = advise(experiment(text.replace("every: 1 records", "every: 10 records")))
    (one,) = found.advice  # no sync comes behind the ninth record
    assert one.syncs is not None and one.after.acknowledged == 9


def test_what_gives_up_acknowledgements_comes_last_and_says_so() -> None:
    text = BASE % ("", ", acknowledge: before-sync", "fdatasync")
    found = advise(experiment(text.replace("every: 1 records", "every: 15 records")))
    first, second = found.advice
    assert (first.after.acknowledged, second.after.acknowledged) == (40, 30)
    assert first.after.flushes > second.after.flushes
    assert "10 acknowledgements fewer by the end" in "\n".join(lines("x", found))


def test_every_run_is_told_and_there_are_no_more_than_promised() -> None:
    told: list[int] = []
    text = BASE % (", backing: {kind: private}", ", acknowledge: before-sync", "fdatasync")
    found = advise(experiment(text), lambda done, _what: told.append(done))
    assert told == list(range(found.runs)) and 10 < found.runs <= MOST_RUNS


def test_each_search_keeps_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE % ("", ", acknowledge: before-sync", "fdatasync")
    text = text.replace("every: 1 records", "every: 10 records")
    assert len(advise(experiment(text)).advice) == 2
    monkeypatch.setattr(advise_syncs, "MOST_RUNS", 2 * advise_syncs.MOST_REMOVALS + 1)
    (one,) = advise(experiment(text)).advice
    assert one.syncs is None
    monkeypatch.setattr(advisor, "MOST_SETTINGS", 1)
    assert (advise(experiment(text)).advice, advise(experiment(text)).runs) == ((), 1)


def test_the_command_says_it_in_words_and_in_json(program: Program) -> None:
    text = BASE % ("", ", acknowledge: before-sync", "fdatasync")
    file = program.write(text.replace("every: 1 records", "every: 10 records"))
    words = "a sync after the last write of 36 of 40 records: 0-8, 10-18, 20-28, 30-38"
    answer = program("advise", file)
    assert answer.code == 0 and words in answer.out
    (found,) = json.loads(program("advise", file, "--json").out).values()
    assert [one["syncs"] is None for one in found["advice"]] == [True, False]
    places = found["advice"][1]["syncs"]["after_writes"]
    assert places == [n for n in range(40) if n % 10 != 9]


def test_the_figures_are_those_of_the_report(program: Program) -> None:
    answer = program.run(NO_SYNC, "--json")
    (case,) = json.loads(answer.out)["cases"]
    found = advise(experiment(NO_SYNC)).before
    assert found.uncovered == case["uncovered_acknowledgements"]["max"]
    assert (found.flushes, found.wait_ns) == (case["flushes"], case["guest_wait_ns"])
