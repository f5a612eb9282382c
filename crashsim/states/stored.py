"""The bytes of stores, made when they are asked for.

Contract: whoever reads in about the order of the stores has them made once, in stretches, of which
a few are kept; what is asked for out of order is made for that question alone. All offsets are
device-relative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.replay.build import Content
from crashsim.replay.image import _first_of_write

_STRETCH_BYTES = 1 << 18
_STRETCH_ROWS = 1 << 10
_STRETCHES_KEPT = 16


class Stored:
    """Bytes of the stores of a History, by row."""

    def __init__(self, history: History, content: Content, first_byte: int) -> None:
        self._content = content
        first, self._length = _first_of_write(history)
        self._write_start = first - first_byte  # a divided write goes on in a later store
        self.write = history.store_write
        self.start = history.store_offset - first_byte
        self.end = self.start + history.store_length
        self._total = np.cumsum(history.store_length)

    def parts(self, row: I64, start: I64, end: I64) -> Iterator[memoryview]:
        """For each i the bytes [start, end) as the store in `row` leaves them; inside it."""
        skipped = self._write_start[row]
        return self._content.parts(
            self.write[row], start - skipped, end - skipped, self._length[row]
        )

    def stretch(self, low: int) -> list[memoryview]:
        """Whole stores from row `low` on, at least one."""
        bar = int(self._total[low]) + _STRETCH_BYTES
        count = int(np.searchsorted(self._total[low : low + _STRETCH_ROWS], bar))
        return self._whole(np.arange(low, low + count))

    def alone(self, row: int) -> memoryview:
        """One whole store."""
        return self._whole(np.array([row]))[0]

    def _whole(self, row: I64) -> list[memoryview]:
        return list(self.parts(row, self.start[row], self.end[row]))


class Reader:
    """Whole stores one by one, mostly forward."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._views: dict[int, memoryview] = {}
        self._stretches: deque[range] = deque()
        self._next = 0

    def store(self, row: int) -> memoryview:
        """All bytes of the store."""
        return self._views.get(row) or self._read(row)  # no store is empty

    def _read(self, row: int) -> memoryview:
        if row < self._next:
            return self._stored.alone(row)
        views = self._stored.stretch(row)
        stretch = range(row, row + len(views))
        self._next = stretch.stop
        self._views.update(zip(stretch, views, strict=True))
        self._stretches.append(stretch)
        if len(self._stretches) > _STRETCHES_KEPT:
            for old in self._stretches.popleft():
                del self._views[old]
        return views[0]
