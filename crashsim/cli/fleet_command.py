"""`crashsim fleet`: what failures take from many hosts in a year."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, printing, say_as_json, say_on_output


@click.command(cls=Printing)
@click.argument("file", metavar="FLEET", type=options.FILE)
@options.as_json
@click.option("--picture", type=options.FILE, help="A new SVG or PNG of what is lost.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one a core.")
def fleet(file: Path, as_json: bool, picture: Path | None, workers: int | None) -> None:
    """Say what failures take from a fleet of hosts in a year.

    FLEET names experiments, how many hosts do what each of them does, and how often a host fails;
    what one changed setting would save stands beside it.
    """
    from crashsim.fleet.annual import lost_in_a_year, may_corrupt
    from crashsim.fleet.display import draw_fleet, print_fleet, to_json
    from crashsim.fleet.hosts import read_fleet
    from crashsim.report.progress import progress
    from crashsim.runs.new_file import new_file

    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise click.BadParameter("expected a name that ends in .svg or .png", param_hint="picture")
    wanted = read_fleet(file)
    checked = may_corrupt(workers or os.cpu_count() or 1)
    with progress(len(wanted.hosts)) as advance:
        found = lost_in_a_year(wanted, file.parent, checked, advance)
    if picture is not None:
        svg, png = draw_fleet(found)
        with new_file(picture) as working:
            working.write_bytes(svg if picture.suffix == ".svg" else png)
    if as_json:
        say_as_json(to_json(found))
        return
    with printing():
        print_fleet(found)
    if picture is not None:
        say_on_output(f"Picture: {picture}")
