"""Programs of ours that are started beside us, and how they know that nobody wants them any more.

Contract: nothing is forked, so whoever calls us may have threads. What is started has a process
group of its own, a socket to us on which each word is a message, and reads nothing. It is ours to
wait for, and ends when we close the socket or end ourselves, however that happens: a process that
forked off us may still hold the socket, so it watches us as well. It is not told by
PR_SET_PDEATHSIG, which speaks of the thread that started it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crashsim.checkers.inotify import called, libc

_PATIENCE_S = 10.0  # it only has to kill and to reap
_ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
_CODE = (
    "import json, sys; wanted = json.loads(sys.argv.pop());"
    "sys.path[:] = wanted['path'] or [*sys.path, wanted['root']];"
    "from crashsim.checkers.{} import main; main(wanted)"
)


class Begun:
    """One of them, `module` with its `main`; `wanted`: what it is told (JSON). `plain`: it needs
    nothing but us and the standard library. `given`: descriptors that it may use."""

    def __init__(
        self,
        module: str,
        wanted: dict[str, object],
        output: int,
        plain: bool,
        given: Sequence[int] = (),
    ) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wanted = {**wanted, "owner": self.owner, "control": theirs.fileno()}
        wanted |= {"path": [] if plain else sys.path, "root": str(_ROOT)}
        flags = ["-I", "-S"] if plain else ["-P"]  # nothing of the folder that we were started in
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, *flags, "-c", _CODE.format(module), json.dumps(wanted)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno(), *given],
                process_group=0,
            )
        self.process = self._program.pid

    @property
    def is_ours(self) -> bool:
        """And not inherited."""
        return self.owner == os.getpid()

    @property
    def is_usable(self) -> bool:
        """Ours, and there."""
        return self.is_ours and self._program.poll() is None

    def wait(self) -> int:
        """Its exit code or minus the signal that killed it, once it is gone: it has little time."""
        try:
            return self._program.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self._program.kill()
        return self._program.wait()

    def close(self) -> None:
        """In a process that inherited it, only let go of it."""
        self.control.close()
        if self.is_ours:
            self.wait()
        else:
            self._program.returncode = 0  # it is not ours to wait for


def begun(wanted: dict[str, Any]) -> tuple[socket.socket, int]:
    """What such a program has to talk through, and a descriptor that can be read when whoever
    started it has ended. Whose parent ends among those that it starts becomes its own child."""
    control = socket.socket(fileno=wanted["control"])
    control.set_inheritable(False)
    called(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    with suppress(ProcessLookupError):
        owner = os.pidfd_open(wanted["owner"])
        if os.getppid() == wanted["owner"]:
            return control, owner
    sys.exit(0)
