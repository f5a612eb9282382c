"""The guest's kernel for one device: sync calls, the journal's commit, and group commit.

Rules G1 (a flush has no range), G2 (what is in L1 no flush covers), G4 (flushes per call, time
stamps as coarse as ticks), G6 (ext4 commits some 5 s after a store, with two flushes), G7 (driver
generations), G9 (EIO, no retry; a failed flush of a commit aborts ext4's journal). A sync call asks
the driver for its flushes one after another; an error of one fails the call, the others are made
all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64
from crashsim.engine.timers import Anticipated, Stamps, Storers, Ticks
from crashsim.experiment.sync_calls import SyncCall
from crashsim.guest.driver import Driver
from crashsim.guest.l1 import GuestPageCache
from crashsim.guest.program import Program

Done = Callable[[bool], None]  # whether the call succeeded
KERNEL = -1  # stands for a vCPU's number where the guest's kernel acts


@dataclass(frozen=True, slots=True)
class Journal:
    """ext4's journal in the guest: the clock and interval of its timer; `put()`: its own pages go
    to the device."""

    ticks: Ticks
    interval_ns: int
    put: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Path:
    """What of the way to the device the calls depend on.

    `flushes`: whether there are any: an emulated NVDIMM has no flush path (Rule V9), and one whose
    writes are through asks for none. `fsync`: a character device has no such operation (Rule G2).
    `grows`: the file gets longer, so that fdatasync commits, too (Rule G4)."""

    flushes: bool = True
    fsync: bool = True
    grows: bool = False


@dataclass(slots=True, eq=False)
class GuestKernel:
    """Sync calls and the journal of one device's guest."""

    _clock: Clock
    _device: int
    _driver: Driver
    _journal: Journal | None
    _page_cache: GuestPageCache | None
    _path: Path
    vcpus: Storers = field(default_factory=Storers)
    aborted_ns: int | None = None  # when the journal has
    _times: Stamps = field(init=False)
    _timer: Anticipated | None = None
    _group_busy: bool = False
    _group_waiting: list[tuple[int, Program, Done]] = field(default_factory=list)

    def __post_init__(self) -> None:
        journal, self._times = self._journal, Stamps(0)
        if journal is not None:
            self._times = Stamps(0 if self._path.grows else journal.ticks.tick_ns)
            self._timer = Anticipated(
                self._clock,
                Rank.COMMIT + self._device,
                lambda t_ns: journal.ticks.commit_ns(t_ns, journal.interval_ns),
                lambda: self._times.since_ns,
                self.vcpus,
                self._commit_by_itself,
            )

    # the journal (Rule G6)

    @property
    def stamp_bar_ns(self) -> int:
        """Stores that begin before leave the file's times as they are (Rule G4)."""
        return self._times.bar_ns

    def will_store(self, t_ns: int) -> None:
        """A store is planned to begin at `t_ns`."""
        if self._timer is not None:
            self._timer.expect(max(t_ns, self._times.bar_ns))

    def stored(self, stamped_ns: int | None, last_ns: int) -> None:
        """Stores began, up to `last_ns`; that at `stamped_ns` is the first that changed the
        times."""
        self._times.happened(stamped_ns, last_ns)
        if stamped_ns is not None and self._timer is not None:
            self._timer.expect(stamped_ns)

    def _commit(self) -> None:
        """The journal's own pages go to the device; the flushes are the caller's."""
        assert self._journal is not None
        self._times.clear()
        self._journal.put()

    def _commit_by_itself(self) -> None:
        if self._timer is None or self.aborted_ns is not None:
            return
        self._commit()
        self._flush_in_turn(KERNEL, 2 if self._path.flushes else 0, lambda _: None, commits=True)
        self._timer.again()

    # sync calls (Rules G4, G9)

    def _flushes(self, call: SyncCall) -> int:
        """How many device flushes a call makes that commits nothing (Rule G4)."""
        if not self._path.flushes or (call.flushes == "journal" and self._journal is None):
            return 0
        return int(call.flushes != "never")

    def _may_commit(self, call: SyncCall) -> bool:
        commits = call.commits == "always" or (call.commits == "growing" and self._path.grows)
        return commits and self._journal is not None

    def _refuses(self, call: SyncCall) -> bool:
        """Whether the call fails at once (Rules G2, G9)."""
        if not self._path.fsync:
            return call.flushes == "always"
        return self._over() and self._flushes(call) > 0

    def _over(self) -> bool:
        """The journal has aborted before now: no flush is asked for any more (Rule G9)."""
        return self.aborted_ns is not None and self._clock.now > self.aborted_ns

    def does_nothing(self, call: SyncCall) -> bool:
        """Neither flushes nor copies: it succeeds at once."""
        copies = self._page_cache is not None and call.writes
        return self._flushes(call) == 0 and not copies and (self._path.flushes or not call.writes)

    def cleans(self, call: SyncCall) -> bool:
        """Whether after a call of a vCPU's that succeeds its pages are clean for certain."""
        if self._refuses(call):
            return False
        return (self._page_cache is not None and call.writes) or self._flushes(call) > 0

    def sync(self, vcpu: int, call: SyncCall, pages: I64 | None, done: Done) -> None:
        """A sync call; `pages`: those that it is for, if not for all."""
        if self._refuses(call):
            done(False)
            return
        flushes, commits = self._flushes(call), False
        if self._may_commit(call):
            self.vcpus.catch_up()
            if self._times.since_ns is not None:
                commits = True
                flushes *= 2
                self._commit()
        if self._page_cache is None:
            self._flush_in_turn(vcpu, flushes, done, commits)
            return

        def copied(ok: bool) -> None:
            """The guest's own writeback is over."""
            self._flush_in_turn(vcpu, flushes, lambda flushed: done(ok and flushed), commits)

        self._page_cache.sync(vcpu, pages, copied)

    def sync_uncontended(self, vcpu: int, call: SyncCall, work: Work) -> I64:
        """The next sync calls of the device's only vCPU: when each returns, with success, of those
        that nothing else comes between (none, if anything else may come)."""
        one_flush = self._flushes(call) == 1 and not self._refuses(call)
        if self._journal is not None:  # and its timer runs
            one_flush &= not self._may_commit(call) and self._times.since_ns is not None
        straight = self._page_cache is None
        if not straight or len(self.vcpus) != 1 or not one_flush:
            return work.pages[:0]
        return self._driver.flush_uncontended(vcpu, work)

    def _flush_in_turn(self, vcpu: int, flushes: int, done: Done, commits: bool) -> None:
        """`commits`: they are those of a commit of the journal, which a failed one aborts."""
        if flushes == 0:
            done(True)
            return
        if self._over():
            done(False)
            return

        def acknowledged(result: int, left: int, ok: bool) -> None:
            failed = result != 0
            if failed and commits:
                self._abort()
            if left and not (self._over() and not failed):
                self._driver.flush(vcpu, lambda last: acknowledged(last, left - 1, not failed))
            else:
                done(ok and not failed and not left)

        self._driver.flush(vcpu, lambda result: acknowledged(result, flushes - 1, True))

    def _abort(self) -> None:
        """The journal has: nothing is stored or synced any more (Rule G9)."""
        if self.aborted_ns is None:
            self.aborted_ns = self._clock.now
            if self._page_cache is not None:
                self._page_cache.aborted_ns = self._clock.now
            for vcpu in self.vcpus:
                vcpu.journal_aborted()

    def flush(self, vcpu: int, count: int, done: Done) -> None:
        """A block request's flushes: asked for together, or one after the other by a driver that
        has one at a time (Rule G7)."""
        if self._driver.one_at_a_time or not self._path.flushes:
            flushes = count if self._path.flushes else 0
            self._flush_in_turn(vcpu, flushes, done, commits=False)
            return
        results: list[int] = []

        def one(result: int) -> None:
            results.append(result)
            if len(results) == count:
                done(not any(results))

        for _ in range(count):
            self._driver.flush(vcpu, one)

    # group commit

    def group_sync(self, vcpu: int, program: Program, done: Done) -> None:
        """Join the next group: one sync serves all that joined before it began."""
        self._group_waiting.append((vcpu, program, done))
        if not self._group_busy:
            self._lead()

    def _lead(self) -> None:
        self._group_busy = True
        leader, program, _done = self._group_waiting[0]
        if program.group_delay_ns:
            begin_ns = self._clock.now + program.group_delay_ns
            self._clock.at(begin_ns, Rank.GUEST + leader, self._group_begins)
        else:
            self._group_begins(None)

    def _group_begins(self, _: None) -> None:
        members, self._group_waiting = self._group_waiting, []
        leader, program, _done = members[0]

        def done(ok: bool) -> None:
            self._group_busy = False
            if self._group_waiting:
                self._lead()
            for _vcpu, _program, released in members:
                released(ok)

        self.sync(leader, program.call, None, done)
