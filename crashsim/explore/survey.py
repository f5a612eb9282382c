"""Exploring: every epoch's plan under one budget, checked by several processes, summed up.

Contract: an `Exploration` depends on the target, the states of the budget and the seed alone, not
on the number of workers nor on whether it was interrupted and went on. When time runs out, the ends
of all epochs were checked before the structured states of any, and those before random ones. The
checker is first tried on the image that no crash has touched.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crashsim.checkers.scratch import sweep
from crashsim.checkers.verdict import UNJUDGED
from crashsim.engine.pages import unique_sorted
from crashsim.engine.streams import I64
from crashsim.errors import CheckerError, NothingExplored
from crashsim.executor import Executor, executor
from crashsim.explore.budget import Budget, allot, rounds
from crashsim.explore.grouping import Bad, Cause, Grouping, Placed
from crashsim.explore.picture import told_of
from crashsim.explore.selection import as_choices, newest, structured_size
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.workers import Plans, Unit, UnitLog, UnitResult, job
from crashsim.results.discovery import EpochResult, ExplorationResult
from crashsim.states import Choices, Epoch, power_of_ten

SCHEMA = 2
UNIT_STATES = 64
_LARGEST = 10**300
_ATOMS_LOOKED_AT = 1 << 17
_NO_CONFIDENCE = 0.05
OnProgress = Callable[[int, int], None]  # (states checked, states planned)


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was explored, in `result`, and the causes that it tells as findings. `rejected`: states
    that were judged not ok by outcome, the most frequent first; `known`: states that were to be
    looked up, in their order."""

    result: ExplorationResult
    findings: tuple[Cause, ...]
    rejected: dict[str, int]
    known: tuple[Placed, ...] = ()


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
    with closing(UnitLog(journal, f"{identity} {seed} {budget.states} {timed}")) as kept:
        units = _Units(target, shares, budget, kept)
        done = 0
        try:
            for unit, answer in units.answered(executor(workers), seed):
                units.counts[unit.epoch].add(answer)
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
        plans = Plans(target, seed)
        grouping.take(rejected, lambda epoch: plans.whole(epoch, shares[epoch.number].states))
    placed = () if interrupted else tuple(grouping.place(*state) for state in known)
    result = _result(target, budget, seed, units.counts, grouping, interrupted)
    findings = tuple(grouping.findings())
    return Exploration(result, findings, _summed(units.counts, "rejected"), placed)


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


class Allotment(NamedTuple):
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


class _Units:
    """The units of an exploration, in order, with their answers, known or new."""

    def __init__(
        self, target: Target, shares: Sequence[Allotment], budget: Budget, log: UnitLog
    ) -> None:
        self._target = target
        self._shares = shares
        self.counts: list[_EpochCount] = []  # of the epochs that were come to
        self._budget = budget
        self._log = log
        self._order: deque[Unit] = deque()  # asked for, or known, and not yet given
        self._answers: dict[Unit, UnitResult] = {}

    def answered(self, where: Executor, seed: int) -> Iterator[tuple[Unit, UnitResult]]:
        """Every unit; CheckerError when the checker cannot run. All answers are kept, also those
        that an interrupt leaves behind one that is missing."""
        work = job(self._target, seed, self._budget.expired)
        try:
            for unit, answer in where.run(work, self._unknown()):
                self._log.add(unit, answer)
                self._answers[unit] = answer
                yield from self._ready()
            yield from self._ready()
        finally:
            sweep()  # of workers that were killed

    def _ready(self) -> Iterator[tuple[Unit, UnitResult]]:
        while self._order and self._order[0] in self._answers:
            unit = self._order.popleft()
            yield unit, self._answers.pop(unit)

    def _unknown(self) -> Iterator[Unit]:
        expired = self._budget.expired
        for unit in self._units():
            self._order.append(unit)
            known = self._log.known(unit)
            if known is None:
                yield unit
            else:
                self._answers[unit] = known
            if expired is not None and expired():
                return

    def _units(self) -> Iterator[Unit]:
        timed = self._budget.expired is not None
        bounds = [rounds(*share) if timed else [0, share.states] for share in self._shares]
        epochs = self._target.space.epochs()
        for turn in range(max(len(one) for one in bounds) - 1):
            for number, mine in enumerate(bounds):
                if not turn:
                    self.counts.append(_EpochCount(next(epochs), self._shares[number].states))
                if turn + 1 < len(mine):
                    end = min(mine[turn + 1], self.counts[number].planned)
                    for low in range(mine[turn], end, UNIT_STATES):
                        high = min(low + UNIT_STATES, end)
                        yield Unit(number, low, high, self._shares[number].states)


