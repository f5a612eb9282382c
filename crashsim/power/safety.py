"""When each piece of each store is safe from a failure (Rules P1-P6, V8, D1, D2, D4, H9, H10, H13,
H14).

Contract: a piece is safe from the first instant from which its page holds that store, or a later
version, in a layer that the failure keeps. It travels with the first snapshot of its page at or
after its begin (without DAX: at or after the copy that carries it), because a page under writeback
is never written twice at once, so versions of a page become safe in order. `NEVER`: not before the
run's end was simulated.

A failed batch (H14) and the last page of a shorn write (D4) carry nothing: their stores travel with
the page's next I/O. A page written for the first time (H13) is safe when the journal commit that
covers it is, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import Pieces, split, unique_sorted
from crashsim.engine.streams import I64
from crashsim.experiment.failures import HostCrash
from crashsim.results import Domain as Domain

_BATCHES_TRIED = 4  # a page that one partial writeback leaves out is in one of the next, as a rule


class Stage(StrEnum):
    """How far a piece has got; `kept_stage` says which stage a failure keeps."""

    STORED = "stored"  # L1, or L2 with DAX
    IN_HOST = "in-host"  # L2, or whatever memory the device is
    IN_FILE = "in-file"  # L2 of a file: it outlives the monitor
    AFTER_QUIT = "after-quit"  # and is not zeroed by it
    ELSEWHERE = "elsewhere"  # where nothing is carried to
    SUBMITTED = "submitted"  # L3
    COMPLETED = "completed"  # L4
    DURABLE = "durable"  # L5


_AS_A_RULE = HostCrash()
_KEPT = {
    Domain.GUEST_CRASH: Stage.IN_HOST,
    Domain.VMM_KILL: Stage.IN_FILE,
    Domain.LIVE_COPY: Stage.IN_FILE,
    Domain.VMM_QUIT: Stage.AFTER_QUIT,
    Domain.MIGRATION: Stage.ELSEWHERE,
    Domain.STORAGE_SNAPSHOT: Stage.COMPLETED,
}


def kept_stage(domain: Domain, host_crash: HostCrash = _AS_A_RULE) -> Stage:
    """The earliest stage from which a failure takes nothing."""
    if domain is Domain.PROGRAM_KILL:
        return Stage.STORED
    if domain in _KEPT:
        return _KEPT[domain]
    if domain is Domain.HOST_CRASH and host_crash.disk_cache == "kept":
        return Stage.SUBMITTED if host_crash.in_flight == "kept" else Stage.COMPLETED
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
        self._instants = unique_sorted(t_ns)
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
        self._has_copies = not all(history.info.dax)
        self._every_page: _PageTimes | None = None
        self._io_key: I64 | None = None
        self._page_io: I64 = np.empty(0, dtype=np.int64)
        self._batch_base: list[tuple[I64, I64]] = []
        for device in range(len(history.devices)):
            mine = np.flatnonzero(history.batch_device == device)
            self._batch_base.append((mine, history.batch_t_ns[mine]))
        self._io_first = np.searchsorted(history.io_batch, np.arange(history.batch_t_ns.size + 1))
        honoured = history.flush_disk_ignored == 0
        self._flush_issue_ns = history.flush_disk_issue_ns[honoured]
        self._flush_end_ns = np.append(history.flush_disk_end_ns[honoured], NEVER)
        # With writes that carried nothing each page is looked for in its own I/Os.
        self._lame = history.io_shorn | history.io_corrupted  # I/Os without their last page
        self._whole_batches = not (history.batch_failed.any() or self._lame.any())
        self._batch_ns = self._batches_safe()

    def _io_safe(self, io: I64) -> I64:
        """When each of these I/Os' content is safe."""
        history = self._history
        if self._stage is Stage.SUBMITTED:
            return history.batch_t_ns[history.io_batch[io]]
        complete = history.io_complete_ns[io]
        if self._stage is Stage.COMPLETED or history.info.plp:
            return complete
        return self._flushed(complete)

    def _flushed(self, complete_ns: I64) -> I64:
        """End of the first FLUSH issued at or after the completion (Rule D1)."""
        if self._history.info.ignores_flush:
            return np.full(complete_ns.shape, NEVER, dtype=np.int64)
        return self._flush_end_ns[np.searchsorted(self._flush_issue_ns, complete_ns, "left")]

    def _commits_safe(self, device: int) -> tuple[I64, I64]:
        """The device's journal commits: what had ended by then they cover, and when they are
        kept."""
        history, mine = self._history, self._history.commit_device == device
        complete = history.commit_complete_ns[mine]
        safe = complete
        if self._stage is Stage.DURABLE and not history.info.plp:
            safe = self._flushed(complete)
            if not history.info.ignores_flush:
                safe = np.minimum(safe, history.commit_fua_ns[mine])
        return history.commit_t_ns[mine], safe

    def _batches_safe(self) -> I64:
        """For batches all of whose I/Os are safe at one instant that instant, -1 for the others."""
        history = self._history
        if history.batch_t_ns.size == 0:
            return history.batch_t_ns
        if not self._whole_batches:
            return np.full(history.batch_t_ns.size, -1, dtype=np.int64)
        if self._stage is Stage.SUBMITTED:
            return history.batch_t_ns
        first = np.minimum.reduceat(history.io_complete_ns, self._io_first[:-1])
        last = np.maximum.reduceat(history.io_complete_ns, self._io_first[:-1])
        if self._stage is Stage.DURABLE and not history.info.plp:
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
        if self._stage is Stage.ELSEWHERE:
            return np.full(t.size, NEVER, dtype=np.int64)
        if self._has_copies:
            t = self.copied_ns(pieces.page, t)
        if self._stage is Stage.IN_HOST:
            return t
        if self._stage in (Stage.IN_FILE, Stage.AFTER_QUIT):
            return self._by_medium(pieces.page, t, t)
        return self._by_medium(pieces.page, self._carried(pieces.page, t), t)

    def in_file(self, page: I64, t_ns: I64) -> I64:
        """Safe instant of what is in L2 of a file on the disk at `t_ns`."""
        return self._carried(page, t_ns)

    def _by_medium(self, page: I64, safe: I64, landed: I64) -> I64:
        """Devices whose memory is not a file's on the disk (Rules V4, V5, V9, H15)."""
        info = self._history.info
        plain = not any(info.discard_data)
        if plain and all(kind == "file" for kind in info.media):
            return safe
        safe = safe.copy()
        for device, span in enumerate(self._history.devices):
            mine = (page >= span.first_page) & (page < span.first_page + span.pages)
            kind = info.media[device]
            in_file = self._stage in (Stage.IN_FILE, Stage.AFTER_QUIT)
            if kind == "nvdimm":
                safe[mine] = landed[mine]
            elif kind in ("private", "ram") or (kind != "file" and not in_file):
                safe[mine] = NEVER
            if self._stage is Stage.AFTER_QUIT and info.discard_data[device]:
                safe[mine] = NEVER
        return safe

    def copied_ns(self, page: I64, t_ns: I64) -> I64:
        """When each is in the device's memory: where the guest has no DAX, with its writeback."""
        instants = np.append(self._history.copy_t_ns, NEVER)  # row -1: never
        copied: I64 = instants[self._copies.first_at_or_after(page, t_ns)]
        for span, dax in zip(self._history.devices, self._history.info.dax, strict=True):
            if dax:
                mine = (page >= span.first_page) & (page < span.first_page + span.pages)
                copied[mine] = t_ns[mine]
        return copied

    def _carried(self, page: I64, t_ns: I64) -> I64:
        """Safe instant of what was in L2 from `t_ns`."""
        history = self._history
        safe = np.full(t_ns.size, NEVER, dtype=np.int64)
        if history.batch_t_ns.size == 0:
            return safe
        for device, span in enumerate(history.devices):
            if len(history.devices) > 1:
                mine = np.flatnonzero(
                    (page >= span.first_page) & (page < span.first_page + span.pages)
                )
                safe[mine] = self._on_device(page[mine], t_ns[mine], device)
            else:
                safe = self._on_device(page, t_ns, device)
        return safe

    def _on_device(self, page: I64, t_ns: I64, device: int) -> I64:
        number, instants = self._batch_base[device]
        if not self._whole_batches:
            safe = self._first_io_safe(page, t_ns)
        else:
            safe = self._in_batches(page, t_ns, number, instants)
        if self._history.info.new_extents[device]:
            np.maximum(safe, self._committed(page, device), out=safe)
        return safe

    def _committed(self, page: I64, device: int) -> I64:
        """When the journal commit that covers each page's first write is kept (Rule H13)."""
        history = self._history
        failed = history.batch_failed[history.io_batch] != 0
        io, every_page = self._pages_of_ios(np.where(failed, 0, history.io_pages))
        first = io[every_page.first_at_or_after(page, np.full(page.size, -1, dtype=np.int64))]
        ends = np.append(self._batch_ends(), NEVER)
        batch = np.append(history.io_batch, -1)[first]
        covers, kept = self._commits_safe(device)
        found: I64 = np.append(kept, NEVER)[np.searchsorted(covers, ends[batch], "left")]
        return found

    def _batch_ends(self) -> I64:
        """When all of each batch has completed."""
        return np.maximum.reduceat(self._history.io_complete_ns, self._io_first[:-1])

    def _in_batches(self, page: I64, t_ns: I64, number: I64, instants: I64) -> I64:
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
        safe[todo] = self._first_io_safe(page[todo], t_ns[todo])
        return safe

    def _first_io_safe(self, page: I64, t_ns: I64) -> I64:
        """Safe instant by the page's next I/O that carries anything."""
        io = self._first_io(page, t_ns)
        found = io >= 0
        safe = np.full(page.size, NEVER, dtype=np.int64)
        safe[found] = self._io_safe(io[found])
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
        self._index_pages()
        assert self._every_page is not None
        return self._page_io[self._every_page.first_at_or_after(page, t_ns)]

    def _index_pages(self) -> None:
        """Every page of every I/O that reached the disk, by page and snapshot."""
        if self._every_page is not None:
            return
        history = self._history
        failed = history.batch_failed[history.io_batch] != 0
        arrived = np.where(failed, 0, history.io_pages - self._lame)
        self._page_io, self._every_page = self._pages_of_ios(arrived)

    def _pages_of_ios(self, pages: I64) -> tuple[I64, _PageTimes]:
        """The first `pages[i]` pages of each I/O: its number (then -1, for none), and when."""
        history = self._history
        io = np.repeat(np.arange(history.io_batch.size), pages)
        nth = np.arange(io.size) - np.repeat(np.cumsum(pages) - pages, pages)
        times = _PageTimes(
            history.io_first_page[io] + nth, history.batch_t_ns[history.io_batch[io]]
        )
        return np.append(io, -1), times
