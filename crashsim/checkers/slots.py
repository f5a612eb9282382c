"""Where a synthetic workload writes, and which of its writes an image holds there.

Contract: a *slot* is a place that is written again and again from the same offset: of a log, a
table, a buffer. It holds *version* k when the bytes of the write to it that began as number k are
there (the newest such k, whatever a longer one left behind them), and version -1 when it is as the
device was before. Otherwise it is *torn*. Only writes that began are known. Looking at an image
costs what changed in it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from crashsim.checkers.verdict import Ranges
from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.errors import ReplayMismatch
from crashsim.guest.content import Content
from crashsim.guest.program import Program

BEFORE = -1
TORN = -2
_TABLES_KEPT = 64  # slots
_DIGEST_BYTES = 16
_KEY_BYTES = 16


class Mix(NamedTuple):
    """What a slot is made of: nothing older than version `low`, something of version `high`."""

    low: int
    high: int


class _Known(NamedTuple):
    """How a slot's versions are told: by their first bytes, then by a digest."""

    before: bytes
    key_bytes: int
    versions: dict[bytes, list[tuple[int, int, bytes]]]  # version, end, digest; the newest first


class Slots:
    """All slots of one device, numbered by address, and the image seen last."""

    def __init__(
        self,
        history: History,
        programs: Sequence[Program],
        device: int,
        content: Content,
        before: memoryview | None,
        paranoid: bool = False,
    ) -> None:
        """`programs`: those of the device; `before`: what it held, zeros behind its end;
        `paranoid`: look at everything each time, to prove that it was no more than what changed."""
        span = history.devices[device]
        number, offset, length = _begun(history, programs, span.first_byte, span.end_byte)
        start, slot = np.unique(offset, return_inverse=True)
        order = np.argsort(slot, kind="stable")
        bounds = np.searchsorted(slot[order], np.arange(start.size + 1))
        size = np.zeros(start.size, dtype=np.int64)
        np.maximum.at(size, slot, length)
        version = np.arange(order.size) - bounds[slot[order]]
        self._content = content
        self._paranoid = paranoid
        self._before = memoryview(b"") if before is None else before.cast("B")
        self._write, self._length = number[order], length[order]
        self._bounds: list[int] = bounds.tolist()
        self.start: list[int] = start.tolist()
        self.end: list[int] = (start + size).tolist()
        pairs = zip(slot[order].tolist(), version.tolist(), strict=True)
        self._place: dict[int, tuple[int, int]] = dict(
            zip(self._write.tolist(), pairs, strict=True)
        )
        self.held = [BEFORE] * start.size
        self._known: dict[int, _Known] = {}
        self._table = lru_cache(_TABLES_KEPT)(self._made_table)

    def place(self, write: int) -> tuple[int, int]:
        """(slot, version) of a write that began."""
        return self._place[write]

    def began(self, write: int) -> bool:
        return write in self._place

    def write(self, slot: int, version: int) -> int:
        """The inverse of `place`."""
        return int(self._write[self._bounds[slot] + version])

    def look(self, image: memoryview, changed: Ranges | None) -> Iterator[int]:
        """The slots that changed, or are torn and may have; `held` is what they hold now."""
        for slot in range(len(self.start)) if changed is None else self._within(changed):
            version = self._version(slot, image)
            if version != self.held[slot] or version == TORN:
                self.held[slot] = version
                yield slot
        if self._paranoid:
            self._prove(image)

    def _prove(self, image: memoryview) -> None:
        """ReplayMismatch unless `held` is what a look at the whole image finds."""
        for slot, held in enumerate(self.held):
            if self._version(slot, image) != held:
                raise ReplayMismatch(
                    f"a rule knows bytes from {self.start[slot]} on that are not the state's"
                )

    def mix(self, slot: int, image: memoryview) -> Mix:
        """What a torn slot is made of."""
        versions = self._table(slot)  # [versions, units]
        there = np.frombuffer(image[self.start[slot] : self.end[slot]], dtype=versions.dtype)
        same = versions == there
        newest = versions.shape[0] - 1 - same[::-1].argmax(axis=0) + BEFORE
        newest[~same.any(axis=0)] = TORN
        return Mix(int(newest.min()), int(same.argmax(axis=0).max()) + BEFORE)

    def _within(self, changed: Ranges) -> list[int]:
        if len(changed) == 1:
            return list(self._range(*changed[0]))
        found: set[int] = set()
        for start, end in changed:
            found.update(self._range(start, end))
        return sorted(found)

    def _range(self, start: int, end: int) -> range:
        return range(bisect_right(self.end, start), bisect_left(self.start, end))

    def _version(self, slot: int, image: memoryview) -> int:
        known = self._known.get(slot)
        if known is None:
            known = self._known[slot] = self._know(slot)
        start = self.start[slot]
        key = bytes(image[start : start + known.key_bytes])
        for version, end, digest in known.versions.get(key, ()):
            if _digest(image[start:end]) == digest:
                return version
        same = _digest(image[start : self.end[slot]]) == known.before
        return BEFORE if same else TORN

    def _know(self, slot: int) -> _Known:
        before, *contents = self._contents(slot)
        lengths = self._length[self._bounds[slot] : self._bounds[slot + 1]].tolist()
        key_bytes = min(_KEY_BYTES, *lengths)
        known = _Known(_digest(before), key_bytes, {})
        newest_first = reversed(list(enumerate(zip(contents, lengths, strict=True))))
        for version, (content, length) in newest_first:
            entry = version, self.start[slot] + length, _digest(content[:length])
            known.versions.setdefault(content[:key_bytes], []).append(entry)
        return known

    def _made_table(self, slot: int) -> np.ndarray[tuple[int, int], np.dtype[Any]]:
        """All versions from -1 on, in words where the slot is made of them (Rule G10)."""
        whole = not (self.start[slot] | self.end[slot]) & 7
        content = b"".join(self._contents(slot))
        return np.frombuffer(content, dtype=np.uint64 if whole else np.uint8).reshape(
            self._bounds[slot + 1] - self._bounds[slot] + 1, -1
        )

    def _contents(self, slot: int) -> list[bytes]:
        """All of the slot after each of its writes, from -1 on."""
        start, end = self.start[slot], self.end[slot]
        content = bytearray(bytes(self._before[start:end]).ljust(end - start, b"\0"))
        found = [bytes(content)]
        here = slice(self._bounds[slot], self._bounds[slot + 1])
        write, length = self._write[here], self._length[here]
        for part in self._content.parts(write, np.zeros_like(write), length, length):
            content[: len(part)] = part
            found.append(bytes(content))
        return found


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _begun(
    history: History, programs: Sequence[Program], first_byte: int, end_byte: int
) -> tuple[I64, I64, I64]:
    """Number, offset in the device and length of the writes that began, in that order."""
    mine = (history.store_offset >= first_byte) & (history.store_offset < end_byte)
    number, row = np.unique(history.store_write[mine], return_index=True)
    offset, length = np.empty_like(number), np.empty_like(number)
    for program in programs:
        low = program.first_write
        here = (number >= low) & (number < low + program.offset.size)
        offset[here] = program.offset[number[here] - low] - first_byte
        length[here] = program.length[number[here] - low]
    order = np.argsort(row)
    return number[order], offset[order], length[order]
