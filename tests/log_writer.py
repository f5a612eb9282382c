"""Writes dm-log-writes logs for tests: the layout the other way round, as plain as can be."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class Entry:
    """`data` is the payload in whole sectors, or a mark's label; a discard covers `sectors`."""

    sector: int = 0
    flags: int = 0
    data: bytes = b""
    sectors: int = 0


def write(sector: int, data: bytes, flags: int = 0) -> Entry:
    return Entry(sector, flags, data)


def mark(label: str) -> Entry:
    return Entry(flags=MARK, data=label.encode())


def flush() -> Entry:
    return Entry(flags=FLUSH)


def discard(sector: int, sectors: int) -> Entry:
    return Entry(sector, DISCARD, sectors=sectors)


def entry_bytes(entry: Entry, sector_bytes: int = 512) -> bytes:
    if entry.flags & MARK:
        header = struct.pack("<4Q", entry.sector, 0, entry.flags, len(entry.data))
        return (header + entry.data).ljust(sector_bytes, b"\0")
    assert len(entry.data) % sector_bytes == 0
    sectors = entry.sectors if entry.flags & DISCARD else len(entry.data) // sector_bytes
    header = struct.pack("<4Q", entry.sector, sectors, entry.flags, 0)
    return header.ljust(sector_bytes, b"\0") + entry.data


def log_bytes(
    entries: Sequence[Entry], sector_bytes: int = 512, stated: int | None = None
) -> bytes:
    count = len(entries) if stated is None else stated
    first = struct.pack("<3QI", 0x6A736677736872, 1, count, sector_bytes)
    body = (entry_bytes(entry, sector_bytes) for entry in entries)
    return first.ljust(sector_bytes, b"\0") + b"".join(body)


def write_log(
    path: Path, entries: Sequence[Entry], sector_bytes: int = 512, stated: int | None = None
) -> Path:
    path.write_bytes(log_bytes(entries, sector_bytes, stated))
    return path
