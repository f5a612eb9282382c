"""A set of dirty pages that is a list of store ranges until somebody asks for the pages. Where the
host keeps a file in larger folios (Rule H2), "page" is folio throughout: a number of `1 << shift`
bytes.

Most of the time a run only needs to know *how many* pages a range of writes dirtied (the planner of
the vCPU counts them in bulk) and that a sync took them all; which pages they were is worked out
after the run, many syncs at once. Only a partial writeback, or a sync that meets another in flight,
needs the pages there and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crashsim.engine.pages import PAGE_SHIFT, pages_touched, unique_sorted
from crashsim.engine.streams import I64

_NO_PAGES: I64 = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Taken:
    """Pages that left a set: ranges of writes not looked at yet, and pages already known."""

    ranges: list[tuple[I64, I64, int, int]] = field(default_factory=list)
    known: list[I64] = field(default_factory=list)
    shift: int = PAGE_SHIFT

    def pages(self) -> I64:
        """Ascending distinct pages."""
        parts = list(self.known)
        for offset, length, low, high in self.ranges:
            parts.append(pages_touched(offset[low:high], length[low:high], self.shift)[0])
        if not parts:
            return _NO_PAGES
        return unique_sorted(np.concatenate(parts) if len(parts) > 1 else parts[0])


class Work(Protocol):
    """What the only guest of a file does between its next syncs, int64[n]: how long it is busy, and
    how many pages it dirties if none is dirty before."""

    @property
    def busy_ns(self) -> I64: ...
    @property
    def pages(self) -> I64: ...
    def taken(self, some: I64) -> list[Taken]:
        """The pages of some of them."""


class PageSet:
    """Pages dirtied and not cleaned since, of one source of stores.

    `count` is exact as long as `add_range` is told the number of pages the range added."""

    __slots__ = ("_bitmap", "_first", "_marked", "_pages", "_ranges", "_shift", "count")

    def __init__(self, first_page: int, pages: int, shift: int = PAGE_SHIFT) -> None:
        self.count = 0
        self._shift = shift
        self._first = first_page
        self._pages = pages
        self._ranges: list[tuple[I64, I64, int, int]] = []
        self._marked: list[I64] = []  # disjoint arrays of pages whose bit is set
        self._bitmap: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    def add_range(self, offset: I64, length: I64, low: int, high: int, new_pages: int) -> None:
        """Dirty the pages of writes [low, high) of the columns; O(1)."""
        self._ranges.append((offset, length, low, high))
        self.count += new_pages

    def add_pages(self, pages: I64) -> int:
        """Dirty distinct `pages`; return how many were clean."""
        new = pages[~self.contains(pages)]
        self._mark(new)
        self.count += new.size
        return int(new.size)

    def contains(self, pages: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each page whether it is in the set."""
        self._settle()
        if self._bitmap is None or not self._marked:
            return np.zeros(pages.size, dtype=bool)
        return self._bitmap[pages - self._first]

    def pages(self) -> I64:
        """All pages of the set, ascending."""
        self._settle()
        if len(self._marked) > 1:
            self._marked = [np.sort(np.concatenate(self._marked))]
        return self._marked[0] if self._marked else _NO_PAGES

    def take_all(self) -> Taken:
        """Empty the set; without looking at pages that were not looked at before."""
        if self._bitmap is not None:
            for pages in self._marked:
                self._bitmap[pages - self._first] = False
        taken = Taken(self._ranges, self._marked, self._shift)
        self._ranges, self._marked, self.count = [], [], 0
        return taken

    def discard(self, pages: I64) -> None:
        """Take `pages` out (those that are in)."""
        have = self.pages()
        keep = have[~np.isin(have, pages)]
        self.take_all()
        self._mark(keep)
        self.count = int(keep.size)

    def _mark(self, pages: I64) -> None:
        if pages.size:
            if self._bitmap is None:
                self._bitmap = np.zeros(self._pages, dtype=bool)  # untouched parts cost no memory
            self._bitmap[pages - self._first] = True
            self._marked.append(pages)

    def _settle(self) -> None:
        if self._ranges:
            pages = Taken(self._ranges, shift=self._shift).pages()
            self._ranges = []
            if self._bitmap is not None:
                pages = pages[~self._bitmap[pages - self._first]]
            self._mark(pages)

    def _check(self) -> None:
        pages = self.pages()
        assert np.array_equal(pages, unique_sorted(pages)), "marked pages overlap"
        assert self.count == pages.size, f"count {self.count}, pages {pages.size}"
        if self._bitmap is not None:
            assert int(self._bitmap.sum()) == pages.size, "bitmap and list differ"
