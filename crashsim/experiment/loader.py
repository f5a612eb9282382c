"""From a file to a plan: the experiment and its cases, checked.

Contract: `load` either gives a `Plan` or raises one `ExperimentError` with every mistake that could
be found, in the order of the file. Nothing else is raised, whatever the file holds. It reads the
file and looks whether recordings exist; it writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from re import sub

from crashsim.engine.units import shown
from crashsim.errors import ExperimentError, NoSuchPath, Problem
from crashsim.experiment.command_lines import readers, with_machines
from crashsim.experiment.document import Mistake, Node, Place, find, read, walk, with_value
from crashsim.experiment.mistakes import validate
from crashsim.experiment.model import Experiment
from crashsim.experiment.shipped import file_of
from crashsim.experiment.sweep import RawCase, expand, with_case_expectations

LARGEST_FILE_BYTES = 1 << 20
NOTHING = Node(None, Place(""), Place(""))
RECORDING_FILES = ("log", "times", "image")


@dataclass(frozen=True, slots=True)
class Case:
    """One run: a complete experiment without a sweep; `parameters` is what it set, as written."""

    name: str
    experiment: Experiment
    parameters: dict[str, str]
    tree: Node = field(default=NOTHING, repr=False, compare=False)  # of its file, if it has one


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment file, ready to run; `cases` is never empty.

    `experiment` is the file with its sweep not applied, or its first case if that is incomplete.
    """

    file: str
    experiment: Experiment
    cases: tuple[Case, ...]


def load(path: str | FilePath, overrides: Sequence[str] = (), seed: int | None = None) -> Plan:
    """The plan of an experiment file, or of one of crashsim's own by its name, with `--set`
    overrides (`key=value`) and another seed."""
    file = file_of(str(path))
    return plan(_text(file), file, overrides, seed)


def plan(text: str, file: str, overrides: Sequence[str] = (), seed: int | None = None) -> Plan:
    """The plan of an experiment's text; `file` names it and is what its paths are relative to."""
    tree, mistakes = read(text, file)
    if tree is None:
        raise _error(mistakes)
    if not isinstance(tree.value, dict):
        message = f"expected a mapping of keys to values, got {shown(tree.value)}"
        raise _error([*mistakes, Mistake(tree.place, message)])
    tree, wrong = _with_overrides(tree, overrides)
    mistakes += wrong
    if seed is not None:
        tree = with_value(tree, ["seed"], _given(seed, "--seed"))
    if find(tree, ("name",)) is None:
        tree = with_value(tree, ["name"], _given(_stem(file), "the file's name"))
    return _checked(tree, file, mistakes, overrides)


def _given(value: str | int, source: str) -> Node:
    return Node(value, Place(source), Place(source))


def _stem(file: str) -> str:
    words = sub(r"[^a-z0-9]+", "-", FilePath(file).stem.lower()).strip("-")[:64]
    return words.strip("-") or "experiment"


def _checked(tree: Node, file: str, mistakes: list[Mistake], overrides: Sequence[str]) -> Plan:
    completed, unread = _completed(tree, file)
    swept = find(tree, ("sweep",)) is not None
    # What is wrong with a command line is said by itself, not by what is missing for it.
    base, wrong = (None, []) if unread and _commands(tree) else validate(completed)
    mistakes = mistakes + [m for m in wrong if not (swept and m.relation)]
    raw_cases, wrong = expand(tree, str(getattr(find(tree, ("name",)), "value", "")))
    mistakes += wrong + _pinned(raw_cases, overrides)
    if not wrong:
        raw_cases, wrong = with_case_expectations(raw_cases, find(tree, ("cases",)))
        mistakes += wrong
    cases, wrong = _cases(raw_cases, file, {m.place for m in mistakes})
    mistakes += wrong
    if mistakes or not cases:
        raise _error(mistakes or unread)
    return Plan(file, base or cases[0].experiment, tuple(cases))


def _cases(
    raw_cases: Sequence[RawCase], file: str, told: set[Place]
) -> tuple[list[Case], list[Mistake]]:
    """The valid cases, and the mistakes of the others that were not told before."""
    cases: list[Case] = []
    found: dict[Mistake, list[str]] = {}
    for raw in raw_cases:
        tree, mistakes = _completed(raw.tree, file)
        experiment, wrong = (None, []) if mistakes and _commands(raw.tree) else validate(tree)
        for mistake in (*mistakes, *wrong):
            found.setdefault(mistake, []).append(raw.name)
        if experiment is not None:
            cases.append(Case(raw.name, experiment, raw.parameters, tree))
    return cases, [
        replace(mistake, message=mistake.message + _which(names, len(raw_cases)))
        for mistake, names in found.items()
        if mistake.place not in told
    ]


