"""A real sparse file, mapped: what is never written takes no space on the disk.

A store to a mapped hole on a full file system is answered with SIGBUS (Rule V6). So space is
reserved before it is stored to, and a full disk is an error message instead.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from crashsim.errors import OutputError


class SparseFile:
    """A file of `size_bytes`, all zero at first, mapped read-write. It must not exist yet.

    `scratch`: it has no name in the folder `path`, so it is gone when it is closed or its process
    ends, however that ends."""

    __slots__ = ("_file", "_scratch", "map", "path")

    def __init__(self, path: Path, size_bytes: int, scratch: bool = False) -> None:
        self.path = path
        self._scratch = scratch
        try:
            self._file = _nameless(path) if scratch else path.open("x+b")
            try:
                os.ftruncate(self._file.fileno(), size_bytes)
                self.map = mmap.mmap(self._file.fileno(), size_bytes)
            except (OSError, ValueError) as error:
                self._file.close()
                if not scratch:
                    path.unlink(missing_ok=True)
                raise OutputError(
                    f"{path}: cannot make a file of {size_bytes} bytes: {error}"
                ) from error
        except FileExistsError:
            raise OutputError(f"{path}: exists already; nothing was written") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be created: {error.strerror}") from error

    def reserve(self, offset: int, length: int) -> None:
        """Make sure that [offset, offset + length) can be stored to."""
        try:
            os.posix_fallocate(self._file.fileno(), offset, length)
        except OSError as error:
            raise OutputError(f"{self.path}: no space for it: {error.strerror}") from error

    def close(self) -> None:
        """Write everything to the disk, or forget what is scratch."""
        try:
            if not self._scratch:
                self.map.flush()
                os.fsync(self._file.fileno())
            self.map.close()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        finally:
            self._file.close()

    def __enter__(self) -> SparseFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)
