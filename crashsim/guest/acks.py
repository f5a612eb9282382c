"""What a vCPU's syncs acknowledged (Rule G9): records finished before a sync that succeeded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crashsim.engine.pages import column, join, words
from crashsim.engine.streams import I64
from crashsim.guest.program import Program
from crashsim.guest.stretch import StoreLog


@dataclass(slots=True)
class Acknowledged:
    """`at_once`: syncs acknowledge nothing, records are acknowledged when they are written."""

    at_once: bool
    record: int = 0  # records before this one are acknowledged or given up
    groups: list[tuple[int, int, int]] = field(default_factory=list)  # instant, records [low, high)
    failed_syncs: int = 0
    last_sync_ns: int = 0

    def sync_returned(self, now: int, record: int, ok: bool) -> None:
        """Records before `record` were finished when the sync was called."""
        self.last_sync_ns = now
        self.flush_returned(now, record, ok)

    def flush_returned(self, now: int, record: int, ok: bool) -> None:
        """The same for a recorded flush, which is no sync of the program."""
        if not ok:
            self.failed_syncs += 1
        elif record > self.record and not self.at_once:
            self.groups.append((now, self.record, record))
        self.record = max(self.record, record)

    def many(self, t_ns: I64, record: I64) -> None:
        """Syncs that all succeeded."""
        before = np.append(self.record, record[:-1])
        if not self.at_once:
            some = np.flatnonzero(record > before)
            columns = (t_ns[some].tolist(), before[some].tolist(), record[some].tolist())
            self.groups.extend(zip(*columns, strict=True))
        self.record = int(record[-1])
        self.last_sync_ns = int(t_ns[-1])


def acknowledgements(
    acknowledged: Acknowledged,
    marks: list[tuple[int, int, int]],
    stores: StoreLog,
    program: Program,
    unfinished_write: int | None,
) -> tuple[I64, I64, I64, I64, np.ndarray[tuple[int], np.dtype[np.str_]]]:
    """Acknowledgement columns of one vCPU: instant, device, writes [low, high), label.

    `unfinished_write`: the last one, if a part of it never began."""
    base = program.first_write
    if marks:
        t = column([t for t, _, _ in marks])
        high = column([position for _, position, _ in marks])
        low = np.concatenate([high[:1] * 0, high[:-1]])
        label = np.array([program.labels[i] for _, _, i in marks], dtype=np.str_)
    else:
        if program.acknowledge_at_once:
            t = _landed_ns(stores, program, unfinished_write)
            low, high = program.record_low[: t.size], program.record_high[: t.size]
        else:
            groups = np.array(acknowledged.groups, dtype=np.int64).reshape(-1, 3)
            size = groups[:, 2] - groups[:, 1]
            t = np.repeat(groups[:, 0], size)
            low, high = program.record_low[: t.size], program.record_high[: t.size]
            if size.size and int(groups[-1, 2]) > t.size:  # a failed sync left records out
                records = np.arange(t.size)
                records += np.repeat(groups[:, 1] - (np.cumsum(size) - size), size)
                low, high = program.record_low[records], program.record_high[records]
        label = np.broadcast_to(np.str_(""), t.shape)
    if base:
        low, high = low + base, high + base
    return t, np.broadcast_to(np.int64(program.device), t.shape), low, high, label


def _landed_ns(stores: StoreLog, program: Program, unfinished_write: int | None) -> I64:
    """The instant at which each finished record's last word landed, ascending."""
    write = join(stores.write) - program.first_write
    if not write.size:
        return write
    end = join(stores.t_ns) + words(join(stores.offset), join(stores.length)) - 1
    last = np.searchsorted(write, program.record_high, "left") - 1  # the last store before
    done = program.record_high <= write[-1] + (unfinished_write is None)
    landed: I64 = end[last[done]]
    return landed
