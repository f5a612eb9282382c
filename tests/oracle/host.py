"""The host's calls on a backing file (fsync, msync and fdatasync), with their errors, and the
commits of its file system: theirs, and those it makes by itself (H16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.oracle.cache import File, InFlight, PageCache
from tests.oracle.clock import Clock, Rank
from tests.oracle.disk import Disk, use_up
from tests.oracle.inputs import PAGE_BYTES, OracleHost, ceil_div
from tests.oracle.outcome import Outcome

JOURNAL_BYTES = 8192
COMMIT_BYTES = {"ext4": 4096, "xfs": 1024}  # XFS has that alone


@dataclass(eq=False, slots=True)
class Fsync:
    """A call; or a commit of the host's own, which has `done` None."""

    number: int
    file: File
    since: int | None  # it took the mtime, dirty since then
    done: Callable[[bool], None] | None
    block_under_way: bool = False  # of the guest's journal, that it waits for, too
    before: set[InFlight] = field(default_factory=set)  # under writeback when it began
    waits: set[InFlight] = field(default_factory=set)  # whose writeback it waits for
    deferred: set[int] = field(default_factory=set)  # tagged, but under writeback at the time
    covers: set[int] = field(default_factory=set)  # new pages that its commit covers (H13)
    busy: bool = True  # its next step is scheduled, or it is past the data


