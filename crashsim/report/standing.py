"""What a run came to: whether it is safe, whether it is as expected, and in words what is lost.

Contract: pure functions of results; every report says these sentences and no others on the same.
Safe and as expected are two questions. A case is *safe* when it is shown that no failure that its
experiment asks about takes what was acknowledged, *not safe* when one does or the checker rejects a
state, and otherwise that was not shown: a recording does not show what its guest still held in
memory when it acknowledged, unless a checker has judged every image. Nothing is said of a case's
acknowledgements that its exploration refutes.

Which cases are worth their price: loss comes first by whether a record that was acknowledged is
lost, then by bytes at worst; the price is throughput, then the guest's waiting. From the cheapest
case on, one is worth its price that loses less than all the cheaper ones: that keeps all
acknowledgements where these do not, or loses fewer bytes by a twentieth or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from crashsim.engine.units import format_bytes, format_duration
from crashsim.report.causes import all_checked, verdict_lines
from crashsim.report.words import UNCOVERED, among, complaints, count, quoted, size, some, uncovered
from crashsim.results import RECORDING, CaseResult, Domain, Results

_SAME = Fraction(19, 20)


@dataclass(frozen=True, slots=True)
class Standing:
    """`safe`: True, False, or None when neither was shown; `why`: clauses; `judged`: whether they
    say what the checker made of the states."""

    safe: bool | None
    why: tuple[str, ...]
    judged: bool = False


def standing(case: CaseResult) -> Standing:
    """Whether a case is safe."""
    if lost := tuple(_losses(case)):
        return Standing(False, lost, bool(case.exploration and case.exploration.failing))
    if unknown := _unknown(case):
        return Standing(None, (unknown,), case.recorded and unknown.startswith("none of the"))
    if case.recorded or not case.acknowledged:
        return Standing(True, ("the checker accepts every image that a cut may leave",), True)
    failures = " or ".join(map(_failure, case.uncovered_by_domain or [Domain.POWER_CUT]))
    return Standing(True, (f"nothing acknowledged is lost to {failures} at any instant",))


def _failure(domain: str) -> str:
    return Domain(domain).failure if domain in list(Domain) else domain


def _losses(case: CaseResult) -> Iterator[str]:
    if lost := case.uncovered_acknowledgements.max:
        yield _uncovered(case, Domain.POWER_CUT, lost)
    for domain, spread in case.uncovered_by_domain.items():
        if spread.max and domain != Domain.POWER_CUT and not case.recorded:
            yield _uncovered(case, domain, spread.max)
    if case.broken_promises:
        flushes = some(case.broken_promises, "flush", "flushes")
        yield f"{flushes} reported success before the data was safe from a power cut"
    one = case.exploration
    if one is not None and one.failing:
        yield f"the checker rejects {one.failing:,} of {one.checked:,} states"


def _uncovered(case: CaseResult, domain: str, lost: int) -> str:
    of = some(case.acknowledged, "acknowledgement")
    if case.recorded:
        return f"of {of} up to {count(lost)} had no flush behind them"
    return f"of {of} up to {count(lost)} would be lost to {_failure(domain)}"


def _unknown(case: CaseResult) -> str:
    """Why it was not shown that a case is safe."""
    if case.writes == 0:
        return "nothing was written"
    if uncovered(case):
        return UNCOVERED
    one = case.exploration
    if one is not None and all_checked(one) and not case.devices:  # of several one is explored
        return ""
    if case.recorded and one is not None:
        return (
            f"none of the {some(one.checked, 'state')} that were checked was rejected, and "
            "there are others"
        )
    if case.recorded:
        return _recording()
    return "" if case.acknowledged else "nothing was acknowledged"


def _recording() -> str:
    return RECORDING[0].lower() + RECORDING[1:]


def all_safe(results: Results) -> bool | None:
    """The worst of the cases."""
    found = [standing(case).safe for case in results.cases]
    if False in found:
        return False
    return None if results.interrupted or not found or None in found else True


def headline(results: Results) -> str:
    """Whether the run is safe, in a sentence."""
    cases, safe = results.cases, all_safe(results)
    alike = [case for case in cases if standing(case).safe is safe]
    where = ""
    if len(cases) > 1:
        where = f" in all {len(cases):,} cases" if safe else f" in {len(alike):,} of {len(cases):,}"
        where += "" if safe or not alike else " cases"
    if safe is None:
        if not alike:
            return "Not shown to be safe: not every case ran."
        return f"Not shown to be safe{where}: {standing(alike[0]).why[0]}."
    if safe:
        return f"Safe{where}: {standing(alike[0]).why[0]}."
    worst = _spoken_of(results)
    assert worst is not None
    return f"Not safe{where}: {'; '.join(standing(worst).why)}{among(worst, cases)}."


def _spoken_of(results: Results) -> CaseResult | None:
    """The case that the headline is about; None without any."""
    safe = all_safe(results)
    alike = [case for case in results.cases if standing(case).safe is safe]
    if safe is not False:
        return next(iter(alike), None)
    return max(alike, key=lambda c: (c.uncovered_acknowledgements.max, c.broken_promises))


def as_expected(results: Results) -> bool | None:
    """Whether all cases ran, wrote something, were explored as far as they should be and are as
    expected; None when nothing was expected."""
    if not results.cases or results.interrupted or any(map(complaints, results.cases)):
        return False
    return True if any(case.expectations for case in results.cases) else None


def expectations_summary(results: Results) -> str:
    """How many expectations hold; says so when there are none."""
    judged = [e for case in results.cases for e in case.expectations]
    wrong = sum(not e.holds for e in judged)
    if not judged:
        return "Nothing was expected of this run: it was measured, not judged."
    every = some(len(judged), "expectation")
    if wrong:
        return f"Not as expected: {count(wrong)} of {every} did not come true."
    held = "the one expectation holds" if len(judged) == 1 else f"all {every} hold"
    if as_expected(results):
        return f"As expected: {held}."
    return f"{held[0].upper()}{held[1:]}, but the run is not complete."


def sentences(results: Results) -> list[str]:
    """The run in plain words, gravest first, without what the headline says."""
    if not results.cases:
        return ["Nothing was explored: no case came to a result."]
    told = _spoken_of(results)
    judged = told is not None and standing(told).judged
    lines = [*_gravest(results, told), *verdict_lines(results, told if judged else None)]
    for recorded in (False, True):
        of = [case for case in results.cases if case.recorded is recorded]
        # A guest kernel's own journal commit flushes too, but that is not the program's sync.
        if without := [case for case in of if not case.syncs]:
            lines.append(_worst_of(without, "Without a sync", results.cases, told))
        if synced := [case for case in of if case.syncs]:
            lines.append(_worst_of(synced, "With syncs", results.cases, told))
    return lines


def _gravest(results: Results, told: CaseResult | None) -> Iterator[str]:
    if results.interrupted:
        done = some(len(results.cases), "case")
        yield f"Interrupted: {done} had finished, the others did not run."
    empty = [case for case in results.cases if case.writes == 0]
    if empty and len(results.cases) > 1:
        yield f"Nothing was written in {', '.join(map(quoted, empty))}: that shows nothing."
    broken = [case for case in results.cases if case.broken_promises]
    if broken and broken != [told]:
        worst = max(broken, key=lambda case: case.broken_promises)
        yield (
            f"Promises are broken in {some(len(broken), 'case')}: in {quoted(worst)} "
            f"{some(worst.broken_promises, 'flush', 'flushes')} "
            "reported success before the data was safe from a power cut."
        )


def _worst_of(
    cases: list[CaseResult], how: str, every: list[CaseResult], told: CaseResult | None
) -> str:
    """The loss, the acknowledgements and the price of cases of one kind."""
    worst = max(cases, key=lambda case: (case.at_risk_bytes.max, case.recovery_point_ns.max))
    of_what = " of what had reached the device" if worst.recorded else ""
    text = f"{how}, a power cut takes "
    if worst.at_risk_bytes.max:
        text += f"{format_bytes(worst.at_risk_bytes.max)}{of_what} at worst, and work up to "
        text += f"{format_duration(worst.recovery_point_ns.max)} old{among(worst, every)}."
    else:
        text += f"nothing{of_what} at any instant."
    text += _acknowledged(cases, worst, every, told)
    if worst.guest_wait_ns:
        text += f" The price: {_price(worst)}."
    best = least(every)
    if best in cases and best.at_risk_bytes.max < worst.at_risk_bytes.max:
        text += f" The least loss that is worth its price is {size(best.at_risk_bytes.max)}"
        text += (
            f" ({quoted(best)}: {_price(best)})." if best.guest_wait_ns else f" ({quoted(best)})."
        )
    return text


def _acknowledged(
    cases: list[CaseResult], worst: CaseResult, every: list[CaseResult], told: CaseResult | None
) -> str:
    """What is shown of what the cases acknowledged; nothing where something refutes it, or where
    the headline says it."""
    forgotten = max(cases, key=lambda case: case.uncovered_acknowledgements.max)
    if forgotten is told and forgotten.uncovered_acknowledgements.max:
        return ""
    if lost := forgotten.uncovered_acknowledgements.max:
        text = f" Of the acknowledged records, up to {count(lost)} would be lost"
        if forgotten.recorded:
            text = f" Of the acknowledgements, up to {count(lost)} had no flush behind them"
        other = lost > worst.uncovered_acknowledgements.max
        return text + (f"{among(forgotten, every)}." if other else ".")
    if not any(case.acknowledged for case in cases):
        return ""
    if worst.recorded:
        return " Every acknowledgement had a flush behind it" + (
            "; what the guest still held in memory then is not in a recording."
            if told is None or standing(told).why != (_recording(),)
            else "."
        )
    if any(standing(case).safe is False for case in cases):
        return ""
    if told is not None and standing(told).safe and not standing(told).judged:
        return ""
    return " No acknowledged record is lost at any instant."


def _price(case: CaseResult) -> str:
    price = f"{format_duration(case.guest_wait_ns)} of waiting"
    if case.flushes:
        price = f"{some(case.flushes, 'flush', 'flushes')}, {price}"
    if case.acknowledged:
        price += f", {some(case.acknowledged_per_second, 'record')} acknowledged a second"
    return price


# --- which cases are worth their price ------------------------------------------------------------


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
