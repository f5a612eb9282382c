"""One backing file in the host's page cache: its dirty pages, and what of them is under writeback
(Rules H1, H2, H3, H5, H9, H13, H14).

A snapshot (`write_back`) makes pages clean and submits their content of that instant as one batch.
A page under writeback is never in a second batch: writeback of a page that is dirty again waits
until the first has completed (H3). What is dirtied and cleaned as one is the folio, of one page or
more (H2); counts are of pages of 4 KiB. A failed write leaves its pages clean all the same (H14).
What completed rests in the disk's cache until somebody flushes it (H9); nothing here issues a
FLUSH.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crashsim.engine.folios import Folios
from crashsim.engine.history import NEVER, Reason
from crashsim.engine.pages import PAGE_SHIFT, column, unique_sorted
from crashsim.engine.pageset import PageSet, Taken
from crashsim.engine.streams import I64
from crashsim.engine.timers import Anticipated, Stamps, Storers

if TYPE_CHECKING:
    from crashsim.pagecache.cache import PageCache

NONE: I64 = np.empty(0, dtype=np.int64)
BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(slots=True)
class Batch:
    """Pages submitted together. Its `folios` are worked out when somebody needs them, at the latest
    after the run."""

    number: int
    device: int
    t_ns: int
    start_ns: int
    end_ns: int
    reason: Reason
    whole: bool  # every page that was dirty
    count: int  # pages
    taken: list[Taken]
    failed: bool = False  # none of it reached the disk (Rule H14)
    _folios: I64 | None = None
    complete_ns: I64 | None = None  # of each folio

    def folios(self, of: Folios) -> I64:
        """Ascending distinct folios of the batch."""
        if self._folios is None:
            parts = [taken.folios(of) for taken in self.taken]
            self._folios = unique_sorted(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return self._folios


@dataclass(eq=False)
class Memory:
    """What stores go to. As it is: memory that the host never writes back, for which stores count
    for nothing."""

    folios: Folios  # what it dirties and cleans as one
    fault_ns: int  # what the first store to a clean page costs
    cleaned_by_sync: bool = False  # whether a sync leaves every page clean

    @property
    def stamp_bar_ns(self) -> int:
        """Stores that dirty pages before that leave the memory's time stamp as it is."""
        return 0

    def will_store(self, t_ns: int) -> None:
        """A store is planned to begin then."""

    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        """Stores that began at `first_ns` to `last_ns` dirtied pages (Rule H1); that at
        `stamped_ns` is the first at or after the bar."""

    def dirtied_now(self) -> None:
        """A copy dirties pages."""

    def reserve(self, pages: int) -> None:
        """So many more may be dirtied by stores under way."""

    def room(self) -> int:
        """How many may be dirtied before a threshold has to be looked at."""
        return NEVER

    def dirtied_many(self) -> None:
        """A store that may have crossed a threshold has begun."""

    def pause_ns(self, dirtied_pages: int) -> int:
        """How long a writer that has just dirtied that many is held up."""
        return 0


