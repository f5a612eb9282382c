"""A file that the user gave as input, as one read-only buffer.

Contract: the file is opened for reading only and never written to. A plain file (or a block device)
is mapped, so that only what is looked at is loaded; a gzip file, known by its first two bytes
whatever its name, is unpacked into memory, unless it is more than `MOST_UNPACKED_BYTES`. Everything
that can be wrong is a `TraceError`; for a gzip file its offset counts unpacked bytes.
"""

from __future__ import annotations

import gzip
import mmap
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

from crashsim.errors import TraceError

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
# A gzip file may unpack to a thousand times its size; unpacked by its owner, it is mapped.
MOST_UNPACKED_BYTES = 1 << 29


def read_only(path: Path) -> memoryview:
    """The whole content of `path`; empty for an empty file."""
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):  # a pipe would wait for ever
            raise TraceError(str(path), 0, "not a file")
        with path.open("rb") as file:
            if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
                file.seek(0)
                return _unpacked(path, file)
            size = file.seek(0, os.SEEK_END)  # fstat knows no size of a block device
            if size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TraceError(str(path), 0, f"cannot be read: {reason}") from error


def _unpacked(path: Path, file: BinaryIO) -> memoryview:
    content = bytearray()
    try:
        with gzip.GzipFile(fileobj=file) as unpacker:
            while chunk := unpacker.read(CHUNK_BYTES):
                content += chunk
                if len(content) > MOST_UNPACKED_BYTES:
                    most = f"{MOST_UNPACKED_BYTES >> 20} MiB"
                    message = f"the gzip file unpacks to more than {most}: unpack it with gunzip"
                    raise TraceError(str(path), len(content), message)
    except EOFError as error:
        raise TraceError(str(path), len(content), "the gzip file is cut short") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(str(path), len(content), f"the gzip file is damaged: {error}") from error
    return memoryview(content).toreadonly()
