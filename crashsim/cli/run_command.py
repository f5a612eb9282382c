"""`crashsim run`: what is lost, of one experiment or several."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, leave, printing
from crashsim.errors import UsageError
from crashsim.printable import echo

if TYPE_CHECKING:
    from crashsim.cli.conduct import Ran
    from crashsim.experiment.loader import Plan


@click.command(cls=Printing)
@click.argument("experiments", metavar="EXPERIMENT...", nargs=-1, required=True, type=options.FILE)
@options.overrides
@options.seed
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of a table.")
@click.option("--paranoid", is_flag=True, help="Compute every loss and state twice.")
@click.option("--no-plots", is_flag=True, help="Draw no pictures.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one a core.")
@click.option(
    "--output", type=options.FILE, default=Path("runs"), show_default=True, help="Where runs go."
)
@click.option(
    "--findings", type=options.FILE, help="Replay the saved findings of this folder first."
)
@click.option("--trust", is_flag=True, help="Run the checkers of --findings without asking.")
@click.pass_obj
def run(
    typed: list[str],
    experiments: tuple[Path, ...],
    overrides: tuple[str, ...],
    seed: int | None,
    as_json: bool,
    paranoid: bool,
    no_plots: bool,
    workers: int | None,
    output: Path,
    findings: Path | None,
    trust: bool,
) -> None:
    """Simulate experiments, find what is lost, and report."""
    from crashsim.cli.conduct import Conditions, run_experiment
    from crashsim.experiment.loader import load
    from crashsim.report.causes import print_outcomes

    if as_json and len(experiments) > 1:
        raise UsageError("--json prints one document: name one experiment")
    plans = [load(experiment, overrides, seed) for experiment in experiments]
    codes = [0 if findings is None else _replay_all(findings, trust, plans)]
    command = shlex.join(["crashsim", *typed])
    under = Conditions(workers or os.cpu_count() or 1, paranoid, output, command, not no_plots)
    done: list[Ran] = []
    for plan in plans:
        ran = run_experiment(plan, under)
        with printing():
            _print(ran, as_json, command)
        if ran.ended_early:
            sys.exit(ran.exit_code)
        done.append(ran)
    if not as_json:
        with printing():
            print_outcomes([ran.results for ran in done])
    leave([*codes, *(ran.exit_code for ran in done)])


def _replay_all(folder: Path, trust: bool, plans: list[Plan]) -> int:
    """1 if a saved finding still fails. What these experiments name anyhow needs no agreement."""
    from crashsim.explore.trust import agree
    from crashsim.runs.judged import named_checker
    from crashsim.runs.revisit import read_finding, replay_file, saved_files

    files = [read_finding(path) for path in saved_files(folder)]
    if not files:
        echo(f"{folder}: no saved findings yet, so none to replay", err=True)
    cases = [(case.experiment.explore, plan.file) for plan in plans for case in plan.cases]
    ours = [named_checker(wanted, file) for wanted, file in cases if wanted is not None]
    agree([(file.path, file.spec) for file in files], trust, ours)
    code = 0
    for file in files:
        found = replay_file(file).verdict
        if found.kind == "ok":
            echo(f"{file.path}: ok now", err=True)
            continue
        code = 1
        said = f"still fails: {found.outcome or found.message or found.kind}"
        echo("\n  ".join([f"{file.path}: {said}", *file.saved.story]), err=True)
    return code


def _print(ran: Ran, as_json: bool, command: str) -> None:
    from crashsim.report.causes import print_explored
    from crashsim.report.github import append_step_summary, error_annotations, lines_of
    from crashsim.report.markdown import summary
    from crashsim.report.terminal import print_results
    from crashsim.report.words import expectation_line, failed
    from crashsim.report.write import json_text

    results = ran.results
    annotate = os.environ.get("GITHUB_ACTIONS") == "true"
    if annotate:
        append_step_summary(summary(results), os.environ)
    if as_json:
        echo(json_text(results), nl=False)
        for case in results.cases:
            for text in [*(expectation_line(case, one) for one in failed(case)), *case.notices]:
                echo(f"{case.name}: {text}", err=True)
    else:
        print_results(results)
        print_explored(results, str(ran.folder))
    if annotate:
        for line in error_annotations(results, ran.file, lines_of(ran.file)):
            echo(line, err=as_json)
    if not as_json:
        if any(failed(case) for case in results.cases):
            echo(f"Again: {command}")
        echo(f"Report: {ran.folder / 'report.html'}")
