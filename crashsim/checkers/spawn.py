"""Running a program so that nothing of it stays.

Contract: it gets a process group of its own, nothing on its standard input, no files of ours,
default signals, and limits of time, memory, file size and core files. When its first process ends
or its time is up, every process of its group is killed, and so are those that left the group; all
are reaped before the answer is given. Of what it prints the first and the last bytes are kept, and
it never has to wait because nobody reads.

The limits are set just after the program was started. While a program runs, no other thread may
start processes: they would be taken for its own.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from crashsim.checkers.watch import called, libc

PR_SET_CHILD_SUBREAPER = 36
_MOST_OUTPUT_BYTES = 1 << 16
PIPE_BYTES = 1 << 16
LONGEST_POLL_MS = (1 << 31) - 1  # what poll() takes
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Environment = Mapping[bytes, bytes]  # encoded once, not for every image


@dataclass(frozen=True, slots=True)
class Limits:
    """`file_bytes`: the largest file it may write."""

    time_s: float
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`status`: its exit code, or minus the signal that killed it, None if it was never started;
    `error` says then why. `timed_out`: it was killed because its time was up; `stopped`: and it was
    not running then (SIGSTOP)."""

    status: int | None
    timed_out: bool
    output: bytes
    error: str = ""
    stopped: bool = False


class Launcher:
    """Runs one program after another."""

    def __init__(self, limits: Limits) -> None:
        self._time_s = limits.time_s
        self._processors = os.cpu_count() or 1
        self._most_cpu_s = resource.getrlimit(resource.RLIMIT_CPU)[1]
        wanted = (
            (resource.RLIMIT_AS, limits.memory_bytes),
            (resource.RLIMIT_FSIZE, limits.file_bytes),
            (resource.RLIMIT_CORE, 0),
        )
        self._limits = [
            (kind, (at_most(value, resource.getrlimit(kind)[1]),) * 2) for kind, value in wanted
        ]
        called(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._actions = (
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, self._write, 1),
            (os.POSIX_SPAWN_DUP2, self._write, 2),
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()),
        )
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def run(
        self, words: list[str], environment: Environment, folder_fd: int, patience: int = 1
    ) -> Ended:
        """Run it in the folder; `words[0]` is the program's path. `patience`: so many times the
        time of the limits."""
        time_s = self._time_s * patience
        mine_before = children()
        output = bytearray()
        try:
            process = self._start(words, environment, folder_fd, time_s)
        except OSError as error:
            return Ended(None, False, b"", error.strerror or str(error))
        stopped = False
        try:
            timed_out = not self._wait(process, output, time_s)
            stopped = timed_out and is_stopped(process)
        finally:
            # Not reaped yet, so its number cannot be another's.
            os.killpg(process, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            reap_strays(mine_before)
            self._drain(output)
        return Ended(status, timed_out, bytes(output), stopped=stopped)

    def close(self) -> None:
        for descriptor in (self._null, self._read, self._write):
            os.close(descriptor)

    def _start(
        self, words: list[str], environment: Environment, folder_fd: int, time_s: float
    ) -> int:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        os.fchdir(folder_fd)  # posix_spawn knows no folder
        try:
            process = os.posix_spawn(
                words[0],
                words,
                environment,
                file_actions=self._actions,
                setpgroup=0,  # a session would cost a fifth more: the scheduler groups by session
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
        finally:
            os.fchdir(here)
            os.close(here)
        try:
            for kind, both in self._limits:
                resource.prlimit(process, kind, both)
            # For when we are killed ourselves: more than all processors can give it in its time.
            cpu_s = at_most(int(time_s * self._processors) + 2, self._most_cpu_s)
            resource.prlimit(process, resource.RLIMIT_CPU, (cpu_s, cpu_s))
        except (ProcessLookupError, PermissionError):  # it ended; it is another user's
            pass
        return process

    def _wait(self, process: int, output: bytearray, time_s: float) -> bool:
        """Until it ends; False when its time is up."""
        end = time.monotonic() + time_s
        ended = os.pidfd_open(process)
        self._poll.register(ended, select.POLLIN)
        try:
            while (left := end - time.monotonic()) > 0:
                left_ms = min(left * 1000 + 1, LONGEST_POLL_MS)
                ready = [descriptor for descriptor, _ in self._poll.poll(left_ms)]
                if ended in ready:
                    return True
                if ready:
                    self._drain(output)
            return False
        finally:
            self._poll.unregister(ended)
            os.close(ended)

    def _drain(self, output: bytearray) -> None:
        """Take what has been printed, as much as the pipe holds: more may come without end."""
        try:
            output += os.read(self._read, PIPE_BYTES)
        except BlockingIOError:
            return
        shorten(output)


def shorten(output: bytearray) -> None:
    """Keep the first and the last bytes."""
    if len(output) > _MOST_OUTPUT_BYTES:
        del output[_MOST_OUTPUT_BYTES // 2 : -_MOST_OUTPUT_BYTES // 2]


def signal_name(number: int) -> str:
    """`SIGSEGV`."""
    known = [name.name for name in signal.Signals if name.value == number]
    return known[0] if known else f"signal {number}"


def is_stopped(process: int) -> bool:
    """It was stopped (SIGSTOP), and waits to be told to go on."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except FileNotFoundError:
        return False


def _inherited() -> list[int]:
    """Descriptors that whoever started us left open for every program."""
    found = []
    for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
        with suppress(OSError):  # the folder that was just listed
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return found


def at_most(value: int, hard: int) -> int:
    """A limit that may be set where `hard` is the most."""
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def children() -> frozenset[int]:
    """Processes that are ours, also those that became so when their parents ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return frozenset(found)


def reap_strays(known: frozenset[int]) -> None:
    """Kill what left the group. Whose parent dies becomes our child, so go on until none is new."""
    while strays := children() - known:
        for process in sorted(strays):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in sorted(strays):
            with suppress(ChildProcessError):
                os.waitpid(process, 0)
