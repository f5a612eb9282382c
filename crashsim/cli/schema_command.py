"""`crashsim schema`: what editors check experiments by."""

from __future__ import annotations

import click

from crashsim.cli.output import Printing, say_as_json


@click.command(cls=Printing)
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from crashsim.experiment.schema import json_schema

    say_as_json(json_schema())
