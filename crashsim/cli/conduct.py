"""`crashsim run`: one experiment or several, from file to reports.

Contract: an experiment's results are kept before the next one begins. The exit code says what
matters most: it ended early (interrupted, or a process was killed), something was not as expected,
not everything asked for was explored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crashsim import __version__
from crashsim.cli import interrupts
from crashsim.errors import WorkerDied
from crashsim.printable import echo

if TYPE_CHECKING:
    from crashsim.experiment.loader import Plan
    from crashsim.results import Results
    from crashsim.runs.judged import Explored
    from crashsim.runs.one import Run

INTERRUPTED = 130
NOT_COVERED = 4
_GO_ON = "run it again to go on where it was"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How to run; `command` is what the user typed."""

    workers: int
    paranoid: bool
    output: Path
    command: str
    plots: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """One experiment that has run; `folder` has its reports. `ended_early`: not all of it ran."""

    file: str
    results: Results
    folder: Path
    exit_code: int
    ended_early: bool


def run_experiment(plan: Plan, under: Conditions) -> Ran:
    """Simulate, explore, keep. KeyboardInterrupt, or WorkerDied, when there is nothing to keep."""
    from crashsim.checkers.scratch import sweep
    from crashsim.runs.archive import check_latest

    sweep()  # what explorations left that were killed
    check_latest(under.output, plan.experiment.name)
    finished, ended = _simulated(plan, under)
    explored: list[Explored | None] = [None] * len(finished)
    if not ended:
        explored, ended = _explored(plan, finished, under)
    results = _results(plan, finished, explored, bool(ended))
    with interrupts.unhurried() as pressed:
        results, final = _keep(results, finished, explored, under)
    if pressed:
        ended = INTERRUPTED
    return Ran(plan.file, results, final, ended or _verdict(results), bool(ended))


def _simulated(plan: Plan, under: Conditions) -> tuple[list[Run], int]:
    """What was simulated, and the exit code of what ended it early, 0 if nothing did."""
    from crashsim.report.progress import progress
    from crashsim.runs.one import run_cases

    finished: list[Run] = []
    try:
        with progress(len(plan.cases)) as advance:
            for one in run_cases(plan.cases, under.workers, under.paranoid, advance):
                finished.append(one)
    except (KeyboardInterrupt, WorkerDied) as error:
        if not finished:
            raise
        return finished, _told(error, "keeping what was done so far")
    return finished, 0


def _told(error: BaseException, then: str) -> int:
    """Say what ended it early; the exit code."""
    if isinstance(error, WorkerDied):
        echo(f"Error: {error}; {then}.", err=True)
        return error.exit_code
    echo(f"Interrupted: {then}.", err=True)
    return INTERRUPTED


def _explored(
    plan: Plan, finished: list[Run], under: Conditions
) -> tuple[list[Explored | None], int]:
    """The same of what was explored; None: nothing of that case."""
    from crashsim.report.progress import progress
    from crashsim.runs.judged import explore_case

    explored: list[Explored | None] = []
    ended = 0
    runs = under.output / plan.experiment.name
    for one in finished:
        wanted, found = one.experiment.explore, None
        if wanted is not None and not ended:
            try:
                with progress(wanted.states) as advance:
                    tell = _teller(advance, one.name)
                    found = explore_case(one, plan.file, under.workers, tell, output=runs)
                if found.found.result.interrupted:
                    raise KeyboardInterrupt
            except (KeyboardInterrupt, WorkerDied) as error:
                ended = _told(error, _GO_ON)
        explored.append(found)
    return explored, ended


def _teller(advance: Callable[[int, str], None], name: str) -> Callable[[int, int], None]:
    return lambda done, _planned: advance(done, name)


def _results(
    plan: Plan, finished: list[Run], explored: list[Explored | None], interrupted: bool
) -> Results:
    from crashsim.results import Results
    from crashsim.runs.judged import with_exploration

    return Results(
        experiment=plan.experiment.name,
        description=plan.experiment.description,
        version=__version__,
        seed=plan.experiment.seed,
        cases=[
            one.figures if found is None else with_exploration(one.figures, found)
            for one, found in zip(finished, explored, strict=True)
        ],
        interrupted=interrupted,
    )


def _keep(
    results: Results, finished: list[Run], explored: list[Explored | None], under: Conditions
) -> tuple[Results, Path]:
    """Write reports, Histories and findings; the results with the findings' files."""
    from crashsim.report.write import write_reports
    from crashsim.runs.archive import new_folder, write_history
    from crashsim.runs.judged import keep_findings

    suffix = "-interrupted" if results.interrupted else ""
    with new_folder(under.output, results.experiment, results.seed, suffix) as (folder, final):
        write_history(folder, finished)
        cases = [
            case
            if found is None
            else replace(case, findings=keep_findings(found, case.name, folder))
            for case, found in zip(results.cases, explored, strict=True)
        ]
        results = replace(results, cases=cases)
        write_reports(results, folder, under.command, under.plots)
    for one in explored:
        if one is not None and one.journal is not None and not one.found.result.interrupted:
            one.journal.unlink(missing_ok=True)
    return results, final


def _verdict(results: Results) -> int:
    if any(not e.holds for case in results.cases for e in case.expectations):
        return 1
    explorations = [case.exploration for case in results.cases if case.exploration is not None]
    return 0 if all(one.reached for one in explorations) else NOT_COVERED
