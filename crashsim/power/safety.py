"""When each piece of each store is safe from a failure (Rules P1-P5, D1, D2, H9, H10).

Contract: a piece is safe from the first instant from which its page holds that store, or a later
version, in a layer that the failure keeps. It travels with the first snapshot of its page at or
after its begin (without DAX: at or after the copy that carries it), because a page under writeback
is never written twice at once, so versions of a page become safe in order. `NEVER`: not before the
run's end was simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import Pieces, split
from crashsim.engine.streams import I64

_BATCHES_TRIED = 4  # a page that one partial writeback leaves out is in one of the next, as a rule


class Domain(StrEnum):
    """What fails."""

    PROGRAM_KILL = "program-kill"
    GUEST_CRASH = "guest-crash"
    VMM_KILL = "vmm-kill"
    HOST_CRASH = "host-crash"
    POWER_CUT = "power-cut"


class Stage(StrEnum):
    """How far a piece has got; `kept_stage` says which stage a failure keeps."""

    STORED = "stored"  # L1, or L2 with DAX
    IN_HOST = "in-host"  # L2
    SUBMITTED = "submitted"  # L3
    COMPLETED = "completed"  # L4
    DURABLE = "durable"  # L5


@dataclass(frozen=True, slots=True)
class HostCrash:
    """What a crash of the host leaves undecided (Rule P4)."""

    in_flight_kept: bool = False
    disk_cache_kept: bool = True


def kept_stage(domain: Domain, host_crash: HostCrash = HostCrash()) -> Stage:
    """The earliest stage from which a failure takes nothing."""
    if domain is Domain.PROGRAM_KILL:
        return Stage.STORED
    if domain in (Domain.GUEST_CRASH, Domain.VMM_KILL):
        return Stage.IN_HOST
    if domain is Domain.HOST_CRASH and host_crash.disk_cache_kept:
        return Stage.SUBMITTED if host_crash.in_flight_kept else Stage.COMPLETED
    return Stage.DURABLE


def _count_before(instants: I64, t_ns: I64) -> I64:
    """For each t how many of the ascending instants are smaller."""
    if t_ns.size == 0 or bool(np.any(t_ns[1:] < t_ns[:-1])):
        return np.searchsorted(instants, t_ns, "left")
    low, high = np.searchsorted(instants, [t_ns[0], t_ns[-1]], "left")
    place = np.searchsorted(t_ns, instants[low:high], "right")  # cheaper: fewer instants than t
    counts = np.diff(place, prepend=0, append=t_ns.size)
    return np.repeat(np.arange(low, high + 1, dtype=np.int64), counts)


class Batched(NamedTuple):
    """A stretch of rows [low, high) cut into pieces, and when each piece is safe, int64."""

    low: int
    high: int
    pieces: Pieces
    safe_ns: I64


class _PageTimes:
    """Rows (page, instant), searched by page and time."""

    def __init__(self, page: I64, t_ns: I64) -> None:
        self._instants = np.unique(t_ns)
        key = (page << 32) | np.searchsorted(self._instants, t_ns)
        self._order = np.argsort(key, kind="stable")
        self._key = key[self._order]

    def first_at_or_after(self, page: I64, t_ns: I64) -> I64:
        """Row of the same page with the smallest instant >= t, -1 if none."""
        if not self._key.size:
            return np.full(page.size, -1, dtype=np.int64)
        key = (page << 32) | np.searchsorted(self._instants, t_ns, "left")
        at = np.searchsorted(self._key, key, "left")
        found = np.minimum(at, self._key.size - 1)
        hit = (at < self._key.size) & (self._key[found] >> 32 == page)
        return np.where(hit, self._order[found], -1)


class Safety:
    """Safe instants of a History's stores for one stage."""

    def __init__(self, history: History, stage: Stage) -> None:
        self._history = history
        self._stage = stage
        self._copies = _PageTimes(history.copy_page, history.copy_t_ns)
        self._has_copies = bool(history.copy_t_ns.size) or not history.facts["dax"]
        self._every_page: _PageTimes | None = None
        self._io_key: I64 | None = None
        self._page_io: I64 = np.empty(0, dtype=np.int64)
        self._batch_base: list[tuple[I64, I64]] = []
        for device in range(len(history.devices)):
            mine = np.flatnonzero(history.batch_device == device)
            self._batch_base.append((mine, history.batch_t_ns[mine]))
        self._io_first = np.searchsorted(history.io_batch, np.arange(history.batch_t_ns.size + 1))
        self._batch_ns = self._batches_safe()

    def _io_safe(self, io: I64) -> I64:
        """When each of these I/Os' content is safe."""
        history = self._history
        if self._stage is Stage.SUBMITTED:
            return history.batch_t_ns[history.io_batch[io]]
        complete = history.io_complete_ns[io]
        if self._stage is Stage.COMPLETED or history.facts["plp"]:
            return complete
        return self._flushed(complete)

    def _flushed(self, complete_ns: I64) -> I64:
        """End of the first FLUSH issued at or after the completion (Rule D1)."""
        history = self._history
        if history.facts["ignores_flush"]:
            return np.full(complete_ns.shape, NEVER, dtype=np.int64)
        flush = np.searchsorted(history.flush_disk_issue_ns, complete_ns, "left")
        ends = np.append(history.flush_disk_end_ns, NEVER)
        return ends[flush]

    def _batches_safe(self) -> I64:
        """For batches all of whose I/Os are safe at one instant that instant, -1 for the others."""
        history = self._history
        if history.batch_t_ns.size == 0:
            return history.batch_t_ns
        if self._stage is Stage.SUBMITTED:
            return history.batch_t_ns
        first = np.minimum.reduceat(history.io_complete_ns, self._io_first[:-1])
        last = np.maximum.reduceat(history.io_complete_ns, self._io_first[:-1])
        if self._stage is Stage.DURABLE and not history.facts["plp"]:
            first, last = self._flushed(first), self._flushed(last)
        return np.where(first == last, first, -1)

    def stretches(self, rows: int) -> Iterator[Batched]:
        """All stores, about `rows` at a time, in order."""
        history = self._history
        for low in range(0, history.store_t_ns.size, rows):
            high = min(low + rows, history.store_t_ns.size)
            pieces = split(history.store_offset[low:high], history.store_length[low:high])
            yield Batched(low, high, pieces, self.of_pieces(pieces, history.store_t_ns[low:high]))

    def of_pieces(self, pieces: Pieces, store_t_ns: I64) -> I64:
        """Safe instant of each piece; `pieces.row` counts within `store_t_ns`."""
        same = pieces.row.size == store_t_ns.size  # each store is one piece
        t = store_t_ns if same else store_t_ns[pieces.row]
        if self._stage is Stage.STORED:
            return t
        if self._has_copies:
            t = self.copied_ns(pieces.page, t)
        if self._stage is Stage.IN_HOST:
            return t
        return self._carried(pieces.page, t)

    def copied_ns(self, page: I64, t_ns: I64) -> I64:
        """When the guest's writeback copied each to L2."""
        instants = np.append(self._history.copy_t_ns, NEVER)  # row -1: never
        return instants[self._copies.first_at_or_after(page, t_ns)]

    def _carried(self, page: I64, t_ns: I64) -> I64:
        """Safe instant of what was in L2 from `t_ns`."""
        history = self._history
        safe = np.full(t_ns.size, NEVER, dtype=np.int64)
        if history.batch_t_ns.size == 0:
            return safe
        for span, (number, instants) in zip(history.devices, self._batch_base, strict=True):
            if len(history.devices) > 1:
                mine = np.flatnonzero(
                    (page >= span.first_page) & (page < span.first_page + span.pages)
                )
                safe[mine] = self._on_device(page[mine], t_ns[mine], number, instants)
            else:
                safe = self._on_device(page, t_ns, number, instants)
        return safe

    def _on_device(self, page: I64, t_ns: I64, number: I64, instants: I64) -> I64:
        if number.size == 0:
            return np.full(t_ns.size, NEVER, dtype=np.int64)
        history = self._history
        next_batch = _count_before(instants, t_ns)
        late = next_batch == number.size
        batch = number[np.minimum(next_batch, number.size - 1)]
        safe = self._batch_ns[batch]
        safe[late] = NEVER
        # What a whole snapshot takes needs no search; otherwise look for the page's next I/O. (What
        # came at the very instant of the snapshot may have come after it.)
        search = (history.batch_whole[batch] == 0) | (safe < 0)
        search |= history.batch_t_ns[batch] == t_ns
        todo = np.flatnonzero(search & ~late)
        for later in range(_BATCHES_TRIED):
            if not todo.size:
                return safe
            after = next_batch[todo] + later
            here = after < number.size
            safe[todo[~here]] = NEVER
            todo, after = todo[here], after[here]
            io = self._io_in_batch(number[after], page[todo])
            found = io >= 0
            safe[todo[found]] = self._io_safe(io[found])
            todo = todo[~found]
        io = self._first_io(page[todo], t_ns[todo])
        found = io >= 0
        safe[todo] = NEVER
        safe[todo[found]] = self._io_safe(io[found])
        return safe

    def _io_in_batch(self, batch: I64, page: I64) -> I64:
        """The I/O of the batch that carries the page, -1 if none."""
        history = self._history
        if self._io_key is None:
            self._io_key = (history.io_batch << 40) | history.io_first_page
        io = np.searchsorted(self._io_key, (batch << 40) | page, "right") - 1
        near = np.maximum(io, 0)
        inside = (history.io_batch[near] == batch) & (
            page < history.io_first_page[near] + history.io_pages[near]
        )
        return np.where((io >= 0) & inside, io, -1)

    def _first_io(self, page: I64, t_ns: I64) -> I64:
        """The first I/O that carries what page held at `t_ns`, -1 if none."""
        if self._every_page is None:
            history = self._history
            io = np.repeat(np.arange(history.io_batch.size), history.io_pages)
            nth = np.arange(io.size) - np.repeat(
                np.cumsum(history.io_pages) - history.io_pages, history.io_pages
            )
            self._page_io = io
            self._every_page = _PageTimes(
                history.io_first_page[io] + nth, history.batch_t_ns[history.io_batch[io]]
            )
        row = self._every_page.first_at_or_after(page, t_ns)
        return np.where(row >= 0, self._page_io[row], -1)
