"""From thousands of failing states to the few causes behind them.

Contract: states are taken in order. One that shows the pattern of a finding with the same verdict
and outcome counts for it; where the pattern is empty, one whose epoch fails alike at both ends. Any
other is shrunk; its cause is a finding of its own unless one of the same pattern is known. For each
outcome only so many states are shrunk; what fits nowhere after that is counted as ungrouped. A
finding is moved to the earliest epoch in which the same choice fails in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from crashsim.checkers import Verdict
from crashsim.explore.bench import Bench, Subject
from crashsim.explore.plan import Step, as_choices, as_versions, newest
from crashsim.explore.roles import Fates, Mask, Pattern, Roles
from crashsim.explore.shrink import Cause, Shrunken, find_cause
from crashsim.explore.story import Involved, involved, tell
from crashsim.states import Choices, Epoch

CHECKS_EACH = 400  # to shrink one state
SHRUNK_EACH = 12  # states of one outcome
SHRUNK_IN_ALL = 48
_EPOCHS_BACK = 64
_VALUES_AT_ONCE = 1 << 22


class Bad(NamedTuple):
    """A state that is not ok: its place in its epoch's plan, and what the checker said."""

    epoch: int
    place: int
    kind: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Original:
    """The state that was found first: where it stands in the plan, and how much it keeps."""

    epoch: int
    place: int
    kind: str
    kept_atoms: int
    atoms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. Times ns, offsets those of the device.

    `choices` are those of the shrunken state, which all in all holds `end` but for `changes` atoms;
    `kept` and `lost` are what it takes; `ack`: the number of the acknowledgement without which the
    state would be fine, -1 if it never is; `digest`: of the image."""

    kind: str
    outcome: str
    message: str
    epoch: int
    first_ns: int
    cut_ns: int
    acks: int
    end: str
    changes: Choices
    choices: Choices
    minimal: bool
    kept: tuple[Involved, ...]
    lost: tuple[Involved, ...]
    ack: int
    digest: int
    original: Original
    story: tuple[str, ...]
    states: int = 0
    epochs: int = 0


@dataclass(slots=True)
class _Group:
    finding: Finding
    pattern: Pattern
    states: int = 0
    epochs: set[int] = field(default_factory=set)


class Grouping:
    """Findings so far."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._roles = Roles(subject.history)
        self._groups: list[_Group] = []
        self._shrunk: Counter[tuple[str, str]] = Counter()
        self.ungrouped = 0

    def findings(self) -> Iterator[Finding]:
        """Most frequent last found first: in the order of their first epoch."""
        for group in sorted(self._groups, key=lambda one: one.finding.cut_ns):
            yield replace(group.finding, states=group.states, epochs=len(group.epochs))

    def take(self, bad: list[Bad], plan: Callable[[Epoch], Iterator[Step]]) -> None:
        """Group failing states, ascending; `plan` gives the plan of an epoch that they are of."""
        if not bad:
            return
        with Bench(self._subject) as bench:
            for number, mine in groupby(bad, key=attrgetter("epoch")):
                epoch = bench.enter(number)
                for part in self._parts(list(mine), plan(epoch), len(epoch.atoms)):
                    self._take_part(bench, epoch.number, part)

    def _parts(
        self, bad: list[Bad], steps: Iterator[Step], atoms: int
    ) -> Iterator[list[tuple[Bad, Step]]]:
        """The states of one epoch, so many at once that their versions fit into memory."""
        most = max(1, _VALUES_AT_ONCE // max(1, atoms))
        part: list[tuple[Bad, Step]] = []
        place = -1
        for entry in bad:
            while place < entry.place:
                step = next(steps)
                place += 1
            part.append((entry, step))
            if len(part) == most:
                yield part
                part = []
        if part:
            yield part

    def _take_part(self, bench: Bench, number: int, part: list[tuple[Bad, Step]]) -> None:
        epoch = bench.enter(number)
        versions = np.array(
            [as_versions(step.choices, len(epoch.atoms)) for _, step in part], dtype=np.int64
        )
        fates = Fates(epoch, self._roles, self._subject.history.store_write, versions)
        keys = [(entry.kind, entry.outcome) for entry, _ in part]
        for key in dict.fromkeys(keys):
            waiting = np.array([one == key for one in keys])
            for group in self._of(key):
                if group.pattern.is_empty and not _fails_throughout(bench, number, key):
                    continue
                self._count(group, number, waiting, fates)
            while waiting.any():
                first = int(waiting.argmax())
                if self._shrunk[key] >= SHRUNK_EACH or self._shrunk.total() >= SHRUNK_IN_ALL:
                    self.ungrouped += int(waiting.sum())
                    break
                self._shrunk[key] += 1
                group = self._shrink(bench, number, *part[first])
                waiting[first] = False
                group.states += 1
                group.epochs.add(number)
                self._count(group, number, waiting, fates)

    def _of(self, key: tuple[str, str]) -> list[_Group]:
        return [g for g in self._groups if (g.finding.kind, g.finding.outcome) == key]

    def _count(self, group: _Group, number: int, waiting: Mask, fates: Fates) -> None:
        """Take those out of `waiting` that show the group's pattern."""
        shown = waiting & fates.show(group.pattern)
        count = int(shown.sum())
        if count:
            group.states += count
            group.epochs.add(number)
            waiting &= ~shown

    def _shrink(self, bench: Bench, number: int, bad: Bad, step: Step) -> _Group:
        """The group of the state's cause, new or known."""
        key = bad.kind, bad.outcome
        epoch = bench.enter(number)

        def fails(choices: Choices) -> bool:
            return _fails(bench, choices, key)

        cause = find_cause(epoch.atoms, step.choices, fails, CHECKS_EACH)
        store_write = self._subject.history.store_write
        kept = tuple(involved(epoch.atoms[n], v, store_write) for n, v in cause.kept)
        lost = tuple(involved(epoch.atoms[n], v, store_write) for n, v in cause.lost)
        pattern = self._roles.pattern(
            (one.kept_write for one in kept), (one.lost_write for one in lost)
        )
        for group in self._of(key):
            if group.pattern == pattern:
                return group
        original = Original(number, bad.place, step.kind, len(step.choices), len(epoch.atoms))
        number, state = self._earliest(bench, number, cause, kept, lost, key)
        finding = self._finding(bench, number, state, (kept, lost), original, key, cause.minimal)
        group = _Group(finding, pattern)
        self._groups.append(group)
        return group

    def _earliest(
        self,
        bench: Bench,
        number: int,
        cause: Cause,
        kept: tuple[Involved, ...],
        lost: tuple[Involved, ...],
        key: tuple[str, str],
    ) -> tuple[int, Shrunken]:
        """The first of the epochs next to each other in which the same cause is possible and fails
        alike, whatever else is kept or lost."""
        best = number, cause.state
        upwards = cause.state.end == "guaranteed"
        if not (kept if upwards else lost):
            return best
        for earlier in range(number - 1, max(-1, number - 1 - _EPOCHS_BACK), -1):
            epoch = self._subject.space.epoch(earlier)
            survived, gone = _translated(epoch, kept, "kept"), _translated(epoch, lost, "lost")
            if survived is None or gone is None:
                break
            both = tuple(sorted(survived + gone))
            state = replace(cause.state, changes=survived if upwards else gone)
            far = replace(state, end="newest" if upwards else "guaranteed", changes=both)
            bench.enter(earlier)
            ends = (as_choices(one.versions(epoch.atoms)) for one in (state, far))
            if not all(_fails(bench, choices, key) for choices in ends):
                break
            best = earlier, state
        return best

    def _finding(
        self,
        bench: Bench,
        number: int,
        state: Shrunken,
        parts: tuple[tuple[Involved, ...], tuple[Involved, ...]],
        original: Original,
        key: tuple[str, str],
        minimal: bool,
    ) -> Finding:
        epoch = bench.enter(number)
        choices = as_choices(state.versions(epoch.atoms))
        verdict = bench.check(choices)
        digest = bench.digest
        ack = _broken_ack(bench, choices, key)
        kept, lost = parts
        history, device = self._subject.history, self._subject.device
        story = tell(history, device, epoch, verdict, kept, lost, ack, len(self._subject.space))
        if not minimal:
            story += (f"Less may do: it was not shrunk further after {CHECKS_EACH} checks.",)
        return Finding(
            *key,
            verdict.message,
            number,
            epoch.first_ns,
            epoch.cut_ns,
            epoch.acks,
            state.end,
            state.changes,
            choices,
            minimal,
            kept,
            lost,
            ack,
            digest,
            original,
            story,
        )


def _fails_throughout(bench: Bench, number: int, key: tuple[str, str]) -> bool:
    """Both ends of the epoch fail alike: so it is not for what was kept or lost in it."""
    epoch = bench.enter(number)
    return all(_fails(bench, end, key) for end in ((), as_choices(newest(epoch.atoms))))


def _fails(bench: Bench, choices: Choices, key: tuple[str, str], acks: int | None = None) -> bool:
    """The checker says the same of it."""
    found: Verdict = bench.check(choices, acks)
    return (found.kind, found.outcome) == key


def _broken_ack(bench: Bench, choices: Choices, key: tuple[str, str]) -> int:
    """The first acknowledgement with which the state fails, -1 if it fails without any."""
    low, high = 0, bench.epoch.acks  # fails with `high`; never with fewer than `low`
    if not high or _fails(bench, choices, key, 0):
        return -1
    while low + 1 < high:
        middle = (low + high) // 2
        if _fails(bench, choices, key, middle):
            high = middle
        else:
            low = middle
    return high - 1


def _translated(epoch: Epoch, wanted: tuple[Involved, ...], fate: str) -> Choices | None:
    """The same atoms with (without) the same stores in another epoch, if they are undecided
    there."""
    by_offset = {atom.offset: number for number, atom in enumerate(epoch.atoms)}
    found: list[tuple[int, int]] = []
    for one in wanted:
        number = by_offset.get(one.offset)
        if number is None:
            return None
        atom = epoch.atoms[number]
        row = one.kept_row if fate == "kept" else one.lost_row
        if row not in atom.stores:
            return None
        choice = atom.stores.index(row)
        if fate == "kept":
            found.append((number, atom.after[choice]))
        else:
            found.append((number, atom.after[choice - 1] if choice else 0))
    return tuple(sorted(found))
