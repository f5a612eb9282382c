"""A Python function as a checker.

Contract: named as `module:function` or `path/to/file.py:function` and called in this process, with
the image as a read-only memoryview, or with the folder of its files, and the acknowledgements
(`Acks`). **Nothing contains it**: a function that hangs, exits or corrupts memory takes crashsim
with it; what must be contained is run as a command.

| it | verdict |
|---|---|
| returns None or True | ok |
| returns a text | ok, the text is the outcome |
| returns a `Verdict` | that |
| returns False | finding |
| raises AssertionError | finding with its message |
| raises any other exception | crash: type, message and where |
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

from crashsim.checkers.filesystem import How
from crashsim.checkers.station import DEVICE, MEMORY_BYTES, TIME_LIMIT_S, Station
from crashsim.checkers.verdict import OK, Acks, Ranges, Verdict, verdict
from crashsim.checkers.workshop import Workshop
from crashsim.errors import UsageError

Check = Callable[[Any, Acks], object]


class Function:
    """A checker that calls `function(image, acks)`."""

    def __init__(self, name: str, *, folder: Path | None = None) -> None:
        """UsageError when there is no such function. Files and modules are looked for in `folder`,
        by default where we are."""
        self._function = load(name, folder or Path.cwd())

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return _called(self._function, image.toreadonly(), acks)

    def close(self) -> None: ...


class FilesFunction:
    """A checker that calls `function(folder, acks)` with the files of the file system in the
    image; it may write to them."""

    def __init__(
        self, name: str, *, folder: Path | None = None, how: How = "auto", paranoid: bool = False
    ) -> None:
        """UsageError when there is no such function."""
        self._function = load(name, folder or Path.cwd())
        self._station = Station(TIME_LIMIT_S, MEMORY_BYTES, DEVICE, how, paranoid)

    @property
    def way(self) -> str | None:
        """How the files are made, `loop` or `debugfs`, once an image was checked."""
        return self._station.way

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        def ask(shop: Workshop) -> Verdict:
            return _called(self._function, shop.files, acks)

        return self._station.check(image, acks, changed, ask)

    def close(self) -> None:
        self._station.close()


def load(name: str, folder: Path) -> Check:
    """The function of that name. UsageError when there is none."""
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise UsageError(f"{name}: expected module:function or path/to/file.py:function")
    try:
        module = _from_file(folder / place) if place.endswith(".py") else _module(place, folder)
    except Exception as error:  # the user's module may raise anything while it is imported
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


def _called(function: Check, subject: object, acks: Acks) -> Verdict:
    try:
        answer = function(subject, acks)
    except AssertionError as error:
        return verdict("finding", message=_message(error))
    # What a checker raises is its answer, whatever it is.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return verdict("crash", type(error).__name__, _told(error))
    if answer is None or answer is True:
        return OK
    if isinstance(answer, Verdict):
        return answer
    if isinstance(answer, str):
        return verdict("ok", answer)
    if answer is False:
        return verdict("finding")
    told = f"the function returned {type(answer).__name__}, not None, bool, str or Verdict"
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
