"""The host: its flusher, background writeback, throttling of writers, early writeback, and what an
fsync does on each kind of backing (Rules H6, H7, H8, H15, V4, V5).

H6: the age is the inode's, not the page's; a pass takes all its dirty pages, and only a pass ends
the age: an fsync cleans pages but does not (Linux 6.6 `fs/fs-writeback.c`: `__mark_inode_dirty`
sets `dirtied_when` only on an inode that was not dirty, and only the flusher clears that state).
H8: any dirty page may be written at any time; here at stated times and with a stated probability.
When it wakes is a matter of the kernel's timers, and of whether anybody else is awake.
H15: fsync of a file in memory does nothing and succeeds; with no file at all it fails (V5).
Thresholds count pages of 4 KiB, whatever the folios (H2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from enum import Enum

import numpy as np

from crashsim.disk.pipe import Drive, transfer_ns
from crashsim.engine.clock import Clock, Rank
from crashsim.engine.folios import Folios
from crashsim.engine.history import Reason
from crashsim.engine.injector import Injector
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64, Stream
from crashsim.engine.timers import Anticipated, Stamps, Storers, Ticks, WakeUps
from crashsim.experiment.linux import Host
from crashsim.pagecache.fsync import (
    JOURNALS,
    Commit,
    Committing,
    FileSystem,
    Fsync,
    flushes_uncontended,
)
from crashsim.pagecache.writeback import NONE, BackingFile, Batch, BoolArray

BACKGROUND_CHUNK_PAGES = 1024
_LONG_NS = 4_000_000_000  # in a window that long the host's journal may commit
_HOST_RANK = int(Rank.HOST)
PAUSE_MAX_NS = 200_000_000


class FsyncKind(Enum):
    """What an fsync of a backing does."""

    OF_A_FILE = 0
    NOTHING = 1  # succeeds
    FAILS = 2


@dataclass(slots=True, eq=False)
class PageCache:
    """All backing files of the host. `first_wake_ns`: of the flusher; None: with the first store on
    an idle device."""

    clock: Clock
    disk: Drive
    _settings: Host
    _early: Stream
    _faults: Sequence[Injector]
    first_wake_ns: InitVar[int | None]
    complete: Callable[[Batch], None]
    files: list[BackingFile] = field(default_factory=list)
    storers: Storers = field(default_factory=Storers)  # to any of them
    batches: list[Batch] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    planned_pages: int = 0  # new pages of windows under way, not in any set yet
    background_pages: int = field(init=False)
    limit_pages: int = field(init=False)
    freerun_pages: int = field(init=False)
    _background_running: bool = False
    _cursor: int = 0
    _fsyncs: int = 0
    _kinds: list[FsyncKind] = field(default_factory=list)  # of each file
    _ticks: Ticks = field(init=False)
    system: FileSystem = field(init=False)
    wake_ups: WakeUps | None = None

    def __post_init__(self, first_wake_ns: int | None) -> None:
        settings, ticks = self._settings, Ticks(self._settings.tick, self._settings.second_phase)
        self.background_pages, self.limit_pages = (
            settings.memory * ratio // 100 // PAGE_BYTES
            for ratio in (settings.dirty_background_ratio, settings.dirty_ratio)
        )
        self.freerun_pages = (self.background_pages + self.limit_pages) // 2
        self._ticks = ticks
        self.system = FileSystem(JOURNALS[settings.file_system], settings.fsync_resets_age)
        if settings.dirty_writeback:
            self.wake_ups = WakeUps(
                self.clock,
                Rank.FLUSHER,
                lambda t_ns: ticks.timer_ns(t_ns, settings.dirty_writeback),
                first_wake_ns,
                self.storers,
                self._wake,
            )

    def open(
        self, device: int, folios: Folios, flush_path: bool, new_extents: bool, kind: FsyncKind
    ) -> BackingFile:
        """Add a device's backing. `flush_path`: the guest's syncs come to an fsync of it, which is
        of that kind."""
        settings = self._settings
        file = BackingFile(
            folios,
            settings.fault,
            flush_path,
            cache=self,
            device=device,
            has_new_extents=new_extents,
            mtime=Stamps(settings.tick),
        )
        if settings.file_system == "ext4":
            file.own_commits = self._commits_of(file)
        self.files.append(file)
        self._kinds.append(kind)
        return file

    def fails(self, batch: int, end_ns: int) -> bool:
        """Whether a batch that ends then fails (Rules H14, D4)."""
        failed = [fault.fails(batch, end_ns) for fault in self._faults]
        return any(failed)

    def start(self) -> None:
        """Arm the timers."""
        if self._settings.early_writeback is not None:
            self.clock.at(self._settings.early_writeback.every, Rank.EARLY, self._write_early)

    # fsync

    def fsync(self, device: int, datasync: bool, done: Callable[[bool], None]) -> None:
        """Begin the host's fsync or fdatasync; `done(ok)` at its return (Rule G9)."""
        if self._kinds[device] is not FsyncKind.OF_A_FILE:
            done(self._kinds[device] is FsyncKind.NOTHING)
            return
        file = self.files[device]

        def returned(ok: bool) -> None:
            failed = [fault.fails_sync(self.clock.now) for fault in self._faults]
            done(not file.error_to_report() and not any(failed) and ok)

        Fsync(self, self.next_rank(), file, datasync, returned)

    def next_rank(self) -> int:
        """Of those with a step at one instant the one begun first has the lower."""
        self._fsyncs += 1
        return _HOST_RANK + self._fsyncs

    # Rule H16

    def _commits_of(self, file: BackingFile) -> Anticipated:
        """The host's own commits of a file's journal."""

        def commit() -> None:
            file.mtime.clear()
            Committing(self, self.next_rank(), file, file.convert(), lambda: None)
            own_commits.again()

        own_commits = Anticipated(
            self.clock,
            Rank.HOST_JOURNAL + file.device,
            lambda t_ns: self._ticks.commit_ns(t_ns, self._settings.commit_interval),
            lambda: file.mtime.since_ns,
            file.storers,
            commit,
        )
        return own_commits

    def fsync_uncontended(self, device: int, datasync: bool, work: Work) -> tuple[I64, I64]:
        """The next fsyncs of a file, one after the other, if only its one guest acts meanwhile:
        when each begins and returns. Fewer of them, or none, if anything else might happen."""
        file, disk = self.files[device], self.disk
        # What the file's age and mtime depend on must be settled: an age that runs, an mtime that
        # stays dirty (fdatasync) or is clean (fsync).
        stamped = file.mtime.since_ns is not None
        settled = file.age_start_ns is not None and stamped == datasync
        settled &= not self.system.sync_resets_age
        simple = file.plain() and len(file.storers) == 1
        if not (simple and len(file.sources) == 1 and settled and file.idle() and disk.idle()):
            return NONE, NONE
        faults_ns = [fault.quiet_until_ns() for fault in self._faults]
        quiet_ns = min([self.clock.quiet_until_ns(), *faults_ns])
        data_ns = transfer_ns(work.pages, disk.bandwidth)
        whole_ns = data_ns + disk.flush_ns
        commits = np.zeros(work.pages.size, dtype=bool)
        if not datasync:
            commits = self._commit_uncontended(file, work, whole_ns, quiet_ns)
            whole_ns = whole_ns + np.where(commits, self.system.journal.commit_ns(disk), 0)
        end_ns = self.clock.now + np.cumsum(work.busy_ns + whole_ns)
        n = int(np.searchsorted(end_ns, quiet_ns, "left"))
        odd = (work.pages[:n] > self.room()) | (work.busy_ns[:n] >= _LONG_NS)
        n = int(odd.argmax()) if odd.any() else n
        pages, end_ns, commits = work.pages[:n], end_ns[:n], commits[:n]
        begin_ns = end_ns - whole_ns[:n]
        dirty = np.flatnonzero(pages)
        t_ns = begin_ns[dirty]
        file.written_uncontended(t_ns, t_ns + data_ns[dirty], pages[dirty], work.taken(dirty))
        journal = self.system.journal
        disk.flushed_uncontended(
            flushes_uncontended(disk, journal, begin_ns + data_ns[:n], end_ns, commits)
        )
        file.metadata_bytes += int(commits.sum()) * sum(journal)
        if dirty.size:
            last = int(dirty[-1])
            started_ns = int(begin_ns[last] - work.busy_ns[last])
            file.mtime.happened(None, started_ns + int(work.last_fault_ns[last]))
            if not datasync:
                file.mtime.clear()
        return begin_ns, end_ns

    def _commit_uncontended(
        self, file: BackingFile, work: Work, plain_ns: I64, quiet_ns: int
    ) -> BoolArray:
        """Which of the next fsyncs find the mtime dirty, if each that does not takes `plain_ns`;
        of those that return before `quiet_ns`."""
        tick = self._settings.tick
        commits = work.pages > 0
        if not tick:
            return commits
        now, bar = self.clock.now, file.mtime.bar_ns
        longer_ns = self.system.journal.commit_ns(self.disk)
        rows = zip(
            work.busy_ns.tolist(),
            plain_ns.tolist(),
            work.last_fault_ns.tolist(),
            commits.tolist(),
            strict=True,
        )
        for row, (busy, plain, fault, dirty) in enumerate(rows):
            if dirty and now + fault >= bar:
                bar = ((now + fault) // tick + 1) * tick
                now += longer_ns
            else:
                commits[row] = False
            now += busy + plain
            if now >= quiet_ns:
                break
        return commits

    @property
    def metadata_bytes(self) -> int:
        """Journal and commit blocks that were submitted, the guests' journals included."""
        return sum(file.metadata_bytes for file in self.files)

    # Rule H6

    def _wake(self) -> bool:
        """A pass over the files; whether any is dirty still."""
        now = self.clock.now
        for file in self.files:
            file.catch_up()
            age_start = file.age_start_ns
            if age_start is None or now - age_start < self._settings.dirty_expire:
                continue
            if file.idle():
                file.write_back_all(Reason.FLUSHER)
            else:
                file.write_back(self._free(file), Reason.FLUSHER)
            if file.dirty_count() == 0:
                file.age_start_ns = None
        return any(file.age_start_ns is not None for file in self.files)

    @staticmethod
    def _free(file: BackingFile) -> I64:
        """Dirty folios that are not under writeback."""
        if file.idle():
            return file.dirty()
        return np.setdiff1d(file.dirty(), file.under_writeback(), assume_unique=True)

    # Rule H8

    def _write_early(self, _: None) -> None:
        early = self._settings.early_writeback
        assert early is not None
        every, (numerator, denominator) = early.every, early.share
        first_draw = np.uint64(self.clock.now // every % (1 << 32) << 32)  # of 2**64 numbers
        for file in self.files:
            file.catch_up()
            free = self._free(file)
            draws = self._early.draws(first_draw + file.folios.first_page(free).astype(np.uint64))
            bar = min((numerator << 64) // denominator, (1 << 64) - 1)
            file.write_back(free[draws < np.uint64(bar)], Reason.EARLY)
        look_ns = -(-self._next_dirty_ns() // every) * every
        self.clock.at(look_ns, Rank.EARLY, self._write_early)

    def _next_dirty_ns(self) -> int:
        """An instant after now before which nothing is dirty, unless that is the next."""
        soon_ns = self.clock.now + 1
        if any(source.count for file in self.files for source in file.sources):
            return soon_ns
        return max(soon_ns, min([self.clock.quiet_until_ns(), *self.storers.planned()]))

    # Rule H7

    def room(self) -> int:
        """How many more pages may be dirtied before a threshold has to be looked at (never too
        many)."""
        dirty = self.planned_pages
        writeback = 0
        for file in self.files:
            for source in file.sources:
                dirty += source.count
            writeback += file.in_flight_pages()
        until_throttled = self.freerun_pages - dirty - writeback
        if self._background_running:
            return until_throttled
        return min(self.background_pages - dirty, until_throttled)

    def dirtied_many(self) -> None:
        """A store has just begun that may have crossed a threshold."""
        if not self._background_running and self._dirty_pages() > self.background_pages:
            self._background_running = True
            self.clock.at(self.clock.now, Rank.BACKGROUND, self._write_background)
        if self.room() < 0:  # it took what was set aside for windows under way
            self._recheck_room()

    def _recheck_room(self) -> None:
        for storer in self.storers:
            storer.recheck_room()

    def pause_ns(self, dirtied_pages: int) -> int:
        """How long a writer that has just dirtied that many pages is held up."""
        pages = self._dirty_pages() + sum(
            file.folios.count_pages(file.under_writeback()) for file in self.files
        )
        if pages <= self.freerun_pages:
            return 0
        if pages >= self.limit_pages:
            return PAUSE_MAX_NS
        work = dirtied_pages * PAGE_BYTES * 1_000_000_000 * (self.limit_pages - self.freerun_pages)
        return min(PAUSE_MAX_NS, -(-work // (self.disk.bandwidth * (self.limit_pages - pages))))

    def _dirty_pages(self) -> int:
        self.storers.catch_up()
        return sum(file.dirty_count() for file in self.files)

    def _write_background(self, _: None) -> None:
        if self._dirty_pages() <= self.background_pages:
            self._background_running = False
            self._recheck_room()  # from here on the lower threshold counts, too
            return
        if self._write_chunk():
            again = self.batches[-1].end_ns
        else:
            again = max(file.writeback_end_ns() for file in self.files)
        self.clock.at(again, Rank.BACKGROUND, self._write_background)

    def _write_chunk(self) -> bool:
        free = [self._free(file) for file in self.files]
        for start in (self._cursor, 0):
            for file, folios in zip(self.files, free, strict=True):
                first_page = file.folios.first_page(folios)
                at = int(np.searchsorted(first_page, start))
                if at < folios.size:
                    end = np.cumsum(file.folios.pages(folios[at : at + BACKGROUND_CHUNK_PAGES]))
                    size = max(1, int(np.searchsorted(end, BACKGROUND_CHUNK_PAGES, "right")))
                    file.write_back(folios[at : at + size], Reason.BACKGROUND)
                    last = folios[at + size - 1 : at + size]
                    self._cursor = int((file.folios.first_page(last) + file.folios.pages(last))[0])
                    return True
        return False
