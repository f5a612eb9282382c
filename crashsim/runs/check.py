"""Checkers as a caller names them.

Contract: each runs in processes of its own, under limits of time and memory; it is given a copy, or
may only read. `docs/exploring.md` says what its answers mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crashsim.experiment.units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from crashsim.explore.wiring import CheckerSpec


@dataclass(frozen=True, slots=True)
class Command:
    """A program. `{image}`, `{device}`, `{mnt}` and `{acks}` in `line` become paths; exit code 0 is
    fine. `folder`: where the files that it names are."""

    line: str
    time_limit: str = "10s"
    memory: str = "1GiB"
    folder: str | Path = "."


@dataclass(frozen=True, slots=True)
class Files:
    """A function by name (`module:function`, `file.py:function`), called with a folder of the files
    of the file system in the image, which it may write to, and the acknowledgements."""

    function: str
    time_limit: str = "10s"
    memory: str = "1GiB"
    folder: str | Path = "."


@dataclass(frozen=True, slots=True)
class Function:
    """A function by name, called with the image and the acknowledgements."""

    function: str
    time_limit: str = "10s"
    memory: str = "1GiB"
    folder: str | Path = "."


Check = str | Function | Files | Command


def specified(check: Check) -> CheckerSpec:
    """As a saved finding names it. UnitError when a limit is none."""
    from crashsim.explore.wiring import CheckerSpec

    one = Function(check) if isinstance(check, str) else check
    return CheckerSpec(
        command=one.line if isinstance(one, Command) else None,
        function=one.function if isinstance(one, Function) else None,
        files_function=one.function if isinstance(one, Files) else None,
        time_limit_s=parse_duration(one.time_limit) / 1e9,
        memory_bytes=parse_bytes(one.memory),
        folder=str(Path(one.folder).resolve()),
    )
