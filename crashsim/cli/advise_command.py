"""`crashsim advise`: the cheapest change that ends a loss, and what shows it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, leave, say_as_json, say_on_output
from crashsim.errors import UsageError


@click.command(cls=Printing)
@click.argument("experiment", type=options.FILE)
@options.overrides
@click.option("--case", "case_name", help="Which case; default: all of them.")
@options.as_json
def advise(
    experiment: Path, overrides: tuple[str, ...], case_name: str | None, as_json: bool
) -> None:
    """Say the cheapest change that ends a loss, and what shows it.

    Every change that is named was run, and explored where the experiment explores. Exit code 1 if
    something is lost and nothing that was tried ends it.
    """
    from crashsim.advise.changes import Typed
    from crashsim.advise.search import advise as advised
    from crashsim.advise.sentences import lines, to_json
    from crashsim.experiment.loader import load

    plan = load(experiment, overrides, None)
    cases = [case for case in plan.cases if case_name in (None, case.name)]
    if not cases:
        raise UsageError(f"no case {case_name!r}: {', '.join(case.name for case in plan.cases)}")
    typed = Typed(str(experiment), overrides)
    found = {}
    for case in cases:
        one = found[case.name] = advised(case, typed, os.cpu_count() or 1)
        if not as_json:
            say_on_output("\n".join(lines(case.name, one)))
    if as_json:
        say_as_json({name: to_json(one) for name, one in found.items()})
    leave(one.exit_code for one in found.values())
