"""A Python function as a checker.

Contract: it runs in a process of its own, under limits of time and memory, and whatever it does
there is its verdict (`called.py`, `contained.py`): it may hang, exit or corrupt its memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from crashsim.checkers.contained import Contained
from crashsim.checkers.image_session import DEVICE, ImageSession
from crashsim.checkers.sandbox import Sandbox
from crashsim.checkers.verdict import Acks, Ranges, Verdict

if TYPE_CHECKING:
    from crashsim.checkers.spec import Files, Function


class FunctionChecker:
    """Calls a function with the image. The function is looked for when the first image is checked:
    that raises UsageError when there is none."""

    def __init__(self, spec: Function) -> None:
        self._contained = Contained(spec)

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._contained.ask_image(image, acks)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self._contained.renew()
        return self._contained.ask_image(image, acks, patience)

    def close(self) -> None:
        self._contained.close()


class FilesChecker:
    """Calls a function with the files of the file system in the image; it may write to them."""

    def __init__(self, spec: Files, paranoid: bool) -> None:
        self._contained = Contained(spec)
        needs = [Path(spec.folder).absolute()]
        limits = spec.time_limit_s, spec.memory_bytes
        self.session = ImageSession(spec.how, DEVICE, *limits, paranoid, needs)
        self._sandbox: Sandbox | None = None

    @property
    def way(self) -> str | None:
        """How the files are made, `loop` or `debugfs`, once an image was checked."""
        return self.session.way

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._check(image, acks, changed, 1)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self._contained.renew()
        self.session.renew()
        return self._check(image, acks, None, patience)

    def close(self) -> None:
        self._contained.close()  # first: it may have files open
        self.session.close()
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

        return self.session.check(image, acks, changed, ask, patience)
