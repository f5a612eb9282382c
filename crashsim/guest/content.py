"""What bytes a write stores, as a function of the write's number alone.

Synthetic writes are filled with draws of the stream "content". A record of a log begins with a
header that lets anybody check it without knowing crashsim: u32 CRC-32 of all that follows it, u32
length of the record, u64 number of the write; little-endian. Recorded writes have the bytes of the
recording.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from crashsim.engine.streams import I64, Stream

HEADER = struct.Struct("<IIQ")
_CHUNK_WORDS = 1 << 18


class Content(Protocol):
    """Bytes of parts of writes."""

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        """For each i the bytes [start, end) of write i, whose whole length is given."""


class SyntheticContent:
    """Draws, with a header where the write is a record of a log."""

    __slots__ = ("_record_ranges", "_stream")

    def __init__(self, seed: int, record_ranges: list[tuple[int, int]]) -> None:
        self._stream = Stream(seed, "content")
        self._record_ranges = record_ranges  # write numbers [low, high) that are log records

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        record = np.zeros(write.size, dtype=bool)
        for first_write, end_write in self._record_ranges:
            record |= (write >= first_write) & (write < end_write)
        first = np.where(record, 0, start >> 3)
        words = (np.where(record, length, end) + 7 >> 3) - first
        total = np.cumsum(words)
        low = 0
        while low < write.size:
            before = int(total[low] - words[low])
            high = max(low + 1, int(np.searchsorted(total, before + _CHUNK_WORDS, "right")))
            here = slice(low, high)
            base = total[here] - words[here] - before
            index = np.arange(int(total[high - 1]) - before, dtype=np.int64)
            index += np.repeat((write[here] << 32) + first[here] - base, words[here])
            data = memoryview(self._stream.draws(index).astype("<u8").tobytes())
            columns = [
                base * 8,
                *(one[here] for one in (first << 3, start, end, record, write, length)),
            ]
            rows = zip(*(column.tolist() for column in columns), strict=True)
            for at, skipped, low_byte, end_byte, is_record, number, size in rows:
                if is_record:
                    body = with_header(data[at : at + size], number)
                    yield memoryview(body)[low_byte:end_byte]
                else:
                    yield data[at + low_byte - skipped : at + end_byte - skipped]
            low = high


def with_header(body: memoryview, number: int) -> bytes:
    """A log record: the header over the first bytes of the body; as much of it as fits."""
    rest = struct.pack("<IQ", len(body), number) + bytes(body[HEADER.size :])
    rest = rest[: max(0, len(body) - 4)]
    return (struct.pack("<I", zlib.crc32(rest)) + rest)[: len(body)]


class RecordedContent:
    """Payload of a recording; `at[i]` is where write i's bytes lie in it."""

    __slots__ = ("_at", "_payload")

    def __init__(self, payload: memoryview, at: I64) -> None:
        self._payload = payload
        self._at = at

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        for at, low, high in zip(
            self._at[write].tolist(), start.tolist(), end.tolist(), strict=True
        ):
            yield self._payload[at + low : at + high]