class _EpochCount:
    """What came of an epoch so far."""

    def __init__(self, epoch: Epoch, share: int) -> None:
        self.epoch = epoch
        self.planned = min(share, epoch.images)
        self.checked = 0
        self.kinds: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()  # outcomes of what was judged not ok

    def add(self, answer: UnitResult) -> None:
        self.checked += answer.done
        self.kinds.update(answer.kinds)
        for (kind, outcome), count in answer.tally.items():
            self.verdicts[kind] += count
            self.outcomes[outcome or kind] += count
            if kind != "ok" and kind not in UNJUDGED:
                self.rejected[outcome or kind] += count

    def result(self) -> EpochResult:
        one = self.epoch
        return EpochResult(
            one.number,
            one.first_ns,
            one.cut_ns,
            one.acks,
            len(one.atoms),
            *_large(one.choices),
            *_large(one.images),
            self.planned,
            self.checked,
            dict(self.kinds),
            dict(self.verdicts),
            dict(self.outcomes),
            unseen_share(one.images, self.checked, self.kinds["random"]),
        )


def unseen_share(images: int, checked: int, random: int) -> float:
    """With no finding in an epoch: the largest share of its images that can be bad, with 95 %
    confidence. 0 when all were checked; 1 without random states, which alone say anything."""
    if checked >= images:
        return 0.0
    return float(1 - _NO_CONFIDENCE ** (1 / random)) if random else 1.0


def _summed(counts: Sequence[_EpochCount], name: str) -> dict[str, int]:
    """A count of all epochs, the most frequent first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(getattr(one, name))
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def _result(
    target: Target,
    budget: Budget,
    seed: int,
    counts: Sequence[_EpochCount],
    grouping: Grouping,
    interrupted: bool,
) -> ExplorationResult:
    """All that is told."""
    rules, epochs, verdicts = target.space.rules, len(target.space), _summed(counts, "verdicts")
    failing = verdicts.get("finding", 0) + verdicts.get("crash", 0)
    late, unstable = verdicts.get("hang", 0), verdicts.get("unstable", 0)
    planned, checked = (sum(getattr(c, n) for c in counts) for n in ("planned", "checked"))
    # All planned states were checked and judged, and every epoch has at least its ends.
    whole = len(counts) == epochs and checked == planned and not (late or unstable)
    reached = whole and all(c.checked >= min(2, c.epoch.images) for c in counts)
    # Something was found; the budget ended before the coverage, or states were not judged.
    code = 1 if failing else 0 if reached else 4
    return ExplorationResult(
        SCHEMA,
        target.history.devices[target.device].name,
        rules.host,
        rules.atom_bytes,
        seed,
        budget.states,
        *_large(sum(target.space.choices())),
        *_large(sum(one.epoch.images for one in counts)),
        planned,
        checked,
        failing,
        late,
        unstable,
        grouping.ungrouped,
        _summed(counts, "outcomes"),
        reached,
        epochs,
        interrupted,
        130 if interrupted else code,
        [told_of(one, target) for one in grouping.findings()],
        [one.result() for one in counts],
    )


def _large(number: int) -> tuple[int | None, str]:
    """Exact, and given as text alone where few readers of JSON take a number so long."""
    return number if number < _LARGEST else None, power_of_ten(number)
