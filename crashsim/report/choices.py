"""What a case costs, and which cases are worth their price.

Contract: pure functions of results, without matplotlib. Loss comes first by whether a record that
was acknowledged is lost, then by bytes at worst; the price is throughput, then the guest's waiting.
From the cheapest case on, one is worth its price that loses less than all the cheaper ones: that
keeps all acknowledgements where these do not, or loses fewer bytes by a twentieth or more.
"""

from __future__ import annotations

from fractions import Fraction

from crashsim.results import CaseResult

_SAME = Fraction(19, 20)


def loses_acknowledged(case: CaseResult) -> bool:
    """Whether at some instant a power cut takes a record that was acknowledged; of a recording,
    whether one had no flush behind it."""
    return case.uncovered_acknowledgements.max > 0


def price(case: CaseResult) -> tuple[int, int]:
    """Less is cheaper."""
    return -case.acknowledged_per_second, case.guest_wait_ns


def best(cases: list[CaseResult]) -> list[bool]:
    """Whether each case is worth its price; those of one price and about the same loss all are."""
    worth: list[CaseResult] = []
    for case in sorted(cases, key=lambda case: (price(case), _loss(case))):
        if not worth or _less(case, worth[-1]):
            worth.append(case)
    return [any(_equal(case, other) for other in worth) for case in cases]


def least(cases: list[CaseResult]) -> CaseResult:
    """Of those that are worth their price the one that loses least; there are cases."""
    worth = [case for case, is_worth in zip(cases, best(cases), strict=True) if is_worth]
    return min(worth, key=_loss)


def _loss(case: CaseResult) -> tuple[bool, int]:
    return loses_acknowledged(case), case.at_risk_bytes.max


def _less(case: CaseResult, other: CaseResult) -> bool:
    """Whether a case loses noticeably less than another."""
    if loses_acknowledged(case) != loses_acknowledged(other):
        return loses_acknowledged(other)
    return case.at_risk_bytes.max < other.at_risk_bytes.max * _SAME


def _equal(case: CaseResult, other: CaseResult) -> bool:
    return price(case) == price(other) and not _less(other, case)
