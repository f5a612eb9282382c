"""From an experiment to what is explored, and from a saved finding back to it.

Contract: A saved finding names its files
relative to itself, so that it can be moved together with them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crashsim import __version__
from crashsim.checkers import Checker
from crashsim.checkers.builtin import RuleName, built_in
from crashsim.checkers.command import Command
from crashsim.checkers.filesystem import How
from crashsim.checkers.function import FilesFunction, Function
from crashsim.checkers.image_session import MEMORY_BYTES, TIME_LIMIT_S
from crashsim.checkers.retry import Confirmed
from crashsim.engine import units
from crashsim.engine.history import History
from crashsim.errors import UsageError
from crashsim.experiment.model import Experiment
from crashsim.explore.grouping import Cause
from crashsim.explore.saved import Saved, read_saved, saved, write_saved
from crashsim.explore.state_runner import Target
from crashsim.simulate.inputs import Inputs, make_inputs
from crashsim.simulate.stack import simulate
from crashsim.states import Rebuilt, Rules, Space

_RECORDING_FILES = ("log", "times", "image")


class CheckerSpec(BaseModel):
    """Which checker: exactly one of the first four. `folder`: where files that it names are."""

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
    def _one(self) -> CheckerSpec:
        given = [self.command, self.function, self.files_function, self.rule]
        if sum(one is not None for one in given) != 1:
            raise ValueError("one checker: a command, a function, a files_function or a rule")
        return self


@dataclass(frozen=True, slots=True)
class Session:
    """What is explored, and all that it was made of."""

    target: Target
    experiment: Experiment
    spec: CheckerSpec
    files: dict[str, str]
    notices: list[str]

    @property
    def identity(self) -> str:
        """The same for the same experiment, recordings, rules and checker alone."""
        space = self.target.space
        parts = [
            __version__,
            _dump(self.experiment),
            sorted(self.files.items()),
            self.target.device,
            [space.rules.host, space.rules.atom_bytes],
            self.spec.model_dump(mode="json"),
            self.target.rebuilt is not None,
        ]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Simulated(Protocol):
    """A run, as far as it is explored. `paranoid`: whatever the checker is given is held against
    the state made from the History alone; a difference is a ReplayMismatch."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def inputs(self) -> Inputs: ...
    @property
    def history(self) -> History: ...
    @property
    def paranoid(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Made:
    """One that was simulated here."""

    experiment: Experiment
    inputs: Inputs
    history: History
    paranoid: bool = False


def open_run(
    run: Simulated, spec: CheckerSpec, rules: Rules, device: str | None = None, code: bytes = b""
) -> Session:
    """One device's states of a run, and its checker; `code`: the checker's function, where it is
    given by value."""
    history, inputs = run.history, run.inputs
    number = _device([span.name for span in history.devices], device)
    of_device = (history, inputs.content, inputs.before[number], number, rules)
    rebuilt = Rebuilt(*of_device) if run.paranoid else None
    kind = run.experiment.resolved_devices()[number][1].kind
    maker = _Maker(spec, kind, history, inputs, number, run.paranoid, code)
    target = Target(history, number, Space(*of_device), maker, rebuilt)
    return Session(target, run.experiment, spec, inputs.files, inputs.notices)


def open_target(
    experiment: Experiment,
    spec: CheckerSpec,
    rules: Rules,
    device: str | None = None,
    files: dict[str, str] | None = None,
    paranoid: bool = False,
) -> Session:
    """The same of an experiment that is yet to be simulated. With `files` (path -> SHA-256) a
    recording that has changed is refused (UsageError)."""
    inputs = make_inputs(experiment, files)
    history = simulate(experiment, inputs.programs)
    return open_run(Made(experiment, inputs, history, paranoid), spec, rules, device)


def keep_finding(finding: Cause, opened: Session, path: Path) -> None:
    """Write a finding to a file. OutputError when it cannot be written."""
    here = os.path.dirname(os.path.abspath(path))

    def relative(name: str) -> str:
        return os.path.relpath(name, here)

    spec = opened.spec.model_dump(mode="json", exclude_defaults=True)
    experiment = _renamed(_dump(opened.experiment), relative)
    files = {relative(name): digest for name, digest in opened.files.items()}
    spec["folder"] = relative(opened.spec.folder)
    write_saved(saved(finding, opened.target, experiment, files, spec), path)


@dataclass(frozen=True, slots=True)
class FindingFile:
    """What a saved finding's file holds, its paths absolute. Nothing of it was run or opened."""

    path: Path
    saved: Saved
    experiment: Experiment
    spec: CheckerSpec
    files: dict[str, str]


def read_finding(path: Path) -> FindingFile:
    """UsageError when the file, or the experiment in it, is not what it should be."""
    one = read_saved(path)
    here = os.path.dirname(os.path.abspath(path))

    def absolute(name: str) -> str:
        return os.path.normpath(os.path.join(here, name))

    try:
        experiment = Experiment.model_validate(_renamed(one.experiment, absolute))
        spec = CheckerSpec.model_validate(one.checker)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {place}: {first['msg']}") from None
    spec = spec.model_copy(update={"folder": absolute(spec.folder)})
    files = {absolute(name): digest for name, digest in one.files.items()}
    return FindingFile(path, one, experiment, spec, files)


def open_finding(file: FindingFile) -> Session:
    """A saved finding's target, made again; its checker is not loaded yet. UsageError when a
    recording is not what it was."""
    one = file.saved
    return open_target(file.experiment, file.spec, one.rules, one.device, file.files)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the checker, in any process. `code`: the function itself, where it is given by
    value."""

    spec: CheckerSpec
    kind: str
    history: History
    inputs: Inputs
    device: int
    paranoid: bool
    code: bytes

    def __call__(self) -> Checker:
        spec = self.spec
        limits: _Limits = {
            "time_limit_s": spec.time_limit_s,
            "memory_bytes": spec.memory_bytes,
            "folder": Path(spec.folder),
        }
        how: _Files = {"how": spec.how, "paranoid": self.paranoid}
        if spec.command is not None:
            name = self.history.devices[self.device].name
            return Confirmed(Command(spec.command, device=name, **limits, **how))
        if spec.function is not None:
            return Confirmed(Function(spec.function, code=self.code, **limits))
        if spec.files_function is not None:
            return Confirmed(FilesFunction(spec.files_function, code=self.code, **limits, **how))
        if spec.rule is None:
            raise UsageError("no checker was named")
        return built_in(
            spec.rule,
            self.kind,
            self.history,
            self.inputs.programs,
            self.device,
            self.inputs.content,
            self.inputs.before[self.device],
            self.paranoid,
        )


class _Limits(TypedDict):
    time_limit_s: float
    memory_bytes: int
    folder: Path


class _Files(TypedDict):
    how: How
    paranoid: bool


def _device(names: list[str], wanted: str | None) -> int:
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    raise UsageError(f"which device? expected one of {', '.join(names)}, got {wanted or 'none'}")


def _dump(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(mode="json", exclude_unset=True)


def _renamed(tree: Any, name: Callable[[str], str]) -> Any:
    """The tree with the files of its recordings named anew."""
    if isinstance(tree, list):
        return [_renamed(one, name) for one in tree]
    if not isinstance(tree, dict):
        return tree
    recording = tree.get("kind") == "recording"
    return {
        key: name(value)
        if recording and key in _RECORDING_FILES and isinstance(value, str)
        else _renamed(value, name)
        for key, value in tree.items()
    }
