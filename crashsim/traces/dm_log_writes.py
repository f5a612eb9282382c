"""Logs of the kernel's dm-log-writes target (QEMU's `blklogwrites` writes the same): read.

Layout, all little-endian, every part a whole number of sectors:

    super  u64 magic · u64 version 1 · u64 nr_entries · u32 sector size · zeros
    entry  u64 sector · u64 nr_sectors · u64 flags · u64 data_len · label of a mark · zeros,
           then nr_sectors sectors of payload, which a DISCARD does not have

Contract. `read_log` returns every entry in the log's order, or raises `TraceError` with the byte at
which the log went wrong; nothing is guessed and nothing is repaired. An entry is **valid** if

- its flags are known (FLUSH, FUA, DISCARD, MARK, METADATA) and it asks for something: it has a flag
  or sectors;
- the offset of its end on the device fits 63 bits;
- `data_len` is at most the sector size less 32 for a mark, which then has no sectors, and 0 for
  every other entry, or the length of its payload (the kernel states it for DAX copies);
- its payload ends within the file.

`nr_entries` may be stale, as the target writes it only now and then. Behind the entries it states,
reading goes on while they are valid and the rest of their sector, behind header and label, is
zero; `notices` says so, and also that something follows which is no entry. A log that ends before,
at the end of the file or at a sector of zeros, gives a notice too; an entry that is cut or not
valid, among those stated, is a `TraceError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crashsim.engine.streams import I64, U64
from crashsim.errors import TraceError
from crashsim.traces.block_log import DISCARD, FLUSH, FUA, MARK, METADATA, Trace
from crashsim.traces.source import read_only

KNOWN_FLAGS = FLUSH | FUA | DISCARD | MARK | METADATA

MAGIC = 0x6A736677736872
VERSION = 1
SUPER = struct.Struct("<QQQI")
HEADER = struct.Struct("<QQQQ")
SECTOR_SIZES = tuple(512 << doubled for doubled in range(8))  # up to 64 KiB, Linux's largest

_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class _Headers:
    """Entry headers as the log has them; `at` is the byte at which each begins."""

    at: I64
    sector: U64
    nr_sectors: U64
    flags: U64
    data_len: U64


@dataclass(frozen=True, slots=True)
class _Stop:
    """How many entries are valid, where the next would begin, and what is wrong with it.

    `reason` is empty when nothing is wrong: the file ends there, or a sector of zeros follows."""

    count: int
    at: int
    reason: str


def read_log(
    path: str | Path, times_path: str | Path | None = None, clock_ns: int = 100_000
) -> Trace:
    """The log at `path`, plain or gzip.

    `times_path` has a u64 for each entry: ns since the recording began. Without it entry i arrives
    at `i * clock_ns`, and a notice says so. Time and memory are in proportion to the log.
    """
    file = str(path)
    log = read_only(Path(path))
    stated, sector_bytes = _read_super(file, log)
    at, end = _chain(log, sector_bytes)
    headers = _headers(log, at)
    stop = _first_invalid(headers, end, log, sector_bytes)
    stop = _padded(headers, stop, stated, log, sector_bytes)
    if stop.reason and stop.count < stated:
        raise TraceError(file, stop.at, f"entry {stop.count} of {stated} {stop.reason}")
    notices = _count_notices(stop, stated)

    count = stop.count
    flags = headers.flags[:count].astype(np.int64)
    marks = np.flatnonzero(flags & MARK)
    label = np.full(count, -1, dtype=np.int64)
    label[marks] = np.arange(marks.size)
    discards = int(np.count_nonzero(flags & DISCARD))
    if discards:
        notices.append(f"discards left out, as they promise nothing about the data: {discards}")
    if times_path is None:
        notices.append(f"no times: the entries are taken to arrive {clock_ns} ns apart")
        t_ns = _synthetic_clock(file, count, clock_ns)
    else:
        t_ns = _read_times(Path(times_path), file, count)
    return Trace(
        file=file,
        header_bytes=sector_bytes,
        t_ns=t_ns,
        offset_bytes=headers.sector[:count].astype(np.int64) * sector_bytes,
        length_bytes=headers.nr_sectors[:count].astype(np.int64) * sector_bytes,
        flags=flags,
        payload_at=headers.at[:count] + sector_bytes,
        label=label,
        labels=tuple(_label(log, headers, entry) for entry in marks.tolist()),
        payload=log,
        notices=tuple(notices),
    )


def _read_super(file: str, log: memoryview) -> tuple[int, int]:
    """The stated number of entries and the sector size."""
    if not log.nbytes:
        raise TraceError(file, 0, "the file is empty")
    if log.nbytes < SUPER.size:
        raise TraceError(file, log.nbytes, "too short to be a dm-log-writes log")
    magic, version, stated, sector_bytes = SUPER.unpack_from(log)
    if magic != MAGIC:
        raise TraceError(file, 0, f"not a dm-log-writes log: it begins with {magic:#x}")
    if version != VERSION:
        raise TraceError(file, 8, f"version {version} of the format is unknown, expected 1")
    if sector_bytes not in SECTOR_SIZES:
        sizes = f"{SECTOR_SIZES[0]}, {SECTOR_SIZES[1]} ... {SECTOR_SIZES[-1]}"
        raise TraceError(file, 24, f"the sector size is {sector_bytes}, expected {sizes}")
    if log.nbytes < sector_bytes:
        raise TraceError(file, log.nbytes, "the log's first sector is cut")
    return stated, sector_bytes


def _chain(log: memoryview, sector_bytes: int) -> tuple[list[int], int]:
    """Where the headers begin, following each to the next, and where the one after them would.

    Whether they are valid is looked at afterwards, in arrays. A header that asks for nothing or has
    unknown flags ends the chain and is part of it: what follows would be noise. O(entries)."""
    at: list[int] = []
    append = at.append
    unpack_from = struct.Struct("<8xQQ").unpack_from
    last = log.nbytes - sector_bytes
    position = sector_bytes
    while position <= last:
        nr_sectors, flags = unpack_from(log, position)
        append(position)
        if flags > KNOWN_FLAGS or not (flags or nr_sectors):
            break
        position += sector_bytes if flags & DISCARD else (1 + nr_sectors) * sector_bytes
    return at, position


def _headers(log: memoryview, at: list[int]) -> _Headers:
    words = np.frombuffer(log, dtype="<u8", count=log.nbytes // 8)
    begins = np.array(at, dtype=np.int64)
    first = begins // 8
    sector, nr_sectors, flags, data_len = (
        words[first + field].astype(np.uint64) for field in range(4)
    )
    return _Headers(begins, sector, nr_sectors, flags, data_len)


def _first_invalid(headers: _Headers, end: int, log: memoryview, sector_bytes: int) -> _Stop:
    """The valid entries from the first on. All are judged at once, the first that fails counts."""
    sector, nr_sectors, flags = headers.sector, headers.nr_sectors, headers.flags
    is_mark, is_discard = (flags & np.uint64(MARK)) != 0, (flags & np.uint64(DISCARD)) != 0
    most_sectors = np.uint64(_LARGEST // sector_bytes)
    # Where the difference and the product below wrap around, the entry is beyond any device anyway.
    beyond = (sector > most_sectors) | (nr_sectors > most_sectors - sector)
    room = ((log.nbytes - headers.at) // sector_bytes - 1).astype(np.uint64)
    payload_bytes = nr_sectors * np.uint64(sector_bytes)
    stray = (headers.data_len != 0) & ((headers.data_len != payload_bytes) | is_discard)
    most_label = sector_bytes - HEADER.size
    judgements = (
        ((flags | nr_sectors) == 0, "has no flags and no sectors"),
        (flags > KNOWN_FLAGS, "has unknown flags"),
        (beyond, "goes beyond any device"),
        (is_mark & (nr_sectors != 0), "is a mark and has sectors"),
        (is_mark & (headers.data_len > most_label), f"has a label of over {most_label} bytes"),
        (~is_mark & stray, "states a length that is not that of its data"),
        (~is_discard & (nr_sectors > room), "is cut: its data goes beyond the end of the file"),
    )
    faulty = np.flatnonzero(np.logical_or.reduce([fails for fails, _ in judgements]))
    if faulty.size:
        entry = int(faulty[0])
        at = int(headers.at[entry])
        reason = next(reason for fails, reason in judgements if fails[entry])
    else:
        entry, at, reason = headers.at.size, end, "is cut: its header is not complete"
    # Behind the end of the file there is nothing either.
    is_end = _is_zero(log, at, at + sector_bytes)
    return _Stop(entry, at, "" if is_end else reason)


def _padded(
    headers: _Headers, stop: _Stop, stated: int, log: memoryview, sector_bytes: int
) -> _Stop:
    """`stop`, or the first entry behind those stated whose sector holds more than its header."""
    if stop.count <= stated:
        return stop
    behind = slice(stated, stop.count)
    is_mark = headers.flags[behind] & np.uint64(MARK)
    label_bytes = np.where(is_mark, headers.data_len[behind], 0).astype(np.int64)
    begins = headers.at[behind] + HEADER.size + label_bytes
    sectors = zip(headers.at[behind].tolist(), begins.tolist(), strict=True)
    for entry, (at, begin) in enumerate(sectors, start=stated):
        if not _is_zero(log, begin, at + sector_bytes):
            return _Stop(entry, at, "has a sector that is not zero behind its header")
    return stop


def _count_notices(stop: _Stop, stated: int) -> list[str]:
    notices = []
    if stop.count < stated:
        notices.append(f"the log states {stated} entries and ends after {stop.count}: all are read")
    if stop.count > stated:
        notices.append(f"the log states {stated} entries and has {stop.count}: all are read")
    if stop.reason:
        notices.append(f"what follows from byte {stop.at} on is no entry and is left out")
    return notices


def _label(log: memoryview, headers: _Headers, entry: int) -> str:
    begin = int(headers.at[entry]) + HEADER.size
    label = bytes(log[begin : begin + int(headers.data_len[entry])])
    return label.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _synthetic_clock(file: str, count: int, clock_ns: int) -> I64:
    if count * clock_ns > _LARGEST:
        raise TraceError(file, 0, f"{count} entries {clock_ns} ns apart do not fit the clock")
    return np.arange(count, dtype=np.int64) * clock_ns


def _read_times(path: Path, log_file: str, count: int) -> I64:
    content = read_only(path)
    if content.nbytes != 8 * count:
        raise TraceError(
            str(path),
            min(content.nbytes, 8 * count),
            f"expected 8 bytes for each of the {count} entries of {log_file} ({8 * count} bytes), "
            f"found {content.nbytes}",
        )
    times = np.frombuffer(content, dtype="<u8")
    descends = np.flatnonzero(times[1:] < times[:-1])
    if descends.size:
        entry = int(descends[0]) + 1
        raise TraceError(
            str(path),
            8 * entry,
            f"the time of entry {entry} ({times[entry]} ns) is before that of the one before "
            f"({times[entry - 1]} ns)",
        )
    if count and times[-1] > _LARGEST:
        entry = int(np.argmax(times > _LARGEST))
        raise TraceError(str(path), 8 * entry, f"the time {times[entry]} ns is out of range")
    return times.astype(np.int64)


def _is_zero(log: memoryview, begin: int, end: int) -> bool:
    return not bytes(log[begin:end]).strip(b"\0")