def _which(names: Sequence[str], cases: int) -> str:
    if len(names) == cases:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f" (in case {shown(names[0])}{more})"


def _text(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            data = stream.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _error([Mistake(Place(file), f"cannot be read: {reason}")]) from None
    if len(data) > LARGEST_FILE_BYTES:
        raise _error([Mistake(Place(file), "is larger than 1 MiB: not an experiment")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, start = before.count(b"\n") + 1, before.rfind(b"\n") + 1
        column = len(before[start:].decode("utf-8", "replace")) + 1
        byte = data[error.start]
        message = f"not UTF-8: byte 0x{byte:02x} (save the file as UTF-8)"
        raise _error([Mistake(Place(file, line, column), message)]) from None


def _with_overrides(tree: Node, overrides: Sequence[str]) -> tuple[Node, list[Mistake]]:
    mistakes: list[Mistake] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        place = _set_place(key.strip())
        if not equals or not all(key.strip().split(".")):
            message = "expected key=value with a dotted key, such as disk.profile=hdd"
            mistakes.append(Mistake(_set_place(override), message))
            continue
        value, wrong = read(text, place.source)
        mistakes += [Mistake(place, mistake.message) for mistake in wrong]
        if value is not None:
            try:
                tree = with_value(tree, key.strip().split("."), _placed(value, place))
            except NoSuchPath as error:
                mistakes.append(Mistake(place, str(error)))
    return tree, mistakes


def _set_place(key: str) -> Place:
    return Place(f"--set {key if key.isprintable() else shown(key)}")


def _placed(node: Node, place: Place) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(below, place) for key, below in value.items()}
    elif isinstance(value, list):
        value = [_placed(below, place) for below in value]
    return Node(value, place, place)


def _pinned(cases: Sequence[RawCase], overrides: Sequence[str]) -> list[Mistake]:
    """An override of something that the sweep sets would be without effect."""
    swept = list(cases[0].parameters) if cases else []
    mistakes = []
    for override in overrides:
        key = override.partition("=")[0].strip()
        for other in swept:
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                message = f"the sweep sets {other}; --set sweep=null runs without the sweep"
                mistakes.append(Mistake(_set_place(key), message))
    return mistakes


def _completed(tree: Node, file: str) -> tuple[Node, list[Mistake]]:
    """The tree with files as absolute paths and devices for command lines."""
    tree, mistakes = with_machines(tree)
    tree, wrong = _with_files(tree, file)
    return tree, mistakes + wrong


def _commands(tree: Node) -> bool:
    """Whether devices are given by command lines or monitor commands."""
    keys = (("monitor",), *(("device", reader) for reader in readers()))
    return any(find(tree, key) is not None for key in keys)


def _with_files(tree: Node, file: str) -> tuple[Node, list[Mistake]]:
    """The tree with the recordings' files as absolute paths, and those that do not exist.

    They are relative to the experiment's file; on the command line, to the working directory.
    """
    mistakes = []
    for path, node in list(walk(tree)):
        if path[-2:-1] != ("workload",) or path[-1] not in RECORDING_FILES or "sweep" in path:
            continue
        kind = find(tree, (*path[:-1], "kind"))
        if not isinstance(node.value, str) or kind is None or kind.value != "recording":
            continue
        folder = os.path.dirname(file) if node.place.source == file else ""
        absolute = os.path.abspath(os.path.join(folder, node.value))
        tree = with_value(tree, [str(part) for part in path], replace(node, value=absolute))
        if not os.path.isfile(absolute):
            mistakes.append(Mistake(node.place, f"no such file: {absolute}"))
    return tree, mistakes


def _error(mistakes: Sequence[Mistake]) -> ExperimentError:
    distinct = dict.fromkeys((m.place, m.message) for m in mistakes)
    problems = [Problem(at.source, at.line, at.column, message) for at, message in distinct]
    return ExperimentError(sorted(problems, key=lambda p: (p.line, p.column)))
