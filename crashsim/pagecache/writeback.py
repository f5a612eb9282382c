"""One backing file in the host's page cache: its dirty pages, and what of them is under writeback
(Rules H1, H2, H3, H5, H9, H13, H14).

A snapshot (`write_back`) makes pages clean and submits their content of that instant as one batch.
A page under writeback is never in a second batch: writeback of a page that is dirty again waits
until the first has completed (H3). The unit is the folio, of one page or more (H2): "page" means it
here. A failed write leaves its pages clean all the same (H14). What completed rests in the disk's
cache until somebody flushes it (H9); nothing here issues a FLUSH.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crashsim.engine.clock import Clock
from crashsim.engine.history import DeviceSpan, Reason
from crashsim.engine.pages import PAGE_SHIFT, unique_sorted
from crashsim.engine.pageset import PageSet, Taken
from crashsim.engine.streams import I64

NO_PAGES: I64 = np.empty(0, dtype=np.int64)


def on_pages(folios: I64, shift: int) -> I64:
    """The pages of ascending folios of `1 << shift` bytes."""
    if shift == PAGE_SHIFT:
        return folios
    each = 1 << (shift - PAGE_SHIFT)
    return (folios[:, None] * each + np.arange(each, dtype=np.int64)).ravel()


class DiskPort(Protocol):
    """What the page cache asks of the layer below."""

    @property
    def bandwidth(self) -> int: ...
    @property
    def flush_ns(self) -> int: ...
    @property
    def fua(self) -> bool: ...
    @property
    def dead_ns(self) -> int: ...
    @property
    def may_die_of_writes(self) -> bool: ...
    def fails(self, batch: int, end_ns: int) -> bool: ...
    def write(self, size_bytes: int) -> tuple[int, int]: ...
    def transfer_ns(self, pages: I64) -> I64: ...
    def idle(self) -> bool: ...
    def flushed_alone(self, issue_ns: I64) -> None: ...
    def flush(self, done: Callable[[], None]) -> None: ...


class Guest(Protocol):
    """What the page cache asks of whoever stores to the file's pages (a vCPU)."""

    def settle(self) -> None:
        """Account for every store that has begun by now."""

    def divide(self) -> None:
        """A snapshot is being taken: split the store in progress, and plan what follows again."""

    def reconsider(self) -> None:
        """A threshold changed: look at it before the next store."""


