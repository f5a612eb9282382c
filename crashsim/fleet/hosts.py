"""The fleet's file: which hosts there are, what fails how often, and what might be changed.

Contract: `read_fleet` gives a `Fleet` or raises one ExperimentError with every mistake, at its line
and column. Experiments are named relative to the file. Nothing is simulated here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from crashsim.engine.units import parse_ratio, shown
from crashsim.errors import ExperimentError, Problem, UnitError
from crashsim.experiment.document import Node, find, plain, read

LARGEST_FILE_BYTES = 1 << 20
MOST_A_YEAR = 100_000


def _share(value: Any) -> float:
    """`90%`, `9/10`, or a number from 0 to 1."""
    try:
        if isinstance(value, str):
            ratio = f"{value[:-1]}/100" if value.endswith("%") else value
            over, under = parse_ratio(ratio)
            return over / under
        if not isinstance(value, bool) and 0 <= float(value) <= 1:
            return float(value)
    except (UnitError, TypeError):
        pass
    raise ValueError(f"expected a share from 0% to 100%, such as 90%, got {shown(value)}")


def _rate(value: Any) -> float:
    number = -1.0 if isinstance(value, bool | str) else float(value)
    if not 0 <= number <= MOST_A_YEAR:
        raise ValueError(f"expected how often a year, from 0 to {MOST_A_YEAR}")
    return number


Share = Annotated[float, BeforeValidator(_share)]
Rate = Annotated[float, BeforeValidator(_rate)]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PerYear(_Block):
    """How often a host fails, in a year, on average."""

    power_cuts: Rate = 0.0
    host_crashes: Rate = 0.0
    vmm_kills: Rate = 0.0
    disk_deaths: Rate = 0.0


class Hosts(_Block):
    """Hosts of one kind."""

    name: str = Field(min_length=1, max_length=60)
    experiment: str = Field(min_length=1)  # what a host's guests do
    case: str | None = None  # of its sweep
    count: int = Field(ge=1, le=10_000_000)
    per_year: PerYear = PerYear()
    ups: Share = 0.0  # of the power cuts that never reach the host
    cut_together: int = Field(default=1, ge=1, le=100_000)  # hosts that one power cut takes
    change: dict[str, str | int | bool] = {}  # as `--set`: what might be changed


class Fleet(_Block):
    """A fleet; `years`: how many are drawn for the spread."""

    description: str = ""
    hosts: list[Hosts] = Field(min_length=1, max_length=100)
    years: int = Field(default=10_000, ge=100, le=1_000_000)
    seed: int = Field(default=1, ge=0, lt=1 << 64)


def read_fleet(path: Path) -> Fleet:
    """ExperimentError when the file is no fleet, or cannot be read."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            text = stream.read(LARGEST_FILE_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ExperimentError([Problem(file, 0, 0, f"cannot be read: {reason}")]) from None
    if len(text) > LARGEST_FILE_BYTES:
        raise ExperimentError([Problem(file, 0, 0, "is larger than 1 MiB: not a fleet")])
    tree, mistakes = read(text, file)
    problems = [Problem(file, m.place.line, m.place.column, m.message) for m in mistakes]
    if tree is None:
        raise ExperimentError(problems)
    try:
        fleet = Fleet.model_validate(_numbers(plain(tree)))
    except ValidationError as error:
        problems += _problems(error, tree, file)
    if problems:
        raise ExperimentError(sorted(problems, key=lambda p: (p.line, p.column)))
    names = [one.name for one in fleet.hosts]
    for number, name in enumerate(names):
        if name in names[:number]:
            message = f"two kinds of hosts are called {shown(name)}"
            raise ExperimentError([_at(tree, ("hosts", number, "name"), file, message)])
    return fleet


def _numbers(tree: Any) -> Any:
    """Decimals as floats: a rate need not be exact."""
    if isinstance(tree, Mapping):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    return tree if isinstance(tree, bool | int | str) or tree is None else float(tree)


def _problems(error: ValidationError, tree: Node, file: str) -> Iterator[Problem]:
    for entry in error.errors():
        path, message = tuple(entry["loc"]), entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            name = str(path[-1])
            near = difflib.get_close_matches(name, [*Fleet.model_fields, *_KEYS], 1)
            message = f"unknown key {shown(name)}" + (f": {near[0]}?" if near else "")
        elif entry["type"] == "missing":
            path, message = path[:-1], f"missing key {shown(str(path[-1]))}"
        yield _at(tree, path, file, message)


_KEYS = [*Hosts.model_fields, *PerYear.model_fields]


def _at(tree: Node, path: tuple[str | int, ...], file: str, message: str) -> Problem:
    while path and find(tree, path) is None:
        path = path[:-1]
    node = find(tree, path) or tree
    return Problem(file, node.key.line, node.key.column, message)
