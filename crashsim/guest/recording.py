"""A recorded block log as a guest's program (Rule G7).

Log writes are writes to the pmem device, FLUSH and FUA are virtio flushes, marks acknowledge. The
recording answered every flush at once; here the guest waits for it, and every later entry keeps its
distance from the one before. What the program would have done differently with slower flushes
cannot be seen in a log. In which order a request with data and PREFLUSH or FUA is carried out is
the driver's generation: `concurrent` and `serialized` copy the data before the preflush, `ordered`
after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.engine.streams import I64
from crashsim.guest.program import Call, Op, Program

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Entries:
    """A log's entries in order: int64[n] columns; `label` is -1 but for marks, `payload_at` where
    the data lies."""

    t_ns: I64
    offset: I64
    length: I64
    flags: I64
    payload_at: I64
    label: I64
    labels: tuple[str, ...]


def recorded_program(
    entries: Entries, generation: str, device: int, first_byte: int, first_write: int
) -> tuple[Program, I64]:
    """The program, and where each of its writes' payload lies."""
    offset: list[int] = []
    length: list[int] = []
    think: list[int] = []
    payload_at: list[int] = []
    op_at: list[int] = []
    op_kind: list[int] = []
    op_delay: list[int] = []
    op_argument: list[int] = []

    def operate(kind: Op, delay_ns: int, argument: int) -> None:
        op_at.append(len(offset))
        op_kind.append(kind)
        op_delay.append(delay_ns)
        op_argument.append(argument)

    previous = 0
    columns = (entries.t_ns, entries.offset, entries.length, entries.flags, entries.payload_at)
    rows = zip(*(column.tolist() for column in (*columns, entries.label)), strict=True)
    for t, start, size, flags, payload, label in rows:
        gap, previous = t - previous, t
        if flags & MARK:
            operate(Op.MARK, gap, label)
            continue
        data = size > 0 and not flags & DISCARD
        if not data:
            if flags & (FLUSH | FUA):
                operate(Op.FLUSH, gap, 1)
            else:
                previous -= gap  # nothing happens here; the next entry keeps its instant
            continue
        before = 1 if flags & FLUSH else 0
        after = 1 if flags & FUA else 0
        if before and generation == "ordered":
            operate(Op.PREFLUSH, gap, after)  # if it fails, neither data nor FUA flush follow
            gap, before = 0, 0
        offset.append(start + first_byte)
        length.append(size)
        think.append(gap)
        payload_at.append(payload)
        if before + after:
            operate(Op.FLUSH, 0, before + after)
    empty = np.empty(0, dtype=np.int64)
    program = Program(
        device=device,
        first_write=first_write,
        offset=_column(offset),
        length=_column(length),
        think_ns=_column(think),
        record_low=empty,
        record_high=empty,
        op_at=_column(op_at),
        op_kind=_column(op_kind),
        op_delay_ns=_column(op_delay),
        op_argument=_column(op_argument),
        call=Call.FDATASYNC,
        labels=entries.labels or ("",),
    )
    return program, _column(payload_at)


def _column(values: list[int]) -> I64:
    return np.array(values, dtype=np.int64)
