"""The host's page cache: dirty pages, fsync, flusher, background and early writeback, throttling.

One file (inode) for each device; pages are numbered over all files. Only a snapshot cleans pages:
it takes their content as of the end of its instant and gives it to the disk as one batch. Cleaning
never waits and never orders anything (H8, H9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.disk import Disk, Submitted
from tests.oracle.inputs import PAGE_BYTES, OracleHost, ceil_div
from tests.oracle.outcome import Batch, Outcome

PAUSE_LIMIT_NS = 200_000_000
BACKGROUND_PAGES = 1024
JOURNAL_BYTES = 8192
COMMIT_BYTES = 4096
PERIODIC, EARLY = 0, 1  # the order of rank 2


class GuestPort(Protocol):
    """What a snapshot asks of the guest."""

    def start_due_writes(self, device: int) -> None: ...

    def cleaned(self, device: int, pages: list[int]) -> None: ...


@dataclass(eq=False, slots=True)
class File:
    device: int
    pages: range  # over all files
    age_start: int | None = None  # None: the inode is not dirty
    mtime_dirty: bool = False


@dataclass(eq=False, slots=True)
class Fsync:
    number: int
    file: File
    commits: bool
    done: Callable[[bool], None]
    before: set[int] = field(default_factory=set)  # pages under writeback when it began
    waits: set[int] = field(default_factory=set)  # pages whose writeback it waits for
    deferred: set[int] = field(default_factory=set)  # tagged, but under writeback at the time
    busy: bool = True  # its next step is scheduled, or it is past the data


class Host:
    guest: GuestPort

    def __init__(
        self, spec: OracleHost, seed: int, sizes: list[int], clock: Clock, disk: Disk, out: Outcome
    ) -> None:
        self.spec, self.seed, self.clock, self.disk, self.outcome = spec, seed, clock, disk, out
        self.files: list[File] = []
        first = 0
        for device, pages in enumerate(sizes):
            self.files.append(File(device, range(first, first + pages)))
            first += pages
        self.dirty: set[int] = set()
        self.writeback: set[int] = set()
        self.fsyncs: list[Fsync] = []
        self.fsyncs_begun = 0
        self.background = spec.memory_bytes * spec.background_ratio // 100 // PAGE_BYTES
        self.limit = spec.memory_bytes * spec.dirty_ratio // 100 // PAGE_BYTES
        self.background_batch: set[int] | None = None  # pages it waits for; None: stopped
        self.cursor = 0
        self.taken_now: list[Submitted] = []
        self.errors = sorted(spec.fsync_errors)
        if spec.early is not None:
            clock.at(spec.early[0], Rank.FLUSHER, (EARLY,), lambda: self.early_pass(1))

    # --- dirtying -----------------------------------------------------------------------------

    def make_dirty(self, device: int, pages: list[int]) -> None:
        """Rule H1: the pages are dirty from now on."""
        file = self.files[device]
        new = set(pages) - self.dirty
        if not new:
            return
        self.dirty |= new
        file.mtime_dirty = True
        if file.age_start is None:
            file.age_start = self.clock.now
            self.schedule_flusher(file)
        # Reading: every store that dirties a page while the writer is stopped makes the check.
        if len(self.dirty) > self.background and self.background_batch is None:
            self.background_batch = set()
            self.clock.at(self.clock.now, Rank.BACKGROUND, (), self.background_pass)

    def pause(self, faults: int) -> int:
        """Rule H7: how long the writer that just faulted on so many pages is held up."""
        x = len(self.dirty) + len(self.writeback)
        freerun = (self.background + self.limit) // 2
        if faults == 0 or x <= freerun:
            return 0
        if x >= self.limit:
            return PAUSE_LIMIT_NS
        work = faults * PAGE_BYTES * 10**9 * (self.limit - freerun)
        room = self.disk.spec.bandwidth * (self.limit - x)
        return min(PAUSE_LIMIT_NS, ceil_div(work, room))

    # --- snapshots ----------------------------------------------------------------------------

    def snapshot(self, file: File, pages: set[int], reason: str) -> None:
        """Rule H3: the pages become clean, and their content is on its way to the disk."""
        if not pages:
            return
        assert pages <= self.dirty and not pages & self.writeback
        ordered = sorted(pages)
        number = len(self.outcome.batches)
        self.outcome.batches.append(
            Batch(number, self.clock.now, reason, file.device, tuple(ordered))
        )
        self.dirty -= pages
        self.writeback |= pages
        self.guest.cleaned(file.device, ordered)
        batch = Submitted(number, ordered)
        self.taken_now.append(batch)
        self.disk.write_batch(batch, self.written)

    def end_of_instant(self) -> None:
        """A snapshot at T holds every store (copy) with an instant up to and including T."""
        layers = self.outcome.layers
        for batch in self.taken_now:
            for page in batch.pages:
                batch.content[page] = layers.page("L2", page)
                layers.move(self.clock.now, "L3", batch.content[page])
        self.taken_now.clear()

    def written(self, pages: list[int]) -> None:
        """One I/O completed."""
        self.writeback -= set(pages)
        for fsync in self.fsyncs:
            fsync.before -= set(pages)
            fsync.waits -= set(pages)
            self.proceed(fsync)
        if self.background_batch:
            self.background_batch -= set(pages)
            if not self.background_batch:
                self.clock.at(self.clock.now, Rank.BACKGROUND, (), self.background_pass)

    def idle_dirty(self, file: File) -> set[int]:
        """Its dirty pages that are not under writeback."""
        return {page for page in self.dirty - self.writeback if page in file.pages}

    # --- fsync --------------------------------------------------------------------------------

    def fsync(self, device: int, done: Callable[[bool], None]) -> None:
        """Rule H10: begins now; `done(success)` when it returns."""
        self.guest.start_due_writes(device)
        file = self.files[device]
        fsync = Fsync(self.fsyncs_begun, file, file.mtime_dirty, done)
        self.fsyncs_begun += 1
        self.fsyncs.append(fsync)
        file.mtime_dirty = False
        fsync.before = {page for page in self.writeback if page in file.pages}
        fsync.deferred = {page for page in self.dirty & self.writeback if page in file.pages}
        own = self.idle_dirty(file)
        fsync.waits = fsync.before | own
        self.snapshot(file, own, "fsync")
        if fsync.waits:
            fsync.busy = False
        else:
            self.data_written(fsync)

    def step(self, fsync: Fsync, action: Callable[[], None]) -> None:
        fsync.busy = True
        self.clock.at(self.clock.now, Rank.HOST, (fsync.number,), action)

    def proceed(self, fsync: Fsync) -> None:
        if fsync.busy:
            return
        if fsync.deferred:
            if not fsync.before:
                self.step(fsync, lambda: self.take_deferred(fsync))
        elif not fsync.waits:
            self.step(fsync, lambda: self.data_written(fsync))

    def take_deferred(self, fsync: Fsync) -> None:
        """The instant T2: what is in flight now may hold a tagged page that someone else
        took meanwhile, so the fsync waits for it too."""
        self.guest.start_due_writes(fsync.file.device)
        mine = (fsync.deferred & self.dirty) - self.writeback
        fsync.waits |= mine | {page for page in self.writeback if page in fsync.file.pages}
        fsync.deferred = set()
        self.snapshot(fsync.file, mine, "fsync")
        fsync.busy = False
        self.proceed(fsync)

    def data_written(self, fsync: Fsync) -> None:
        """Rule H11: F, or J F C F when the file's times have to be committed too."""
        if not fsync.commits:
            self.disk.flush(lambda: self.returns(fsync))
            return
        self.disk.write_block(
            JOURNAL_BYTES, False, lambda: self.step(fsync, lambda: self.journal_written(fsync))
        )

    def journal_written(self, fsync: Fsync) -> None:
        self.disk.flush(lambda: self.journal_flushed(fsync))

    def journal_flushed(self, fsync: Fsync) -> None:
        fua = self.disk.spec.fua
        last = self.returns if fua else self.commit_written
        self.disk.write_block(COMMIT_BYTES, fua, lambda: self.step(fsync, lambda: last(fsync)))

    def commit_written(self, fsync: Fsync) -> None:
        self.disk.flush(lambda: self.returns(fsync))

    def returns(self, fsync: Fsync) -> None:
        """Rule G9. Reading: several errors that are due fire with the same fsync."""
        now = self.clock.now
        self.fsyncs.remove(fsync)
        fired = [instant for instant in self.errors if instant <= now]
        self.errors = [instant for instant in self.errors if instant > now]
        self.outcome.fired_errors += [(instant, now) for instant in fired]
        fsync.done(not fired)

    # --- flusher, background, early -------------------------------------------------------------

    def schedule_flusher(self, file: File) -> None:
        """Rule H6: the first wake-up, a multiple of the interval, that finds the inode old enough.
        The others do nothing."""
        if self.spec.writeback_ns == 0 or file.age_start is None:
            return
        old_enough = max(file.age_start + self.spec.expire_ns, self.clock.now + 1)
        wakes = ceil_div(old_enough, self.spec.writeback_ns) * self.spec.writeback_ns
        order = (PERIODIC, file.device)
        self.clock.at(wakes, Rank.FLUSHER, order, lambda: self.flusher_pass(file))

    def flusher_pass(self, file: File) -> None:
        if file.age_start is None or self.clock.now - file.age_start < self.spec.expire_ns:
            return
        self.guest.start_due_writes(file.device)
        self.snapshot(file, self.idle_dirty(file), "flusher")
        if not any(page in file.pages for page in self.dirty):
            file.age_start = None
        self.schedule_flusher(file)

    def background_pass(self) -> None:
        """Rule H7: up to 1024 pages of one file, then again when they are written.
        Reading: "all writes in flight" are those in flight when it looks and finds nothing."""
        for file in self.files:
            self.guest.start_due_writes(file.device)
        if len(self.dirty) <= self.background:
            self.background_batch = None
            return
        idle = sorted(self.dirty - self.writeback)
        if not idle:
            self.background_batch = set(self.writeback)
            return
        ahead = [page for page in idle if page >= self.cursor] or idle
        file = next(file for file in self.files if ahead[0] in file.pages)
        taken = [page for page in ahead if page in file.pages][:BACKGROUND_PAGES]
        self.cursor = taken[-1] + 1
        self.background_batch = set(taken)
        self.snapshot(file, set(taken), "background")

    def early_pass(self, k: int) -> None:
        """Rule H8. Reading: the draw's page is numbered over all devices."""
        assert self.spec.early is not None
        every_ns, numerator, denominator = self.spec.early
        for file in self.files:
            self.guest.start_due_writes(file.device)
            taken = {
                page
                for page in self.idle_dirty(file)
                if draw(self.seed, "early-writeback", k * 2**32 + page) * denominator
                < numerator * 2**64
            }
            self.snapshot(file, taken, "early")
        next_ns = (k + 1) * every_ns
        self.clock.at(next_ns, Rank.FLUSHER, (EARLY,), lambda: self.early_pass(k + 1))
