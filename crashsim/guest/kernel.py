"""The guest's kernel for one device: sync calls, the journal's commit, and group commit.

Rules G1 (a flush has no range), G2 (what is in L1 no flush covers), G4 (flushes per call, time
stamps as coarse as ticks), G6 (ext4 commits some 5 s after a store, with two flushes), G7 (driver
generations), G9 (EIO, no retry). A sync call asks the driver for its flushes one after another; an
error of one fails the call, the others are made all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64
from crashsim.engine.timers import Anticipated, Stamps, Ticks
from crashsim.guest.pagecache import GuestPageCache
from crashsim.guest.program import Call, Program

KERNEL = -1  # stands for a vCPU's number where the guest's kernel acts


class FlushPort(Protocol):
    """The driver: one device flush for a vCPU; `done(result)` at its acknowledgement."""

    @property
    def one_at_a_time(self) -> bool: ...
    def flush(self, vcpu: int, done: Callable[[int], None]) -> None: ...
    def flush_alone(self, vcpu: int, work: Work) -> I64: ...


class StoringVCpu(Protocol):
    """What the kernel asks of a vCPU."""

    def settle(self) -> None: ...
    def divide(self) -> None: ...
    def next_begin_ns(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Journal:
    """ext4's journal in the guest: the clock and interval of its timer; `put()`: its own pages go
    to the device."""

    ticks: Ticks
    interval_ns: int
    put: Callable[[], None]


class GuestKernel:
    """Sync calls and the journal of one device's guest.

    `flush_path`: whether the device has one at all: an emulated NVDIMM has not (Rule V9), and one
    whose writes are through asks for none."""

    __slots__ = (
        "_clock",
        "_driver",
        "_flush_path",
        "_group_busy",
        "_group_waiting",
        "_journal",
        "_page_cache",
        "_timer",
        "_times",
        "vcpus",
    )

    def __init__(
        self,
        clock: Clock,
        device: int,
        driver: FlushPort,
        journal: Journal | None,
        page_cache: GuestPageCache | None,
        flush_path: bool = True,
    ) -> None:
        self._flush_path = flush_path
        self._clock = clock
        self._driver = driver
        self._page_cache = page_cache
        self._journal = journal
        self._times = Stamps(0)
        self._timer: Anticipated | None = None
        if journal is not None:
            self._times = Stamps(journal.ticks.tick_ns)
            self._timer = Anticipated(
                clock,
                Rank.COMMIT + device,
                lambda t_ns: journal.ticks.commit_ns(t_ns, journal.interval_ns),
                lambda: self._times.since_ns,
                self._settle,
                self._planned,
                self._commit_by_itself,
            )
        self._group_busy = False
        self._group_waiting: list[tuple[int, Program, Callable[[bool], None]]] = []
        self.vcpus: list[StoringVCpu] = []

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
        assert self._timer is not None
        self._commit()
        if self._flush_path:
            self._flush_in_turn(KERNEL, 2, _ignore)
        self._timer.again()

    def _planned(self) -> Iterator[int]:
        for vcpu in self.vcpus:
            begin_ns = vcpu.next_begin_ns()
            if begin_ns is not None:
                yield begin_ns

    def _settle(self) -> None:
        for vcpu in self.vcpus:
            vcpu.settle()

    # sync calls (Rules G4, G9)

    def sync(self, vcpu: int, call: Call, done: Callable[[bool], None]) -> None:
        """msync, fdatasync or fsync."""
        flushes = 1
        if call == Call.FSYNC and self._journal is not None:
            self._settle()
            if self._times.since_ns is not None:
                flushes = 2
                self._commit()
        if not self._flush_path:
            flushes = 0
        if self._page_cache is None:
            self._flush_in_turn(vcpu, flushes, done)
        else:
            self._page_cache.sync(vcpu, lambda ok: self._copied(vcpu, flushes, ok, done))

    def _copied(self, vcpu: int, flushes: int, ok: bool, done: Callable[[bool], None]) -> None:
        """The guest's own writeback is over."""
        self._flush_in_turn(vcpu, flushes, lambda flushed: done(ok and flushed))

    def sync_alone(self, vcpu: int, call: Call, work: Work) -> I64:
        """The next sync calls of the device's only vCPU: when each returns, with success, of those
        that nothing else comes between (none, if anything else may come)."""
        one_flush = self._journal is None or (
            call != Call.FSYNC and self._times.since_ns is not None  # the timer runs
        )
        straight = self._page_cache is None and self._flush_path
        if not straight or len(self.vcpus) != 1 or not one_flush:
            return work.pages[:0]
        return self._driver.flush_alone(vcpu, work)

    def _flush_in_turn(self, vcpu: int, flushes: int, done: Callable[[bool], None]) -> None:
        if flushes == 0:
            done(True)
            return
        if flushes == 1:
            self._driver.flush(vcpu, lambda result: done(result == 0))
            return

        def second(first_result: int) -> None:
            self._driver.flush(vcpu, lambda result: done(result == 0 and first_result == 0))

        self._driver.flush(vcpu, second)

    def flush(self, vcpu: int, count: int, done: Callable[[bool], None]) -> None:
        """A block request's flushes: asked for together, or one after the other by a driver that
        has one at a time (Rule G7)."""
        if self._driver.one_at_a_time or not self._flush_path:
            self._flush_in_turn(vcpu, count if self._flush_path else 0, done)
            return
        results: list[int] = []

        def one(result: int) -> None:
            results.append(result)
            if len(results) == count:
                done(not any(results))

        for _ in range(count):
            self._driver.flush(vcpu, one)

    # group commit

    def group_sync(self, vcpu: int, program: Program, done: Callable[[bool], None]) -> None:
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

        self.sync(leader, program.call, done)


def _ignore(_ok: bool) -> None:
    """Nobody waits for the kernel's own flush."""
