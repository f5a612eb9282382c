"""`crashsim run`: one experiment or several, from file to reports.

Contract: an experiment's results are kept before the next one begins. The exit code says what
matters most: it was interrupted, something was not as expected, not everything asked for was
explored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crashsim import __version__
from crashsim.printable import echo

if TYPE_CHECKING:
    from crashsim.experiment.loader import Plan
    from crashsim.exploring import Explored
    from crashsim.results import CaseResult, Results
    from crashsim.runs import Finished

INTERRUPTED = 130
NOT_COVERED = 4


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; `command` is what the user typed."""

    workers: int
    paranoid: bool
    output: Path
    command: str


@dataclass(frozen=True, slots=True)
class Ran:
    """One experiment that has run; `folder` has its reports."""

    file: str
    results: Results
    folder: Path
    exit_code: int


def run_experiment(plan: Plan, options: Options) -> Ran:
    """Simulate, explore, keep. KeyboardInterrupt when there is nothing to keep."""
    finished, interrupted = _simulated(plan, options)
    cases = [one.result for one in finished]
    explored: list[Explored | None] = [None] * len(cases)
    if not interrupted:
        cases, explored, interrupted = _explored(plan, finished, options)
    results = _results(plan, cases, interrupted)
    with _unhurried() as pressed:
        results, final = _keep(results, finished, explored, options)
    interrupted = interrupted or bool(pressed)
    return Ran(plan.file, results, final, _verdict(results, interrupted))


def _simulated(plan: Plan, options: Options) -> tuple[list[Finished], bool]:
    from crashsim.report.progress import progress
    from crashsim.runs import run_cases

    finished: list[Finished] = []
    try:
        with progress(len(plan.cases)) as advance:
            for one in run_cases(plan.cases, options.workers, options.paranoid, advance):
                finished.append(one)
    except KeyboardInterrupt:
        if not finished:
            raise
        echo("Interrupted: keeping what was done so far.", err=True)
        return finished, True
    return finished, False


def _explored(
    plan: Plan, finished: list[Finished], options: Options
) -> tuple[list[CaseResult], list[Explored | None], bool]:
    from crashsim.exploring import explore_case, with_exploration
    from crashsim.report.progress import progress

    cases: list[CaseResult] = []
    explored: list[Explored | None] = []
    interrupted = False
    runs = options.output / plan.experiment.name
    for one in finished:
        wanted = one.case.experiment.explore
        if wanted is None or interrupted:
            cases.append(one.result)
            explored.append(None)
            continue
        with progress(wanted.states) as advance:
            found = explore_case(
                one.case,
                plan.file,
                runs,
                options.workers,
                _teller(advance, one.case.name),
                options.paranoid,
            )
        cases.append(with_exploration(one.result, found, one.case.experiment.expect))
        explored.append(found)
        interrupted = found.found.interrupted
    if interrupted:
        echo("Interrupted: run it again to go on where it was.", err=True)
    return cases, explored, interrupted


def _teller(advance: Callable[[int, str], None], name: str) -> Callable[[int, int], None]:
    return lambda done, _planned: advance(done, name)


def _results(plan: Plan, cases: list[CaseResult], interrupted: bool) -> Results:
    from crashsim.results import Results

    return Results(
        experiment=plan.experiment.name,
        description=plan.experiment.description,
        version=__version__,
        seed=plan.experiment.seed,
        cases=cases,
        interrupted=interrupted,
    )


@contextmanager
def _unhurried() -> Iterator[list[int]]:
    """Ctrl-C waits until what is done is kept; a second one does not. Yields those that came."""
    pressed: list[int] = []

    def later(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, later)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _keep(
    results: Results,
    finished: list[Finished],
    explored: list[Explored | None],
    options: Options,
) -> tuple[Results, Path]:
    from crashsim.report.write import write_reports
    from crashsim.runs import new_folder, write_history

    suffix = "-interrupted" if results.interrupted else ""
    with new_folder(options.output, results.experiment, results.seed, suffix) as (folder, final):
        write_history(folder, finished)
        cases = [
            _with_findings(case, found, folder)
            for case, found in zip(results.cases, explored, strict=True)
        ]
        results = replace(results, cases=cases)
        write_reports(results, folder, options.command)
    for one in explored:
        if one is not None and not one.found.interrupted:
            one.journal.unlink(missing_ok=True)
    return results, final


def _with_findings(case: CaseResult, explored: Explored | None, folder: Path) -> CaseResult:
    if explored is None:
        return case
    from crashsim.exploring import keep_findings

    return replace(case, findings=keep_findings(explored, case.name, folder))


def _verdict(results: Results, interrupted: bool) -> int:
    if interrupted:
        return INTERRUPTED
    if any(not e.holds for case in results.cases for e in case.expectations):
        return 1
    explorations = [case.exploration for case in results.cases if case.exploration is not None]
    return 0 if all(one["reached"] for one in explorations) else NOT_COVERED
