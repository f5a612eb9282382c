"""What a vCPU does, as columns: writes, and the operations between them.

A program knows nothing of time but the pauses that its author put in. Writes are numbered over all
programs of a run (`first_write` is the number of this program's first); the content of a write
depends on its number alone, so the same workload stores the same bytes under every sync policy and
on every disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from crashsim.engine.streams import I64
from crashsim.experiment.sync_calls import SyncCall


class Op(IntEnum):
    """Operations of a vCPU; the argument's meaning in brackets."""

    SYNC = 0  # call the program's sync [-]
    SYNC_IF_DUE = 1  # call it if the last one returned that long ago [ns]
    GROUP_SYNC = 2  # join the device's group commit [-]
    FLUSH = 3  # device flushes, all asked for at once [how many]
    MARK = 4  # a recording's acknowledgement [index of its label]
    PREFLUSH = 5  # a flush; if it fails, the next write does not happen, nor do [n] ops behind it


FLUSHES = (Op.FLUSH, Op.PREFLUSH)


@dataclass(frozen=True, slots=True)
class Program:
    """One vCPU's list of n writes, r records and m operations. Operation k comes before write
    `op_at[k]`."""

    device: int
    first_write: int
    offset: I64  # [n] global byte address
    length: I64  # [n]
    think_ns: I64  # [n] pause before the write; may be a broadcast scalar
    record_low: I64  # [r] record i is the writes [low, high), counted within the program
    record_high: I64
    op_at: I64  # [m] ascending
    op_kind: I64  # [m]
    op_delay_ns: I64  # [m] pause before the operation
    op_argument: I64  # [m]
    call: SyncCall  # what SYNC, SYNC_IF_DUE and GROUP_SYNC call
    group_delay_ns: int = 0
    acknowledge_at_once: bool = False  # records are acknowledged when written, not when synced
    labels: tuple[str, ...] = ()
    grows: bool = False  # each record makes the program's file longer (Rule G4)
    ranged: bool = False  # a call is for what was written since the last one that succeeded

    def _check(self) -> None:
        n = self.offset.size
        assert self.length.size == n and self.think_ns.size == n
        assert bool(np.all(self.length > 0)), "empty write"
        assert bool(np.all(np.diff(self.op_at) >= 0)), "operations out of order"
        assert bool(np.all(self.record_low < self.record_high)), "empty record"
        assert bool(np.all(self.record_low[1:] >= self.record_high[:-1])), "records overlap"
        assert not self.record_high.size or int(self.record_high[-1]) <= n
        assert not self.op_at.size or 0 <= int(self.op_at[0]) <= int(self.op_at[-1]) <= n
