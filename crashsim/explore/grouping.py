"""From thousands of failing states to the few causes behind them.

Contract: states are taken in order. One that shows the pattern of a finding with the same kind of
outcome counts for it; where the pattern is empty, one whose epoch fails alike at both ends. Any
other is shrunk; its cause is a finding of its own unless it is one of a known one: the same flush
would forbid both, or nothing would for the same reason. For each outcome only so many states are
shrunk; what fits nowhere after that is counted as ungrouped. A finding is moved to the earliest
epoch in which the same choice fails in the same way, and shrunk once more there. All that is said
of it is of the state that it then has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from crashsim.checkers import Verdict
from crashsim.explore.account import Ledger, Told
from crashsim.explore.outcomes import normal, outcome_of
from crashsim.explore.roles import Fates, Mask, Pattern, Roles
from crashsim.explore.selection import Step, VersionList, as_choices, as_versions, newest
from crashsim.explore.shrink import Core, find_cause
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.story import Involved, Narrator, Scene, kept_atom, lost_atom
from crashsim.results.discovery import Original, Remedy
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


class Placed(NamedTuple):
    """What became of a known state: the verdict now, and the number of its finding, -1: none."""

    verdict: Verdict
    finding: int


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. Times ns, offsets those of the device.

    `choices` are those of its state, in which all is newest but for the atoms `changes`, told in
    `lost`; `kept`: what survived of it, and is enough for it to fail; `account`: what became of
    each write; `ack`: the number of the acknowledgement without which the state would be fine, -1
    if it never is; `cure`: the remedy in words; `digest`: of the image;
    `message`: what the checker said of that image."""

    kind: str
    outcome: str
    message: str
    epoch: int
    first_ns: int
    cut_ns: int
    acks: int
    changes: Choices
    choices: Choices
    minimal: bool
    kept: tuple[Involved, ...]
    lost: tuple[Involved, ...]
    account: tuple[Told, ...]
    ack: int
    remedy: Remedy
    cure: str
    digest: int
    original: Original
    story: tuple[str, ...]
    states: int = 0
    epochs: int = 0


Key = tuple[str, str]  # kind of verdict, normal outcome


@dataclass(slots=True)
class _Group:
    finding: Cause
    patterns: list[Pattern]
    first_ns: int  # a flush in between forbids the states of all
    last_ns: int
    states: int = 0
    epochs: set[int] = field(default_factory=set)

    def takes(self, other: Cause, pattern: Pattern) -> bool:
        """A cause that shows the pattern is this one."""
        mine, remedy = self.finding.remedy, other.remedy
        if mine.why != remedy.why:
            return False
        if mine.why == "torn":
            places = {one.offset for one in self.finding.lost}
            return pattern in self.patterns or any(one.offset in places for one in other.lost)
        if mine.why != "flush-before-write" or pattern in self.patterns:
            return True
        return max(self.first_ns, remedy.first_ns) <= min(self.last_ns, remedy.last_ns)

    def add(self, remedy: Remedy, pattern: Pattern) -> None:
        """It takes a cause."""
        if pattern not in self.patterns:
            self.patterns.append(pattern)
        first_ns = max(self.first_ns, remedy.first_ns)
        last_ns = min(self.last_ns, remedy.last_ns)
        if first_ns <= last_ns:
            self.first_ns, self.last_ns = first_ns, last_ns


