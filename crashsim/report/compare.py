"""Two runs side by side: what became worse, what better.

Contract: cases are matched by name. Of a metric less is better unless `FIGURES` says more is. A
metric is worse when it grew by more than its tolerance (none unless given), a case that is gone or
is not explored any more is a regression, a new one is not. Of a metric that was 0 a share is 0: any
growth is worse. Nothing in common is `NothingExplored`, never green. Losses are those of a host
power cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from crashsim.engine.units import parse_bytes, parse_duration
from crashsim.errors import NothingExplored, UnitError, UsageError
from crashsim.report.readback import from_json
from crashsim.report.words import quantity, some
from crashsim.results import FIGURES, CaseResult, Results


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a metric may become worse by: a share of the old value, or an amount in its unit."""

    share: Fraction = Fraction(0)
    amount: int = 0

    def allows(self, old: int, worse_by: int) -> bool:
        """Whether a change for the worse is within it."""
        return worse_by <= self.amount or worse_by <= self.share * old


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one case that is not what it was. `judgement`: worse | tolerated | better."""

    case: str
    metric: str
    old: int
    new: int
    judgement: str

    def texts(self) -> tuple[str, str, str]:
        """The old value, the new one (exact when both would read the same), and `+12.3 %`."""
        unit, more = FIGURES[self.metric].unit, self.new - self.old
        old, new = quantity(self.old, unit), quantity(self.new, unit)
        if old == new:
            new += f" ({more:+,} {unit})".replace(" )", ")")
        return old, new, f"{100 * more / self.old:+.3g} %" if self.old else "from 0"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared; `matched` cases were in both."""

    matched: int
    missing: list[str]
    new: list[str]
    changes: list[Difference]
    notices: list[str]
    unexplored: list[str]

    @property
    def regressed(self) -> bool:
        """Whether anything is worse than tolerated, or a case or its exploration is gone."""
        return bool(self.missing or self.unexplored or self.of("worse"))

    def of(self, judgement: str) -> list[Difference]:
        """The changes of one judgement."""
        return [change for change in self.changes if change.judgement == judgement]

    def headline(self) -> str:
        """The outcome in one line."""
        parts = [f"{some(len(self.of('worse')), 'metric')} worse"] if self.of("worse") else []
        if self.missing:
            parts.append(f"{some(len(self.missing), 'case')} missing")
        if self.unexplored:
            parts.append(f"{some(len(self.unexplored), 'case')} not explored any more")
        outcome = "Regressed: " + ", ".join(parts) if parts else "No regression"
        extras = [f"{len(self.of(j))} {j}" for j in ("tolerated", "better") if self.of(j)]
        extras += [f"{some(len(self.new), 'new case')}"] if self.new else []
        return f"{outcome} in {some(self.matched, 'case')} compared" + "".join(
            f", {extra}" for extra in extras
        )


def parse_tolerances(texts: Sequence[str]) -> dict[str, Tolerance]:
    """`at_risk_p99=5%`, `guest_wait=200ms`, `at_risk_max=1MiB`, `flushes=3`, one metric each."""
    tolerances: dict[str, Tolerance] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or name not in FIGURES:
            expected = "a tolerance such as at_risk_p99=5%"
            raise UsageError(f"expected {expected}, got {text!r}; metrics: {', '.join(FIGURES)}")
        if name in tolerances:
            raise UsageError(f"two tolerances for {name}")
        tolerances[name] = _tolerance(value, FIGURES[name].unit, text)
    return tolerances


def _tolerance(value: str, unit: str, text: str) -> Tolerance:
    try:
        if value.endswith("%"):
            share = Fraction(value[:-1].strip()) / 100
            if share < 0:
                raise ValueError
            return Tolerance(share=share)
        if unit == "bytes":
            return Tolerance(amount=parse_bytes(value))
        if unit == "ns":
            return Tolerance(amount=parse_duration(value))
        if not value.isdecimal():
            raise ValueError
        return Tolerance(amount=int(value))
    except UnitError as error:
        raise UsageError(f"tolerance {text!r}: {error}, or a share such as 5%") from None
    except (ValueError, ZeroDivisionError):
        expected = "a share such as 5%" + ("" if unit else " or a count such as 3")
        raise UsageError(f"tolerance {text!r}: expected {expected}") from None


def compare(
    old: dict[str, Any], new: dict[str, Any], tolerances: Mapping[str, Tolerance]
) -> Comparison:
    """Two `results.json` documents. UsageError for a document that is none, NothingExplored when
    they have no case in common."""
    before, after = from_json(old, "the old results"), from_json(new, "the new results")
    old_cases = {case.name: case for case in before.cases}
    new_cases = {case.name: case for case in after.cases}
    matched = [name for name in old_cases if name in new_cases]
    if not matched:
        raise NothingExplored("nothing was compared: the two runs have no case in common")
    changes = [
        change
        for name in matched
        for change in _changes(old_cases[name], new_cases[name], tolerances)
    ]
    missing = [name for name in old_cases if name not in new_cases]
    pairs = [(old_cases[name], new_cases[name]) for name in matched]
    unexplored = [a.name for a, b in pairs if _explores_no_more(a, b)]
    added = [name for name in new_cases if name not in old_cases]
    notices = _notices(before, after) + [text for pair in pairs for text in _less_checked(*pair)]
    return Comparison(len(matched), missing, added, changes, notices, unexplored)


def _explores_no_more(old: CaseResult, new: CaseResult) -> bool:
    return old.exploration is not None and new.exploration is None


def _less_checked(old: CaseResult, new: CaseResult) -> list[str]:
    """Fewer findings in fewer states are nothing to be glad of."""
    if old.exploration is None or new.exploration is None:
        return []
    before, after = old.exploration.checked, new.exploration.checked
    if after >= before:
        return []
    return [f"{old.name}: {some(after, 'state')} checked, {before:,} before"]


def _changes(
    old: CaseResult, new: CaseResult, tolerances: Mapping[str, Tolerance]
) -> list[Difference]:
    changes = []
    for name, metric in FIGURES.items():
        before, after = metric.of(old), metric.of(new)
        if before != after and not (name == "findings" and _explores_no_more(old, new)):
            worse_by = before - after if metric.more_is_better else after - before
            judgement = _judgement(before, worse_by, tolerances.get(name, Tolerance()))
            changes.append(Difference(old.name, name, before, after, judgement))
    return changes


def _judgement(old: int, worse_by: int, tolerance: Tolerance) -> str:
    if worse_by <= 0:
        return "better"
    return "tolerated" if tolerance.allows(old, worse_by) else "worse"


def _notices(old: Results, new: Results) -> list[str]:
    """What makes two runs hard to compare."""
    notices = []
    if old.experiment != new.experiment:
        notices.append(f"two experiments: {old.experiment!r} and {new.experiment!r}")
    if old.seed != new.seed:
        notices.append(f"two seeds: {old.seed} and {new.seed}")
    if old.version != new.version:
        notices.append(f"two versions of crashsim: {old.version} and {new.version}")
    for results, which in ((old, "old"), (new, "new")):
        if results.interrupted:
            notices.append(f"the {which} run was interrupted")
    return notices
