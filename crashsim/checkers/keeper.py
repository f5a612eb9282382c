"""The process that keeps a function: it finds it once, and runs it in a child, check after check.

Contract: it is started as a program of its own (`by_function.py`) and has nothing of ours but two
pipes' ends. The child is asked directly, through a socket of its own:

| said to the child | |
|---|---|
| `i`NUMBER, then a descriptor | an image: memory that it maps and cannot write to |
| `a`, then a descriptor | all acknowledgements (JSON) |
| `b`COUNT ACKS | judge so many images, with so many acknowledgements; for each it says, `+` for \
ok without a word, else the verdict (JSON) |
| `f`PATH SIZE ACKS | judge the files in a folder, of an image of so many bytes |

| said to the keeper | it says |
|---|---|
| `f`: a new child | `r`PID with the child's socket, `u`TEXT if there is no such function |
| `k`: kill it | |
| | `d`STATUS: the child ended, by itself or because it was killed |

Whatever the function started ends with its answer, and when the child ends, all that it left is
killed and reaped. The keeper ends with whoever started it, and its child with it, however that
happens. Between two checks the child goes back to the folder in which it began.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from crashsim.checkers.begin import PR_SET_CHILD_SUBREAPER, begun
from crashsim.checkers.called import Judge, called, given, load
from crashsim.checkers.inotify import libc
from crashsim.checkers.mounts import join_mounts
from crashsim.checkers.spawn import address_space, at_most, children, reap_strays
from crashsim.checkers.verdict import NO_ACKS, OK, Acks
from crashsim.errors import UsageError

LONGEST_WORD = 1 << 16  # bytes of what is said at once
_PR_SET_PDEATHSIG = 1
_NO_ANSWER = 70  # exit code of a child that cannot go on


def main(wanted: dict[str, Any]) -> None:
    """`wanted`: the name of the function, its folder and so on."""
    control, owner = begun(wanted)
    if wanted["mounts"] is not None:
        join_mounts(wanted["mounts"])
    try:
        if wanted["code"] is None:
            function = load(wanted["name"], Path(wanted["folder"]))
        else:
            function = given(wanted["name"], wanted["code"])
    except UsageError as error:
        control.recv(LONGEST_WORD)  # what is closed unread is an error at the other end
        control.send(b"u" + str(error).encode()[: LONGEST_WORD - 1])
        return
    keeper = _Keeper(control, function, wanted["memory_bytes"])
    try:
        keeper.keep(owner)
    finally:
        keeper.kill()
        reap_strays(frozenset())


class _Keeper:
    """Has one child at most."""

    def __init__(self, control: socket.socket, function: Judge, memory_bytes: int) -> None:
        self._control = control
        self._function = function
        self._memory_bytes = memory_bytes
        self._child: int | None = None
        self._known: frozenset[int] = frozenset()  # children of the module's own
        self._ended = -1
        self._poll = select.poll()

    def keep(self, owner: int) -> None:
        """Until nobody wants anything any more."""
        self._poll.register(owner, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            if owner in ready:
                return
            if self._ended in ready:
                self._finish()
            elif not self._listen():
                return

    def kill(self) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            with suppress(OSError):  # nobody wants to know
                self._finish()

    def _listen(self) -> bool:
        try:
            word = self._control.recv(LONGEST_WORD)
        except ConnectionError:
            return False
        if word == b"f":
            self._start()
        elif word == b"k":
            self.kill()
        return bool(word)

    def _start(self) -> None:
        self._known = children()
        ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper, child = os.getpid(), os.fork()
        if not child:
            try:
                self._control.close()
                ours.close()
                _Child(childs, self._function, self._memory_bytes, keeper).serve()
            finally:
                os._exit(_NO_ANSWER)
        with suppress(OSError):  # it has done so itself, or ended
            os.setpgid(child, child)
        childs.close()
        self._child = child
        self._ended = os.pidfd_open(child)
        self._poll.register(self._ended, select.POLLIN)
        socket.send_fds(self._control, [b"r%d" % child], [ours.fileno()])
        ours.close()

    def _finish(self) -> None:
        """The child ended: nothing of it stays."""
        assert self._child is not None, "there is a child"
        self._poll.unregister(self._ended)
        os.close(self._ended)
        with suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGKILL)  # it is not reaped: its number is its own
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child, self._ended = None, -1
        reap_strays(self._known)
        self._control.send(b"d%d" % status)


class _Child:
    """Calls the function."""

    def __init__(
        self, owner: socket.socket, function: Judge, memory_bytes: int, keeper: int
    ) -> None:
        with suppress(OSError):  # the keeper was faster
            os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(_NO_ANSWER)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        faulthandler.enable(all_threads=False)
        self._owner = owner
        self._function = function
        self._memory_bytes = memory_bytes
        self._images: dict[int, memoryview] = {}
        self._known = self._acks = NO_ACKS
        self._limited = -1  # for images of so many bytes
        self._home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def serve(self) -> None:
        """Until nobody asks any more."""
        fd = self._owner.fileno()
        while word := os.read(fd, LONGEST_WORD):
            if word[:1] == b"i":
                self._take_image(int(word[1:]))
                continue
            if word == b"a":
                self._take_acks()
                continue
            about, count = word[1:].rsplit(b" ", 1)
            if self._acks.count != int(count):
                self._acks = self._known.first(int(count))
            if word[:1] == b"f":
                self._judge(self._files(about))
            else:
                for number in range(int(about)):
                    self._judge(self._images[number])

    def _judge(self, subject: object) -> None:
        mine = os.getpid()
        found = called(self._function, subject, self._acks)
        if os.getpid() != mine:
            os._exit(0)  # the function forked, and this is not who was asked
        self._tidy()
        told = [found.kind, found.outcome, found.message]
        os.write(self._owner.fileno(), b"+" if found is OK else json.dumps(told).encode())

    def _take_image(self, number: int) -> None:
        fd = self._descriptor()
        size = os.fstat(fd).st_size
        self._images[number] = memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ))
        os.close(fd)
        self._limited = -1  # that was no memory of the function's
        self._limit(size)

    def _files(self, word: bytes) -> Path:
        path, size = word.rsplit(b" ", 1)
        self._limit(int(size))
        return Path(os.fsdecode(path))

    def _limit(self, image_bytes: int) -> None:
        """As for a program, which begins with little of its own."""
        if image_bytes == self._limited:
            return
        self._limited = image_bytes
        for kind, value in (
            (resource.RLIMIT_AS, address_space() + self._memory_bytes),
            (resource.RLIMIT_FSIZE, image_bytes + self._memory_bytes),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (at_most(value, hard), hard))

    def _take_acks(self) -> None:
        with open(self._descriptor(), encoding="utf-8") as file:
            labels, records = json.load(file)
        self._known = self._acks = Acks(tuple(labels), tuple((low, high) for low, high in records))

    def _descriptor(self) -> int:
        return socket.recv_fds(self._owner, 1, 1)[1][0]

    def _tidy(self) -> None:
        """As it was before the call, for the next one."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # whatever the function made of it
                stream.flush()
        os.fchdir(self._home)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        reap_strays(frozenset())
