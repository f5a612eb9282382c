"""A comparison finds what became worse, tolerates what it may, and is never green for nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from crashsim.errors import NothingExplored, UsageError
from crashsim.report.compare import Comparison, Tolerance, compare, parse_tolerances
from crashsim.results import FIGURES, CaseResult, Spread, to_json
from tests import report_explored as explorations
from tests import report_fixtures as fixtures


def compared(old: CaseResult, new: CaseResult, *tolerances: str) -> Comparison:
    documents = [to_json(fixtures.results(case)) for case in (old, new)]
    return compare(documents[0], documents[1], parse_tolerances(tolerances))


def test_a_run_compared_with_itself_has_not_regressed() -> None:
    same = to_json(fixtures.story())
    comparison = compare(same, same, {})
    assert not comparison.regressed
    assert comparison.changes == []
    assert comparison.headline() == "No regression in 3 cases compared"


SPREADS = ("at_risk_bytes", "recovery_point_ns")
NAMES = {"at_risk": "at_risk_bytes", "recovery_point": "recovery_point_ns"}
OTHERS = {
    "broken_promises": {"broken_promises": 1},
    "findings": {"exploration": explorations.bad().exploration},
    "uncovered_acknowledgements": {"uncovered_acknowledgements": Spread(1, 0, 0)},
    "holes": {"holes": 1},
    "torn": {"torn": 1},
    "failed_syncs": {"failed_syncs": 1},
    "acknowledged": {"acknowledged": 159_999},
    "acknowledged_per_second": {"end_ns": fixtures.END + fixtures.SECOND},
    "flushes": {"flushes": 160_001},
    "bytes_written": {"bytes_written": 160_000 * 4096 + 1},
    "guest_wait": {"guest_wait_ns": 4_800_000_001},
}
SPREAD_METRICS = {
    f"{name}_{part}": {field: replace(Spread(0, 0, 0), **{part: 1})}
    for name, field in NAMES.items()
    for part in ("max", "p50", "p99")
}
WORSE: dict[str, Any] = {**OTHERS, **SPREAD_METRICS}


def test_every_metric_has_its_test() -> None:
    assert sorted(WORSE) == sorted(FIGURES)


@pytest.mark.parametrize("metric", FIGURES)
def test_the_least_change_for_the_worse_is_a_regression_and_its_reverse_is_not(metric: str) -> None:
    fine = fixtures.case(exploration=explorations.bad(findings=0).exploration)
    worse = replace(fine, **WORSE[metric])
    regression = compared(fine, worse)
    assert regression.regressed
    assert [(c.metric, c.judgement) for c in regression.changes] == [(metric, "worse")]
    improvement = compared(worse, fine)
    assert not improvement.regressed
    assert [(c.metric, c.judgement) for c in improvement.changes] == [(metric, "better")]


def test_a_case_that_is_explored_no_more_is_a_regression_even_if_nothing_was_found() -> None:
    explored, plain = explorations.clean(), fixtures.case("clean")
    comparison = compared(explored, plain)
    assert comparison.regressed and comparison.unexplored == ["clean"]
    assert comparison.changes == []
    assert "1 case not explored any more" in comparison.headline()
    assert not compared(plain, explored).regressed


def test_fewer_findings_in_fewer_states_are_said_to_be_such() -> None:
    few = explorations.exploration(explorations.epoch(0, 8, 8))
    old, new = explorations.bad(), fixtures.case(exploration=few)
    comparison = compared(old, new)
    assert [(c.metric, c.judgement) for c in comparison.changes] == [("findings", "better")]
    assert "case: 8 states checked, 104 before" in comparison.notices


def with_p99(size_bytes: int) -> CaseResult:
    return fixtures.case(at_risk_bytes=Spread(0, 0, size_bytes))


@pytest.mark.parametrize(
    ("new", "tolerance", "regressed"),
    [
        (105, "at_risk_p99=5%", False),
        (106, "at_risk_p99=5%", True),
        (106, "at_risk_p99=6B", False),
        (107, "at_risk_p99=6B", True),
        (101, "at_risk_p50=50%", True),
        (101, "at_risk_p99=0%", True),
        (100, "at_risk_p99=0%", False),
        (1124, "at_risk_p99=1KiB", False),
    ],
)
def test_a_tolerance_holds_to_the_last_unit(new: int, tolerance: str, regressed: bool) -> None:
    assert compared(with_p99(100), with_p99(new), tolerance).regressed is regressed


def test_what_was_nothing_has_no_relative_tolerance() -> None:
    assert compared(with_p99(0), with_p99(1), "at_risk_p99=1000%").regressed
    assert not compared(with_p99(0), with_p99(1), "at_risk_p99=1B").regressed


def test_tolerated_changes_are_listed_all_the_same() -> None:
    comparison = compared(with_p99(100), with_p99(105), "at_risk_p99=5%")
    assert [change.judgement for change in comparison.changes] == ["tolerated"]
    assert comparison.headline() == "No regression in 1 case compared, 1 tolerated"


def test_a_case_that_is_gone_is_a_regression_and_a_new_one_is_not() -> None:
    one, two = fixtures.case("one"), fixtures.case("two")
    both, single = to_json(fixtures.results(one, two)), to_json(fixtures.results(one))
    lost = compare(both, single, {})
    assert (lost.missing, lost.new, lost.regressed) == (["two"], [], True)
    gained = compare(single, both, {})
    assert (gained.missing, gained.new, gained.regressed) == ([], ["two"], False)


@pytest.mark.parametrize("names", [((), ()), (("a",), ("b",)), (("a",), ()), ((), ("b",))])
def test_nothing_compared_is_never_green(names: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    old, new = (to_json(fixtures.results(*map(fixtures.case, part))) for part in names)
    with pytest.raises(NothingExplored):
        compare(old, new, {})


def test_cases_are_matched_by_name_not_by_place() -> None:
    one, two = fixtures.case("one", holes=1), fixtures.case("two", holes=2)
    old, new = to_json(fixtures.results(one, two)), to_json(fixtures.results(two, one))
    assert compare(old, new, {}).changes == []


def test_what_makes_two_runs_hard_to_compare_is_said() -> None:
    old = fixtures.story()
    new = replace(old, seed=2, experiment="other", version="9", interrupted=True)
    notices = compare(to_json(old), to_json(new), {}).notices
    assert len(notices) == 4
    assert "two seeds: 1 and 2" in notices


def test_a_document_of_another_schema_is_refused_by_name() -> None:
    good = to_json(fixtures.story())
    with pytest.raises(UsageError, match="the old results: schema version 7"):
        compare({**good, "schema": 7}, good, {})
    with pytest.raises(UsageError, match=r"the new results: .*no schema"):
        compare(good, {}, {})


def test_a_change_too_small_to_read_is_told_exactly() -> None:
    old = fixtures.case(bytes_written=1 << 30)
    (change,) = compared(old, replace(old, bytes_written=(1 << 30) + 1)).changes
    assert change.texts()[0] == "1 GiB"
    assert change.texts()[1] == "1 GiB (+1 bytes)"


def test_changes_are_told_as_shares_and_from_nothing_as_such() -> None:
    (change,) = compared(with_p99(100), with_p99(150)).changes
    assert change.texts()[2] == "+50 %"
    (change,) = compared(with_p99(0), with_p99(150)).changes
    assert change.texts()[2] == "from 0"


def test_tolerances_are_read_in_the_metrics_own_unit() -> None:
    texts = ["at_risk_p99=2.5%", "guest_wait=200ms", "flushes = 3", "at_risk_max=1MiB"]
    assert parse_tolerances(texts) == {
        "at_risk_p99": Tolerance(share=Fraction(1, 40)),
        "guest_wait": Tolerance(amount=200_000_000),
        "flushes": Tolerance(amount=3),
        "at_risk_max": Tolerance(amount=1 << 20),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "at_risk_p99",
        "nonsense=5%",
        "at_risk_p99=",
        "at_risk_p99=5",
        "at_risk_p99=5ms",
        "at_risk_p99=-5%",
        "at_risk_p99=x%",
        "at_risk_p99=1/0%",
        "flushes=1.5",
        "flushes=3B",
        "flushes=-3",
        "guest_wait=1MiB",
    ],
)
def test_a_wrong_tolerance_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tolerances([text])


def test_two_tolerances_for_one_metric_are_refused() -> None:
    with pytest.raises(UsageError, match="two tolerances"):
        parse_tolerances(["flushes=3", "flushes=4"])