class Grouping:
    """Findings so far."""

    def __init__(self, target: Target) -> None:
        history, device, rules = target.history, target.device, target.space.rules
        self._target = target
        self._roles = Roles(history)
        self._groups: list[_Group] = []
        self._shrunk: Counter[Key] = Counter()
        self._teller = Narrator(history, device, rules.host)
        self.ungrouped = 0

    @cached_property
    def _ledger(self) -> Ledger:  # for the first finding
        one = self._target
        return Ledger(one.history, one.device, one.space.rules)

    def findings(self) -> Iterator[Cause]:
        """Most frequent last found first: in the order of their first epoch."""
        for group in self._in_order():
            yield replace(group.finding, states=group.states, epochs=len(group.epochs))

    def _in_order(self) -> list[_Group]:
        return sorted(self._groups, key=lambda one: one.finding.cut_ns)

    def place(self, number: int, choices: Choices) -> Placed:
        """What becomes of a state."""
        with StateRunner(self._target) as runner:
            epoch = runner.enter(number)
            verdict = runner.check(choices)
            if verdict.kind not in ("finding", "crash"):
                return Placed(verdict, -1)
            key = _key(verdict.kind, outcome_of(verdict))
            original = Original(number, -1, "none", len(choices), len(epoch.atoms))
            found, pattern = self._found(runner, number, choices, key, original)
        for place, group in enumerate(self._in_order()):
            mine = _key(group.finding.kind, group.finding.outcome)
            if mine == key and group.takes(found, pattern):
                return Placed(verdict, place)
        return Placed(verdict, -1)

    def take(self, bad: list[Bad], plan: Callable[[Epoch], Iterator[Step]]) -> None:
        """Group failing states, ascending; `plan` gives the plan of an epoch that they are of."""
        if not bad:
            return
        with StateRunner(self._target) as runner:
            for number, mine in groupby(bad, key=attrgetter("epoch")):
                epoch = runner.enter(number)
                for part in self._parts(list(mine), plan(epoch), len(epoch.atoms)):
                    self._take_part(runner, epoch.number, part)

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

    def _take_part(self, runner: StateRunner, number: int, part: list[tuple[Bad, Step]]) -> None:
        epoch = runner.enter(number)
        versions = np.array([step.versions for _, step in part], dtype=np.int64)
        fates = Fates(epoch, self._roles, self._target.history.store_write, versions)
        keys = [_key(entry.kind, entry.outcome) for entry, _ in part]
        for key in dict.fromkeys(keys):
            waiting = np.array([one == key for one in keys])
            for group in self._of(key):
                self._count(runner, group, number, waiting, fates)
            while waiting.any():
                first = int(waiting.argmax())
                if self._shrunk[key] >= SHRUNK_EACH or self._shrunk.total() >= SHRUNK_IN_ALL:
                    self.ungrouped += int(waiting.sum())
                    break
                self._shrunk[key] += 1
                group = self._shrink(runner, number, *part[first])
                waiting[first] = False
                group.states += 1
                group.epochs.add(number)
                self._count(runner, group, number, waiting, fates)

    def _of(self, key: Key) -> list[_Group]:
        return [g for g in self._groups if _key(g.finding.kind, g.finding.outcome) == key]

    def _count(
        self, runner: StateRunner, group: _Group, number: int, waiting: Mask, fates: Fates
    ) -> None:
        """Take those out of `waiting` that show a pattern of the group's."""
        key = _key(group.finding.kind, group.finding.outcome)
        for pattern in group.patterns:
            if not waiting.any():
                return
            if pattern.is_empty and not _fails_throughout(runner, number, key):
                continue
            shown = waiting & fates.show(pattern)
            count = int(shown.sum())
            if count:
                group.states += count
                group.epochs.add(number)
                waiting &= ~shown

    def _shrink(self, runner: StateRunner, number: int, bad: Bad, step: Step) -> _Group:
        """The group of the state's cause, new or known."""
        key = _key(bad.kind, bad.outcome)
        atoms = runner.enter(number).atoms
        original = Original(number, bad.place, step.kind, len(step.choices), len(atoms))
        finding, pattern = self._found(runner, number, step.choices, key, original)
        remedy = finding.remedy
        for group in self._of(key):
            if group.takes(finding, pattern):
                group.add(remedy, pattern)
                return group
        group = _Group(finding, [pattern], remedy.first_ns, remedy.last_ns)
        self._groups.append(group)
        return group

    def _found(
        self, runner: StateRunner, number: int, state: Choices, key: Key, original: Original
    ) -> tuple[Cause, Pattern]:
        """The finding that a state comes down to, and the pattern of its cause."""
        cause = self._cause(runner, number, state, key)
        number, cause = self._earliest(runner, number, cause, key)
        finding = self._finding(runner, number, cause, key, original)
        kept = (one.kept_write for one in finding.kept)
        return finding, self._roles.pattern(kept, (one.lost_write for one in finding.lost))

    def _cause(self, runner: StateRunner, number: int, state: Choices, key: Key) -> Core:
        atoms = runner.enter(number).atoms
        return find_cause(atoms, state, lambda one: _fails(runner, one, key), CHECKS_EACH)

    def _halves(
        self, epoch: Epoch, cause: Core
    ) -> tuple[tuple[Involved, ...], tuple[Involved, ...]]:
        """Atoms kept and lost."""
        store_write = self._target.history.store_write
        return (
            tuple(kept_atom(epoch.atoms[n], v, store_write) for n, v in cause.kept),
            tuple(lost_atom(epoch.atoms[n], v, store_write) for n, v in cause.lost),
        )

    def _earliest(
        self, runner: StateRunner, number: int, cause: Core, key: Key
    ) -> tuple[int, Core]:
        """The first of the epochs next to each other in which the same cause is possible and fails
        alike, whatever else is kept or lost; shrunk there."""
        kept, lost = self._halves(runner.enter(number), cause)
        if not (kept or lost):
            return number, cause
        best, state = number, None
        for earlier in range(number - 1, max(-1, number - 1 - _EPOCHS_BACK), -1):
            epoch = runner.enter(earlier)
            survived, gone = _translated(epoch, kept, "kept"), _translated(epoch, lost, "lost")
            if survived is None or gone is None:
                break
            there = _but(newest(epoch.atoms), gone)
            if not (_fails(runner, there, key) and _fails(runner, survived, key)):
                break
            best, state = earlier, there
        return best, cause if state is None else self._cause(runner, best, state, key)

    def _finding(
        self, runner: StateRunner, number: int, cause: Core, key: Key, original: Original
    ) -> Cause:
        epoch = runner.enter(number)
        choices = _but(newest(epoch.atoms), cause.lost)
        verdict = runner.check(choices)
        digest = runner.digest
        kept, lost = self._halves(epoch, cause)
        scene = Scene(
            epoch,
            len(self._target.space),
            verdict,
            self._ledger.account(epoch, as_versions(choices, len(epoch.atoms))),
            kept,
            _broken_ack(runner, choices, key),
        )

        def fails_before(row: int) -> bool:
            prefix = as_choices(atom.before_store(row) for atom in epoch.atoms)
            return _fails(runner, prefix, key, 0)

        remedy = self._teller.remedy(scene, fails_before)
        story = self._teller.story(scene, remedy)
        if not cause.minimal:
            story += (f"Less may do: it was not shrunk further after {CHECKS_EACH} checks.",)
        return Cause(
            verdict.kind,
            outcome_of(verdict),
            verdict.message,
            number,
            epoch.first_ns,
            epoch.cut_ns,
            epoch.acks,
            cause.lost,
            choices,
            cause.minimal,
            kept,
            lost,
            scene.account,
            scene.ack,
            remedy,
            self._teller.cure(scene, remedy),
            digest,
            original,
            story,
        )


def _but(versions: VersionList, changes: Choices) -> Choices:
    """The state with these versions but for some atoms."""
    for atom, version in changes:
        versions[atom] = version
    return as_choices(versions)


def _key(kind: str, outcome: str) -> Key:
    return kind, normal(outcome)


def _fails_throughout(runner: StateRunner, number: int, key: Key) -> bool:
    """Both ends of the epoch fail alike: so it is not for what was kept or lost in it."""
    epoch = runner.enter(number)
    return all(_fails(runner, end, key) for end in ((), as_choices(newest(epoch.atoms))))


def _fails(runner: StateRunner, choices: Choices, key: Key, acks: int | None = None) -> bool:
    """The checker says the same of it."""
    found: Verdict = runner.check(choices, acks)
    return _key(found.kind, outcome_of(found)) == key


def _broken_ack(runner: StateRunner, choices: Choices, key: Key) -> int:
    """The first acknowledgement with which the state fails, -1 if it fails without any."""
    low, high = 0, runner.epoch.acks  # fails with `high`; never with fewer than `low`
    if not high or _fails(runner, choices, key, 0):
        return -1
    while low + 1 < high:
        middle = (low + high) // 2
        if _fails(runner, choices, key, middle):
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
