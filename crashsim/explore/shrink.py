"""The smallest loss that still fails, and what exactly it takes besides.

Contract: deterministic; every state that is given was tried and fails. A state differs from one of
two *ends* in some atoms: from `guaranteed` (nothing undecided is kept) or from `newest` (all is
kept). A cause is two of them: the *state*, in which all is kept but for the atoms `lost`, and the
*least*, in which nothing is kept but the atoms `kept`, which are there in the state, too. No atom
of either can be left out, and its version is as near to the end as it goes. Each test costs a
check; when the limit is reached, what was found by then is given, and says that it is not minimal.

The search goes from the given state towards both ends; where it comes nearer to `guaranteed`, it
also goes on from there, and the cause of fewer atoms is taken.
Delta debugging after Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input"
(IEEE TSE 28(2), 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from crashsim.explore.selection import VersionList, as_choices, as_versions, newest
from crashsim.states import Atom, Choices

_Changes = dict[int, int]  # atom -> version, where it is not as at the end


class _LimitReached(Exception):
    """No more checks."""


@dataclass(frozen=True, slots=True)
class Shrunken:
    """A failing state as its distance from an end; `minimal`: no part of it can be left out."""

    end: VersionList
    changes: Choices
    minimal: bool

    @property
    def versions(self) -> VersionList:
        """Of each atom."""
        return _applied(self.end, dict(self.changes))


@dataclass(frozen=True, slots=True)
class Core:
    """`lost` atoms, with their versions, while all others are at the newest: the state; and `kept`
    atoms, with theirs, while all others are at the guaranteed version: the least."""

    lost: Choices
    kept: Choices
    minimal: bool  # both: nothing of either can be left out
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

    def __call__(self, versions: VersionList) -> bool:
        state = as_choices(versions)
        known = self._known.get(state)
        if known is None:
            if len(self._known) >= self._limit:
                raise _LimitReached
            known = self._known[state] = self._fails(state)
        return known


def find_cause(
    atoms: Sequence[Atom], state: Choices, fails: Callable[[Choices], bool], limit: int
) -> Core:
    """Shrink a state that fails; `limit` checks at most."""
    test = Tester(fails, limit)
    start = as_versions(state, len(atoms))
    low, high = [0] * len(atoms), newest(atoms)
    upwards, downwards = _from(low, start, test), _from(high, start, test)
    pairs = [(downwards, _from(low, downwards.versions, test))]
    if len(upwards.changes) < len(downwards.changes):
        downwards = _from(high, upwards.versions, test)
        pairs.append((downwards, _from(low, downwards.versions, test)))
    lost, kept = min(pairs, key=lambda pair: sum(len(one.changes) for one in pair))
    return Core(lost.changes, kept.changes, lost.minimal and kept.minimal, test.checks)


def _from(end: VersionList, start: VersionList, test: Tester) -> Shrunken:
    changes = {n: v for n, v in enumerate(start) if v != end[n]}
    changes, minimal = _fewest(end, changes, test)
    while minimal:
        nearer, minimal = _nearest(end, changes, test)
        if nearer == changes or not minimal:
            changes = nearer
            break
        changes, minimal = _fewest(end, nearer, test)
    return Shrunken(end, tuple(sorted(changes.items())), minimal)


def _applied(base: VersionList, changes: _Changes) -> VersionList:
    versions = base.copy()
    for atom, version in changes.items():
        versions[atom] = version
    return versions


def _nearest(end: VersionList, changes: _Changes, test: Tester) -> tuple[_Changes, bool]:
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


def _fewest(base: VersionList, changes: _Changes, test: Tester) -> tuple[_Changes, bool]:
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
    base: VersionList, changes: _Changes, atoms: list[int], pieces: int, test: Tester
) -> tuple[list[int], int]:
    """One step of delta debugging: leave out one of so many pieces. Returns what still fails and
    the number of pieces to try next; 0: there was one for each atom, and none can be left out."""
    bounds = [len(atoms) * n // pieces for n in range(pieces + 1)]
    for low, high in pairwise(bounds):
        rest = atoms[:low] + atoms[high:]
        if test(_applied(base, {n: changes[n] for n in rest})):
            return rest, min(max(2, pieces - 1), len(rest))
    return atoms, min(2 * pieces, len(atoms)) if pieces < len(atoms) else 0