class Host(PageCache):
    def __init__(
        self, spec: OracleHost, seed: int, clock: Clock, disk: Disk, outcome: Outcome
    ) -> None:
        self.fsyncs: list[Fsync] = []
        self.fsyncs_begun = 0
        self.errors = sorted(spec.fsync_errors)
        self.direct_waits: dict[int, Callable[[], None]] = {}
        super().__init__(spec, seed, clock, disk, outcome)

    def call(self, device: int, name: str, done: Callable[[bool], None]) -> None:
        """A host call (`fsync`, `msync` or `fdatasync`) begins; `done(success)` when it returns.
        Reading: host fsync errors strike all three, but no call that touches no disk."""
        backing = self.files[device].spec.backing
        if backing in ("tmpfs", "hugetlbfs", "ram"):
            done(backing != "ram")
        else:
            self.fsync(device, name == "fsync", done)

    def direct(self, device: int, pages: list[int], done: Callable[[], None]) -> None:
        """Rule V9, cache `none`: a batch of the guest's own pages; `done` when it has completed.
        Reading: it is submitted even if one of the pages is in flight, and counts as a page write
        of the file in flight."""
        number = self.submit(self.files[device], pages, "direct", "L1")
        self.direct_waits[number] = done

    def writes_over(self, over: set[InFlight], ended: int | None) -> None:
        for fsync in self.fsyncs:
            fsync.before -= over
            fsync.waits -= over
            self.proceed(fsync)
        if ended in self.direct_waits:
            self.direct_waits.pop(ended)()

    def in_flight_of(self, file: File) -> set[InFlight]:
        return {one for one in self.in_flight if one[1] in file.pages}

    def fsync(self, device: int, takes_mtime: bool, done: Callable[[bool], None]) -> None:
        """Rule H10: begins now. Rule H12: msync and fdatasync leave the mtime alone."""
        self.guest.start_due_writes(device)
        file = self.files[device]
        since = file.times.clear(self.clock.now) if takes_mtime else None
        fsync = self.begin(file, since, done)
        self.write_guest_journals(fsync)
        fsync.before = self.in_flight_of(file)
        fsync.deferred = {page for page in self.dirty & self.writeback if page in file.pages}
        self.snapshot(file, self.idle_dirty(file), "fsync")
        fsync.waits = self.in_flight_of(file)
        if fsync.waits or fsync.block_under_way:
            fsync.busy = False
        else:
            self.data_written(fsync)

    def begin(self, file: File, since: int | None, done: Callable[[bool], None] | None) -> Fsync:
        self.fsyncs_begun += 1
        fsync = Fsync(self.fsyncs_begun, file, since, done)
        self.fsyncs.append(fsync)
        return fsync

    def guest_commits(self, device: int, journal_pages: int) -> None:
        """Rule G6: a guest's commit puts pages of its journal into the file. Reading: with no
        pages nothing happens to the file."""
        file = self.files[device]
        if journal_pages and file.spec.on_file:
            largest = max(len(folio) for folio in file.folios.values())
            blocks = ceil_div(journal_pages, largest) * largest
            file.guest_journal_bytes += blocks * PAGE_BYTES
            self.times_event(device)

    def write_guest_journals(self, fsync: Fsync) -> None:
        """All in one block. Reading: no other call waits for it."""
        size, fsync.file.guest_journal_bytes = fsync.file.guest_journal_bytes, 0
        if size == 0:
            return
        fsync.block_under_way = True

        def written() -> None:
            fsync.block_under_way = False
            self.proceed(fsync)

        self.disk.write_guest_journal(size, written)

    def step(self, fsync: Fsync, action: Callable[[], None]) -> None:
        fsync.busy = True
        self.clock.at(self.clock.now, Rank.HOST, (fsync.number,), action)

    def proceed(self, fsync: Fsync) -> None:
        if fsync.busy:
            return
        if fsync.deferred:
            if not fsync.before:
                self.step(fsync, lambda: self.take_deferred(fsync))
        elif not fsync.waits and not fsync.block_under_way:
            self.step(fsync, lambda: self.data_written(fsync))

    def take_deferred(self, fsync: Fsync) -> None:
        """The instant T2: what is in flight now may hold a tagged page that someone else
        took meanwhile, so the fsync waits for it too."""
        self.guest.start_due_writes(fsync.file.device)
        mine = (fsync.deferred & self.dirty) - self.writeback
        fsync.deferred = set()
        self.snapshot(fsync.file, mine, "fsync")
        fsync.waits |= self.in_flight_of(fsync.file)
        fsync.busy = False
        self.proceed(fsync)

    def data_written(self, fsync: Fsync) -> None:
        """Rule H11: F, or a commit when the file's times or new extents (H13) have to be committed
        too. A write error ends the call here (H14)."""
        file = fsync.file
        if file.error:
            if fsync.since is not None:
                file.times.set_again(fsync.since)
            self.returns(fsync)
            return
        if self.spec.fsync_resets_age and not any(page in file.pages for page in self.dirty):
            file.age_start = None
        if fsync.since is not None or file.uncommitted:
            self.commit(fsync)
        elif file.committing:
            file.behind_commit.append(lambda: self.step(fsync, lambda: self.data_written(fsync)))
        else:
            self.disk.flush(lambda: self.returns(fsync))

    def timer_fired(self, file: File, since: int) -> None:
        """Rule H16: the file system commits by itself."""
        if file.times.since == since:
            file.times.clear(self.clock.now)
            self.outcome.own_commits += 1
            self.commit(self.begin(file, since, None))

    def commit(self, fsync: Fsync) -> None:
        """J F C F on ext4, F J F on XFS."""
        file = fsync.file
        fsync.covers = set().union(*file.uncommitted)
        file.uncommitted = []
        file.committing += bool(fsync.covers)
        if self.spec.file_system == "xfs":
            self.journal_written(fsync)
            return
        self.disk.write_journal(
            JOURNAL_BYTES, lambda: self.step(fsync, lambda: self.journal_written(fsync))
        )

    def journal_written(self, fsync: Fsync) -> None:
        self.disk.flush(lambda: self.journal_flushed(fsync))

    def journal_flushed(self, fsync: Fsync) -> None:
        last = self.returns if self.disk.spec.fua else self.commit_written
        self.disk.write_commit(
            COMMIT_BYTES[self.spec.file_system],
            fsync.covers,
            lambda: self.step(fsync, lambda: last(fsync)),
        )

    def commit_written(self, fsync: Fsync) -> None:
        self.disk.flush(lambda: self.returns(fsync))

    def returns(self, fsync: Fsync) -> None:
        """Rules G9, H14 and D4. Reading: several errors that are due fire with the same call, even
        if that fails for another reason."""
        now, file = self.clock.now, fsync.file
        self.fsyncs.remove(fsync)
        if fsync.covers:
            file.committing -= 1
            waiting, file.behind_commit = file.behind_commit, []
            for go_on in waiting:
                go_on()
        if fsync.done is None:
            return
        self.outcome.fired_errors += [(instant, now) for instant in self.errors if instant <= now]
        failed = use_up(self.errors, now) or fsync.file.error or self.disk.dead
        fsync.file.error = False
        fsync.done(not failed)
