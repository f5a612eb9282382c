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
        records = self._are_records(write)
        first: I64 = np.where(records, 0, start >> 3)
        last: I64 = np.where(records, length + 7, end + 7) >> 3
        words = last - first
        low = 0
        while low < write.size:
            total = np.cumsum(words[low:])
            high = low + max(1, int(np.searchsorted(total, _CHUNK_WORDS, "right")))
            here = slice(low, high)
            yield from self._chunk(
                *(column[here] for column in (write, start, end, length, first, words)),
                records=records[here],
            )
            low = high

    def _chunk(
        self,
        write: I64,
        start: I64,
        end: I64,
        length: I64,
        first: I64,
        words: I64,
        *,
        records: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ) -> Iterator[memoryview]:
        base = np.cumsum(words) - words
        index = np.arange(int(words.sum()), dtype=np.int64)
        index += np.repeat(first - base, words)
        index += np.repeat(write << 32, words)
        data = memoryview(self._stream.draws(index).astype("<u8").tobytes())
        rows = zip(
            (base * 8).tolist(),
            (first * 8).tolist(),
            start.tolist(),
            end.tolist(),
            records.tolist(),
            write.tolist(),
            length.tolist(),
            strict=True,
        )
        for at, skipped, low, high, record, number, size in rows:
            if record:
                yield memoryview(with_header(data[at : at + size], number))[low:high]
            else:
                yield data[at + low - skipped : at + high - skipped]

    def _are_records(self, write: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        found = np.zeros(write.size, dtype=bool)
        for low, high in self._record_ranges:
            found |= (write >= low) & (write < high)
        return found


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
