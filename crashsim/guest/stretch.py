"""The next stretch of a vCPU's program, planned in bulk: when each write begins, if nothing
interferes.

Every per-store cost of the simulation is in here, in numpy. What can interfere is a snapshot of the
host; then what lies behind it is planned again. Assumption: after an operation that certainly
cleans (a sync that flushes), every page is clean for this vCPU; what was touched before the stretch
is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from crashsim.engine.folios import Folios
from crashsim.engine.pages import PAGE_SHIFT, column, words
from crashsim.engine.pageset import PageSet, Work
from crashsim.engine.streams import I64
from crashsim.guest.program import FLUSHES, Op, Program
from crashsim.pagecache.writeback import Memory

ROWS_MAX = 1 << 16
ROWS_MIN = 64
Contains = Callable[[I64], np.ndarray[tuple[int], np.dtype[np.bool_]]]


class Operation(NamedTuple):
    """An operation of the program: what comes before a row."""

    kind: int
    delay_ns: int
    argument: int
    record: int  # records finished before it


@dataclass(slots=True)
class Stretch:
    """n rows, the writes of the stretch, and m operations before some of them. Times are relative:
    row r begins `begin[r]` after the stretch's start.

    `free[r]` is when the vCPU is free for row r (so `free[n]` is the end), `new[r]` how many pages
    (of 4 KiB) rows before r find clean."""

    program: Program
    offset: I64
    length: I64
    words: I64
    begin: I64  # [n]
    free: I64  # [n + 1]
    new: I64  # [n + 1]
    first: int  # the write, within the program, that row 0 is
    has_rest: bool  # row 0 is the rest of a split write
    first_op: int
    op_row: I64  # [m]
    op_record: I64  # [m] records finished before it
    only_syncs: bool  # the operations are syncs without delay, behind which every page is clean
    # Rows that have happened: [low[i], high[i]) began `shift[i]` later than planned.
    low: list[int] = field(default_factory=list)
    high: list[int] = field(default_factory=list)
    shift: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.offset.size

    def stop(self, op: int) -> int | None:
        """The row before which operation `op` of the program is; None if not in this stretch."""
        number = op - self.first_op
        return int(self.op_row[number]) if number < self.op_row.size else None

    def operation(self, op: int) -> Operation:
        """Operation `op` of the program, which is in this stretch."""
        program = self.program
        return Operation(
            int(program.op_kind[op]),
            int(program.op_delay_ns[op]),
            int(program.op_argument[op]),
            int(self.op_record[op - self.first_op]),
        )

    def ahead(self, op: int, count: int, row: int) -> Work:
        """The windows from `row` on, each with the sync behind it, from operation `op` on; `count`
        at most."""
        rows = self.op_row[op - self.first_op :][:count]
        free, new = self.free[rows], self.new[rows]
        return Work(
            self.offset,
            self.length,
            self.begin,
            self.new,
            low=np.append(row, rows[:-1]),
            row=rows,
            free=np.append(self.free[row], free[:-1]),
            busy_ns=np.diff(free, prepend=self.free[row]),
            pages=np.diff(new, prepend=self.new[row]),
        )

    def happened(self, low: I64, high: I64, shift: I64) -> None:
        """Many windows at once; empty ones are left out."""
        some = np.flatnonzero(high > low)
        self.low.extend(low[some].tolist())
        self.high.extend(high[some].tolist())
        self.shift.extend(shift[some].tolist())


class Planner:
    """Plans a program for the memory that it stores to. `dirty`: what is not clean for the vCPU;
    `call_cleans`: behind the program's sync call every page is."""

    __slots__ = ("_call_cleans", "_dirty", "_memory", "_program", "_rows_max")

    def __init__(self, program: Program, memory: Memory, dirty: PageSet, call_cleans: bool) -> None:
        self._program = program
        self._memory = memory
        self._dirty = dirty
        self._call_cleans = call_cleans
        self._rows_max = ROWS_MAX

    def came_to(self, row: int, interrupted: bool) -> None:
        """How far the last stretch was of use: the next is no longer than is likely to be."""
        rows = max(ROWS_MIN, 2 * row) if interrupted else 2 * self._rows_max
        self._rows_max = min(rows, ROWS_MAX)

    def plan(self, position: int, op: int, rest: tuple[int, int] | None) -> Stretch:
        """From write `position` and operation `op` on, the rest (offset, length) of a split write
        first."""
        program, memory, dirty = self._program, self._memory, self._dirty
        end = min(position + self._rows_max, program.offset.size)
        offset, length = program.offset[position:end], program.length[position:end]
        think = program.think_ns[position:end]
        first = position
        if rest is not None:
            first -= 1
            offset = np.append(rest[0], offset)
            length = np.append(rest[1], length)
            think = np.append(1, think)
        last_end = end + 1 if end == program.offset.size else end
        here = slice(op, int(np.searchsorted(program.op_at, last_end)))
        op_row, kind = program.op_at[here] - first, program.op_kind[here]
        clean = op_row[:0]
        if memory.cleaned_by_sync:
            calls = (Op.SYNC, Op.GROUP_SYNC) if self._call_cleans else ()
            clean = op_row[np.isin(kind, (*calls, *FLUSHES))]
        n = offset.size
        since = np.cumsum(np.bincount(clean, minlength=n + 1)[:n]) if clean.size else None
        touched = dirty.contains if dirty.count else None
        faults = pages = op_row[:0]
        if n:
            faults, pages = first_touch(offset, length, since, touched, memory.folios)
        word = words(offset, length)
        lead = faults * memory.fault_ns + think
        free = _from_zero(lead + word)
        plain = bool(np.all((kind == Op.SYNC) & (program.op_delay_ns[here] == 0)))
        return Stretch(
            program,
            offset,
            length,
            word,
            begin=lead + free[:-1],
            free=free,
            new=_from_zero(pages),
            first=first,
            has_rest=rest is not None,
            first_op=op,
            op_row=op_row,
            op_record=np.searchsorted(program.record_high, program.op_at[here], "right"),
            only_syncs=plain and self._call_cleans,
        )


