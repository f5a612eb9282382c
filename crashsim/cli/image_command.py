"""`crashsim image`: what a cut leaves of a device, as a file."""

from __future__ import annotations

from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, say_on_output


def _survivors(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value not in ("none", "all") and not (value.isdecimal() and int(value) < 1 << 64):
        raise click.BadParameter(f"expected none, all or a seed (a number), got {value!r}")
    return value


@click.command(cls=Printing)
@options.run_folder
@options.at
@options.domain
@click.option("-o", "--output", type=options.FILE, required=True, help="The new file.")
@click.option(
    "--survivors",
    default="none",
    show_default=True,
    callback=_survivors,
    help="Of what was under way: none, all, or a seed.",
)
@options.case
@click.option("--device", help="Which device, if there are several.")
def image(
    folder: Path,
    at_ns: int,
    domain: str,
    output: Path,
    survivors: str,
    case_name: str | None,
    device: str | None,
) -> None:
    """Write the image of a device that a cut leaves.

    It holds what is certain to survive, or with --survivors some of what was still in flight or in
    the disk's cache.
    """
    from crashsim.engine.units import format_bytes
    from crashsim.runs.archive import load_run

    stored = load_run(folder, case_name).write_image(output, at_ns, survivors, domain, device)
    say_on_output(f"{output}: {format_bytes(stored)} of the run survive on it.")
