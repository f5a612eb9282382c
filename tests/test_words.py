"""What a run says is what was found: each sentence is held against the History."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.engine.units import exact_instant, parse_duration, roundest
from crashsim.experiment.failures import Power
from crashsim.report.grids import notes
from crashsim.report.standing import all_safe, headline, sentences, standing
from crashsim.report.words import expectation_line
from crashsim.results import FIGURES, RECORDING, Domain, Expectation, Spread
from tests import report_explored as explorations
from tests import report_fixtures as fixtures
from tests.cli_support import Program

TO_THE_END = """
device: {size: 1MiB}
workload: {kind: append-log, records: 100, record_size: 8B, rate: 100/s}
guest: {file_system: none}
sync: {call: none}
"""


def test_an_acknowledgement_at_the_very_end_of_a_run_is_counted(program: Program) -> None:
    assert program.run(TO_THE_END).code == 0
    (case,) = program.results()["cases"]
    assert case["acknowledged"] == case["uncovered_acknowledgements"]["max"] == 100
    told = program("loss", program.latest(), "--at", f"{case['end_ns']}ns").out
    assert "Of 100 acknowledgements 100 " in told
    beyond = program("loss", program.latest(), "--at", f"{case['end_ns'] + 1}ns")
    assert beyond.code == 2 and "up to then" in beyond.err


def test_that_no_record_is_lost_is_not_said_of_a_case_whose_states_are_rejected() -> None:
    """It stood above "lost acknowledged rows (877 states)"."""
    rejected = explorations.bad()
    assert not rejected.uncovered_acknowledgements.max
    for case in (rejected, replace(rejected, recorded=True)):
        results = fixtures.results(case)
        assert not any("No acknowledged record" in line for line in sentences(results))
        assert headline(results).startswith("Not safe: the checker rejects 30 of 104 states")


def test_a_recording_is_never_called_safe_for_what_reached_its_device() -> None:
    recorded = fixtures.case(recorded=True)
    results = fixtures.results(recorded)
    assert all_safe(results) is None
    assert headline(results) == f"Not shown to be safe: {RECORDING[0].lower()}{RECORDING[1:]}."
    (line,) = sentences(results)
    assert "takes nothing of what had reached the device" in line
    assert any(RECORDING in note for note in notes(results))
    assert not any(RECORDING in note for note in notes(fixtures.results(fixtures.case())))


def test_figures_of_a_recording_say_of_which_part_they_are() -> None:
    recorded = fixtures.case(recorded=True)
    lines = {
        metric: expectation_line(recorded, Expectation(metric, "== 0", 1, "", False))
        for metric in FIGURES
    }
    of_the_device = [metric for metric, line in lines.items() if "what reached the device" in line]
    assert len(of_the_device) == 8  # three of each spread, holes and torn writes
    assert "without a flush" in lines["uncovered_acknowledgements"]


@pytest.mark.parametrize(
    ("changed", "safe", "why"),
    [
        ({}, True, "nothing acknowledged is lost to a power cut at any instant"),
        ({"acknowledged": 0}, None, "nothing was acknowledged"),
        ({"writes": 0}, None, "nothing was written"),
        ({"uncovered_acknowledgements": Spread(3, 0, 0)}, False, "up to 3 would be lost to a pow"),
        ({"uncovered_by_domain": {"vmm-quit": Spread(4, 0, 0)}}, False, "a quit of the monitor"),
        ({"broken_promises": 2}, False, "2 flushes reported success"),
    ],
)
def test_a_case_is_safe_only_if_that_is_shown(
    changed: dict[str, Any], safe: bool | None, why: str
) -> None:
    found = standing(fixtures.case(**changed))
    assert found.safe is safe
    assert why in found.why[0]


def test_the_worst_of_a_run_is_what_it_is_called() -> None:
    fine, lost, unknown = (
        fixtures.case("fine"),
        fixtures.case("lost", broken_promises=1),
        fixtures.case("unknown", acknowledged=0),
    )
    assert headline(fixtures.results(fine, fine)).startswith("Safe in all 2 cases: nothing ack")
    assert headline(fixtures.results(fine, unknown, lost)).startswith("Not safe in 1 of 3 cases: ")
    assert headline(fixtures.results(fine, unknown)) == (
        "Not shown to be safe in 1 of 2 cases: nothing was acknowledged."
    )
    assert all_safe(fixtures.results(fine, interrupted=True)) is None
    assert all_safe(fixtures.results()) is None


def test_failures_are_the_same_everywhere() -> None:
    assert Power(domains=tuple(map(str, Domain))).domains == tuple(Domain)
    assert len({domain.failure for domain in Domain} - {""}) == len(Domain)


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 40))
def test_an_instant_that_is_told_is_the_roundest_and_reads_back(first: int, more: int) -> None:
    t = roundest(first, first + more)
    assert first <= t <= first + more
    assert parse_duration(exact_instant(t)) == t
    digits = len(str(t).rstrip("0"))
    middle = (first + first + more) // 2
    assert digits <= min(len(str(n).rstrip("0")) for n in (first, middle, first + more))


def test_a_loss_is_told_at_an_instant_that_shows_it(program: Program) -> None:
    """`A power cut at 1 ms takes 256 B` was 1.0024 ms, and at 1 ms nothing was lost."""
    text = TO_THE_END.replace("call: none", "call: fdatasync").replace("8B", "256B")
    told = re.search(r"A power cut at (\S+) takes (\S+ B) of 1 write", program.run(text).out)
    assert told is not None
    again = program("loss", program.latest(), "--at", told[1]).out
    assert f"  {told[2]} are lost; 1 write is not wholly safe." in again.splitlines()


def test_a_record_that_lands_after_the_end_was_not_acknowledged(program: Program) -> None:
    text = TO_THE_END.replace("100, record_size: 8B, rate: 100/s", "1, record_size: 4KiB")
    assert program.run("duration: 500ns" + text).code == 0
    (case,) = program.results()["cases"]
    assert case["writes"] == 1
    assert case["acknowledged"] == 0
    assert [example["kind"] for example in case["examples"]] == ["at-risk-peak"]
    assert case["marks"]["acknowledgements"] == []
