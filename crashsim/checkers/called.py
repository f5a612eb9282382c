"""Finding a Python function by its name, and what its answer means.

Contract: the function is named as `module:function` or `path/to/file.py:function` and called with
the image as a read-only memoryview, or with the folder of its files, and the acknowledgements
(`Acks`).

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
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crashsim.checkers.verdict import KINDS, OK, Acks, Verdict, verdict
from crashsim.errors import UsageError

Check = Callable[[Any, Acks], object]


def load(name: str, folder: Path) -> Check:
    """The function of that name; files and modules are looked for in `folder`. UsageError when
    there is none."""
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise UsageError(f"{name}: expected module:function or path/to/file.py:function")
    try:
        module = _from_file(folder / place) if place.endswith(".py") else _module(place, folder)
    # The user's module may raise anything while it is imported.
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name}: cannot be imported: {_told(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UsageError(f"{name}: {place} has no function {attribute}")
    checked: Check = function
    return checked


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


def called(function: Check, subject: object, acks: Acks) -> Verdict:
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
