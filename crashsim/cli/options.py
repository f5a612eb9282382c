"""Options that several commands have, and what they are read as."""

from __future__ import annotations

from pathlib import Path

import click

from crashsim.errors import UnitError
from crashsim.results import Domain

FILE = click.Path(path_type=Path)


def _instant(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from crashsim.engine.units import parse_duration

    try:
        return parse_duration(value)
    except UnitError as error:
        raise click.BadParameter(str(error)) from None


overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one value."
)
seed = click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="Another seed.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
run_folder = click.argument("folder", metavar="RUN", type=FILE)
at = click.option("--at", "at_ns", required=True, callback=_instant, help="Instant, such as 12.3s.")
domain = click.option(
    "--domain",
    type=click.Choice([str(one) for one in Domain]),
    default="power-cut",
    show_default=True,
)
case = click.option("--case", "case_name", help="Which case, if the run has several.")
