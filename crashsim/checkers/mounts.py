"""Mounts that only the helper process and its children see, and that hold nobody else's.

Contract: what is mounted here after `own_mounts` is gone with the process. A namespace begins with
a copy of every mount there is, and a copy keeps its file system mounted: whoever unmounts the
original, writes its image anew and mounts it again would be shown old data. So where the host tells
of its changes, an unmount there is one here; what is on a block device otherwise is let go of at
once, but for what we and the checker need.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crashsim.checkers.inotify import called, libc

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ESCAPED = re.compile(r"\\(\d{3})")

_HIERARCHY = ("/", "/bin", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/sys", "/usr", "/var")

_owner = -1  # the process that has mounts of its own


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo. `root`: what of the file system is mounted; `follows`: it is
    unmounted when the mount that it is a copy of is."""

    root: str
    place: str
    follows: bool
    source: str


def own_mounts(needs: Iterable[str]) -> None:
    """Once for a process; `needs`: files and folders that have to stay in sight. OSError where it
    is not allowed."""
    global _owner
    if _owner == os.getpid():
        return
    called(libc.unshare(_CLONE_NEWNS))
    called(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
    wanted = {os.path.realpath(path) for path in needs}
    for one in reversed(mounts()):
        if _can_go(one, wanted):
            flags = _MNT_DETACH | _UMOUNT_NOFOLLOW
            libc.umount2(os.fsencode(one.place), flags)
    _owner = os.getpid()


def join_mounts(process: int) -> None:
    """See what that process sees; where we are stays the same folder by its name."""
    here = os.getcwd()
    with open(f"/proc/{process}/ns/mnt", "rb") as its:
        called(libc.setns(its.fileno(), _CLONE_NEWNS))
    os.chdir(here)


def mounts() -> list[Mount]:
    """In the order in which they were made."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    found = []
    for line in lines.splitlines():
        mine, _, about = line.partition(" - ")
        _, _, _, root, place, _, *tags = mine.split(" ")
        follows = any(tag.startswith("master:") for tag in tags)
        found.append(Mount(root, _plain(place), follows, _plain(about.split(" ")[1])))
    return found


def _can_go(one: Mount, wanted: set[str]) -> bool:
    """A whole file system on a block device, that nobody will unmount for us and nobody needs. A
    part of one is a container's volume."""
    if one.follows or one.root != "/" or not one.source.startswith("/dev/"):
        return False
    inside = one.place.rstrip("/") + "/"
    return not any(f"{path}/".startswith(inside) for path in wanted)


def our_own() -> Iterator[str]:
    """What this process, and a function that it runs, may need."""
    yield from _HIERARCHY
    yield from (tempfile.gettempdir(), sys.prefix, sys.base_prefix, sys.executable, __file__)
    yield os.path.expanduser("~")
    yield from (path for path in sys.path if path)
    yield from os.environ.get("PATH", os.defpath).split(os.pathsep)
    with suppress(FileNotFoundError):  # it was removed
        yield os.getcwd()


def _plain(text: str) -> str:
    """As it is, without the kernel's escapes."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
