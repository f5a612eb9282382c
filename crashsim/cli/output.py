"""The standard streams of a command: results on output, whoever reads them or not.

Contract: a reader that has gone (`| head`) changes no exit code; output that cannot be written is
an `OutputError`. No file that a command opens takes the place of a stream that was closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from crashsim.errors import OutputError
from crashsim.printable import echo


@contextmanager
def printing() -> Iterator[None]:
    """What is printed within is written, or nobody wants it; another failure is said."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich makes the second out of the first
        _discard_output()
    except OSError as error:
        _discard_output()
        raise OutputError(f"standard output: {error.strerror or error}") from None


def say_on_output(text: str) -> None:
    """Lines of a result. OutputError when they cannot be written."""
    with printing():
        echo(text)


def say_as_json(document: Any) -> None:
    """A result as JSON."""
    import json

    say_on_output(json.dumps(document, indent=2))


def leave(codes: Iterable[int]) -> NoReturn:
    """End the command: what was found counts more than what was not seen."""
    every = [*codes]
    sys.exit(1 if 1 in every else max(every))


def open_closed() -> None:
    """/dev/null in place of each standard stream that whoever started us has closed: a checker
    would print into the file that came to have its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


class Printing(click.Command):
    """What reading the arguments prints (`--help`, `--version`) may fail as results may."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        with printing():
            return super().parse_args(context, arguments)
        raise click.exceptions.Exit(0)


class Commands(Printing, click.Group):
    """A group of such."""


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
