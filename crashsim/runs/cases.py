"""Running the cases of an experiment, over several processes.

Contract: results do not depend on the number of workers; cases come in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from crashsim.errors import WorkerDied
from crashsim.executor import Crew
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
    """Run all cases, in order, on several processes; `advance(done, now)` tells how far it is.

    Interrupted, or with a case whose process was killed twice (WorkerDied), it gives what is
    finished before it raises; no process is left."""
    if workers <= 1 or len(cases) == 1:
        for number, case in enumerate(cases):
            advance(number, case.name)
            yield run_case(case, paranoid)
        return

    def run(case: Case) -> Run:
        return run_case(case, paranoid)

    def wait_for(case: Case, done: int) -> None:
        advance(done, case.name)

    with Crew(min(workers, len(cases)), lambda: nullcontext(run), lambda case: case.name) as crew:
        try:
            for _, one in crew.work_off(cases, wait_for):
                yield one
        except (KeyboardInterrupt, WorkerDied):
            yield from (one for _, one in crew.left())
            raise
