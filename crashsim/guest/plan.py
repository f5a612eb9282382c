"""Planning a stretch of a vCPU's program in bulk: when each write begins, if nothing interferes.

Every per-store cost of the simulation is in here, in numpy. What can interfere is a snapshot of the
host; then what lies behind it is planned again. Assumption: after an operation that certainly
cleans (a sync that flushes), every page is clean for this vCPU; what was touched before the stretch
is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crashsim.engine.folios import Folios
from crashsim.engine.pages import PAGE_SHIFT, words
from crashsim.engine.pageset import Taken
from crashsim.engine.streams import I64

Contains = Callable[[I64], np.ndarray[tuple[int], np.dtype[np.bool_]]]


@dataclass(slots=True)
class Plan:
    """Rows are the writes of the stretch. Times are relative: row r begins `begin[r]` after the
    stretch's start.

    `free[r]` is when the vCPU is free for row r (so `free[n]` is the end), `new[r]` how many pages
    (of 4 KiB) rows before r find clean."""

    offset: I64
    length: I64
    words: I64
    begin: I64  # [n]
    free: I64  # [n + 1]
    new: I64  # [n + 1]
    first_write: int  # within the program; of row `head` on
    head: int  # 1 if row 0 is the rest of a divided write, else 0


@dataclass(slots=True)
class Ahead:
    """The next windows of stores, each with the sync behind it, int64[n]: rows [low, row) of the
    plan, of which the first is free to begin at `free` (relative) and keeps the vCPU busy for
    `busy_ns`; they dirty `pages` pages if none is dirty before."""

    plan: Plan
    low: I64
    row: I64
    free: I64
    busy_ns: I64
    pages: I64

    @property
    def last_fault_ns(self) -> I64:
        """When the last page is dirtied, from the window's start; only where any is."""
        plan = self.plan
        last = np.searchsorted(plan.new, plan.new[self.row], "left") - 1
        return plan.begin[np.minimum(last, plan.begin.size - 1)] - self.free

    def taken(self, some: I64) -> list[Taken]:
        """What these windows dirty."""
        offset, length = self.plan.offset, self.plan.length
        ranges = zip(self.low[some].tolist(), self.row[some].tolist(), strict=True)
        return [Taken([(offset, length, low, high)]) for low, high in ranges]


@dataclass(slots=True)
class Syncs:
    """The operations of a plan that has no others than syncs without delay, int64[m]: their row,
    and the records finished before it."""

    plan: Plan
    row: I64
    record: I64

    def ahead(self, first: int, count: int, row: int, free: int, new: int) -> Ahead:
        """`count` windows and syncs from sync `first` on; the plan's next row, its `free` and
        `new`."""
        rows = self.row[first : first + count]
        frees, news = self.plan.free[rows], self.plan.new[rows]
        return Ahead(
            self.plan,
            low=np.append(row, rows[:-1]),
            row=rows,
            free=np.append(free, frees[:-1]),
            busy_ns=np.diff(frees, prepend=free),
            pages=np.diff(news, prepend=new),
        )


def first_touch(
    offset: I64, length: I64, stretch: I64 | None, touched: Contains | None, folios: Folios
) -> tuple[I64, I64]:
    """Folios that each write is the first to touch, and how many pages they have, int64[n] (Rules
    H1, H2).

    `stretch`: for each write the ascending number of its clean stretch, None when there is one;
    `touched` says which folios were touched before in stretch 0, None when none was."""
    folio, row = folios.touched(offset, length)
    n = folio.size
    bits = max(1, (n - 1).bit_length())
    key = folio << bits
    key |= np.arange(n, dtype=np.int64)
    key.sort()
    index = key & ((1 << bits) - 1)
    key >>= bits
    first = np.empty(n, dtype=bool)
    first[0] = True
    np.not_equal(key[1:], key[:-1], out=first[1:])
    if stretch is not None:
        of_piece = (stretch if row is None else stretch[row])[index]
        first[1:] |= of_piece[1:] != of_piece[:-1]
    if touched is not None:
        known = touched(key)
        if stretch is not None:
            known &= of_piece == 0
        first &= ~known
    flag = np.empty(n, dtype=np.int64)
    flag[index] = first
    faults = flag if row is None else _per_write(row, flag, offset.size)
    if folios.shift is not None:
        return faults, faults << (folios.shift - PAGE_SHIFT)
    pages = flag * folios.pages(folio)
    return faults, pages if row is None else _per_write(row, pages, offset.size)


def _per_write(row: I64, of_piece: I64, writes: int) -> I64:
    return np.bincount(row, weights=of_piece, minlength=writes).astype(np.int64)


def make_plan(
    offset: I64,
    length: I64,
    think_ns: I64,
    fault_ns: int,
    stretch: I64 | None,
    touched: Contains | None,
    first_write: int,
    head: int,
    folios: Folios,
) -> Plan:
    """Plan the writes given; see `Plan`."""
    n = offset.size
    new = np.zeros(n + 1, dtype=np.int64)
    faults = pages = new[:0]
    if n:
        faults, pages = first_touch(offset, length, stretch, touched, folios)
    np.cumsum(pages, out=new[1:])
    word = words(offset, length)
    lead = faults * fault_ns
    lead += think_ns
    free = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(lead + word, out=free[1:])
    lead += free[:-1]
    return Plan(offset, length, word, lead, free, new, first_write, head)
