"""Units of work over several processes (`executor.py`), each with a runner of its own.

Contract: every unit with its answer, in order, whatever the number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from crashsim.checkers.scratch import sweep
from crashsim.errors import CheckerError
from crashsim.executor import Crew
from crashsim.explore.outcomes import outcome_of
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.states import Choices

Expired = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Unit:
    """States [low, low + len(states)) of an epoch's plan."""

    epoch: int
    low: int
    states: tuple[Choices, ...]


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What came of a unit. `done`: states that were checked before time ran out; `tally`: (kind,
    outcome) -> states; `bad`: (place in the plan, kind, outcome) of those that are not ok."""

    done: int
    tally: dict[tuple[str, str], int]
    bad: list[tuple[int, str, str]]


def answers(
    target: Target, units: Iterable[Unit], workers: int, expired: Expired | None
) -> Iterator[tuple[Unit, UnitResult]]:
    """Every unit with its answer, in order. CheckerError when the checker cannot run, WorkerDied
    when a unit's process was killed twice."""
    if workers <= 1:
        with _at_work(target, expired) as worker:
            for unit in units:
                yield unit, worker(unit)
        return
    try:
        with Crew(workers, partial(_at_work, target, expired), _named) as crew:
            yield from crew.work_off(units)
    finally:
        sweep()  # of workers that were killed


@contextmanager
def _at_work(target: Target, expired: Expired | None) -> Iterator[Callable[[Unit], UnitResult]]:
    with StateRunner(target) as runner:
        yield lambda unit: work(runner, unit, expired)


def _named(unit: Unit) -> str:
    return f"states {unit.low} to {unit.low + len(unit.states) - 1} of epoch {unit.epoch}"


def work(runner: StateRunner, unit: Unit, expired: Expired | None) -> UnitResult:
    """Check a unit's states one after another."""
    tally: Counter[tuple[str, str]] = Counter()
    bad: list[tuple[int, str, str]] = []
    done = 0
    runner.enter(unit.epoch)
    for place, choices in enumerate(unit.states, start=unit.low):
        if expired is not None and expired():
            break
        verdict = runner.check(choices)
        if verdict.kind == "broken":
            raise CheckerError(f"the checker cannot run: {verdict.message}")
        outcome = outcome_of(verdict)
        tally[verdict.kind, outcome] += 1
        done += 1
        if verdict.kind != "ok":
            bad.append((place, verdict.kind, outcome))
    return UnitResult(done, dict(tally), bad)
