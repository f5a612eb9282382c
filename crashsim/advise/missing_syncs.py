"""Flushes that a recording's marks lack, and syncs that give no acknowledgement.

Contract: what is asked of a program is read from its operations, and every answer was simulated.

Missing: a recording's mark needs a flush since the mark before it. That ends the loss of what had
come to the device by then, and of nothing else: whether anything was still in the guest nothing
here knows.

Syncs that a program makes for certain, and that give no acknowledgement, in two kinds:
- idle: the vCPU has stored nothing since its last one.
- ordering: no record was finished since the one before it, or another flush follows ahead of the
  next mark; and all are covered without it. Left out, what is stored before and after it may become
  durable in either order: whether recovery counts on that order only a checker can say.

Syncs that cannot go all at once are halved until they can, in at most `MOST_REMOVALS` runs for each
kind; what was not settled by then stays. Syncs that depend on the clock or on other vCPUs are left
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crashsim.advise.evidence import Checked, Toll, Trials, losses, toll
from crashsim.engine.streams import I64
from crashsim.guest.program import Op, Program
from crashsim.runs.one import Run

MOST_REMOVALS = 8
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
_FEW = 3


@dataclass(frozen=True, slots=True)
class Places:
    """Places in programs, by the write that each one follows; -1: before a program's first."""

    after_writes: tuple[int, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Spare:
    """Syncs that give no acknowledgement, and what came of a run without all of them. `worse`:
    outcomes that the checker rejects only then; None: not explored."""

    places: Places
    before: Toll
    after: Toll
    explored: Checked | None = None
    worse: tuple[str, ...] | None = None


def _doing(run: Run, programs: list[Program]) -> Run:
    """The same, its guests doing this."""
    return Run(run.case, inputs=replace(run.inputs, programs=programs))


# --- missing --------------------------------------------------------------------------------------


def before_marks(trials: Trials, run: Run) -> tuple[Places, Run] | None:
    """Recordings: flushes before the marks that are not covered when they are given, and the run
    with them; None when that loses something still."""
    programs = run.inputs.programs
    marks = [np.flatnonzero(program.op_kind == Op.MARK) for program in programs]
    chosen, tried = [rows[:0] for rows in marks], run
    while trials.left(2 * MOST_REMOVALS):
        history = tried.history
        late = losses(tried).covered_ns > history.ack_t_ns
        # Each mark needs a flush of its own since the one before: none of them covers another.
        more = [
            np.union1d(before, rows[np.flatnonzero(late[history.ack_device == program.device])])
            if rows.size
            else before
            for program, rows, before in zip(programs, marks, chosen, strict=True)
        ]
        if sum(map(len, more)) == sum(map(len, chosen)):
            break
        chosen = more
        flushed = map(_flushed, programs, chosen)
        tried = trials.run(_doing(run, [*flushed]), "flushes before marks")
    if tried is run or not toll(tried).safe:
        return None
    return _marked(programs, chosen), tried


def _flushed(program: Program, before: I64) -> Program:
    """With a flush ahead of each of these operations."""
    return replace(
        program,
        op_at=np.insert(program.op_at, before, program.op_at[before]),
        op_kind=np.insert(program.op_kind, before, int(Op.FLUSH)),
        op_delay_ns=np.insert(program.op_delay_ns, before, 0),
        op_argument=np.insert(program.op_argument, before, 1),
    )


# --- redundant ------------------------------------------------------------------------------------


def redundant(trials: Trials, run: Run) -> tuple[Spare | None, tuple[Spare, Run] | None]:
    """(idle, ordering) syncs, and the run without all of them; the second only where nothing is
    lost without the first ones."""
    idle, without = _removed(trials, run, _idle)
    if not toll(without).safe:
        return idle, None
    ordering, less = _removed(trials, without, _ordering)
    return idle, None if ordering is None else (ordering, less)


def _removed(trials: Trials, run: Run, kind: Callable[[Program], I64]) -> tuple[Spare | None, Run]:
    """As many syncs of a kind as can go, and the run without them."""
    programs = run.inputs.programs
    rows = [kind(program) for program in programs]
    owner = np.repeat(np.arange(len(rows)), [one.size for one in rows])
    row = np.concatenate([*rows, np.empty(0, dtype=np.int64)])
    before, without = toll(run), run
    gone = np.zeros(row.size, dtype=bool)
    todo, last_run = [(0, row.size)] if row.size else [], trials.made + MOST_REMOVALS
    while todo and trials.made < last_run:
        low, high = todo.pop()
        some = gone.copy()
        some[low:high] = True
        less = [_without(one, row[some & (owner == n)]) for n, one in enumerate(programs)]
        tried = trials.run(_doing(run, less), "without syncs that seem redundant")
        if _as_good(before, toll(tried)):
            gone, without = some, tried
        elif high - low > 1:
            middle = (low + high) // 2
            todo += [(middle, high), (low, middle)]
    if without is run:
        return None, run
    at = [program.op_at[row[gone & (owner == n)]] for n, program in enumerate(programs)]
    return Spare(places(programs, at), before, toll(without)), without


def _as_good(before: Toll, after: Toll) -> bool:
    """Whether nothing more is lost, and no acknowledgement is given up."""
    return (
        after.uncovered <= before.uncovered
        and after.broken <= before.broken
        and after.acknowledged >= before.acknowledged
    )


def _certain(program: Program) -> I64:
    """Operations behind which everything that the vCPU stored is durable."""
    if program.call.flushes != "always":
        return np.flatnonzero(program.op_kind == Op.FLUSH)
    return np.flatnonzero(np.isin(program.op_kind, (Op.SYNC, Op.GROUP_SYNC, Op.FLUSH)))


def _one_by_one(program: Program, rows: I64) -> Bools:
    """Those of them that can be left out without touching anything else."""
    plain = np.isin(program.op_kind[rows], (Op.SYNC, Op.FLUSH)) & (program.op_argument[rows] <= 1)
    return np.asarray(plain, dtype=np.bool_)


def _idle(program: Program) -> I64:
    """Syncs with no write and no mark since the one before, or since the program's beginning."""
    rows = _certain(program)
    marks = np.searchsorted(np.flatnonzero(program.op_kind == Op.MARK), rows)
    again = (np.diff(program.op_at[rows], prepend=0) == 0) & (np.diff(marks, prepend=0) == 0)
    idle: I64 = rows[again & _one_by_one(program, rows)]
    return idle


def _ordering(program: Program) -> I64:
    """Syncs that give no acknowledgement; flushes that are not the last before a mark."""
    rows = _certain(program)
    if program.labels:
        marks = np.searchsorted(np.flatnonzero(program.op_kind == Op.MARK), rows)
        spare = np.append(np.diff(marks) == 0, False)[: rows.size] & bool(marks.any())
    else:
        records = np.searchsorted(program.record_high, program.op_at[rows], "right")
        spare = np.diff(records, prepend=0) == 0
    return rows[spare & _one_by_one(program, rows)]


def _without(program: Program, rows: I64) -> Program:
    return replace(
        program,
        op_at=np.delete(program.op_at, rows),
        op_kind=np.delete(program.op_kind, rows),
        op_delay_ns=np.delete(program.op_delay_ns, rows),
        op_argument=np.delete(program.op_argument, rows),
    )


# --- places in words ------------------------------------------------------------------------------


def places(programs: Sequence[Program], at: Sequence[I64]) -> Places:
    """Positions in each program, told by write and record; records are numbered as writes are."""
    writes: list[int] = []
    ends: list[int] = []  # of the record that ends there, -1: none does
    total = 0
    for program, position in zip(programs, at, strict=True):
        writes += _writes(program, position)
        record = np.searchsorted(program.record_high, position)
        there = np.append(program.record_high, -1)[record] == position
        ends += np.where(there, record + total, -1).tolist()
        total += program.record_high.size
    distinct = len(set(writes))
    if distinct <= _FEW:
        named = dict(zip(writes, ends, strict=True))
        words = ", ".join(
            _after(n, f"record {end}" if end >= 0 else "") for n, end in named.items()
        )
    elif min(ends) < 0:
        first = "before the first write, and " if min(writes) < 0 else ""
        words = f"{first}after writes {ranges([n for n in writes if n >= 0])}"
    elif distinct == total:
        words = f"after the last write of each of {total:,} records"
    else:
        words = f"after the last write of {distinct:,} of {total:,} records: {ranges(ends)}"
    return Places(tuple(writes), words)


def _marked(programs: Sequence[Program], rows: Sequence[I64]) -> Places:
    """Places before some marks."""
    writes: list[int] = []
    labels: list[str] = []
    for program, marks in zip(programs, rows, strict=True):
        writes += _writes(program, program.op_at[marks])
        labels += [f"'{program.labels[i]}'" for i in program.op_argument[marks].tolist()]
    if len(writes) <= _FEW:
        marked = zip(writes, labels, strict=True)
        words = ", ".join(_after(n, f"before the mark {label}") for n, label in marked)
    else:
        shown = [*labels[:_FEW], "...", labels[-1]] if len(labels) > _FEW + 1 else labels
        words = f"before each of {len(labels):,} marks: {', '.join(shown)}"
    return Places(tuple(writes), words)


def _writes(program: Program, position: I64) -> list[int]:
    """Numbers of the writes that positions follow."""
    found: list[int] = np.where(position > 0, position - 1 + program.first_write, -1).tolist()
    return found


def _after(write: int, remark: str) -> str:
    place = "before the first write" if write < 0 else f"after write {write}"
    return f"{place} ({remark})" if remark else place


def ranges(numbers: Sequence[int]) -> str:
    """`0-8, 10-18, 20-28, ... 90-98`."""
    all_of = np.unique(np.array(numbers, dtype=np.int64))
    breaks = np.flatnonzero(np.diff(all_of) > 1)
    low, high = all_of[np.append(0, breaks + 1)], all_of[np.append(breaks, -1)]
    shown = [*range(_FEW), low.size - 1] if low.size > _FEW + 2 else range(low.size)
    words = [str(low[i]) if low[i] == high[i] else f"{low[i]}-{high[i]}" for i in shown]
    if low.size > len(words):
        words[-1] = f"... {words[-1]}"
    return ", ".join(words)
