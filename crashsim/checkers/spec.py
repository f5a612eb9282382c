"""Checkers as they are named: by who calls crashsim, by an experiment, by a saved finding.

Contract: one class for each kind, the same for all of these. Each checker runs in processes of its
own, under limits of time and memory; it is given a copy, or may only read. `docs/exploring.md` says
what its answers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crashsim.checkers.builtin import RuleName
from crashsim.checkers.by_command import CommandChecker
from crashsim.checkers.by_function import FilesChecker, FunctionChecker
from crashsim.checkers.called import Judge, by_value, name_of
from crashsim.checkers.filesystem import How
from crashsim.checkers.image_session import DEVICE, MEMORY_BYTES, TIME_LIMIT_S
from crashsim.engine import units
from crashsim.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Limited:
    """`time_limit`: seconds, or a text such as `10s`; `memory`: bytes, or such as `1GiB`; `folder`:
    where files that the checker names are; `how`: the way in which a file system's files are made.
    UnitError, UsageError for limits that are none."""

    _: KW_ONLY
    time_limit: str | float = TIME_LIMIT_S
    memory: str | int = MEMORY_BYTES
    folder: str | Path = "."
    how: How = "auto"

    def __post_init__(self) -> None:
        if not (0 < self.time_limit_s <= units.LARGEST / 1e9 and self.memory_bytes > 0):
            raise UsageError("a checker has some time and some memory")

    @property
    def time_limit_s(self) -> float:
        given = self.time_limit
        return units.parse_duration(given) / 1e9 if isinstance(given, str) else float(given)

    @property
    def memory_bytes(self) -> int:
        given = self.memory
        return units.parse_bytes(given) if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class Command(_Limited):
    """A program. `{image}`, `{device}`, `{mnt}` and `{acks}` in `line` become paths; exit code 0 is
    fine."""

    line: str

    def checker(self, device: str = DEVICE, paranoid: bool = False) -> CommandChecker:
        """Itself, for images of the device that the guest calls so."""
        return CommandChecker(self, device, paranoid)


@dataclass(frozen=True, slots=True)
class _Called(_Limited):
    function: str | Judge

    @property
    def name(self) -> str:
        """`module:function`, or `file.py:function`."""
        return self.function if isinstance(self.function, str) else name_of(self.function)

    @property
    def code(self) -> bytes:
        """The function by value, nothing if its name says enough. UsageError when it cannot be
        sent."""
        return b"" if isinstance(self.function, str) else by_value(self.function)


@dataclass(frozen=True, slots=True)
class Function(_Called):
    """A function, or its name, called with the image and the acknowledgements. It runs elsewhere: a
    lambda or a function of a notebook is sent there with what it refers to, and what it changes
    stays there."""

    def checker(self, device: str = DEVICE, paranoid: bool = False) -> FunctionChecker:
        """Itself."""
        return FunctionChecker(self)


@dataclass(frozen=True, slots=True)
class Files(_Called):
    """A function, or its name (`module:function`, `file.py:function`), called with a folder of the
    files of the file system in the image, which it may write to, and the acknowledgements."""

    def checker(self, device: str = DEVICE, paranoid: bool = False) -> FilesChecker:
        """Itself."""
        return FilesChecker(self, paranoid)


@dataclass(frozen=True, slots=True)
class Rule(_Limited):
    """What crashsim knows of a synthetic workload (`builtin.py`). It has no limits."""

    rule: RuleName


Spec = Command | Function | Files | Rule


def spec_of(check: str | Judge | Spec) -> Spec:
    """A checker as a caller gives it, its folder absolute."""
    one = check if isinstance(check, Spec) else Function(check)
    return replace(one, folder=str(Path(one.folder).resolve()))


KINDS: dict[str, Any] = {
    "command": Command,
    "function": Function,
    "files_function": Files,
    "rule": Rule,
}


def words(spec: Spec) -> tuple[str, str]:
    """Its kind, as experiments and saved findings call it, and its words."""
    kind = next(name for name, one in KINDS.items() if isinstance(spec, one))
    match spec:
        case Command():
            return kind, spec.line
        case Rule():
            return kind, spec.rule
    return kind, spec.name


class _Written(BaseModel):
    """A checker in a file: one of the first four."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    command: str | None = None
    function: str | None = None
    files_function: str | None = None
    rule: RuleName | None = None
    time_limit_s: float = Field(default=TIME_LIMIT_S, gt=0, le=units.LARGEST / 1e9)
    memory_bytes: int = Field(default=MEMORY_BYTES, gt=0, le=units.LARGEST)
    how: How = "auto"
    folder: str = "."

    @model_validator(mode="after")
    def _one(self) -> _Written:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError("one checker: a command, a function, a files_function or a rule")
        return self


def to_json(spec: Spec, folder: str | None = None) -> dict[str, Any]:
    """As it is written to a file; `folder`: its folder as it is called there."""
    given: dict[str, Any] = dict([words(spec)])
    given |= {"time_limit_s": spec.time_limit_s, "memory_bytes": spec.memory_bytes}
    written = _Written(**given, how=spec.how).model_dump(mode="json", exclude_defaults=True)
    return {**written, "folder": str(spec.folder) if folder is None else folder}


def from_json(written: Mapping[str, Any]) -> Spec:
    """The inverse. ValidationError when it is none."""
    one = _Written.model_validate(written)
    kind, said = next((k, getattr(one, k)) for k in KINDS if getattr(one, k) is not None)
    limits: dict[str, Any] = {"time_limit": one.time_limit_s, "memory": one.memory_bytes}
    spec: Spec = KINDS[kind](said, **limits, folder=one.folder, how=one.how)
    return spec
