"""Units of work, each over a stretch of an epoch's plan, wherever they are worked on.

Contract: a unit says what to check, and holds none of it: whoever works makes the plan again, and
goes on in it where the last unit ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

from crashsim.errors import CheckerError
from crashsim.executor import Job
from crashsim.explore.outcomes import outcome_of
from crashsim.explore.selection import Step, plan
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.states import Epoch

Expired = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Unit:
    """States [low, high) of an epoch's plan of so many."""

    epoch: int
    low: int
    high: int
    planned: int


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What came of a unit. `done`: states that were checked before time ran out; `kinds`: of them;
    `tally`: (kind, outcome) -> states; `bad`: (place in the plan, kind, outcome) of those that are
    not ok."""

    done: int
    kinds: dict[str, int]
    tally: dict[tuple[str, str], int]
    bad: list[tuple[int, str, str]]


class Plans:
    """Stretches of epochs' plans; going on in one costs no more than the stretch."""

    def __init__(self, target: Target, seed: int) -> None:
        self._store_write = target.history.store_write
        self._seed = seed
        self._of = (-1, -1)  # epoch and size of the plan that is at `_place`
        self._place = 0
        self._steps: Iterator[Step] = iter(())

    def whole(self, epoch: Epoch, planned: int) -> Iterator[Step]:
        """All states of one."""
        return plan(epoch, self._store_write, planned, self._seed)

    def stretch(self, epoch: Epoch, unit: Unit) -> list[Step]:
        """Those of a unit, which is of that epoch."""
        if self._of != (unit.epoch, unit.planned) or unit.low < self._place:
            self._of, self._place = (unit.epoch, unit.planned), 0
            self._steps = self.whole(epoch, unit.planned)
        steps = list(islice(self._steps, unit.low - self._place, unit.high - self._place))
        self._place = unit.high
        return steps


def job(target: Target, seed: int, expired: Expired | None) -> Job[Unit, UnitResult]:
    """What units are answered with. CheckerError when the checker cannot run."""
    return Job(partial(_at_work, target, seed, expired), _named)


@contextmanager
def _at_work(
    target: Target, seed: int, expired: Expired | None
) -> Iterator[Callable[[Unit], UnitResult]]:
    plans = Plans(target, seed)
    with StateRunner(target) as runner:
        yield lambda unit: work(runner, plans, unit, expired)


def _named(unit: Unit) -> str:
    return f"states {unit.low} to {unit.high - 1} of epoch {unit.epoch}"


def work(runner: StateRunner, plans: Plans, unit: Unit, expired: Expired | None) -> UnitResult:
    """Check a unit's states one after another."""
    kinds: Counter[str] = Counter()
    tally: Counter[tuple[str, str]] = Counter()
    bad: list[tuple[int, str, str]] = []
    steps = plans.stretch(runner.enter(unit.epoch), unit)
    for place, step in enumerate(steps, start=unit.low):
        if expired is not None and expired():
            break
        verdict = runner.check_held(step.versions)
        if verdict.kind == "broken":
            raise CheckerError(f"the checker cannot run: {verdict.message}")
        outcome = outcome_of(verdict)
        kinds[step.kind] += 1
        tally[verdict.kind, outcome] += 1
        if verdict.kind != "ok":
            bad.append((place, verdict.kind, outcome))
    return UnitResult(kinds.total(), dict(kinds), dict(tally), bad)
