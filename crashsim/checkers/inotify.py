"""Was a file opened for writing, or at all, or a folder changed, since it was last asked?

Contract: with inotify the kernel says so however the file was written, also through a mapping:
that needs a file opened for writing, and its closing is an event. So nothing can have changed after
all processes that could write have ended and no event has come.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x2, 0x4, 0x8, 0xC0, 0x100, 0x200
_SELF = 0xC00  # it was removed or renamed itself
_OPEN = 0x20
_CONTENT = _MODIFY | _CLOSE_WRITE
_ENTRIES = _ATTRIB | _MOVED | _CREATE | _DELETE | _SELF
_EVENTS_BYTES = 1 << 16
_EVENT = struct.Struct("iIII")

libc = ctypes.CDLL(None, use_errno=True)


def called(result: int, *about: object) -> int:
    """The result of a function of the C library; OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *about)
    return result


class Inotify:
    """Watches the content of files, and the entries of folders with their attributes."""

    def __init__(self) -> None:
        self._fd = called(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: Path) -> int:
        """Its number among what is watched."""
        return self._add(path, _ENTRIES if path.is_dir() else _CONTENT)

    def add_opened(self, path: Path) -> int:
        """The same of a file that counts as touched when somebody opens it."""
        return self._add(path, _OPEN)

    def touched(self) -> frozenset[int]:
        """Numbers of what may have changed since the last call, -1 among them if there was more
        than the kernel can tell."""
        found: set[int] = set()
        try:
            while True:
                events = os.read(self._fd, _EVENTS_BYTES)
                at = 0
                while at < len(events):
                    number, _mask, _cookie, name_bytes = _EVENT.unpack_from(events, at)
                    found.add(number)
                    at += _EVENT.size + name_bytes
        except BlockingIOError:
            return frozenset(found)

    def close(self) -> None:
        os.close(self._fd)

    def _add(self, path: Path, mask: int) -> int:
        return called(libc.inotify_add_watch(self._fd, os.fsencode(path), mask), str(path))
