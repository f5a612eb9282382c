"""The stores of a vCPU that have happened, kept cheaply while it runs, as columns afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crashsim.engine.columns import column
from crashsim.engine.streams import I64
from crashsim.guest.stretch import Stretch


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
