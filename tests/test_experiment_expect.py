"""Expectations: what may be written, and what is judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from crashsim.experiment.expect import Condition, Expect, judge
from crashsim.experiment.quantities import FROM_FILE
from crashsim.results import FIGURES, Expectation


def read(**conditions: Any) -> Expect:
    read: Expect = Expect.model_validate(conditions, context=FROM_FILE)
    return read


def test_a_bare_number_means_equality() -> None:
    assert read(broken_promises=0).broken_promises == Condition("==", 0, "")
    assert read(flushes="12").flushes == Condition("==", 12, "")


def test_a_comparison_has_a_quantity_of_the_metrics_kind() -> None:
    found = read(at_risk_max="<= 1MiB", recovery_point_p99="< 6s", holes=">=1", torn="> 2")
    assert found.at_risk_max == Condition("<=", 1 << 20, "bytes")
    assert found.recovery_point_p99 == Condition("<", 6 * 10**9, "ns")
    assert found.holes == Condition(">=", 1, "")
    assert found.torn == Condition(">", 2, "")


def test_zero_needs_no_unit() -> None:
    assert read(at_risk_max=0).at_risk_max == Condition("==", 0, "bytes")
    assert read(guest_wait="> 0").guest_wait == Condition(">", 0, "ns")


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("at_risk_max", 5, "a comparison with a size such as '<= 1MiB', got 5"),
        ("at_risk_max", "<= 5s", "a comparison with a size"),
        ("recovery_point_max", "<= 5", "a comparison with a duration"),
        ("holes", "<= 5s", "a comparison with a count"),
        ("holes", "=< 5", "a comparison with a count"),
        ("holes", -1, "a comparison with a count"),
        ("holes", True, "a comparison with a count"),
        ("holes", ">=", "a comparison with a count"),
        ("holes", ["1"], "got a list"),
        ("hole", 0, "Extra inputs"),
    ],
)
def test_anything_else_is_refused(metric: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(**{metric: value})


def test_nothing_expected_is_nothing_judged() -> None:
    assert judge(Expect(), dict.fromkeys(FIGURES, 0)) == []
    assert judge(read(holes=None), {}) == []


def test_a_verdict_tells_condition_figure_and_unit() -> None:
    held, risk, point = judge(
        read(at_risk_max="<= 1MiB", recovery_point_max="< 6s", broken_promises=0),
        {"at_risk_max": (1 << 20) + 1, "recovery_point_max": 6 * 10**9, "broken_promises": 0},
    )
    assert held == Expectation("broken_promises", "== 0", 0, "", True)
    assert risk == Expectation("at_risk_max", "<= 1MiB", (1 << 20) + 1, "bytes", False)
    assert point == Expectation("recovery_point_max", "< 6s", 6 * 10**9, "ns", False)


@given(st.sampled_from(["==", "<=", ">=", "<", ">"]), st.integers(0, 9), st.integers(0, 9))
def test_a_comparison_holds_exactly_when_python_says_so(sign: str, value: int, actual: int) -> None:
    [verdict] = judge(read(holes=f"{sign} {value}"), {"holes": actual})
    assert verdict.holds is bool(eval(f"{actual} {sign} {value}"))


@given(st.sampled_from(["==", "<=", ">=", "<", ">"]), st.integers(0, 1 << 62))
def test_a_conditions_text_reads_back_as_the_same_condition(sign: str, value: int) -> None:
    for metric, kind in (("holes", ""), ("at_risk_p50", "bytes"), ("guest_wait", "ns")):
        condition = Condition(sign, value, kind)
        if not kind and value >= 10**18:
            continue
        assert getattr(read(**{metric: str(condition)}), metric) == condition
