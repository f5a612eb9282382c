"""Asking again before a state counts as failing.

Contract: what is not ok is checked a second time, by a new process on a new copy, and counts only
if the answer is the same. Different answers are `unstable`: they are about the checker, not about
the state. When a time limit ended a check it is tried again with more time, because a machine that
is busy is no answer either; only what is late then, too, is `hang`.
"""

from __future__ import annotations

from typing import Protocol

from crashsim.checkers.by_function import FunctionChecker
from crashsim.checkers.verdict import Acks, Checker, Ranges, Verdict, verdict

PATIENCE = 4  # times the limit, for who was late


class Askable(Checker, Protocol):
    """A checker that can begin anew."""

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        """Check with nothing left of earlier checks, with `patience` times the time."""


class Confirmed:
    """A checker whose answers count."""

    def __init__(self, checker: Askable) -> None:
        self._checker = checker

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        found = self._checker.check(image, acks, changed)
        if found.kind == "ok":
            return found
        late: list[Verdict] = []
        judged: list[Verdict] = []
        while found.kind != "broken":
            (late if found.kind == "hang" else judged).append(found)
            enough = len(late) == 2 or len(judged) == 2
            if enough or (judged and judged[0].kind == "ok"):
                return _settled(judged, late)
            found = self._checker.again(image, acks, PATIENCE if late else 1)
        return found

    @property
    def several(self) -> FunctionChecker | None:
        """Who can be asked about several images at once: what is not ok then is not confirmed."""
        return self._checker if isinstance(self._checker, FunctionChecker) else None

    def close(self) -> None:
        self._checker.close()


def _settled(judged: list[Verdict], late: list[Verdict]) -> Verdict:
    """Two answers, or one and two that did not come, or one ok after one that was late."""
    if not judged:
        return late[-1]
    first, then = judged[0], (judged[1:] or late)[-1:]
    if first.kind == "ok" or agree(first, then[0]):
        return first
    return unstable(first, then[0])


def agree(one: Verdict, other: Verdict) -> bool:
    """Whether they are the same answer, whatever else they tell."""
    return (one.kind, one.outcome) == (other.kind, other.outcome)


def confirmed(first: Verdict, found: Verdict) -> Verdict:
    """What was found when a state was checked that was not ok before."""
    judged = first.kind not in ("hang", "broken")
    return unstable(first, found) if judged and found.kind == "ok" else found


def unstable(first: Verdict, then: Verdict) -> Verdict:
    """What two answers to one question come to."""
    parts = f"unstable: first {first.outcome or first.kind}, then {then.outcome or then.kind}"
    told = [f"first: {first.kind} {first.outcome}", first.message]
    told += [f"then: {then.kind} {then.outcome}", then.message]
    return verdict("unstable", parts, "\n".join(line.strip() for line in told if line.strip()))
