"""`crashsim replay`: a saved finding's state, made again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from crashsim.cli.options import FILE
from crashsim.cli.output import Printing, say_on_output
from crashsim.errors import UsageError
from crashsim.printable import echo


@click.command(cls=Printing)
@click.argument("file", metavar="FINDING", type=FILE)
@click.option("--image", "output", type=FILE, help="Write the state's image to a new file.")
@click.option("--mount", is_flag=True, help="A shell in the files of the image's file system.")
@click.option("--trust", is_flag=True, help="Run the checker that the file names without asking.")
def replay(file: Path, output: Path | None, mount: bool, trust: bool) -> None:
    """Rebuild the state of a saved finding and run its checker again.

    Exit code 1 if it still fails, 0 if it is fine now. A checker that nobody here has agreed to is
    shown and asked about first. With --image or --mount no checker runs.
    """
    from crashsim.engine.units import format_bytes
    from crashsim.explore.trust import agree
    from crashsim.runs.revisit import image_of, look_into, read_finding, replay_file

    if output is not None and mount:
        raise UsageError("either --image or --mount, not both")
    if output is not None:
        size = format_bytes(image_of(file, output))
        say_on_output(f"{output}: the image of {file}, {size}; its checker was not run")
        return
    if mount:
        told = look_into(file, _shell)
        if told:
            echo(told, err=True)
        return
    one = read_finding(file)
    agree([(file, one.spec)], trust)
    again = replay_file(one)
    found, expected = again.verdict, again.expected
    lines = [*one.saved.story, f"expected: {expected.kind} {expected.outcome}".rstrip()]
    lines.append(f"found:    {found.kind} {found.outcome}".rstrip())
    if found.message and found.kind != "ok":
        lines.append(found.message)
    say_on_output("\n".join(lines))
    sys.exit(0 if found.kind == "ok" else 1)


def _shell(folder: Path) -> None:
    shell = os.environ.get("SHELL", "/bin/sh")
    echo(f"{folder}: the files after recovery; leave the shell to end", err=True)
    subprocess.run([shell], cwd=folder, check=False)
