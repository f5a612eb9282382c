"""Exploring: every epoch's plan under one budget, checked by several processes, summed up.

Contract: an `Exploration` depends on the target, the states of the budget and the seed alone, not
on the number of workers nor on whether it was interrupted and went on. When time runs out, the ends
of all epochs were checked before the structured states of any, and those before random ones. The
checker is first tried on the image that no crash has touched.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from crashsim.checkers import Verdict
from crashsim.checkers.verdict import UNJUDGED
from crashsim.engine.pages import unique_sorted
from crashsim.engine.streams import I64
from crashsim.errors import CheckerError, NothingExplored
from crashsim.explore.budget import Budget, allot, rounds
from crashsim.explore.grouping import Bad, Cause, Grouping
from crashsim.explore.selection import Step, StepKind, as_choices, newest, plan, structured_size
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.unit_log import UnitLog
from crashsim.explore.workers import Unit, UnitResult, answers
from crashsim.states import Choices, Epoch

UNIT_STATES = 64
_ATOMS_LOOKED_AT = 1 << 17
_NO_CONFIDENCE = 0.05
OnProgress = Callable[[int, int], None]  # (states checked, states planned)


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch: what there is, what was planned and checked, and what came of it."""

    number: int
    first_ns: int
    cut_ns: int
    acks: int
    atoms: int
    choices: int
    images: int
    planned: int
    checked: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)  # outcomes of what was judged not ok

    @property
    def unseen_share(self) -> float:
        """With no finding in the epoch: the largest share of its images that can be bad, with 95 %
        confidence. 0 when all were checked; 1 without random states, which alone say anything."""
        if self.checked >= self.images:
            return 0.0
        drawn = self.kinds.get("random", 0)
        return float(1 - _NO_CONFIDENCE ** (1 / drawn)) if drawn else 1.0


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a known state: the verdict now, and the number of its finding, -1: none."""

    verdict: Verdict
    finding: int


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was explored, and what was found. `choices`: of all epochs, exactly; `epochs`: those
    that were looked at, all of `all_epochs` unless the exploration was cut short; `ungrouped`:
    failing states that are in none of the findings' counts, because more would have had to be
    shrunk than is worth it."""

    device: str
    host: str
    atom_bytes: int
    seed: int
    states: int
    choices: int
    all_epochs: int
    epochs: tuple[EpochReport, ...]
    findings: tuple[Cause, ...]
    ungrouped: int
    interrupted: bool
    known: tuple[Placed, ...] = ()  # states that were to be looked up, in their order

    @property
    def planned(self) -> int:
        return sum(epoch.planned for epoch in self.epochs)

    @property
    def checked(self) -> int:
        return sum(epoch.checked for epoch in self.epochs)

    @property
    def images(self) -> int:
        return sum(epoch.images for epoch in self.epochs)

    @property
    def failing(self) -> int:
        """States that the checker rejects."""
        return self._with("finding") + self._with("crash")

    @property
    def timed_out(self) -> int:
        """States that were not judged: the checker did not end in its time, twice."""
        return self._with("hang")

    @property
    def unstable(self) -> int:
        """States that were not judged: the checker gave different answers."""
        return self._with("unstable")

    @property
    def outcomes(self) -> dict[str, int]:
        """States by outcome, the most frequent first."""
        return _ranked(epoch.outcomes for epoch in self.epochs)

    @property
    def rejected(self) -> dict[str, int]:
        """Those that were judged not ok by outcome, the most frequent first."""
        return _ranked(epoch.rejected for epoch in self.epochs)

    @property
    def reached(self) -> bool:
        """All planned states were checked and judged, and every epoch has at least its ends."""
        whole = len(self.epochs) == self.all_epochs and self.checked == self.planned
        if not whole or self.timed_out or self.unstable:
            return False
        return all(epoch.checked >= min(2, epoch.images) for epoch in self.epochs)

    @property
    def exit_code(self) -> int:
        """130 interrupted, 1 something was found, 4 the budget ended before the coverage or states
        were not judged, 0."""
        if self.interrupted:
            return 130
        if self.failing:
            return 1
        return 0 if self.reached else 4

    def _with(self, kind: str) -> int:
        return sum(epoch.verdicts.get(kind, 0) for epoch in self.epochs)


