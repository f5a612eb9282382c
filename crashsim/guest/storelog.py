"""The stores of a vCPU that have happened, kept cheaply while it runs, as columns afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crashsim.engine.streams import I64
from crashsim.guest.plan import Plan
from crashsim.guest.program import Program


@dataclass(slots=True)
class PlanLog:
    """Rows of one plan that have happened: [low[i], high[i]) began `shift[i]` later than
    planned."""

    plan: Plan
    low: list[int] = field(default_factory=list)
    high: list[int] = field(default_factory=list)
    shift: list[int] = field(default_factory=list)

    def extend(self, low: I64, high: I64, shift: I64) -> None:
        """Many windows at once; empty ones are left out."""
        some = np.flatnonzero(high > low)
        self.low.extend(low[some].tolist())
        self.high.extend(high[some].tolist())
        self.shift.extend(shift[some].tolist())


@dataclass(slots=True)
class StoreLog:
    """Columns of a vCPU's stores, in pieces to be joined after the run; times of last words are
    begin + words - 1."""

    t_ns: list[I64] = field(default_factory=list)
    offset: list[I64] = field(default_factory=list)
    length: list[I64] = field(default_factory=list)
    write: list[I64] = field(default_factory=list)
    whole: bool = True  # no write was divided or left out: store i is write i

    def add(self, t_ns: I64, offset: I64, length: I64, write: I64) -> None:
        """Append rows."""
        self.t_ns.append(t_ns)
        self.offset.append(offset)
        self.length.append(length)
        self.write.append(write)

    def retire(self, log: PlanLog, program: Program) -> None:
        """Append the rows of a plan that is not needed any more; its times are used up."""
        if not log.low:
            return
        plan, low, high = log.plan, log.low[0], log.high[-1]
        begin = plan.begin[low:high]
        size = np.array(log.high, dtype=np.int64) - np.array(log.low, dtype=np.int64)
        begin += np.repeat(np.array(log.shift, dtype=np.int64), size)
        first = program.first_write + plan.first_write - plan.head
        number = np.arange(first + low, first + high, dtype=np.int64)
        self.add(begin, plan.offset[low:high], plan.length[low:high], number)
        log.low = []
