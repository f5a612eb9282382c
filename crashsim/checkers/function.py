"""A Python function as a checker.

Contract: it runs in a process of its own, under limits of time and memory, and whatever it does
there is its verdict (`called.py`, `contained.py`): it may hang, exit or corrupt its memory.
"""

from __future__ import annotations

from pathlib import Path

from crashsim.checkers.contained import Contained
from crashsim.checkers.filesystem import How
from crashsim.checkers.image_session import DEVICE, MEMORY_BYTES, TIME_LIMIT_S, ImageSession
from crashsim.checkers.sandbox import Sandbox
from crashsim.checkers.verdict import Acks, Ranges, Verdict


class Function:
    """A checker that calls `function(image, acks)`."""

    def __init__(
        self,
        name: str,
        *,
        code: bytes = b"",
        time_limit_s: float = TIME_LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
    ) -> None:
        """Files and modules are looked for in `folder`, by default where we are, when the first
        image is checked: that raises UsageError when there is no such function. `code`: the
        function itself (`called.by_value`), which is not looked for then."""
        where = folder or Path.cwd()
        self._contained = Contained(name, code, where, time_limit_s, memory_bytes)

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._contained.ask_image(image, acks)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self._contained.renew()
        return self._contained.ask_image(image, acks, patience)

    def close(self) -> None:
        self._contained.close()


class FilesFunction:
    """A checker that calls `function(folder, acks)` with the files of the file system in the
    image; it may write to them."""

    def __init__(
        self,
        name: str,
        *,
        code: bytes = b"",
        time_limit_s: float = TIME_LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
        how: How = "auto",
        paranoid: bool = False,
    ) -> None:
        """As for `Function`."""
        where = folder or Path.cwd()
        self._contained = Contained(name, code, where, time_limit_s, memory_bytes)
        self._session = ImageSession(time_limit_s, memory_bytes, DEVICE, how, paranoid, [where])
        self._sandbox: Sandbox | None = None

    @property
    def way(self) -> str | None:
        """How the files are made, `loop` or `debugfs`, once an image was checked."""
        return self._session.way

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._check(image, acks, changed, 1)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self._contained.renew()
        self._session.renew()
        return self._check(image, acks, None, patience)

    def close(self) -> None:
        self._contained.close()  # first: it may have files open
        self._session.close()
        self._sandbox = None

    def _check(
        self, image: memoryview, acks: Acks, changed: Ranges | None, patience: int
    ) -> Verdict:
        def ask(sandbox: Sandbox) -> Verdict:
            if sandbox is not self._sandbox:
                self._contained.renew()  # it may keep files of the last sandbox open
                self._sandbox = sandbox
            mounts = sandbox.helper.process if sandbox.helper.has_mounts else None
            return self._contained.ask_files(sandbox.files, mounts, image.nbytes, acks, patience)

        return self._session.check(image, acks, changed, ask, patience)
