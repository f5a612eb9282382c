"""`crashsim advise`: what is at fault, what ends it, that it was run, and the command behind it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashsim.advise import search as advisor
from crashsim.advise.changes import NO_LOSS, Typed, changed, programs
from crashsim.advise.changes import settings as settings_at_fault
from crashsim.advise.evidence import MOST_RUNS
from crashsim.advise.search import Advised, advise
from crashsim.advise.sentences import NO_COMMAND, lines
from crashsim.experiment.loader import Case, load, plan
from tests.cli_support import EXPERIMENTS, Program

BASE = """
device: {size: 1MiB%s}
workload: {kind: append-log, records: 40, rate: 2000/s%s}
sync: {call: %s, every: 1 records}
guest: {file_system: none}
"""
NO_SYNC = BASE.replace(", every: 1 records", "") % ("", "", "none")
BUFFER = """
device: {size: 1MiB}
workload: {kind: double-buffer, records: 30, body_size: 8KiB}
sync: {call: %s}
guest: {file_system: none}
explore: {states: 500, check: {rule: acknowledged}}
"""


def case(text: str) -> Case:
    return plan(text, "x.yaml").cases[0]


def found_in(text: str) -> Advised:
    return advise(case(text), Typed("x.yaml"))


def keys(text: str) -> list[tuple[str, ...]]:
    found = found_in(text)
    assert not found.fine
    assert all(one.after.safe for one in found.advice)
    return [tuple(change.key for change in one.changes) for one in found.advice]


def said(found: Advised) -> str:
    return "\n".join(lines("x", found))


# --- whose fault it is ----------------------------------------------------------------------------


def test_a_program_without_syncs_is_told_so_and_given_policies() -> None:
    found = found_in(NO_SYNC)
    assert "no sync that succeeded lies between write 0 and it" in found.lost
    assert {change.key for one in found.advice for change in one.changes} == {"sync"}
    assert found.advice[-1].changes[0].new == "{call: fdatasync, every: 1 records}"
    assert found.advice[-1].after.flushes == 40


@pytest.mark.parametrize("kind", ["private", "tmpfs", "hugetlbfs", "ram"])
def test_memory_that_is_no_file_on_a_disk_is_at_fault(kind: str) -> None:
    text = BASE % (f", backing: {{kind: {kind}}}", "", "fdatasync")
    if kind == "ram":  # every flush fails, so nothing is acknowledged and nothing promised
        assert found_in(text).fine
    else:
        assert ("device.backing.kind",) in keys(text)


def test_an_acknowledgement_before_its_sync_has_to_move_behind_it() -> None:
    assert ("workload.acknowledge",) in keys(BASE % ("", ", acknowledge: before-sync", "fdatasync"))


def test_a_disk_that_ignores_flush_is_at_fault() -> None:
    text = BASE % ("", "", "fdatasync") + "disk: {profile: ignores-flush}\n"
    assert keys(text) == [("disk.ignores_flush",), ("disk.plp",)]


@pytest.mark.parametrize("fault", ["corrupted", "dead"])
def test_a_disk_that_loses_again_what_it_kept_is_at_fault(fault: str) -> None:
    # The last page of an I/O is damaged: with larger folios one that nobody stored to.
    text = BASE % (", backing: {folio: 4KiB}", "", "fdatasync")
    text += f"disk: {{faults: {{{fault}: {{at: [12ms]}}}}}}\n"
    assert (f"disk.faults.{fault}",) in keys(text)
    assert ("disk.plp",) not in keys(text)
    if fault == "dead":
        assert "lost again" in found_in(text).lost


def test_a_monitor_that_reuses_results_is_at_fault() -> None:
    (one,) = [
        one
        for one in load(EXPERIMENTS / "firecracker-litmus.yaml").cases
        if one.experiment.vmm == "firecracker-reused-result"
        and one.experiment.guest.driver == "concurrent"
    ]
    found = advise(one, Typed("x.yaml"))
    changes = [[change.key for change in one.changes] for one in found.advice]
    assert ["vmm"] in changes and ["guest.driver"] in changes


def test_two_faults_need_two_changes() -> None:
    text = BASE % (", backing: {kind: private}", ", acknowledge: before-sync", "fdatasync")
    assert all(one[:2] == ("device.backing.kind", "workload.acknowledge") for one in keys(text))


def test_of_several_devices_only_the_one_without_syncs_is_changed() -> None:
    text = """
devices:
  - {size: 1MiB}
  - {size: 1MiB, name: second, sync: {call: none}}
