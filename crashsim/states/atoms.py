"""What an atom may hold: its distinct contents; and the bytes of stores, made on demand.

Contract: painted in the order of stores, as everywhere (a store lies over all that began before
it). The guaranteed content of an atom is kept while more of its parts are to come, so memory is at
most in proportion to what was stored. Whoever reads stores in about their order has them made once,
in stretches, of which a few are kept; what is asked for out of order is made for that question
alone. All offsets are device-relative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.guest.content import Content
from crashsim.replay.image import _first_of_write
from crashsim.states.undecided import Table, raced_groups

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


@dataclass(frozen=True, slots=True)
class Atom:
    """An atom that a cut leaves undecided. A *choice* is a version before equal contents were
    joined; choice 0 is what is guaranteed, the others follow in order of time."""

    offset: int  # device-relative, a multiple of the unit
    versions: tuple[bytes, ...]  # distinct contents of the bytes from `start`; [0] is guaranteed
    start: int  # device-relative
    writes: tuple[int, ...]  # the newest write in each version where it first appears; -1: [0]
    choices: int
    stores: tuple[int, ...]  # row of the History that each choice but 0 adds
    after: tuple[int, ...]  # the version that each choice but 0 is

    @property
    def newest(self) -> int:
        """The version with everything stored so far; 0 when its bytes are the guaranteed ones."""
        return self.after[-1]

    def before_store(self, row: int) -> int:
        """The version that holds the stores before this row of the History, and no later ones."""
        version = 0
        for store, then in zip(self.stores, self.after, strict=True):
            if store >= row:
                break
            version = then
        return version


class Atoms:
    """Makes the atoms of a table, epoch by epoch: `settle` an atom, then ask for it."""

    def __init__(self, table: Table, stored: Stored, before: memoryview, unit_bytes: int) -> None:
        self._reader = Reader(stored)
        self._before = before
        self._unit_bytes = unit_bytes
        begin = np.flatnonzero(np.diff(table.group, prepend=-1))
        self._begin = _view(np.append(begin, table.group.size))
        raced = np.zeros(begin.size, dtype=bool)
        raced[raced_groups(table)] = True
        self._raced = raced.tobytes()
        self._row, self._step = _view(table.row), _view(table.step)
        self._start, self._end = _view(table.start), _view(table.end)
        self._store_start, self._write = _view(stored.start), _view(stored.write)
        self._held: dict[int, bytearray] = {}
        self._done: dict[int, int] = {}

    def settle(self, group: int, low: int) -> None:
        """The atom's parts below `low` are guaranteed."""
        begin = self._done.get(group, self._begin[group])
        if low == begin:
            return
        if low == self._begin[group + 1]:  # nothing more will come
            self._held.pop(group, None)
            self._done.pop(group, None)
            return
        base = self._start[begin] & -self._unit_bytes
        atom = self._held.get(group)
        if atom is None:
            atom = self._held[group] = self._fresh(base)
        self._paint(atom, base, range(begin, low))
        self._done[group] = low

    def atom(self, group: int, low: int, high: int) -> Atom | None:
        """The atom whose parts [low, high) are open; None when all its versions are equal."""
        if self._raced[group]:
            return self._with_races(group, low, high)
        start, end = self._start[low], self._end[low]
        if high - low == 1:
            old, new = self._guaranteed(group, start, end), bytes(self._part(low))
            if new == old:
                return None
            row = self._row[low]
            writes = (-1, self._write[row])
            return Atom(start & -self._unit_bytes, (old, new), start, writes, 2, (row,), (1,))
        start, end = min(self._start[low:high]), max(self._end[low:high])
        content = bytearray(self._guaranteed(group, start, end))
        contents = [bytes(content)]
        ends = self._ends(low, high)
        for first, last in pairwise([low, *ends]):
            self._paint(content, start, range(first, last))
            contents.append(bytes(content))
        return self._joined(start, contents, low, ends)

    def _with_races(self, group: int, low: int, high: int) -> Atom | None:
        """Each version painted from the start: its stores did not land in their order."""
        start, end = min(self._start[low:high]), max(self._end[low:high])
        base = start & -self._unit_bytes
        ends = self._ends(low, high)
        contents = []
        for n in (low, *ends):
            content = self._fresh(base)
            parts = range(self._begin[group], n)
            self._paint(content, base, sorted(parts, key=self._row.__getitem__))
            contents.append(bytes(content[start - base : end - base]))
        return self._joined(start, contents, low, ends)

    def _ends(self, low: int, high: int) -> list[int]:
        """Behind the last part of each version."""
        step = self._step
        return [i for i in range(low + 1, high) if step[i] != step[i - 1]] + [high]

    def _joined(self, start: int, contents: list[bytes], low: int, ends: list[int]) -> Atom | None:
        """Equal contents are one version."""
        versions = {contents[0]: 0}
        writes, stores, after = [-1], [], []
        for content, first, last in zip(contents[1:], [low, *ends], ends, strict=False):
            row = max(self._row[first:last])
            version = versions.setdefault(content, len(versions))
            if version == len(writes):
                writes.append(self._write[row])
            stores.append(row)
            after.append(version)
        if len(versions) == 1:
            return None
        offset, choices = start & -self._unit_bytes, len(contents)
        found = tuple(versions), start, tuple(writes), choices, tuple(stores), tuple(after)
        return Atom(offset, *found)

    def _guaranteed(self, group: int, start: int, end: int) -> bytes:
        """Bytes [start, end), inside the atom, of its settled parts."""
        atom = self._held.get(group)
        if atom is None:
            return held_before(self._before, start, end)
        base = start & -self._unit_bytes
        return bytes(atom[start - base : end - base])

    def _fresh(self, base: int) -> bytearray:
        return bytearray(held_before(self._before, base, base + self._unit_bytes))

    def _part(self, i: int) -> memoryview:
        row = self._row[i]
        offset = self._store_start[row]
        return self._reader.store(row)[self._start[i] - offset : self._end[i] - offset]

    def _paint(self, content: bytearray, base: int, parts: Iterable[int]) -> None:
        for i in parts:
            content[self._start[i] - base : self._end[i] - base] = self._part(i)


def held_before(before: memoryview, start: int, end: int) -> bytes:
    """Bytes [start, end) of an image that goes on in zeros."""
    return bytes(before[start:end]).ljust(end - start, b"\0")


def _view(column: I64) -> memoryview:
    """Indexing a memoryview gives a Python int several times faster than indexing an array."""
    return np.ascontiguousarray(column).data
