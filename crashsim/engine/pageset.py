"""A set of dirty folios that is a list of store ranges until somebody asks for the folios (Rule H2;
with folios of 4 KiB their numbers are the pages'). Counts are of pages of 4 KiB.

Most of the time a run only needs to know *how many* pages a range of writes dirtied (the planner of
the vCPU counts them in bulk) and that a sync took them all; which they were is worked out after the
run, many syncs at once. Only a partial writeback, or a sync that meets another in flight, needs the
folios there and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crashsim.engine.folios import Folios
from crashsim.engine.pages import unique_sorted
from crashsim.engine.streams import I64

_NONE: I64 = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Taken:
    """Folios that left a set: ranges of writes not looked at yet, and folios already known."""

    ranges: list[tuple[I64, I64, int, int]] = field(default_factory=list)
    known: list[I64] = field(default_factory=list)

    def folios(self, of: Folios) -> I64:
        """Ascending distinct folios."""
        parts = list(self.known)
        for offset, length, low, high in self.ranges:
            parts.append(of.touched(offset[low:high], length[low:high])[0])
        if not parts:
            return _NONE
        return unique_sorted(np.concatenate(parts) if len(parts) > 1 else parts[0])


@dataclass(slots=True)
class Work:
    """What the only guest of a file does between its next syncs, int64[n]: rows [low, row) of its
    columns, of which the first is free to begin at `free` and keeps it busy for `busy_ns`; they
    dirty `pages` pages if none is dirty before."""

    offset: I64
    length: I64
    begin: I64  # of each row
    new: I64  # pages that the rows before each find clean
    low: I64
    row: I64
    free: I64
    busy_ns: I64
    pages: I64

    @property
    def last_fault_ns(self) -> I64:
        """When the last page is dirtied, from when the work begins; only where any is."""
        last = np.searchsorted(self.new, self.new[self.row], "left") - 1
        return self.begin[np.minimum(last, self.begin.size - 1)] - self.free

    def taken(self, some: I64) -> list[Taken]:
        """What some of them dirty."""
        ranges = zip(self.low[some].tolist(), self.row[some].tolist(), strict=True)
        return [Taken([(self.offset, self.length, low, high)]) for low, high in ranges]


class PageSet:
    """Folios dirtied and not cleaned since, of one source of stores.

    `count`, of their pages, is exact as long as `add_range` is told how many the range added."""

    __slots__ = ("_bitmap", "_marked", "_of", "_ranges", "count")

    def __init__(self, of: Folios) -> None:
        self.count = 0
        self._of = of
        self._ranges: list[tuple[I64, I64, int, int]] = []
        self._marked: list[I64] = []  # disjoint arrays of folios whose bit is set
        self._bitmap: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    def add_range(self, offset: I64, length: I64, low: int, high: int, new_pages: int) -> None:
        """Dirty what writes [low, high) of the columns touch; O(1)."""
        self._ranges.append((offset, length, low, high))
        self.count += new_pages

    def add(self, folios: I64) -> int:
        """Dirty distinct `folios`; return how many were clean."""
        new = folios[~self.contains(folios)]
        self._mark(new)
        self.count += self._of.count_pages(new)
        return int(new.size)

    def contains(self, folios: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each folio whether it is in the set."""
        self._settle()
        if self._bitmap is None or not self._marked:
            return np.zeros(folios.size, dtype=bool)
        return self._bitmap[folios - self._of.first]

    def folios(self) -> I64:
        """All folios of the set, ascending."""
        self._settle()
        if len(self._marked) > 1:
            self._marked = [np.sort(np.concatenate(self._marked))]
        return self._marked[0] if self._marked else _NONE

    def take_all(self) -> Taken:
        """Empty the set; without looking at writes that were not looked at before."""
        if self._bitmap is not None:
            for folios in self._marked:
                self._bitmap[folios - self._of.first] = False
        taken = Taken(self._ranges, self._marked)
        self._ranges, self._marked, self.count = [], [], 0
        return taken

    def discard(self, folios: I64) -> None:
        """Take `folios` out (those that are in)."""
        have = self.folios()
        keep = have[~np.isin(have, folios)]
        self.take_all()
        self._mark(keep)
        self.count = self._of.count_pages(keep)

    def _mark(self, folios: I64) -> None:
        if folios.size:
            if self._bitmap is None:  # untouched parts cost no memory
                self._bitmap = np.zeros(self._of.end - self._of.first, dtype=bool)
            self._bitmap[folios - self._of.first] = True
            self._marked.append(folios)

    def _settle(self) -> None:
        if self._ranges:
            folios = Taken(self._ranges).folios(self._of)
            self._ranges = []
            if self._bitmap is not None:
                folios = folios[~self._bitmap[folios - self._of.first]]
            self._mark(folios)

    def _check(self) -> None:
        folios = self.folios()
        assert np.array_equal(folios, unique_sorted(folios)), "marked folios overlap"
        pages = self._of.count_pages(folios)
        assert self.count == pages, f"count {self.count}, pages {pages}"
        if self._bitmap is not None:
            assert int(self._bitmap.sum()) == folios.size, "bitmap and list differ"
