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

from crashsim.engine.pages import pages_touched, words
from crashsim.engine.pageset import Taken
from crashsim.engine.streams import I64

Contains = Callable[[I64], np.ndarray[tuple[int], np.dtype[np.bool_]]]


@dataclass(slots=True)
class Plan:
    """Rows are the writes of the stretch. Times are relative: row r begins `begin[r]` after the
    stretch's start.

    `free[r]` is when the vCPU is free for row r (so `free[n]` is the end), `new[r]` how many pages
    rows before r find clean."""

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

    def taken(self, some: I64) -> list[Taken]:
        """The pages of these windows."""
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
    offset: I64, length: I64, stretch: I64 | None, touched: Contains | None, shift: int
) -> I64:
    """Pages (folios of `1 << shift` bytes) that each write is the first to touch, int64[n] (Rule
    H1).

    `stretch`: for each write the ascending number of its clean stretch, None when there is one;
    `touched` says which pages were touched before in stretch 0, None when none was."""
    page, row = pages_touched(offset, length, shift)
    n = page.size
    bits = max(1, (n - 1).bit_length())
    key = page << bits
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
    if row is None:
        return flag
    return np.bincount(row, weights=flag, minlength=offset.size).astype(np.int64)


def make_plan(
    offset: I64,
    length: I64,
    think_ns: I64,
    fault_ns: int,
    stretch: I64 | None,
    touched: Contains | None,
    first_write: int,
    head: int,
    shift: int,
) -> Plan:
    """Plan the writes given; see `Plan`."""
    n = offset.size
    new = np.zeros(n + 1, dtype=np.int64)
    fresh = first_touch(offset, length, stretch, touched, shift) if n else new[:0]
    np.cumsum(fresh, out=new[1:])
    word = words(offset, length)
    lead = fresh * fault_ns
    lead += think_ns
    free = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(lead + word, out=free[1:])
    lead += free[:-1]
    return Plan(offset, length, word, lead, free, new, first_write, head)
