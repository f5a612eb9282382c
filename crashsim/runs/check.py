"""Checkers as a caller names them.

Contract: each runs in processes of its own, under limits of time and memory; it is given a copy, or
may only read. `docs/exploring.md` says what its answers mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crashsim.checkers import Acks
from crashsim.checkers.called import by_value, name_of
from crashsim.engine.units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from crashsim.explore.session import CheckerSpec


Judge = Callable[[Any, Acks], object]  # the image, or a folder, and the acknowledgements


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
    """A function, or its name (`module:function`, `file.py:function`), called with a folder of the
    files of the file system in the image, which it may write to, and the acknowledgements."""

    function: str | Judge
    time_limit: str = "10s"
    memory: str = "1GiB"
    folder: str | Path = "."


@dataclass(frozen=True, slots=True)
class Function:
    """A function, or its name, called with the image and the acknowledgements. It runs elsewhere: a
    lambda or a function of a notebook is sent there with what it refers to, and what it changes
    stays there."""

    function: str | Judge
    time_limit: str = "10s"
    memory: str = "1GiB"
    folder: str | Path = "."


Check = str | Judge | Function | Files | Command


def specified(check: Check) -> tuple[CheckerSpec, bytes]:
    """As a saved finding names it, and the function itself where its name does not say enough.
    UnitError when a limit is none, UsageError when a function cannot be sent."""
    from crashsim.explore.session import CheckerSpec

    one = check if isinstance(check, Function | Files | Command) else Function(check)
    name, code = (one.line, b"") if isinstance(one, Command) else _named(one.function)
    spec = CheckerSpec(
        command=name if isinstance(one, Command) else None,
        function=name if isinstance(one, Function) else None,
        files_function=name if isinstance(one, Files) else None,
        time_limit_s=parse_duration(one.time_limit) / 1e9,
        memory_bytes=parse_bytes(one.memory),
        folder=str(Path(one.folder).resolve()),
    )
    return spec, code


def _named(function: str | Judge) -> tuple[str, bytes]:
    return (function, b"") if isinstance(function, str) else (name_of(function), by_value(function))
