"""What the host shows of a backing file: its size, its holes, its file system.

Contract: a `Look` gives what a path is on this machine, or nothing if it cannot be seen (no
permission, no such folder); it opens and changes no file. Rules H15 (tmpfs and hugetlbfs, known by
the magic number of statfs(2)), V5 (a missing file is created sparse) and V6 (holes, free space).
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAGIC = {0x01021994: "tmpfs", 0x958458F6: "hugetlbfs"}
_STATFS_BYTES = 512  # more than any architecture's struct statfs
_BLOCK_BYTES = 512  # the unit of st_blocks


@dataclass(frozen=True, slots=True)
class HostFile:
    """`kind` is file, missing, directory or other; `filesystem` tmpfs, hugetlbfs, or empty for any
    other. `free_bytes` is what is left on the file system for more blocks."""

    kind: str
    size_bytes: int = 0
    allocated_bytes: int = 0
    free_bytes: int = 0
    filesystem: str = ""


Look = Callable[[str], HostFile | None]


def looker(directory: Path, root: Path = Path("/")) -> Look:
    """Paths as a process sees them whose working directory and root are these."""

    def look(mem_path: str) -> HostFile | None:
        if mem_path.startswith("/"):
            path = root / mem_path.lstrip("/")
        else:
            path = directory / mem_path
        try:
            return _seen(path)
        except (OSError, ValueError):  # ValueError: a path that no file can have
            return None

    return look


def _seen(path: Path) -> HostFile:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return HostFile("missing", 0, 0, _free(path.parent), _filesystem(path.parent))
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
    allocated = found.st_blocks * _BLOCK_BYTES
    return HostFile(kind, found.st_size, allocated, _free(path), _filesystem(path))


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _filesystem(path: Path) -> str:
    """The name of a file system that is in memory; Python's statvfs does not tell its type."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    statfs = getattr(ctypes.CDLL(None, use_errno=True), "statfs", None)
    if statfs is None or statfs(os.fsencode(path), buffer) != 0:
        return ""
    magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF  # its first member, a word
    return _MAGIC.get(magic, "")
