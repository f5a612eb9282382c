"""Mounts that only the helper process and its children see, and that hold nobody else's; and loop
devices, by system calls: a program for each would cost more than the mount.

Contract: every function raises OSError. A loop device is let go by the kernel when its last user
closes it, and what is mounted here after `own_mounts` is gone with the process. A namespace begins
with a copy of every mount there is, and a copy keeps its file system mounted: whoever unmounts the
original, writes its image anew and mounts it again would be shown old data. So where the host tells
of its changes, an unmount there is one here; what is on a block device otherwise is let go of at
once, but for what we and the checker need.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
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
_MS_NOSUID, _MS_NODEV, _MS_NOATIME = 0x2, 0x4, 0x400
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _BLKFLSBUF = 0x4C82, 0x4C0A, 0x1261
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block size, struct loop_info64 (its flags are at byte 52), reserved.
_CONFIG = struct.Struct("<II52xI176x64x")
_ATTEMPTS = 100
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


def attach_loop(path: Path) -> tuple[int, Path]:
    """A loop device on a file, as a descriptor and a path; gone when the descriptor is closed."""
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, _CONFIG.pack(backing, 0, _LO_FLAGS_AUTOCLEAR))
                return loop, device
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:  # else somebody else was faster
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
    finally:
        os.close(control)
        os.close(backing)


def forget_cached(loop: int) -> None:
    """The file below was changed: drop what the kernel keeps of the device."""
    fcntl.ioctl(loop, _BLKFLSBUF)


def mount(device: Path, folder: Path, kind: str, options: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    source, target = os.fsencode(device), os.fsencode(folder)
    called(libc.mount(source, target, kind.encode(), flags, options.encode()), str(device))


def unmount(folder: Path) -> None:
    called(libc.umount2(os.fsencode(folder), 0), str(folder))


def unmount_lazily(folder: Path) -> None:
    """Out of sight now, unmounted when its last user is gone."""
    called(libc.umount2(os.fsencode(folder), _MNT_DETACH), str(folder))
