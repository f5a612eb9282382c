"""What happens to the guest's view and to a kept layer, in order of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.replay.cells import Cells

# What happens, in this order where instants are equal.
STORE, COPY, DAMAGE, DEATH, SNAPSHOT, COMPLETE, COMMIT, FUA, FLUSHED = range(9)
_IN_MEMORY = ("host", "file", "after-quit", "elsewhere")


class InOrder(NamedTuple):
    """Kind k happens at `t_ns[first[k] : first[k + 1]]`, ascending, to what `what` says: a piece, a
    page, a batch, an I/O, a commit, or when the FLUSH was issued. `at`: the next ones."""

    first: I64
    t_ns: I64
    what: I64
    at: I64


def in_order(history: History, keep: str, cut: Cells) -> InOrder:
    """The events that concern what is kept."""
    info = history.info
    disk = keep not in _IN_MEMORY
    durable = keep == "durable" and not info.ignores_flush
    arrives = disk and (keep != "durable" or info.plp or durable)
    copied = np.isin(history.copy_page, cut.page)
    io = np.flatnonzero(history.io_corrupted)
    io = io[history.batch_failed[history.io_batch[io]] == 0]
    last_page = history.io_first_page + history.io_pages - 1
    io = io[np.isin(last_page[io], cut.page)]
    times, what = [history.store_t_ns[cut.piece_row]], [np.arange(cut.piece_row.size)]
    for wanted, t_ns, whom in (
        (copied, history.copy_t_ns, np.searchsorted(cut.page, history.copy_page)),
        (disk, history.io_complete_ns[io], np.searchsorted(cut.page, last_page[io])),
        (disk, np.array([info.dead_ns], dtype=np.int64), np.zeros(1, dtype=np.int64)),
        (arrives, history.batch_t_ns, np.arange(history.batch_t_ns.size)),
        (arrives, history.io_complete_ns, np.arange(history.io_batch.size)),
        (arrives, history.commit_complete_ns, np.arange(history.commit_t_ns.size)),
        (durable, history.commit_fua_ns, np.arange(history.commit_t_ns.size)),
        (
            durable & (history.flush_disk_ignored == 0),
            history.flush_disk_end_ns,
            history.flush_disk_issue_ns,
        ),
    ):
        chosen = np.flatnonzero(np.broadcast_to(wanted, t_ns.shape))
        chosen = chosen[np.argsort(t_ns[chosen], kind="stable")]
        times.append(t_ns[chosen])
        what.append(whom[chosen])
    first = np.cumsum([0, *(column.size for column in times)])
    return InOrder(first, np.concatenate(times), np.concatenate(what), first[:-1].copy())