def _ranked(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def explore(
    target: Target,
    budget: Budget,
    seed: int,
    workers: int = 1,
    journal: Path | None = None,
    identity: str = "",
    advance: OnProgress | None = None,
    causes: bool = True,
    known: Sequence[tuple[int, Choices]] = (),
) -> Exploration:
    """Check the device's states, and look `known` ones up among the findings. Without `causes` none
    is looked for: all failing states are ungrouped. NothingExplored when there are none,
    CheckerError when the checker is of no use, UsageError when the journal is of something else
    than `identity`."""
    if budget.states < 1 or not target.history.rows_of(target.device).size:
        name = target.history.devices[target.device].name
        raise NothingExplored(f"{name}: nothing was written, or nothing may be checked")
    try_checker(target)
    shares = share_out(target, budget.states)
    bad: list[Bad] = []
    interrupted = False
    timed = budget.expired is not None
    with UnitLog(journal, f"{identity} {seed} {budget.states} {timed}") as kept:
        work = _Work(target, shares, seed, budget, kept)
        done = 0
        try:
            for unit, kinds, answer in work.answered(workers):
                kept.add(unit, answer)
                work.reports[unit.epoch] = _added(work.reports[unit.epoch], kinds, answer)
                bad += [Bad(unit.epoch, *entry) for entry in answer.bad]
                done += answer.done
                if advance is not None:
                    advance(done, sum(share.states for share in shares))
        except KeyboardInterrupt:
            interrupted = True
    grouping = Grouping(target)
    rejected = sorted(one for one in bad if one.kind not in UNJUDGED)
    if not causes:
        grouping.ungrouped = len(rejected)
    elif not interrupted:
        grouping.take(rejected, lambda epoch: work.plan(epoch, shares[epoch.number].states))
    placed = () if interrupted else tuple(Placed(*grouping.place(*state)) for state in known)
    span = target.history.devices[target.device]
    rules = target.space.rules
    return Exploration(
        span.name,
        rules.host,
        rules.atom_bytes,
        seed,
        budget.states,
        sum(target.space.choices()),
        len(target.space),
        tuple(work.reports),
        tuple(grouping.findings()),
        grouping.ungrouped,
        interrupted,
        placed,
    )


def try_checker(target: Target) -> None:
    """CheckerError unless the checker accepts the image with everything that was stored.

    On this host much of it may never have been written, so the image is one of any host. In a
    recording that is what had reached the disk, not what its guest still held in memory: so there
    nothing is asked about what was acknowledged."""
    space = target.space.on_any_host()
    rebuilt = target.rebuilt if space is target.space else None  # that knows its own host only
    with StateRunner(replace(target, space=space, rebuilt=rebuilt)) as runner:
        epoch = runner.enter(len(space) - 1)
        acks = 0 if target.history.info.recorded else epoch.acks
        found = runner.self_test(as_choices(newest(epoch.atoms)), acks)
    if found.kind != "ok":
        said = f" ({found.outcome})" if found.outcome else ""
        raise CheckerError(found.message + said)


@dataclass(frozen=True, slots=True)
class Allotment:
    """An epoch's part of the budget, and how many states its structure comes to at most."""

    states: int
    structured: int


def share_out(target: Target, states: int) -> list[Allotment]:
    """Shares of all epochs: by their images and writes where looking at all contents takes about a
    second, else by their choices, of which there are at least as many."""
    choices = list(target.space.choices())
    atoms = [number.bit_length() - 1 for number in choices]  # at most
    if sum(atoms) <= _ATOMS_LOOKED_AT:
        store_write = target.history.store_write
        sizes = [(one.images, _structured(one, store_write)) for one in target.space.epochs()]
    else:
        sizes = [
            (most, min(most, structured_size(few, few)))
            for most, few in zip(choices, atoms, strict=True)
        ]
    shares = allot([most for most, _ in sizes], [least for _, least in sizes], states)
    return [Allotment(share, least) for share, (_, least) in zip(shares, sizes, strict=True)]


def _structured(epoch: Epoch, store_write: I64) -> int:
    stores = chain.from_iterable(atom.stores for atom in epoch.atoms)
    writes = unique_sorted(store_write[np.fromiter(stores, dtype=np.int64)]).size
    return min(structured_size(len(epoch.atoms), writes), epoch.images)


class _Work:
    """The units of an exploration, in order, with their answers, known or new."""

    def __init__(
        self,
        target: Target,
        shares: Sequence[Allotment],
        seed: int,
        budget: Budget,
        journal: UnitLog,
    ) -> None:
        self._target = target
        self._shares = shares
        self.reports: list[EpochReport] = []  # of the epochs that were come to
        self._seed = seed
        self._budget = budget
        self._journal = journal
        self._order: deque[tuple[Unit, list[StepKind], UnitResult | None]] = deque()

    def plan(self, epoch: Epoch, allowance: int) -> Iterator[Step]:
        """The states of an epoch."""
        return plan(epoch, self._target.history.store_write, allowance, self._seed)

    def answered(self, workers: int) -> Iterator[tuple[Unit, list[StepKind], UnitResult]]:
        """Every unit; CheckerError when the checker cannot run."""
        for _, answer in answers(self._target, self._unknown(), workers, self._budget.expired):
            yield from self._known()
            unit, kinds, _ = self._order.popleft()
            yield unit, kinds, answer
        yield from self._known()

    def _known(self) -> Iterator[tuple[Unit, list[StepKind], UnitResult]]:
        while self._order and (answer := self._order[0][2]) is not None:
            unit, kinds, _ = self._order.popleft()
            yield unit, kinds, answer

    def _unknown(self) -> Iterator[Unit]:
        expired = self._budget.expired
        for unit, kinds in self._units():
            answer = self._journal.known(unit)
            self._order.append((unit, kinds, answer))
            if answer is None:
                yield unit
            if expired is not None and expired():
                return

    def _units(self) -> Iterator[tuple[Unit, list[StepKind]]]:
        bounds = [self._bounds(share) for share in self._shares]
        for turn in range(max(len(one) for one in bounds) - 1):
            for epoch in self._target.space.epochs():
                if not turn:
                    self.reports.append(_report(epoch, self._shares[epoch.number]))
                mine = bounds[epoch.number]
                if turn + 1 < len(mine) and mine[turn] < mine[turn + 1]:
                    yield from self._of_epoch(epoch, mine[turn], mine[turn + 1])

    def _bounds(self, share: Allotment) -> list[int]:
        if self._budget.expired is None:
            return [0, share.states]
        return rounds(share.states, share.structured)

    def _of_epoch(self, epoch: Epoch, low: int, high: int) -> Iterator[tuple[Unit, list[StepKind]]]:
        steps = islice(self.plan(epoch, self._shares[epoch.number].states), low, high)
        while part := list(islice(steps, UNIT_STATES)):
            states = tuple(step.choices for step in part)
            yield Unit(epoch.number, low, states), [step.kind for step in part]
            low += len(part)


def _report(epoch: Epoch, share: Allotment) -> EpochReport:
    return EpochReport(
        epoch.number,
        epoch.first_ns,
        epoch.cut_ns,
        epoch.acks,
        len(epoch.atoms),
        epoch.choices,
        epoch.images,
        min(share.states, epoch.images),
    )


def _added(report: EpochReport, kinds: list[StepKind], answer: UnitResult) -> EpochReport:
    verdicts, outcomes = Counter(report.verdicts), Counter(report.outcomes)
    rejected = Counter(report.rejected)
    for (kind, outcome), count in answer.tally.items():
        verdicts[kind] += count
        outcomes[outcome or kind] += count
        if kind != "ok" and kind not in UNJUDGED:
            rejected[outcome or kind] += count
    return replace(
        report,
        checked=report.checked + answer.done,
        kinds=dict(Counter(report.kinds) + Counter(kinds[: answer.done])),
        verdicts=dict(verdicts),
        outcomes=dict(outcomes),
        rejected=dict(rejected),
    )
