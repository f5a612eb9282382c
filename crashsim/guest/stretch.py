"""The next stretch of a vCPU's program: its writes planned in bulk, and its operations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.pageset import PageSet
from crashsim.guest.plan import Plan, Syncs, make_plan
from crashsim.guest.ports import Memory
from crashsim.guest.program import FLUSHES, Op, Program

# row, kind, delay, argument, then of the row: free, new, records before it, begin
Operation = tuple[int, int, int, int, int, int, int, int]


class Stretch(NamedTuple):
    """`operations` are taken from the end; `syncs`: the same, if there are no others than plain
    syncs."""

    plan: Plan
    operations: list[Operation]
    syncs: Syncs | None


def next_stretch(
    program: Program,
    position: int,
    rest: tuple[int, int] | None,
    first_op: int,
    rows_max: int,
    memory: Memory,
    dirty: PageSet,
    call_cleans: bool,
) -> Stretch:
    """Plan from write `position` on, the rest (offset, length) of a divided write first;
    `call_cleans`: after the program's sync call every page of it is clean for certain."""
    head = 0 if rest is None else 1
    end = min(position + rows_max, program.offset.size)
    offset, length = program.offset[position:end], program.length[position:end]
    think = program.think_ns[position:end]
    if rest is not None:
        offset = np.concatenate([np.array([rest[0]], dtype=np.int64), offset])
        length = np.concatenate([np.array([rest[1]], dtype=np.int64), length])
        think = np.concatenate([np.array([1], dtype=np.int64), think])
    last_end = end + 1 if end == program.offset.size else end
    here = slice(first_op, int(np.searchsorted(program.op_at, last_end)))
    rows = program.op_at[here] - (position - head)
    kind, delay = program.op_kind[here], program.op_delay_ns[here]
    clean = rows[:0]
    if memory.cleaned_by_sync:
        calls = (Op.SYNC, Op.GROUP_SYNC) if call_cleans else ()
        clean = rows[np.isin(kind, (*calls, *FLUSHES))]
    n = offset.size
    stretch = np.cumsum(np.bincount(clean, minlength=n + 1)[:n]) if clean.size else None
    touched = dirty.contains if dirty.count else None
    plan = make_plan(
        offset, length, think, memory.fault_ns, stretch, touched, position, head, memory.folios
    )
    records = np.searchsorted(program.record_high, program.op_at[here], "right")
    begin = np.append(plan.begin, 0)
    columns = [rows, kind, delay, program.op_argument[here]]
    columns += [plan.free[rows], plan.new[rows], records, begin[rows]]
    operations: list[Operation] = list(zip(*(c.tolist() for c in columns), strict=True))
    operations.reverse()
    plain = call_cleans and bool(np.all((kind == Op.SYNC) & (delay == 0)))
    return Stretch(plan, operations, Syncs(plan, rows, records) if plain and rows.size else None)
