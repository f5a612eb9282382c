"""Running a program so that nothing of it stays: in the helper process, which is made for that.

Contract: it gets a process group of its own, nothing on its standard input, no files of ours,
default signals, and limits of memory, file size and core files, which it inherits. When its first
process ends, its time is up or whoever wanted it is gone, every process of its group is killed, and
so are those that left the group; all are reaped before the answer is given. Of what it prints the
first and the last bytes are kept, and it never has to wait because nobody reads.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

_MOST_OUTPUT_BYTES = 1 << 16
PIPE_BYTES = 1 << 16
LONGEST_POLL_MS = (1 << 31) - 1  # what poll() takes
_OURS_BYTES = 1 << 24  # of memory that the helper may still need itself
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Environment = Mapping[bytes, bytes]  # encoded once, not for every image


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_bytes`: of address space, but no less than the helper has, about 40 MB;
    `file_bytes`: the largest file it may write."""

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


class Gone(Exception):
    """Whoever wanted it."""


class Launcher:
    """Runs one program after another, in a process whose children are all started here. `owner`,
    `control`: descriptors that say so when nobody wants anything any more: the one can be read
    then, the other is hung up."""

    def __init__(self, limits: Limits, owner: int, control: int) -> None:
        """From now on the limits are this process's."""
        for kind, value in (
            (resource.RLIMIT_AS, max(limits.memory_bytes, address_space() + _OURS_BYTES)),
            (resource.RLIMIT_FSIZE, limits.file_bytes),
            (resource.RLIMIT_CORE, 0),
        ):
            most = at_most(value, resource.getrlimit(kind)[1])
            resource.setrlimit(kind, (most, most))
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._actions = (
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        )
        self._nobody = {owner, control}
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self._poll.register(owner, select.POLLIN)
        self._poll.register(control, 0)

    def run(self, words: list[str], environment: Environment, folder: str, time_s: float) -> Ended:
        """Run it in the folder; `words[0]` is the program's path. Gone when nobody wants it."""
        output = bytearray()
        try:
            os.chdir(folder)  # posix_spawn knows no folder
            process = os.posix_spawn(
                words[0],
                words,
                environment,
                file_actions=self._actions,
                setpgroup=0,  # a session would cost a fifth more: the scheduler groups by session
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
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
            reap_strays(frozenset())
            self._drain(output)
        return Ended(status, timed_out, bytes(output), stopped=stopped)

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
                if not self._nobody.isdisjoint(ready):
                    raise Gone
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


def address_space() -> int:
    """Of this process, in bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


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
