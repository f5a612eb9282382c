"""Which cases are worth their price, against every other case, slowly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.report.standing import best, loses_acknowledged, price
from crashsim.results import CaseResult, Spread
from tests import report_fixtures as fixtures

SECOND = fixtures.SECOND


def a_case(records: int, loss: int, uncovered: int = 0, wait_ns: int = 0) -> CaseResult:
    return fixtures.case(
        f"{records} {loss} {uncovered} {wait_ns}",
        end_ns=10 * SECOND,
        acknowledged=records,
        at_risk_bytes=Spread(loss, loss, loss),
        uncovered_acknowledgements=Spread(uncovered, 0, 0),
        guest_wait_ns=wait_ns,
    )


CASES = st.lists(
    st.builds(
        a_case,
        st.integers(0, 5).map(lambda rate: 10 * rate),
        st.integers(0, 5).map(lambda power: 10**power),
        st.integers(0, 1),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=8,
)


def less(one: CaseResult, other: CaseResult) -> bool:
    """Loses less, where losses are far apart: acknowledgements first, then bytes."""
    if loses_acknowledged(one) != loses_acknowledged(other):
        return loses_acknowledged(other)
    return one.at_risk_bytes.max < other.at_risk_bytes.max


@given(CASES)
def test_a_case_is_worth_its_price_if_none_as_cheap_loses_less_and_none_cheaper_as_little(
    cases: list[CaseResult],
) -> None:
    expected = []
    for case in cases:
        as_cheap = [one for one in cases if price(one) <= price(case)]
        cheaper = [one for one in cases if price(one) < price(case)]
        beaten = any(less(one, case) for one in as_cheap)
        beaten |= any(not less(case, one) for one in cheaper)
        expected.append(not beaten)
    assert best(cases) == expected
    assert any(best(cases))


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        # A twentieth less is not worth 10 % of the throughput.
        ([a_case(1000, 10_000), a_case(900, 9_600)], [True, False]),
        ([a_case(1000, 10_000), a_case(900, 9_400)], [True, True]),
        # At one price both of about the same loss are.
        ([a_case(1000, 10_000), a_case(1000, 9_600)], [True, True]),
        ([a_case(1000, 10_000), a_case(1000, 10_000, wait_ns=1)], [True, False]),
        # Keeping what was acknowledged is less of a loss, whatever the bytes.
        ([a_case(1000, 10, uncovered=1), a_case(900, 10_000)], [True, True]),
        ([a_case(900, 10, uncovered=1), a_case(1000, 10_000)], [False, True]),
    ],
)
def test_about_the_same_loss_for_more_is_not_worth_it(
    cases: list[CaseResult], expected: list[bool]
) -> None:
    assert best(cases) == expected
