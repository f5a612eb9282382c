"""Loop devices and mounts, by system calls: a program for each would cost more than the mount.

Contract: a loop device is let go by the kernel when its last user closes it. So nothing outlives a
process that has mounts of its own (`mounts.py`). Every function raises OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from crashsim.checkers.inotify import called, libc

_MS_NOSUID, _MS_NODEV, _MS_NOATIME = 0x2, 0x4, 0x400
_MNT_DETACH = 2
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _BLKFLSBUF = 0x4C82, 0x4C0A, 0x1261
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block size, struct loop_info64 (its flags are at byte 52), reserved.
_CONFIG = struct.Struct("<II52xI176x64x")
_ATTEMPTS = 100


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