def _from_zero(steps: I64) -> I64:
    """Running totals, 0 first."""
    out = np.zeros(steps.size + 1, dtype=np.int64)
    np.cumsum(steps, out=out[1:])
    return out


def first_touch(
    offset: I64, length: I64, since: I64 | None, touched: Contains | None, folios: Folios
) -> tuple[I64, I64]:
    """Folios that each write is the first to touch, and how many pages they have, int64[n] (Rules
    H1, H2).

    `since`: how often all pages were cleaned before each write, None when never; `touched` says
    which folios were touched before the first of that, None when none was."""
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
    if since is not None:
        of_piece = (since if row is None else since[row])[index]
        first[1:] |= of_piece[1:] != of_piece[:-1]
    if touched is not None:
        known = touched(key)
        if since is not None:
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


@dataclass(slots=True)
class StoreLog:
    """Columns of a vCPU's stores, in pieces to be joined after the run; times of last words are
    begin + words - 1."""

    t_ns: list[I64] = field(default_factory=list)
    offset: list[I64] = field(default_factory=list)
    length: list[I64] = field(default_factory=list)
    write: list[I64] = field(default_factory=list)
    whole: bool = True  # no write was split or left out: store i is write i

    def add(self, t_ns: I64, offset: I64, length: I64, write: I64) -> None:
        """Append rows."""
        self.t_ns.append(t_ns)
        self.offset.append(offset)
        self.length.append(length)
        self.write.append(write)

    def retire(self, stretch: Stretch) -> None:
        """Append the rows that have happened of a stretch that is not needed any more; its times
        are used up."""
        if not stretch.low:
            return
        low, high = stretch.low[0], stretch.high[-1]
        begin = stretch.begin[low:high]
        begin += np.repeat(column(stretch.shift), column(stretch.high) - column(stretch.low))
        first = stretch.program.first_write + stretch.first
        number = np.arange(first + low, first + high, dtype=np.int64)
        self.add(begin, stretch.offset[low:high], stretch.length[low:high], number)
        stretch.low = []
