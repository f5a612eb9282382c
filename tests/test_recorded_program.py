"""A log becomes a program in arrays; one entry after the other must give the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.guest.program import Op, Program
from crashsim.guest.recording import recorded_program
from crashsim.traces.block_log import DISCARD, FLUSH, FUA, MARK, Trace

Row = tuple[int, int, int]  # pause, flags, sectors
FIRST_BYTE, FIRST_WRITE = 8192, 7


def entries(rows: list[Row]) -> Trace:
    number = np.arange(len(rows), dtype=np.int64)
    pause, flags, sectors = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return Trace(
        file="",
        header_bytes=512,
        t_ns=np.cumsum(pause),
        offset_bytes=number * 4096,
        length_bytes=sectors * 512,
        flags=flags,
        payload_at=number * 1000,
        label=np.where(flags & MARK, number, -1),
        labels=("done",),
        payload=memoryview(b""),
        notices=(),
    )


def one_after_the_other(log: Trace, generation: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {
        name: [] for name in ("offset", "length", "think", "payload", "at", "kind", "delay", "arg")
    }

    def operate(kind: Op, delay: int, argument: int) -> None:
        for name, value in (("at", len(found["offset"])), ("kind", int(kind))):
            found[name].append(value)
        found["delay"].append(delay)
        found["arg"].append(argument)

    previous = 0
    for i in range(log.t_ns.size):
        flags, gap = int(log.flags[i]), int(log.t_ns[i]) - previous
        data = bool(log.length_bytes[i]) and not flags & (DISCARD | MARK)
        if not data and not flags & (MARK | FLUSH | FUA):
            continue
        previous += gap
        if flags & MARK:
            operate(Op.MARK, gap, int(log.label[i]))
        elif not data:
            operate(Op.FLUSH, gap, 1)
        else:
            flush, fua = bool(flags & FLUSH), bool(flags & FUA)
            if flush and generation == "ordered":
                operate(Op.PREFLUSH, gap, int(fua))
                gap, flush = 0, False
            found["offset"].append(int(log.offset_bytes[i]) + FIRST_BYTE)
            found["length"].append(int(log.length_bytes[i]))
            found["think"].append(gap)
            found["payload"].append(int(log.payload_at[i]))
            if flush or fua:
                operate(Op.FLUSH, 0, flush + fua)
    return found


def in_arrays(log: Trace, generation: str) -> dict[str, list[int]]:
    program: Program
    program, payload = recorded_program(log, generation, 0, FIRST_BYTE, FIRST_WRITE)
    program._check()
    return {
        "offset": program.offset.tolist(),
        "length": program.length.tolist(),
        "think": program.think_ns.tolist(),
        "payload": payload.tolist(),
        "at": program.op_at.tolist(),
        "kind": program.op_kind.tolist(),
        "delay": program.op_delay_ns.tolist(),
        "arg": program.op_argument.tolist(),
    }


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 15), st.integers(0, 2)), max_size=20)


@pytest.mark.parametrize("generation", ["concurrent", "serialized", "ordered"])
@given(rows=ROWS)
def test_in_arrays_as_one_after_the_other(generation: str, rows: list[Row]) -> None:
    log = entries(rows)
    assert in_arrays(log, generation) == one_after_the_other(log, generation)
