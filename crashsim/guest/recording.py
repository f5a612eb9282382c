"""A recorded block log as a guest's program (Rule G7).

Log writes are writes to the pmem device, FLUSH and FUA are virtio flushes, marks acknowledge. The
recording answered every flush at once; here the guest waits for it, and every later entry keeps its
distance from the one before. What the program would have done differently with slower flushes
cannot be seen in a log. In which order a request with data and PREFLUSH or FUA is carried out is
the driver's generation: `concurrent` and `serialized` copy the data before the preflush, `ordered`
after it.
"""

from __future__ import annotations

import numpy as np

from crashsim.engine.streams import I64
from crashsim.experiment.sync_calls import CALLS
from crashsim.guest.program import Op, Program
from crashsim.traces.block_log import DISCARD, FLUSH, FUA, MARK, Trace


def recorded_program(
    entries: Trace, generation: str, device: int, first_byte: int, first_write: int
) -> tuple[Program, I64]:
    """The program, and where each of its writes' payload lies."""
    flags = entries.flags
    mark = (flags & MARK) != 0
    data = (entries.length_bytes > 0) & ((flags & DISCARD) == 0) & ~mark
    # Where nothing happens there is no pause either: the next entry keeps its instant.
    rows = np.flatnonzero(mark | data | ((flags & (FLUSH | FUA)) != 0))
    mark, data, flags = mark[rows], data[rows], flags[rows]
    gap = np.diff(entries.t_ns[rows], prepend=0)
    position = np.cumsum(data) - data  # writes before the entry
    after = (data & ((flags & FUA) != 0)).astype(np.int64)
    before = (data & ((flags & FLUSH) != 0)).astype(np.int64)
    first = before * 0 if generation != "ordered" else before
    behind = before - first + after
    leading = np.flatnonzero((first > 0) | ~data)  # an operation, before the data if there is any
    trailing = np.flatnonzero(behind)  # flushes behind the data
    kind = np.where(mark, Op.MARK, np.where(data, Op.PREFLUSH, Op.FLUSH))
    argument = np.where(mark, entries.label[rows], np.where(data, after, 1))
    order = np.argsort(np.concatenate([2 * leading, 2 * trailing + 1]), kind="stable")

    def operations(lead: I64, trail: I64) -> I64:
        column: I64 = np.concatenate([lead[leading], trail[trailing]])[order]
        return column

    writes = rows[data]
    empty = np.empty(0, dtype=np.int64)
    program = Program(
        device=device,
        first_write=first_write,
        offset=entries.offset_bytes[writes] + first_byte,
        length=entries.length_bytes[writes],
        think_ns=np.where(first > 0, 0, gap)[data],
        record_low=empty,
        record_high=empty,
        op_at=operations(position, position + 1),
        op_kind=operations(kind, np.full(rows.size, Op.FLUSH)),
        op_delay_ns=operations(gap, np.zeros(rows.size, dtype=np.int64)),
        op_argument=operations(argument, behind),
        call=CALLS["fdatasync"],
        labels=entries.labels or ("",),
    )
    return program, entries.payload_at[writes]