@dataclass(slots=True)
class Batch:
    """Pages submitted together. `pages` are worked out when somebody needs them, at the latest
    after the run."""

    number: int
    device: int
    t_ns: int
    start_ns: int
    end_ns: int
    reason: Reason
    whole: bool  # every page that was dirty
    count: int  # pages (folios)
    taken: list[Taken]
    failed: bool = False  # none of it reached the disk (Rule H14)
    _pages: I64 | None = None
    complete_ns: I64 | None = None  # of each page

    def pages(self) -> I64:
        """Ascending distinct pages of the batch."""
        if self._pages is None:
            parts = [taken.pages() for taken in self.taken]
            self._pages = unique_sorted(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return self._pages


class BackingFile:
    """One inode. `sources` are the sets of dirty pages of those that store to it."""

    __slots__ = (
        "_batches",
        "_clock",
        "_complete",
        "_disk",
        "_errors",
        "_fails",
        "_unconverted",
        "_written",
        "age_start_ns",
        "behind_commit",
        "committing",
        "device",
        "guests",
        "in_flight",
        "mtime_dirty",
        "shift",
        "sources",
        "span",
    )

    def __init__(
        self,
        clock: Clock,
        disk: DiskPort,
        device: int,
        span: DeviceSpan,
        shift: int,
        new_extents: bool,
        batches: list[Batch],
        complete: Callable[[Batch], None],
        fails: Callable[[int, int], bool],
    ) -> None:
        self._clock = clock
        self._disk = disk
        self._batches = batches
        self._complete = complete  # fills in `Batch.complete_ns`
        self._fails = fails  # whether the batch of that number that ends then fails
        self._errors: list[int] = []  # ends of failed batches that no sync has reported
        # Rule H13: pages that were ever written, and ends of batches with others, not committed.
        self._written = np.zeros(span.pages, dtype=bool) if new_extents else None
        self._unconverted: list[int] = []
        self.committing = 0  # commits of such pages that are under way
        self.behind_commit: list[Callable[[], None]] = []  # calls that wait for one
        self.device = device
        self.span = span
        self.shift = shift  # of a folio (Rule H2)
        self.sources: list[PageSet] = []
        self.guests: list[Guest] = []
        self.in_flight: list[Batch] = []
        self.age_start_ns: int | None = None  # the inode is dirty since (Rule H6); None: not dirty
        self.mtime_dirty = False

    def dirtied(self, t_ns: int) -> None:
        """A store that began at `t_ns` dirtied a page (Rule H1)."""
        self.mtime_dirty = True
        if self.age_start_ns is None or t_ns < self.age_start_ns:
            self.age_start_ns = t_ns

    def settle(self) -> None:
        for guest in self.guests:
            guest.settle()

    def dirty_count(self) -> int:
        """Dirty pages, exactly."""
        if len(self.sources) == 1:
            return self.sources[0].count
        return int(self.dirty_pages().size)

    def dirty_pages(self) -> I64:
        """Dirty pages, ascending."""
        if len(self.sources) == 1:
            return self.sources[0].pages()
        return unique_sorted(np.concatenate([source.pages() for source in self.sources]))

    def under_writeback(self) -> I64:
        """Pages submitted and not completed, ascending. Forgets batches that are done."""
        now = self._clock.now
        self.in_flight = [batch for batch in self.in_flight if batch.end_ns > now]
        parts = []
        for batch in self.in_flight:
            if batch.complete_ns is None:
                self._complete(batch)
            assert batch.complete_ns is not None
            parts.append(batch.pages()[batch.complete_ns > now])
        return np.sort(np.concatenate(parts)) if parts else NO_PAGES

    def writeback_end_ns(self) -> int:
        """When everything in flight will have completed; now if nothing is."""
        if not self.in_flight:
            return self._clock.now
        return self.in_flight[-1].end_ns  # one pipe: the last submitted is the last to end

    def idle(self) -> bool:
        """Nothing under writeback."""
        now = self._clock.now
        if self.in_flight:
            self.in_flight = [batch for batch in self.in_flight if batch.end_ns > now]
        return not self.in_flight

    def in_flight_pages(self) -> int:
        """Pages of the batches in flight: at least as many as are under writeback."""
        return 0 if self.idle() else sum(batch.count for batch in self.in_flight)

    def write_back_all(self, reason: Reason) -> None:
        """Snapshot every dirty page; for a file with nothing under writeback."""
        if len(self.sources) == 1:
            count = self.sources[0].count
        else:
            count = int(self.dirty_pages().size)
        if count:
            for guest in self.guests:
                guest.divide()
            taken = [source.take_all() for source in self.sources]
            self._submit(taken, count, reason, whole=True)

    def written_alone(self, t_ns: I64, end_ns: I64, pages: I64, taken: list[Taken]) -> None:
        """fsyncs that met nothing else: one batch each, with what it took of `pages` pages; all of
        them have completed."""
        rows = zip(t_ns.tolist(), end_ns.tolist(), pages.tolist(), taken, strict=True)
        number, device = len(self._batches), self.device
        self._batches.extend(
            Batch(number + i, device, t, t, end, Reason.FSYNC, True, count, [one])
            for i, (t, end, count, one) in enumerate(rows)
        )

    def write_back(self, pages: I64, reason: Reason) -> None:
        """Snapshot `pages`: ascending, dirty, none of them under writeback."""
        if pages.size:
            for guest in self.guests:
                guest.divide()
            for source in self.sources:
                source.discard(pages)
            self._submit([Taken(known=[pages])], int(pages.size), reason, whole=False)

    def write_direct(self, pages: I64) -> int:
        """Pages that go to the disk without resting in L2 (O_DIRECT); when they are there."""
        self._submit([Taken(known=[pages])], int(pages.size), Reason.DIRECT, whole=False)
        return self.in_flight[-1].end_ns

    def prealloc(self) -> None:
        """Every page is dirty before anything is stored (Rule V5)."""
        first, count = (self.span.first_page << PAGE_SHIFT) >> self.shift, self.folios()
        if self.guests or not self.sources:  # else copies are what dirties it
            self.sources.append(PageSet(first, count, self.shift))
        self.sources[-1].add_pages(np.arange(first, first + count, dtype=np.int64))
        self.dirtied(0)

    def folios(self) -> int:
        """How many the file has."""
        return (self.span.pages << PAGE_SHIFT) >> self.shift

    def error_to_report(self) -> bool:
        """Whether a write has failed that no sync has reported; it counts as reported now (H14)."""
        now = self._clock.now
        found = [end for end in self._errors if end <= now]
        self._errors = [end for end in self._errors if end > now]
        return bool(found)

    def convert(self) -> bool:
        """A journal commit begins, if anything was written for the first time: whether so (H13)."""
        now = self._clock.now
        found = any(end <= now for end in self._unconverted)
        self._unconverted = [end for end in self._unconverted if end > now]
        return found

    @property
    def has_new_extents(self) -> bool:
        """Whether the file had holes or unwritten extents when the run began (Rule H13)."""
        return self._written is not None

    def plain(self) -> bool:
        """Nothing about it that a sync has to look at but its dirty pages and mtime."""
        return self._written is None and not self._errors and self.shift == PAGE_SHIFT

    def _submit(self, taken: list[Taken], count: int, reason: Reason, whole: bool) -> None:
        start, end = self._disk.write(count << self.shift)
        now = self._clock.now
        batch = Batch(len(self._batches), self.device, now, start, end, reason, whole, count, taken)
        self._batches.append(batch)
        self.in_flight.append(batch)
        if self._fails(batch.number, end):
            batch.failed = True
            self._errors.append(end)
        elif self._written is not None:
            pages = on_pages(batch.pages(), self.shift) - self.span.first_page
            if not bool(self._written[pages].all()):
                self._written[pages] = True
                self._unconverted.append(end)