workload: {kind: append-log, records: 4}
sync: {call: fdatasync}
guest: {file_system: none}
"""
    assert set(keys(text)) == {("devices.1.sync",)}


def test_nothing_is_advised_where_nothing_is_lost() -> None:
    found = found_in(BASE % ("", "", "fdatasync"))
    assert found.fine and (found.advice, found.exit_code) == ((), 0)
    assert (found.idle, found.ordering) == (None, None)
    assert "no acknowledgement is lost in the simulation" in said(found)
    assert "Not established: what recovery makes of it" in said(found)


# --- the cheapest change --------------------------------------------------------------------------


def test_the_cheapest_change_is_one_of_settings_and_policies_together() -> None:
    text = NO_SYNC.replace("records: 40, rate: 2000/s", "records: 3000, rate: 1000/s")
    found = found_in(text.replace("rate", "acknowledge: before-sync, rate"))
    costs = [one.after.cost() for one in found.advice]
    delays = [one.after.delay_ns for one in found.advice]
    assert costs == sorted(costs) and delays == sorted(delays, reverse=True)
    cheapest, promptest = found.advice[0], found.advice[-1]
    told = {change.key: change.new for change in cheapest.changes}
    assert told == {
        "workload.acknowledge": "after-sync",
        "sync": "{call: fdatasync, every: 1s}",
    }
    assert cheapest.after.flushes == 3 and promptest.after.flushes == 3000


def test_what_a_cheaper_change_gives_up_is_part_of_its_price() -> None:
    text = BASE % ("", ", acknowledge: before-sync", "fdatasync")
    found = found_in(text.replace("every: 1 records", "every: 15 records"))
    cheap = found.advice[0].after
    assert (cheap.flushes, cheap.acknowledged) == (2, 30)
    assert "acknowledged up to" in said(found)
    assert "10 acknowledgements fewer by the end" in said(found)


def test_a_policy_that_costs_more_and_acknowledges_no_sooner_is_left_out() -> None:
    for one in found_in(NO_SYNC).advice:
        for other in found_in(NO_SYNC).advice:
            better = other.after.cost() <= one.after.cost()
            assert not (better and other.after.delay_ns < one.after.delay_ns)


def test_to_acknowledge_nothing_any_more_is_no_advice() -> None:
    text = BASE.replace("records: 40", "records: 9") % ("", ", acknowledge: before-sync", "fsync")
    found = found_in(text.replace("every: 1 records", "every: 10 records"))
    assert found.advice and all(one.after.acknowledged for one in found.advice)
    assert not any(len(one.changes) == 1 for one in found.advice)  # no sync behind the ninth


def test_there_are_no_more_runs_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE % (", backing: {kind: private}", ", acknowledge: before-sync", "fdatasync")
    assert 10 < found_in(text).runs <= MOST_RUNS
    monkeypatch.setattr(advisor, "MOST_SETTINGS", 1)
    assert found_in(text).advice == ()
    assert found_in(text).exit_code == 1


# --- the same checker as `crashsim run` -----------------------------------------------------------


def test_a_change_is_advised_only_if_the_checker_accepts_its_states() -> None:
    found = found_in(BUFFER % "none")
    assert found.explored is not None and found.explored.failing
    (one,) = found.advice
    assert one.explored is not None and not one.explored.failing
    assert one.changes[0].new == "{call: fdatasync, every: 1 records}"
    assert found.refuted and all(no.after.safe for no in found.refuted)
    assert all(no.explored is not None and no.explored.failing for no in found.refuted)
    assert "Does not end it: the checker still rejects" in said(found)


def test_syncs_that_only_recovery_needs_are_called_needed() -> None:
    """A body may not come behind its header."""
    found = found_in(BUFFER % "fdatasync")
    assert found.fine and found.ordering is not None
    assert found.ordering.worse == ("committed in part",)
    assert "Needed: without them the checker rejects" in said(found)


def test_of_syncs_without_acknowledgement_nothing_is_said_that_was_not_explored() -> None:
    found = found_in(re.sub("explore.*", "", BUFFER % "fdatasync"))
    assert found.ordering is not None and found.ordering.worse is None
    assert "Not established: whether recovery needs their order" in said(found)


def test_a_checker_alone_can_find_fault() -> None:
    """The simulation loses nothing: a record behind a hole was not acknowledged yet."""
    text = BASE.replace("1 records", "10 records") % ("", "", "fdatasync")
    found = found_in(text + "explore: {states: 2000, check: {rule: prefix}}\n")
    assert found.before.safe and not found.fine
    assert found.advice[-1].changes[0].new == "{call: fdatasync, every: 1 records}"
    assert "By the simulation alone nothing is lost of what was acknowledged" in said(found)


def test_a_budget_that_ends_early_is_no_verdict() -> None:
    found = found_in((BUFFER % "fdatasync").replace("states: 500", "states: 20"))
    assert found.fine and found.exit_code == 4
    assert "Not established: not every state that was planned was judged" in said(found)


# --- the command ----------------------------------------------------------------------------------


def commands(found: Advised) -> list[list[str]]:
    return [
        shlex.split(line.split(": ", 1)[1]) for line in said(found).split("\n") if "Shown" in line
    ]


@settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.sampled_from(
        [
            "{kind: append-log, records: 30, rate: 2000/s%s}",
            "{kind: double-buffer, records: 8, body_size: 4KiB%s}",
            "{kind: write-ahead-log, records: 30, table_size: 64KiB, checkpoint_every: 10%s}",
        ]
    ),
    st.sampled_from(["", ", acknowledge: before-sync"]),
    st.sampled_from(["{call: none}", "{call: fsync, every: 7 records}", "{call: msync}"]),
    st.sampled_from(["", "disk: {profile: ignores-flush}\n", "vmm: crosvm\n"]),
    st.sampled_from(["", "explore: {states: 200, check: {rule: acknowledged}}\n"]),
)
def test_every_command_shows_what_is_said(
    program: Program, workload: str, early: str, sync: str, more: str, explore: str
) -> None:
    text = f"device: {{size: 1MiB}}\nworkload: {workload % early}\nsync: {sync}\n{more}{explore}"
    file = program.write(text)
    found = advise(load(file).cases[0], Typed(str(file)))
    shown = commands(found)
    assert len(shown) == 1 + len(found.advice)
    for number, words in enumerate(shown):
        output = str(program.folder / "shown")
        answer = program(*words[1:], "--output", output, "--workers", "1", "--json")
        fine = found.fine if number == 0 else True
        assert answer.code == (0 if fine else 1), shlex.join(words)
        (result,) = json.loads(answer.out)["cases"]
        figures = found.before if number == 0 else found.advice[number - 1].after
        assert result["uncovered_acknowledgements"]["max"] == figures.uncovered
        assert (result["flushes"], result["guest_wait_ns"]) == (figures.flushes, figures.wait_ns)


def test_of_every_shipped_experiment_the_command_runs_the_changed_case() -> None:
    for file in sorted(EXPERIMENTS.glob("*.yaml")):
        for one in load(file).cases[:2]:
            tried = [(), *((some,) for some in settings_at_fault(one.experiment))]
            for changes in [*tried, *programs(one.experiment)]:
                if changed(one.experiment, changes) is not None:
                    assert Typed(str(file)).command(one, changes, NO_LOSS), (file.name, changes)


def test_of_a_device_that_a_command_line_describes_no_command_is_made_up(program: Program) -> None:
    file = program.write(
        """
