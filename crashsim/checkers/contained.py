"""A function in a process of its own.

Contract: nothing that it does reaches this process, and every question gets a verdict: its answer,
or that it died, ended its process, did not end in its time, or was stopped. One child answers many
questions, because starting one costs a hundred times what asking does; when it is gone the next
question is for a new one, and `renew` makes it so. The image is shared with the child, which
cannot write to it; an image that is in no `SharedImage` is copied into one.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from crashsim.checkers.kept import Keeper
from crashsim.checkers.spawn import is_stopped, signal_name
from crashsim.checkers.verdict import OK, Acks, Verdict, verdict
from crashsim.engine.shared import SharedImage

_WHERE = re.compile(r'File "([^"]*)", line (\d+) in (\S+)')
_FATAL = "Fatal Python error"


class Contained:
    """`name` as for `called.load`, `code` as from `called.by_value`; `memory_bytes`: what it may
    take besides the image and what its modules take."""

    def __init__(
        self, name: str, code: bytes, folder: Path, time_limit_s: float, memory_bytes: int
    ) -> None:
        self._name = name
        self._code = code
        self._folder = folder.absolute()
        self._time_limit_s = time_limit_s
        self._memory_bytes = memory_bytes
        self._mounts: int | None = None
        self._keeper: Keeper | None = None
        self._own: SharedImage | None = None

    def ask_image(self, image: memoryview, acks: Acks, patience: int = 1) -> Verdict:
        """The verdict on an image; `patience`: with so many times the time. UsageError when there
        is no such function."""
        return self._ask(b"c", self._shared(image), acks, patience)

    def ask_files(
        self, folder: Path, mounts: int | None, image_bytes: int, acks: Acks, patience: int = 1
    ) -> Verdict:
        """The same of the files in a folder, as the process `mounts` sees it, of an image of that
        size."""
        self._mounts = mounts
        return self._ask(b"f%d %s" % (image_bytes, os.fsencode(folder)), None, acks, patience)

    def renew(self) -> None:
        """The next question is for a new child."""
        if self._keeper is not None and self._keeper.child is not None and self._keeper.is_ours:
            self._keeper.kill_child()

    def close(self) -> None:
        """End all; it can be used again."""
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = self._own = None

    def _shared(self, image: memoryview) -> SharedImage:
        there = image.obj
        if isinstance(there, SharedImage) and len(there) == image.nbytes:
            return there
        if self._own is None or len(self._own) != image.nbytes:
            self._own = SharedImage(image.nbytes)
        self._own[:] = image
        return self._own

    def _ask(self, word: bytes, image: SharedImage | None, acks: Acks, patience: int) -> Verdict:
        keeper = self._keeper
        if keeper is None or keeper.child is None or not self._fits(keeper):
            keeper = self._made_ready()
        child = keeper.child
        assert child is not None, "it was made ready"
        keeper.forget_output()
        time_s = self._time_limit_s * patience
        with suppress(ConnectionError):  # it has ended: the keeper says how
            child.ask(word, image, acks)
        answer = keeper.answer(time.monotonic() + time_s)
        if answer == b"+":
            return OK
        if answer:
            kind, outcome, message = json.loads(answer)
            return verdict(kind, outcome, _joined(message, keeper.output()))
        if answer is None:
            return self._late(keeper, time_s)
        return _ended(keeper.ended_child(), keeper.output())

    def _made_ready(self) -> Keeper:
        """A keeper with a child that waits for questions."""
        keeper = self._keeper
        if keeper is None or not (self._fits(keeper) and keeper.is_usable):
            self.close()
            keeper = self._keeper = Keeper(
                self._name, self._code, self._folder, self._memory_bytes, self._mounts
            )
        if keeper.child is None:
            try:
                keeper.start_child()
            except BaseException:  # also an interrupt: no half-made keeper stays
                self.close()
                raise
        return keeper

    def _fits(self, keeper: Keeper) -> bool:
        return keeper.is_ours and keeper.mounts == self._mounts

    def _late(self, keeper: Keeper, time_s: float) -> Verdict:
        assert keeper.child is not None, "it was asked"
        stopped = is_stopped(keeper.child.process)
        keeper.kill_child()
        if stopped:
            return verdict("hang", "stopped", _joined("its process was stopped", keeper.output()))
        told = f"no answer after {time_s:g} s"
        return verdict("hang", "timed out", _joined(told, keeper.output()))


def _ended(status: int | None, output: str) -> Verdict:
    """Without an answer."""
    if status is None:
        return verdict("crash", "died: with its keeper", output)
    if status >= 0:
        told = f"it ended its process with exit code {status} and gave no answer"
        return verdict("crash", f"ended: exit code {status}", _joined(told, output))
    name = signal_name(-status)
    said, _, report = output.partition(_FATAL)  # what Python's fault handler prints has addresses
    where = _WHERE.search(report)
    place = f"{Path(where[1]).name}:{where[2]}, {where[3]}" if where else ""
    return verdict("crash", f"died: {name}", _joined(f"killed by {name}", place, said.strip()))


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)
