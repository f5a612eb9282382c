"""The host's page cache: dirty pages, flusher, background and early writeback, throttling.

One file (inode) for each device; pages are numbered over all files. Only a snapshot cleans pages:
it takes their content as of the end of its instant and gives it to the disk as one batch. Cleaning
never waits and never orders anything (H8, H9). Dirty and cleaned are whole folios (H2), so the sets
of 4 KiB pages here always hold all pages of a folio or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.disk import Disk, Submitted
from tests.oracle.inputs import (
    PAGE_BYTES,
    OracleDevice,
    OracleHost,
    ceil_div,
    first_pages,
    folios_of,
)
from tests.oracle.outcome import Batch, Outcome
from tests.oracle.ticks import Ticks, Times, Wakeups

PAUSE_LIMIT_NS = 200_000_000
BACKGROUND_PAGES = 1024
PERIODIC, EARLY = 0, 1  # the order of rank 2

InFlight = tuple[int, int]  # batch, page


class GuestPort(Protocol):
    """What a snapshot asks of the guest."""

    def start_due_writes(self, device: int) -> None: ...

    def cleaned(self, device: int, pages: list[int]) -> None: ...


@dataclass(eq=False, slots=True)
class File:
    device: int
    pages: range  # over all files
    spec: OracleDevice
    folios: dict[int, range]  # each page's, over all files
    times: Times  # its mtime
    age_start: int | None = None  # None: the inode is not dirty
    error: bool = False  # a write failed, and no call reported it yet (H14)
    guest_journal_bytes: int = 0  # that no host call took yet
    held: set[int] = field(default_factory=set)  # pages that some batch held
    uncommitted: list[set[int]] = field(default_factory=list)  # new pages of ended batches (H13)
    committing: int = 0  # calls whose commit of new extents is under way
    behind_commit: list[Callable[[], None]] = field(default_factory=list)  # that wait for it
    touched: set[int] = field(default_factory=set)  # folios of memory that nothing cleans


class HostFull(Exception):
    """Rule V6: the monitor is killed at this instant."""

    def __init__(self, instant: int) -> None:
        super().__init__(instant)
        self.instant = instant


class PageCache:
    guest: GuestPort

    def __init__(
        self, spec: OracleHost, seed: int, clock: Clock, disk: Disk, outcome: Outcome
    ) -> None:
        self.spec, self.seed, self.clock, self.disk, self.outcome = spec, seed, clock, disk, outcome
        self.ticks = Ticks(spec.tick_ns, spec.second_phase_ns)
        self.files: list[File] = []
        for number, first in enumerate(first_pages(outcome.devices)):
            device = outcome.devices[number]
            folios = {
                first + page: range(first + folio.start, first + folio.stop)
                for folio in folios_of(device)
                for page in folio
            }
            pages = range(first, first + device.pages)
            self.files.append(File(number, pages, device, folios, Times(self.ticks)))
        self.dirty: set[int] = set()
        self.in_flight: set[InFlight] = set()
        self.arrived: set[InFlight] = set()  # in flight still, for the rest of their folio
        self.sparse: set[int] = set()  # pages of sparse files that were touched (V6)
        self.background = spec.memory_bytes * spec.background_ratio // 100 // PAGE_BYTES
        self.limit = spec.memory_bytes * spec.dirty_ratio // 100 // PAGE_BYTES
        self.background_batch: set[InFlight] | None = None  # it waits for; None: stopped
        self.cursor = 0
        self.taken_now: list[Submitted] = []
        self.wakeups = Wakeups(
            spec.flusher_phase,
            self.ticks,
            spec.writeback_ns,
            (seed, 0),
            clock,
            (Rank.FLUSHER, (PERIODIC,)),
            self.flusher_pass,
        )
        if spec.early is not None:
            clock.at(spec.early[0], Rank.FLUSHER, (EARLY,), lambda: self.early_pass(1))
        for file in self.files:
            if file.spec.prealloc and file.spec.on_file:
                # Reading: the count is checked at 0, too, although no store made it exceed.
                self.make_dirty(file.device, list(file.pages))
                self.times_event(file.device)

    @property
    def writeback(self) -> set[int]:
        """The pages under writeback."""
        return {page for _, page in self.in_flight}

    # --- folios and what lies below them --------------------------------------------------------

    def folios(self, device: int, pages: list[int]) -> dict[int, range]:
        """Rule H2: the folios of these pages, by their first page."""
        folios = {self.files[device].folios[page] for page in pages}
        return {folio.start: folio for folio in sorted(folios, key=lambda one: one.start)}

    def clean_folios(self, device: int, pages: list[int]) -> int:
        """How many folios a copy of these pages finds clean. In memory that nothing cleans that is
        so once."""
        file = self.files[device]
        firsts = set(self.folios(device, pages))
        if file.spec.on_file:
            return len(firsts - self.dirty)
        clean = len(firsts - file.touched)
        file.touched |= firsts
        return clean

    def touch(self, device: int, pages: list[int]) -> None:
        """Rule V6. Reading: a write touches all pages that it, or the rest that a division left,
        has bytes in, at its begin; pages are those of 4 KiB."""
        spec = self.files[device].spec
        if self.spec.free_bytes is None or spec.extents != "sparse" or not spec.on_file:
            return
        self.sparse |= set(pages)
        if len(self.sparse) > self.spec.free_bytes // PAGE_BYTES:
            raise HostFull(self.clock.now)

    # --- dirtying -----------------------------------------------------------------------------

    def make_dirty(self, device: int, pages: list[int]) -> None:
        """Rule H1: the folios of these pages are dirty from now on."""
        file = self.files[device]
        whole = {page for folio in self.folios(device, pages).values() for page in folio}
        new = whole - self.dirty
        if not new or not file.spec.on_file:
            return
        self.dirty |= new
        if file.age_start is None:
            file.age_start = self.clock.now
            self.wakeups.age_started()
        # Reading: every store that dirties a page while the writer is stopped makes the check.
        if len(self.dirty) > self.background and self.background_batch is None:
            self.background_batch = set()
            self.clock.at(self.clock.now, Rank.BACKGROUND, (), self.background_pass)

    def times_event(self, device: int) -> None:
        """Rule H11: something that may make the file's mtime dirty. Rule H16: what does so starts
        the timer of the host's journal."""
        file = self.files[device]
        if not file.spec.on_file or not file.times.event(self.clock.now):
            return
        if self.spec.file_system == "ext4" and self.spec.commit_interval_ns:
            since = self.clock.now
            instant = self.ticks.commit_timer(since, self.spec.commit_interval_ns)
            self.clock.at(instant, Rank.JOURNAL, (device,), lambda: self.timer_fired(file, since))

    def timer_fired(self, file: File, since: int) -> None:
        """Rule H16, of the event that set the flag at `since`."""
        raise NotImplementedError

    def pause(self, device: int, faults: int) -> int:
        """Rule H7: how long the writer that just faulted on so many pages is held up. Reading: a
        folio counts as its pages of 4 KiB."""
        if not self.files[device].spec.on_file:
            return 0
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
        self.dirty -= pages
        self.submit(file, sorted(pages), reason, "L2")
        self.guest.cleaned(file.device, sorted(pages))

    def submit(self, file: File, pages: list[int], reason: str, source: str) -> int:
        """A batch begins its way now; returns its number."""
        number = len(self.outcome.batches)
        self.outcome.batches.append(
            Batch(number, self.clock.now, reason, file.device, tuple(pages))
        )
        self.in_flight |= {(number, page) for page in pages}
        new = set(pages) - file.held
        file.held |= new
        batch = Submitted(number, file.device, pages, source)
        self.taken_now.append(batch)
        if file.spec.extents == "written":
            new = set()
        self.disk.write_batch(batch, partial(self.written, new))
        if batch.failed:
            file.held -= new  # the next write of them is their first
        return number

    def end_of_instant(self) -> None:
        """A snapshot at T holds every store (copy) with an instant up to and including T."""
        layers = self.outcome.layers
        for batch in self.taken_now:
            for page in batch.pages:
                batch.content[page] = layers.page(batch.source, page)
                if page not in batch.never_arrive:
                    layers.arrive(self.clock.now, "L3", batch.content[page])
        self.taken_now.clear()

    def written(self, new: set[int], batch: Submitted, run: list[int], last: bool) -> None:
        """One I/O completed; a folio is under writeback until the last of its pages has. The last
        I/O ends the batch: `new` are its pages that no batch held before, in new extents."""
        file = self.files[batch.device]
        self.arrived |= {(batch.number, page) for page in run}
        over: set[InFlight] = set()
        for folio in self.folios(batch.device, run).values():
            of_folio = {one for one in self.in_flight if one[0] == batch.number and one[1] in folio}
            if of_folio <= self.arrived:
                over |= of_folio
        self.in_flight -= over
        self.arrived -= over
        if last:
            file.error |= batch.failed
            if new and not batch.failed:
                file.uncommitted.append(new)
        self.writes_over(over, batch.number if last else None)
        if self.background_batch:
            self.background_batch -= over
            if not self.background_batch:
                self.clock.at(self.clock.now, Rank.BACKGROUND, (), self.background_pass)

    def writes_over(self, over: set[InFlight], ended: int | None) -> None:
        """These pages are not under writeback any more, and this batch has ended."""
        raise NotImplementedError

    def idle_dirty(self, file: File) -> set[int]:
        """Its dirty pages that are not under writeback."""
        return {page for page in self.dirty - self.writeback if page in file.pages}

    # --- flusher, background, early -------------------------------------------------------------

    def flusher_pass(self) -> bool:
        """Rule H6: the flusher looks at all files; whether any has an age then."""
        for file in self.files:
            if file.age_start is None or self.clock.now - file.age_start < self.spec.expire_ns:
                continue
            self.guest.start_due_writes(file.device)
            self.snapshot(file, self.idle_dirty(file), "flusher")
            if not any(page in file.pages for page in self.dirty):
                file.age_start = None
        return any(file.age_start is not None for file in self.files)

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
            self.background_batch = set(self.in_flight)
            return
        ahead = [page for page in idle if page >= self.cursor] or idle
        file = next(file for file in self.files if ahead[0] in file.pages)
        in_file = [page for page in ahead if page in file.pages]
        taken: list[int] = []
        for folio in self.folios(file.device, in_file).values():
            if taken and len(taken) + len(folio) > BACKGROUND_PAGES:
                break
            taken += folio
        self.cursor = taken[-1] + 1
        self.background_batch = {(len(self.outcome.batches), page) for page in taken}
        self.snapshot(file, set(taken), "background")

    def early_pass(self, k: int) -> None:
        """Rule H8. Reading: the draw's page is numbered over all devices."""
        assert self.spec.early is not None
        every_ns, numerator, denominator = self.spec.early
        for file in self.files:
            self.guest.start_due_writes(file.device)
            folios = self.folios(file.device, sorted(self.idle_dirty(file)))
            drawn = [
                folio
                for first, folio in folios.items()
                if draw(self.seed, "early-writeback", k * 2**32 + first) * denominator
                < numerator * 2**64
            ]
            taken = {page for folio in drawn for page in folio}
            self.snapshot(file, taken, "early")
        next_ns = (k + 1) * every_ns
        self.clock.at(next_ns, Rank.FLUSHER, (EARLY,), lambda: self.early_pass(k + 1))