device:
  qemu: >
    -object memory-backend-file,id=mem1,share=on,mem-path=./a.img,size=1M
    -device virtio-pmem-pci,memdev=mem1,id=nv1
monitor:
  - {at: 1ms, do: "object_add memory-backend-file,id=mem2,mem-path=b.img,size=1M"}
  - {at: 1ms, do: "device_add virtio-pmem-pci,id=nv2,memdev=mem2"}
workload: {kind: append-log, records: 20}
sync: {call: fsync}
"""
    )
    (one,) = load(file).cases
    found = advise(one, Typed(str(file)))
    assert [change.key for change in found.advice[0].changes] == ["devices.1.backing.kind"]
    assert found.advice[0].command == "" and NO_COMMAND in said(found)


def test_what_the_user_set_is_in_the_command(program: Program) -> None:
    file = program.write(NO_SYNC)
    answer = program("advise", file, "--set", "workload.records=5", "--set", "expect={flushes: 1}")
    assert answer.code == 0
    assert answer.out.count("--set workload.records=5 ") == answer.out.count("Shown by") > 1
    assert "flushes: 1" not in answer.out


def test_the_command_says_it_in_words_and_in_json(program: Program) -> None:
    file = program.write(BASE % ("", ", acknowledge: before-sync", "fdatasync"))
    answer = program("advise", file)
    assert answer.code == 0 and "1. ends it: no acknowledgement is lost in its run" in answer.out
    (found,) = json.loads(program("advise", file, "--json").out).values()
    assert (found["fine"], found["exit_code"]) == (False, 0)
    assert found["advice"][0]["changes"][0]["key"] == "workload.acknowledge"


def test_a_loss_that_nothing_ends_is_exit_code_1(program: Program, tmp_path: Path) -> None:
    (tmp_path / "never.py").write_text("def never(image, acks):\n    assert not acks.count\n")
    text = (
        BASE % ("", "", "fdatasync") + "explore: {states: 300, check: {function: never.py:never}}"
    )
    file = program.write(text)
    answer = program("advise", file)
    assert answer.code == 2  # it rejects the image without a cut: what it says means nothing
    (tmp_path / "never.py").write_text(
        "def never(image, acks):\n    assert acks.count in (0, 40), 'never'\n"
    )
    answer = program("advise", file)
    assert answer.code == 1 and "Nothing that was tried ends it" in answer.out


def test_where_nothing_is_stored_there_is_nothing_to_advise(program: Program) -> None:
    text = NO_SYNC.replace("rate: 2000/s", "rate: 1/s") + "duration: 1ms\n"
    file = program.write(text + "explore: {check: {rule: acknowledged}}\n")
    assert program("advise", file).code == 5


def test_syncs_are_not_called_spare_because_what_happens_without_them_is_known() -> None:
    known = 'expect: {known: [{outcome: "committed*", why: "so it is"}]}\n'
    found = found_in(BUFFER % "fdatasync" + known)
    assert found.fine and found.ordering is not None
    assert found.ordering.worse == ("committed in part",)
    assert "Needed: without them the checker rejects" in said(found)
    one = found.ordering
    assert one.explored is not None and one.explored.fine  # all of it is known
    again = replace(found, ordering=replace(one, worse=()))  # had it happened with them, too
    assert "Not established: whether recovery needs their order" in said(again)
    assert "no proof" not in said(again)
