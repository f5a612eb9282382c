"""Running the cases of an experiment, over several processes.

Contract: results do not depend on the number of workers; cases come in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from crashsim.executor import Job, executor
from crashsim.experiment.loader import Case
from crashsim.runs.one import Run


def run_case(case: Case, paranoid: bool = False) -> Run:
    """Simulate one case and measure it."""
    run = Run(case, paranoid)
    _ = run.figures
    return run


def run_cases(
    cases: tuple[Case, ...], workers: int, paranoid: bool, advance: Callable[[int, str], None]
) -> Iterator[Run]:
    """Run all cases, in order; `advance(done, now)` tells how far it is.

    Interrupted, or with a case whose process was killed twice (WorkerDied), it gives what is
    finished before it raises; no process is left."""

    def run(number: int) -> Run:
        return run_case(cases[number], paranoid)

    def waiting(number: int, done: int) -> None:
        advance(done, cases[number].name)

    job = Job(lambda: nullcontext(run), lambda number: cases[number].name, waiting)
    numbers = range(len(cases))
    for _, one in executor(min(workers, len(cases))).run(job, numbers):
        yield one
