"""What the host shows of a backing file: its size, its holes, its file system.

Contract: a `Look` gives what a path is on this machine, or nothing if it cannot be seen (no
permission, no such folder); it opens and changes no file. Rules H15 (tmpfs and hugetlbfs, known by
the magic number of statfs(2)), V5 (a missing file is created sparse), V6 (holes, free space) and H2
(which file systems of which kernels keep a file in large folios where its mapping is advised to:
`CONFIG_TRANSPARENT_HUGEPAGE` and `VM_HUGEPAGE` in mm/filemap.c). A `Read` gives the text of a
configuration file, or nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAGIC = {0x01021994: "tmpfs", 0x958458F6: "hugetlbfs", 0xEF53: "ext4", 0x58465342: "xfs"}
IN_MEMORY = ("tmpfs", "hugetlbfs")
# `mapping_set_large_folios` in fs/xfs, `ext4_should_enable_large_folio`.
LARGE_FOLIOS_SINCE = {"ext4": (6, 16), "xfs": (5, 18)}
_THP = Path("/sys/kernel/mm/transparent_hugepage")
_LARGEST_TEXT_BYTES = 1 << 20
_STATFS_BYTES = 512  # more than any architecture's struct statfs
_BLOCK_BYTES = 512  # the unit of st_blocks


@dataclass(frozen=True, slots=True)
class HostFile:
    """`kind` is file, missing, directory or other; `filesystem` tmpfs, hugetlbfs, ext4 (ext2 and
    ext3 are not told apart from it), xfs, or empty for any other. `large_folios`: this kernel
    keeps files in 2 MiB there where it is advised to. `free_bytes` is what is left on the file
    system for more blocks."""

    kind: str
    size_bytes: int = 0
    allocated_bytes: int = 0
    free_bytes: int = 0
    filesystem: str = ""
    large_folios: bool = False


Look = Callable[[str], HostFile | None]
Read = Callable[[str], str | None]


def size_of(path: str, look: Look | None) -> int | None:
    """How large a file is, if it can be seen."""
    found = look(path) if look is not None and path else None
    return found.size_bytes if found is not None and found.kind == "file" else None


def reader(directory: Path, root: Path = Path("/")) -> Read:
    """Texts of at most a megabyte, as a process sees them whose directory and root are these."""

    def read(name: str) -> str | None:
        try:
            path = _seen_from(name, directory, root)
            if not path.is_file() or path.stat().st_size > _LARGEST_TEXT_BYTES:
                return None
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError):  # ValueError: no path that a file can have, or no UTF-8
            return None

    return read


def _seen_from(name: str, directory: Path, root: Path) -> Path:
    return root / name.lstrip("/") if name.startswith("/") else directory / name


def looker(directory: Path, root: Path = Path("/")) -> Look:
    """Paths as a process sees them whose working directory and root are these."""

    def look(mem_path: str) -> HostFile | None:
        try:
            return _seen(_seen_from(mem_path, directory, root))
        except (OSError, ValueError):  # ValueError: a path that no file can have
            return None

    return look


def _seen(path: Path) -> HostFile:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        name = _filesystem(path.parent)
        return HostFile("missing", 0, 0, _free(path.parent), name, _has_large_folios(name))
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
    allocated = found.st_blocks * _BLOCK_BYTES
    name = _filesystem(path)
    large = _has_large_folios(name)
    return HostFile(kind, found.st_size, allocated, _free(path), name, large)


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _has_large_folios(filesystem: str) -> bool:
    since = LARGE_FOLIOS_SINCE.get(filesystem)
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if since is None or release is None or not _THP.exists():
        return False
    return (int(release[1]), int(release[2])) >= since


def _filesystem(path: Path) -> str:
    """The name of a file system that matters here; Python's statvfs does not tell its type."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    statfs = getattr(ctypes.CDLL(None, use_errno=True), "statfs", None)
    if statfs is None or statfs(os.fsencode(path), buffer) != 0:
        return ""
    magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF  # its first member, a word
    return _MAGIC.get(magic, "")
