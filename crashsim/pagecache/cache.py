"""The host: its flusher, background writeback, throttling of writers, early writeback, and what an
fsync does on each kind of backing (Rules H6, H7, H8, H15, V4, V5).

H6: the age is the inode's, not the page's; a pass takes all its dirty pages, and only a pass ends
the age: an fsync cleans pages but does not (Linux 6.6 `fs/fs-writeback.c`: `__mark_inode_dirty`
sets `dirtied_when` only on an inode that was not dirty, and only the flusher clears that state).
H8: any dirty page may be written at any time; here at stated times and with a stated probability.
H15: fsync of a file in memory does nothing and succeeds; with no file at all it fails (V5).
Thresholds count pages of 4 KiB, files count folios (H2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.history import NEVER, DeviceSpan, Reason
from crashsim.engine.pages import PAGE_BYTES, PAGE_SHIFT
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64, Stream
from crashsim.pagecache.sync import (
    COMMIT_BYTES,
    JOURNAL_BYTES,
    Commit,
    Fsync,
    alone,
    flushes_alone,
)
from crashsim.pagecache.writeback import NO_PAGES, BackingFile, Batch, DiskPort

BACKGROUND_CHUNK_PAGES = 1024
_HOST_RANK = int(Rank.HOST)
PAUSE_MAX_NS = 200_000_000


class Sync(Enum):
    """What an fsync of a backing does."""

    OF_A_FILE = 0
    NOTHING = 1  # succeeds
    FAILS = 2


class HostSettings(Protocol):
    """What of the experiment's host the model needs; times in ns, `early_writeback` as plain
    numbers."""

    @property
    def memory(self) -> int: ...
    @property
    def dirty_background_ratio(self) -> int: ...
    @property
    def dirty_ratio(self) -> int: ...
    @property
    def dirty_writeback(self) -> int: ...
    @property
    def dirty_expire(self) -> int: ...


class PageCache:
    """All backing files of the host."""

    __slots__ = (
        "_background_running",
        "_clock",
        "_complete",
        "_cursor",
        "_disk",
        "_early",
        "_early_count",
        "_errors",
        "_fsyncs",
        "_metadata_bytes",
        "_settings",
        "_syncs",
        "_write_errors",
        "background_pages",
        "batches",
        "commits",
        "errors_fired",
        "files",
        "freerun_pages",
        "limit_pages",
        "planned_pages",
    )

    def __init__(
        self,
        clock: Clock,
        disk: DiskPort,
        settings: HostSettings,
        early: tuple[int, int, int, Stream] | None,
        errors_at_ns: Sequence[int],
        write_errors_at_ns: Sequence[int],
        complete: Callable[[Batch], None],
    ) -> None:
        self._clock = clock
        self._disk = disk
        self._settings = settings
        self._early = early  # every (ns), share (numerator, denominator), stream
        self._early_count = 0
        self._errors = sorted(errors_at_ns)
        self._write_errors = sorted(write_errors_at_ns)
        self._complete = complete
        self._background_running = False
        self._cursor = 0
        self._fsyncs = 0
        self._syncs: list[Sync] = []
        self.files: list[BackingFile] = []
        self.batches: list[Batch] = []
        self._metadata_bytes = 0  # of syncs done many at a time
        self.commits: list[Commit] = []
        self.errors_fired: list[int] = []
        self.planned_pages = 0  # new pages of windows under way, not in any set yet
        self.background_pages = (
            settings.memory * settings.dirty_background_ratio // 100 // PAGE_BYTES
        )
        self.limit_pages = settings.memory * settings.dirty_ratio // 100 // PAGE_BYTES
        self.freerun_pages = (self.background_pages + self.limit_pages) // 2

    def open(
        self, device: int, span: DeviceSpan, folio_bytes: int, new_extents: bool, sync: Sync
    ) -> BackingFile:
        """Add a device's backing; `sync` is what an fsync of it does."""
        file = BackingFile(
            self._clock,
            self._disk,
            device,
            span,
            folio_bytes.bit_length() - 1,
            new_extents,
            self.batches,
            self._complete,
            self._fails,
        )
        self.files.append(file)
        self._syncs.append(sync)
        return file

    def _fails(self, batch: int, end_ns: int) -> bool:
        """Whether a batch that ends then fails (Rules H14, D4)."""
        errors = self._write_errors
        fails = bool(errors) and errors[0] <= end_ns
        while errors and errors[0] <= end_ns:
            errors.pop(0)
        return self._disk.fails(batch, end_ns) or fails

    def now_ns(self) -> int:
        """The clock's instant."""
        return self._clock.now

    def start(self) -> None:
        """Arm the timers."""
        if self._settings.dirty_writeback:
            self._clock.at(self._settings.dirty_writeback, Rank.FLUSHER, self._wake)
        if self._early:
            self._clock.at(self._early[0], Rank.EARLY, self._write_early)

    # fsync

    def fsync(self, device: int, datasync: bool, done: Callable[[bool], None]) -> None:
        """Begin the host's fsync or fdatasync; `done(ok)` at its return (Rule G9)."""
        if self._syncs[device] is not Sync.OF_A_FILE:
            done(self._syncs[device] is Sync.NOTHING)
            return
        file = self.files[device]

        def returned(ok: bool) -> None:
            if file.error_to_report() or self._clock.now >= self._disk.dead_ns:
                ok = False
            while self._errors and self._errors[0] <= self._clock.now:
                self.errors_fired.append(self._errors.pop(0))
                ok = False
            done(ok)

        self._fsyncs += 1
        rank = _HOST_RANK + self._fsyncs
        Fsync(self._clock, rank, self._disk, file, datasync, self.commits, returned)

    def fsync_alone(self, device: int, datasync: bool, work: Work) -> tuple[I64, I64]:
        """The next fsyncs of a file, one after the other, if only its one guest acts meanwhile:
        when each begins and returns. Fewer of them, or none, if anything else might happen."""
        file, disk = self.files[device], self._disk
        settled = file.age_start_ns is not None and not (file.mtime_dirty and not datasync)
        errors = self._write_errors or disk.may_die_of_writes
        simple = file.plain() and not errors and len(file.guests) == 1
        if not (simple and len(file.sources) == 1 and settled and file.idle() and disk.idle()):
            return NO_PAGES, NO_PAGES
        data_ns, whole_ns = alone(disk, work.pages, datasync)
        end_ns = self._clock.now + np.cumsum(work.busy_ns + whole_ns)
        quiet_ns = min([self._clock.quiet_until_ns(), disk.dead_ns, *self._errors[:1]])
        n = int(np.searchsorted(end_ns, quiet_ns, "left"))
        crowded = np.flatnonzero(work.pages[:n] > self.room())
        n = int(crowded[0]) if crowded.size else n
        pages, end_ns = work.pages[:n], end_ns[:n]
        begin_ns = end_ns - whole_ns[:n]
        dirty = np.flatnonzero(pages)
        t_ns = begin_ns[dirty]
        file.written_alone(t_ns, t_ns + data_ns[dirty], pages[dirty], work.taken(dirty))
        disk.flushed_alone(flushes_alone(disk, begin_ns, pages, datasync))
        if datasync:
            file.mtime_dirty |= bool(dirty.size)
        else:
            self._metadata_bytes += dirty.size * (JOURNAL_BYTES + COMMIT_BYTES)
        return begin_ns, end_ns

    @property
    def metadata_bytes(self) -> int:
        """Journal and commit blocks that were submitted."""
        whole = sum(commit.complete_ns != NEVER for commit in self.commits)
        blocks = len(self.commits) * JOURNAL_BYTES + whole * COMMIT_BYTES
        return self._metadata_bytes + blocks

    @property
    def errors_left(self) -> list[int]:
        """Configured fsync errors that have not fired."""
        return self._errors

    @property
    def write_errors_left(self) -> list[int]:
        """Configured write errors that have not fired."""
        return self._write_errors

    # Rule H6

    def _wake(self, _: None) -> None:
        now = self._clock.now
        for file in self.files:
            file.settle()
            age_start = file.age_start_ns
            if age_start is None or now - age_start < self._settings.dirty_expire:
                continue
            if file.idle():
                file.write_back_all(Reason.FLUSHER)
            else:
                file.write_back(self._free_pages(file), Reason.FLUSHER)
            if file.dirty_count() == 0:
                file.age_start_ns = None
        self._clock.at(now + self._settings.dirty_writeback, Rank.FLUSHER, self._wake)

    @staticmethod
    def _free_pages(file: BackingFile) -> I64:
        """Dirty pages that are not under writeback."""
        if file.idle():
            return file.dirty_pages()
        return np.setdiff1d(file.dirty_pages(), file.under_writeback(), assume_unique=True)

    # Rule H8

    def _write_early(self, _: None) -> None:
        assert self._early is not None
        every, numerator, denominator, stream = self._early
        self._early_count += 1
        for file in self.files:
            file.settle()
            pages = self._free_pages(file)
            first_page = pages << (file.shift - PAGE_SHIFT)
            draws = stream.draws((self._early_count << 32) + first_page)
            bar = min((numerator << 64) // denominator, (1 << 64) - 1)
            file.write_back(pages[draws < np.uint64(bar)], Reason.EARLY)
        self._clock.at(self._clock.now + every, Rank.EARLY, self._write_early)

    # Rule H7

    def room(self) -> int:
        """How many more pages may be dirtied before a threshold has to be looked at (never too
        many)."""
        dirty = self.planned_pages
        writeback = 0
        for file in self.files:
            bits = file.shift - PAGE_SHIFT
            for source in file.sources:
                dirty += source.count << bits
            writeback += file.in_flight_pages() << bits
        until_throttled = self.freerun_pages - dirty - writeback
        if self._background_running:
            return until_throttled
        return min(self.background_pages - dirty, until_throttled)

    def dirtied_many(self) -> None:
        """A store has just begun that may have crossed a threshold."""
        if not self._background_running and self._dirty_pages() > self.background_pages:
            self._background_running = True
            self._clock.at(self._clock.now, Rank.BACKGROUND, self._write_background)
        if self.room() < 0:  # it took what was set aside for windows under way
            self._reconsider()

    def _reconsider(self) -> None:
        for file in self.files:
            for guest in file.guests:
                guest.reconsider()

    def pause_ns(self, dirtied_pages: int) -> int:
        """How long a writer that has just dirtied that many pages is held up."""
        pages = self._dirty_pages() + sum(
            int(file.under_writeback().size) << (file.shift - PAGE_SHIFT) for file in self.files
        )
        if pages <= self.freerun_pages:
            return 0
        if pages >= self.limit_pages:
            return PAUSE_MAX_NS
        work = dirtied_pages * PAGE_BYTES * 1_000_000_000 * (self.limit_pages - self.freerun_pages)
        return min(PAUSE_MAX_NS, -(-work // (self._disk.bandwidth * (self.limit_pages - pages))))

    def _dirty_pages(self) -> int:
        for file in self.files:
            file.settle()
        return sum(file.dirty_count() << (file.shift - PAGE_SHIFT) for file in self.files)

    def _write_background(self, _: None) -> None:
        if self._dirty_pages() <= self.background_pages:
            self._background_running = False
            self._reconsider()  # from here on the lower threshold counts, too
            return
        if self._write_chunk():
            again = self.batches[-1].end_ns
        else:
            again = max(file.writeback_end_ns() for file in self.files)
        self._clock.at(again, Rank.BACKGROUND, self._write_background)

    def _write_chunk(self) -> bool:
        free = [self._free_pages(file) for file in self.files]
        for start in (self._cursor, 0):
            for file, pages in zip(self.files, free, strict=True):
                bits = file.shift - PAGE_SHIFT
                chunk = pages[np.searchsorted(pages << bits, start) :]
                chunk = chunk[: max(1, BACKGROUND_CHUNK_PAGES >> bits)]
                if chunk.size:
                    file.write_back(chunk, Reason.BACKGROUND)
                    self._cursor = (int(chunk[-1]) + 1) << bits
                    return True
        return False
