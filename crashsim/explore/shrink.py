"""The smallest state that still fails, and what exactly it takes.

Contract: deterministic; every state that is given was tried and fails. A state differs from one of
two *ends* in some atoms: from `guaranteed` (nothing undecided is kept) or from `newest` (all is
kept). `shrink` finds from both ends a set of differences of which none can be left out, takes the
smaller set, and moves its versions as near to the end as they go. `cause` adds the other half:
with the kept atoms found, which atoms must be lost, and the other way round. Each test costs a
check; when the limit is reached, what was found by then is given, and says that it is not minimal.

Delta debugging after Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input"
(IEEE TSE 28(2), 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from crashsim.explore.plan import Versions, as_choices, as_versions, newest
from crashsim.states import Atom, Choices

End = Literal["guaranteed", "newest"]
Changes = dict[int, int]  # atom -> version, where it is not as at the end


class _LimitReached(Exception):
    """No more checks."""


@dataclass(frozen=True, slots=True)
class Shrunken:
    """A failing state as its distance from an end; `minimal`: no part of it can be left out."""

    end: End
    changes: Choices
    minimal: bool

    def versions(self, atoms: Sequence[Atom]) -> Versions:
        """Of each atom."""
        versions = newest(atoms) if self.end == "newest" else [0] * len(atoms)
        for atom, version in self.changes:
            versions[atom] = version
        return versions


@dataclass(frozen=True, slots=True)
class Cause:
    """`kept` and `lost` atoms, with their versions, that together make the state fail: with all
    others at the guaranteed version, and (as far as `minimal`) with all others at the newest."""

    state: Shrunken
    kept: Choices
    lost: Choices
    minimal: bool  # both halves: nothing of either can be left out
    checks: int


class Tester:
    """`fails`, with a memory and a limit."""

    def __init__(self, fails: Callable[[Choices], bool], limit: int) -> None:
        self._fails = fails
        self._limit = limit
        self._known: dict[Choices, bool] = {}

    @property
    def checks(self) -> int:
        """States that were really checked."""
        return len(self._known)

    def __call__(self, versions: Versions) -> bool:
        state = as_choices(versions)
        known = self._known.get(state)
        if known is None:
            if len(self._known) >= self._limit:
                raise _LimitReached
            known = self._known[state] = self._fails(state)
        return known


def find_cause(
    atoms: Sequence[Atom], state: Choices, fails: Callable[[Choices], bool], limit: int
) -> Cause:
    """Shrink a state that fails; `limit` checks at most."""
    test = Tester(fails, limit)
    start = as_versions(state, len(atoms))
    low, high = [0] * len(atoms), newest(atoms)
    upwards = _from(low, start, "guaranteed", test)
    downwards = _from(high, start, "newest", test)
    best = min(upwards, downwards, key=lambda one: len(one.changes))
    kept, lost, minimal = _halves(best, low, high, test)
    return Cause(best, kept, lost, best.minimal and minimal, test.checks)


def _halves(
    best: Shrunken, low: Versions, high: Versions, test: Tester
) -> tuple[Choices, Choices, bool]:
    """(kept, lost): the changes, and what of the end they need; and whether that is minimal."""
    changes = dict(best.changes)
    upwards = best.end == "guaranteed"
    base = low if upwards else high
    far = _applied(high if upwards else low, changes)
    needed = {n: v for n, v in enumerate(base) if n not in changes and v != far[n]}
    needed, minimal = _fewest(far, needed, test)
    mine, other = tuple(sorted(changes.items())), tuple(sorted(needed.items()))
    return (mine, other, minimal) if upwards else (other, mine, minimal)


def _from(end: Versions, start: Versions, name: End, test: Tester) -> Shrunken:
    changes = {n: v for n, v in enumerate(start) if v != end[n]}
    changes, minimal = _fewest(end, changes, test)
    while minimal:
        nearer, minimal = _nearest(end, changes, test)
        if nearer == changes or not minimal:
            changes = nearer
            break
        changes, minimal = _fewest(end, nearer, test)
    return Shrunken(name, tuple(sorted(changes.items())), minimal)


def _applied(base: Versions, changes: Changes) -> Versions:
    versions = base.copy()
    for atom, version in changes.items():
        versions[atom] = version
    return versions


def _nearest(end: Versions, changes: Changes, test: Tester) -> tuple[Changes, bool]:
    """Each version as near to the end as it can be, the others as they are."""
    changes = dict(changes)
    try:
        for atom in sorted(changes):
            was = changes[atom]
            step = 1 if was > end[atom] else -1
            for version in range(end[atom] + step, was, step):
                if test(_applied(end, changes | {atom: version})):
                    changes[atom] = version
                    break
    except _LimitReached:
        return changes, False
    return changes, True


def _fewest(base: Versions, changes: Changes, test: Tester) -> tuple[Changes, bool]:
    """A part of the changes that fails and of which no single one can be left out (and whether
    there were checks enough to know)."""
    best = sorted(changes)
    try:
        if best and test(base):
            return {}, True
        pieces = 2
        while len(best) > 1 and pieces:
            best, pieces = _smaller(base, changes, best, pieces, test)
    except _LimitReached:
        return {n: changes[n] for n in best}, False
    return {n: changes[n] for n in best}, True


def _smaller(
    base: Versions, changes: Changes, atoms: list[int], pieces: int, test: Tester
) -> tuple[list[int], int]:
    """One step of delta debugging: leave out one of so many pieces. Returns what still fails and
    the number of pieces to try next; 0: there was one for each atom, and none can be left out."""
    bounds = [len(atoms) * n // pieces for n in range(pieces + 1)]
    for low, high in pairwise(bounds):
        rest = atoms[:low] + atoms[high:]
        if test(_applied(base, {n: changes[n] for n in rest})):
            return rest, min(max(2, pieces - 1), len(rest))
    return atoms, min(2 * pieces, len(atoms)) if pieces < len(atoms) else 0
