"""Finding a Python function by its name, and what its answer means.

Contract: the function is named as `module:function` or `path/to/file.py:function`, or given by
value (a lambda, a function of a notebook) by who calls crashsim. It is called with the image as a
read-only memoryview, or with the folder of its files, and the acknowledgements (`Acks`).

| it | verdict |
|---|---|
| returns None or True | ok |
| returns a text | ok, the text is the outcome |
| returns a `Verdict` | that |
| returns False | finding |
| raises AssertionError | finding with its message |
| raises anything else | crash: type, message and where |
| returns anything else | broken |
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crashsim.checkers.verdict import KINDS, OK, Acks, Verdict, verdict
from crashsim.errors import UsageError

Judge = Callable[[Any, Acks], object]


def load(name: str, folder: Path) -> Judge:
    """The function of that name; files and modules are looked for in `folder`. UsageError when
    there is none."""
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise UsageError(f"{name}: expected module:function or path/to/file.py:function")
    if place == "__main__" or "<" in attribute:
        raise UsageError(f"{name}: it was given by value; to be found again it has to be in a file")
    try:
        module = _from_file(folder / place) if place.endswith(".py") else _module(place, folder)
    # The user's module may raise anything while it is imported.
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name}: cannot be imported: {_told(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UsageError(f"{name}: {place} has no function {attribute}")
    checked: Judge = function
    return checked


def name_of(function: Judge) -> str:
    """`module:function`, whether it can be found by that or not."""
    place = getattr(function, "__module__", None) or type(function).__module__
    return f"{place}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def by_value(function: Judge) -> bytes:
    """The function, for a process of its own; nothing if it can be found there by `name_of`.
    UsageError when it holds what cannot leave this process."""
    import cloudpickle

    place, _, attribute = name_of(function).partition(":")
    if place != "__main__" and getattr(sys.modules.get(place), attribute, None) is function:
        return b""
    try:
        code: bytes = cloudpickle.dumps(function)
    # What the function holds may raise anything.
    except Exception as error:
        told = f"it cannot be sent to a process of its own: {type(error).__name__}: {error}"
        raise UsageError(f"{name_of(function)}: {told}") from error
    return code


def given(name: str, code: int) -> Judge:
    """The function that was made into the file `code` by `by_value`. UsageError when it cannot be
    made again."""
    try:
        with open(code, "rb") as file:
            function: Judge = pickle.load(file)
    # What it refers to is imported, and may raise anything.
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name}: cannot be made here: {_told(error)}") from error
    return function


def _from_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module(name: str, folder: Path) -> object:
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def called(function: Judge, subject: object, acks: Acks) -> Verdict:
    """What the function says."""
    try:
        answer = function(subject, acks)
    except AssertionError as error:
        return verdict("finding", message=_message(error))
    # What a checker raises is its answer, whatever it is.
    except BaseException as error:  # noqa: BLE001
        return verdict("crash", type(error).__name__, _told(error))
    if answer is None or answer is True:
        return OK
    if isinstance(answer, Verdict) and answer.kind in KINDS:
        return verdict(answer.kind, str(answer.outcome), str(answer.message))
    if isinstance(answer, str):
        return verdict("ok", answer)
    if answer is False:
        return verdict("finding")
    said = f"a {answer!r:.80}" if isinstance(answer, Verdict) else type(answer).__name__
    told = f"the function returned {said}, not None, bool, str or Verdict"
    return verdict("broken", message=told)


def _message(error: AssertionError) -> str:
    """What the assertion says, or the assertion."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error) or frame.line or "assertion failed"
    return f"{said}\n{Path(frame.filename).name}:{frame.lineno}, {frame.name}"


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"\n{Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].name}"
    return f"{type(error).__name__}: {error}{where if frames else ''}"
