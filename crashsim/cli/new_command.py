"""`crashsim new`: an experiment to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from crashsim.cli.options import FILE
from crashsim.cli.output import Printing, say_on_output
from crashsim.errors import OutputError


@click.command(cls=Printing)
@click.argument("file", type=FILE, required=False)
def new(file: Path | None) -> None:
    """Write a commented experiment to begin with (to standard output without FILE)."""
    from crashsim.experiment.shipped import starter

    text = starter()
    if file is None:
        say_on_output(text.rstrip("\n"))
        return
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise OutputError(f"{file}: exists already; nothing was written") from None
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error.strerror or error}") from None
    say_on_output(f"{file}: written. Now: crashsim run {shlex.quote(str(file))}")
