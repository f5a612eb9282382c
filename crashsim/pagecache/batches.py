"""Which folios many batches hold, worked out after the run (Rule H2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from crashsim.engine.columns import column
from crashsim.engine.folios import Folios
from crashsim.engine.streams import I64
from crashsim.pagecache.writeback import Batch


def folios_of(group: list[Batch], of: list[Folios]) -> tuple[I64, I64]:
    """(batch, folio) of every folio of the batches, ascending and distinct; `of` by device.

    Ranges of one program's columns that follow each other are looked at in one go."""
    number: list[int] = []
    count: list[int] = []
    known_folios: list[I64] = []
    run: list[Any] | None = None  # offset, length, low, high, batch numbers, sizes, device

    def close() -> None:
        if run is not None:
            offset, length, low, high, numbers, sizes, device = run
            folio, row = of[device].touched(offset[low:high], length[low:high])
            batch = np.repeat(column(numbers), column(sizes))
            keys.append(((batch if row is None else batch[row]) - base << 40) | folio)

    keys: list[I64] = []
    base = group[0].number
    for batch in group:
        for taken in batch.taken:
            for known in taken.known:
                number.append(batch.number - base)
                count.append(known.size)
                known_folios.append(known)
            for offset, length, low, high in taken.ranges:
                if run is not None and run[0] is offset and run[3] == low:
                    run[3] = high
                    run[4].append(batch.number)
                    run[5].append(high - low)
                else:
                    close()
                    sizes = [high - low]
                    run = [offset, length, low, high, [batch.number], sizes, batch.device]
    close()
    if known_folios:
        batch_key = np.repeat(column(number), column(count)) << 40
        keys.append(batch_key | np.concatenate(known_folios))
    key = np.concatenate(keys)
    key.sort()
    keep = np.empty(key.size, dtype=bool)
    keep[0] = True
    np.not_equal(key[1:], key[:-1], out=keep[1:])
    key = key[keep]
    return (key >> 40) + base, key & ((1 << 40) - 1)
