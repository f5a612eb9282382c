"""The process that does for checkers what would change the process that asks.

Contract: it starts programs and waits for them (`spawn.py`), and it has mounts of its own
(`mounts.py`). It is asked one thing at a time, and ends with whoever started it; what it has
started and mounted then goes with it, in the midst of a program too. `Helper` is our end.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crashsim.checkers.begin import Begun, begun
from crashsim.checkers.mounts import (
    attach_loop,
    forget_cached,
    mount,
    own_mounts,
    unmount,
    unmount_lazily,
)
from crashsim.checkers.spawn import Ended, Environment, Gone, Launcher, Limits
from crashsim.errors import HelperDied

_LONGEST_WORD = 1 << 18  # bytes: what a program prints is shorter


class Helper:
    """It is there until it is closed, also when it is dropped: what is asked of it then raises
    HelperDied."""

    def __init__(self, limits: Limits) -> None:
        """`limits`: of every program."""
        self.limits = limits
        wanted: dict[str, object] = {"limits": [limits.memory_bytes, limits.file_bytes]}
        self.begun = Begun("helper", wanted, subprocess.DEVNULL, plain=True)
        self.process = self.begun.process
        self.has_mounts = False  # of its own

    def run(self, words: list[str], environment: Environment, folder: Path, time_s: float) -> Ended:
        """How a program ended, which `words[0]` is the path of."""
        try:
            found = self.ask("run", words, environment, str(folder), time_s)
        except OSError as error:  # more words than can be said
            return Ended(None, False, b"", error.strerror or str(error))
        assert isinstance(found, tuple), "it ran"
        return Ended(*found)

    def own_mounts(self, needs: Iterable[str]) -> None:
        """As `mounts.own_mounts`."""
        self.ask("own_mounts", list(needs))
        self.has_mounts = True

    def close(self) -> None:
        """In a process that inherited it, only let go of it."""
        self.begun.close()

    def ask(self, name: str, *about: object) -> object:
        """What one of `_Hands` does; raises what it raises, HelperDied when it is gone."""
        try:
            answer = self._said(pickle.dumps((name, about)))
        except BaseException:  # an interrupt: whatever it is at, it shall end
            self.close()
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _said(self, word: bytes) -> object:
        control = self.begun.control
        if control.fileno() < 0:
            raise HelperDied("the process that runs programs was ended")
        try:
            control.send(word)
            told = control.recv(_LONGEST_WORD)
        except ConnectionError:
            told = b""
        if not told:
            raise HelperDied("the process that runs programs was killed")
        return pickle.loads(told)


def main(wanted: dict[str, Any]) -> None:
    """Until nobody wants anything any more."""
    control, owner = begun(wanted)
    hands = _Hands(Launcher(Limits(*wanted["limits"]), owner, control.fileno()))
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.register(control, select.POLLIN)
    try:
        while owner not in [descriptor for descriptor, _ in poll.poll()]:
            if not _answered(control, hands):
                return
    except (Gone, ConnectionError):
        return


def _answered(control: socket.socket, hands: _Hands) -> bool:
    """Whether there was a question."""
    word = control.recv(_LONGEST_WORD)
    if not word:
        return False
    name, about = pickle.loads(word)
    answer: object
    try:
        answer = getattr(hands, name)(*about)
    except Gone:
        raise
    # Whatever it is, who asked raises it.
    except Exception as error:  # noqa: BLE001
        answer = error
    control.send(pickle.dumps(answer))
    return True


class _Hands:
    """What it can do."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.own_mounts, self.unmount, self.unmount_lazily = own_mounts, unmount, unmount_lazily
        self._loop = -1
        self._device = Path()

    def run(
        self, words: list[str], environment: Environment, folder: str, time_s: float
    ) -> tuple[object, ...]:
        ended = self._launcher.run(words, environment, folder, time_s)
        # Plain: a dataclass takes ten times as long on its way.
        return ended.status, ended.timed_out, ended.output, ended.error, ended.stopped

    def attach(self, path: Path) -> None:
        self.detach()
        self._loop, self._device = attach_loop(path)

    def mount(self, folder: Path, kind: str, options: str) -> None:
        forget_cached(self._loop)
        mount(self._device, folder, kind, options)

    def detach(self) -> None:
        if self._loop >= 0:
            os.close(self._loop)
        self._loop = -1
