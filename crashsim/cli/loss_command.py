"""`crashsim loss`: what a cut at one instant takes."""

from __future__ import annotations

from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, say_on_output


@click.command(cls=Printing)
@options.run_folder
@options.at
@options.domain
@options.case
def loss(folder: Path, at_ns: int, domain: str, case_name: str | None) -> None:
    """Tell in words what a cut at one instant takes."""
    from crashsim.runs.archive import load_run

    say_on_output(load_run(folder, case_name).why(at_ns, domain))