@dataclass(eq=False)
class BackingFile(Memory):
    """One inode, and a shared mapping of it. `sources` are the sets of dirty pages of those that
    store to it."""

    _: KW_ONLY
    cache: PageCache
    device: int
    has_new_extents: bool  # holes or unwritten extents when the run began (Rule H13)
    mtime: Stamps
    sources: list[PageSet] = field(default_factory=list)
    storers: Storers = field(default_factory=Storers)
    in_flight: list[Batch] = field(default_factory=list)
    age_start_ns: int | None = None  # the inode is dirty since (Rule H6); None: not dirty
    own_commits: Anticipated | None = None  # of the host's journal (Rule H16)
    metadata_bytes: int = 0  # written that no batch has: journals, the host's and the guest's
    committing: int = 0  # commits of first writes that are under way (Rule H13)
    behind_commit: list[Callable[[], None]] = field(default_factory=list)  # wait for one
    _errors: list[int] = field(default_factory=list)  # ends of failed batches, not reported
    _written: BoolArray = field(init=False)  # folios that ever were, of new extents
    _unconverted: list[int] = field(default_factory=list)  # ends of first writes, not committed
    _guest_journal_bytes: int = 0  # dirty pages of the guest's own journal (Rule G6)

    def __post_init__(self) -> None:
        size = self.folios.end - self.folios.first if self.has_new_extents else 0
        self._written = np.zeros(size, dtype=bool)

    @property
    def stamp_bar_ns(self) -> int:
        return self.mtime.bar_ns

    def will_store(self, t_ns: int) -> None:
        if self.cache.wake_ups is not None:
            self.cache.wake_ups.expect(t_ns)
        if self.own_commits is not None:
            self.own_commits.expect(max(t_ns, self.mtime.bar_ns))

    def reserve(self, pages: int) -> None:
        self.cache.planned_pages += pages

    def room(self) -> int:
        return self.cache.room()

    def dirtied_many(self) -> None:
        self.cache.dirtied_many()

    def pause_ns(self, dirtied_pages: int) -> int:
        return self.cache.pause_ns(dirtied_pages)

    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        if self.age_start_ns is None or first_ns < self.age_start_ns:
            self.age_start_ns = first_ns
            if self.cache.wake_ups is not None:
                self.cache.wake_ups.aged(first_ns)
        self._stamp(stamped_ns, last_ns)

    def dirtied_now(self) -> None:
        now = self.cache.clock.now
        self.dirtied(now, now if now >= self.mtime.bar_ns else None, now)

    def _stamp(self, stamped_ns: int | None, last_ns: int) -> None:
        self.mtime.happened(stamped_ns, last_ns)
        if stamped_ns is not None and self.own_commits is not None:
            self.own_commits.expect(stamped_ns)

    def mtime_again(self, since_ns: int) -> None:
        """A call that was to commit it has failed (Rule H14)."""
        self._stamp(since_ns, since_ns)

    def forget_age(self) -> None:
        """A sync wrote what was dirty: the age ends if nothing is dirty now (FUSE)."""
        self.catch_up()
        if not self.dirty_count():
            self.age_start_ns = None

    def put_guest_journal(self, size_bytes: int) -> None:
        """The guest's kernel has stored that much into its own journal (Rule G6)."""
        unit = self.folios.largest_bytes
        self._guest_journal_bytes += -(-size_bytes // unit) * unit
        now = self.cache.clock.now
        self._stamp(now if now >= self.mtime.bar_ns else None, now)

    def write_guest_journal(self) -> int:
        """Write it; when it will be on the disk."""
        size, self._guest_journal_bytes = self._guest_journal_bytes, 0
        self.metadata_bytes += size
        return self.cache.disk.write(size)[1] if size else 0

    def catch_up(self) -> None:
        """Account for every store that has begun by now."""
        self.storers.catch_up()

    def dirty_count(self) -> int:
        """Dirty pages, exactly."""
        if len(self.sources) == 1:
            return self.sources[0].count
        return self.folios.count_pages(self.dirty())

    def dirty(self) -> I64:
        """Dirty folios, ascending."""
        if len(self.sources) == 1:
            return self.sources[0].folios()
        return unique_sorted(np.concatenate([source.folios() for source in self.sources]))

    def under_writeback(self) -> I64:
        """Folios submitted and not completed, ascending. Forgets batches that are done."""
        now = self.cache.clock.now
        self.in_flight = [batch for batch in self.in_flight if batch.end_ns > now]
        parts = []
        for batch in self.in_flight:
            if batch.complete_ns is None:
                self.cache.complete(batch)
            assert batch.complete_ns is not None
            parts.append(batch.folios(self.folios)[batch.complete_ns > now])
        return np.sort(np.concatenate(parts)) if parts else NONE

    def writeback_end_ns(self) -> int:
        """When everything in flight will have completed; now if nothing is."""
        if not self.in_flight:
            return self.cache.clock.now
        return self.in_flight[-1].end_ns  # one pipe: the last submitted is the last to end

    def idle(self) -> bool:
        """Nothing under writeback."""
        now = self.cache.clock.now
        if self.in_flight:
            self.in_flight = [batch for batch in self.in_flight if batch.end_ns > now]
        return not self.in_flight

    def in_flight_pages(self) -> int:
        """Pages of the batches in flight: at least as many as are under writeback."""
        return 0 if self.idle() else sum(batch.count for batch in self.in_flight)

    def write_back_all(self, reason: Reason) -> None:
        """Snapshot every dirty page; for a file with nothing under writeback."""
        count = self.dirty_count()
        if count:
            self.storers.split_at_snapshot()
            taken = [source.take_all() for source in self.sources]
            self._submit(taken, count, reason, whole=True)

    def written_uncontended(self, t_ns: I64, end_ns: I64, pages: I64, taken: list[Taken]) -> None:
        """fsyncs that met nothing else: one batch each, with what it took of `pages` pages; all of
        them have completed."""
        rows = zip(t_ns.tolist(), end_ns.tolist(), pages.tolist(), taken, strict=True)
        number, device = len(self.cache.batches), self.device
        self.cache.batches.extend(
            Batch(number + i, device, t, t, end, Reason.FSYNC, True, count, [one])
            for i, (t, end, count, one) in enumerate(rows)
        )

    def write_back(self, folios: I64, reason: Reason) -> None:
        """Snapshot `folios`: ascending, dirty, none of them under writeback."""
        if folios.size:
            self.storers.split_at_snapshot()
            for source in self.sources:
                source.discard(folios)
            count = self.folios.count_pages(folios)
            self._submit([Taken(known=[folios])], count, reason, whole=False)

    def write_direct(self, pages: I64) -> int:
        """Pages that go to the disk without resting in L2 (O_DIRECT); when they are there."""
        self._submit([Taken(known=[pages])], int(pages.size), Reason.DIRECT, whole=False)
        return self.in_flight[-1].end_ns

    def prealloc(self) -> None:
        """Every page is dirty before anything is stored (Rule V5)."""
        if self.storers or not self.sources:  # else copies are what dirties it
            self.sources.append(PageSet(self.folios))
        self.sources[-1].add(np.arange(self.folios.first, self.folios.end, dtype=np.int64))
        self.dirtied_now()

    def error_to_report(self) -> bool:
        """Whether a write has failed that no sync has reported; it counts as reported now (H14)."""
        now = self.cache.clock.now
        found = [end for end in self._errors if end <= now]
        self._errors = [end for end in self._errors if end > now]
        return bool(found)

    def convert(self) -> bool:
        """A journal commit begins, if anything was written for the first time: whether so (H13)."""
        now = self.cache.clock.now
        found = any(end <= now for end in self._unconverted)
        self._unconverted = [end for end in self._unconverted if end > now]
        return found

    def plain(self) -> bool:
        """Nothing about it that a sync has to look at but its dirty pages and mtime."""
        return not self.has_new_extents and not self._errors and not self._guest_journal_bytes

    def _submit(self, taken: list[Taken], count: int, reason: Reason, whole: bool) -> None:
        start, end = self.cache.disk.write(count << PAGE_SHIFT)
        now = self.cache.clock.now
        batch = Batch(
            len(self.cache.batches), self.device, now, start, end, reason, whole, count, taken
        )
        self.cache.batches.append(batch)
        self.in_flight.append(batch)
        if self.cache.fails(batch.number, end):
            batch.failed = True
            self._errors.append(end)
        elif self.has_new_extents:
            here = batch.folios(self.folios) - self.folios.first
            if not bool(self._written[here].all()):
                self._written[here] = True
                self._unconverted.append(end)


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
