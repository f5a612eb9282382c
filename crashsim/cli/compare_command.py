"""`crashsim compare`: two runs, and whether the new one is worse."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from crashsim.cli.options import FILE
from crashsim.cli.output import Printing, printing


@click.command(cls=Printing)
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="METRIC=AMOUNT",
    help="What is no regression, such as at_risk_p99=5% or recovery_point_max=100ms.",
)
def compare(old: Path, new: Path, tolerances: tuple[str, ...]) -> None:
    """Compare two runs (folders or results.json files); exit 1 if the new one is worse."""
    from crashsim.report import compare as comparing
    from crashsim.report.github import append_step_summary
    from crashsim.report.markdown import comparison_summary
    from crashsim.report.readback import read_document
    from crashsim.report.terminal import print_comparison

    before, after = (
        read_document(path / "results.json" if path.is_dir() else path) for path in (old, new)
    )
    found = comparing.compare(before, after, comparing.parse_tolerances(list(tolerances)))
    append_step_summary(comparison_summary(found), os.environ)
    with printing():
        print_comparison(found)
    sys.exit(1 if found.regressed else 0)
