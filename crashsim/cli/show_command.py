"""`crashsim show`: what an experiment comes to."""

from __future__ import annotations

from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, say_on_output


@click.command(cls=Printing)
@click.argument("experiment", type=options.FILE)
@options.overrides
@options.seed
def show(experiment: Path, overrides: tuple[str, ...], seed: int | None) -> None:
    """Print the effective configuration and where each value came from."""
    from crashsim.experiment.loader import load
    from crashsim.experiment.show import show as shown

    say_on_output(shown(load(experiment, overrides, seed)).rstrip("\n"))
