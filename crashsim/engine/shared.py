"""Bytes in memory that one process writes and others, given a descriptor, read.

Contract: `SharedImage` is zeros at first, and as long as it was made: nobody can cut or lengthen
it. Who is given `reading()` sees every byte as it is written, and cannot write.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref


class SharedImage(mmap.mmap):
    """Of `size_bytes` bytes."""

    _fd: int

    def __new__(cls, size_bytes: int) -> SharedImage:
        fd = os.memfd_create("crashsim-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            image = super().__new__(cls, fd, size_bytes)
        except BaseException:  # whatever it is, the descriptor does not stay open
            os.close(fd)
            raise
        image._fd = fd
        weakref.finalize(image, os.close, fd)
        return image

    def reading(self) -> int:
        """A new descriptor that can only be read."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
