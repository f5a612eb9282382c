"""The guest's kernel for one device: sync calls, the journal's commit, group commit, and L1 of a
guest without DAX.

Rules G1 (a flush has no range), G2 (what is in L1 no flush covers), G4 (flushes per call), G6 (the
5 s commit), G7 (driver generations), G9 (EIO, no retry). A sync call asks the driver for its
flushes one after another; an error of one fails the call, the others are made all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.history import NEVER
from crashsim.engine.pageset import PageSet, Work
from crashsim.engine.streams import I64
from crashsim.guest.program import Call, Program

JOURNAL_COMMIT_NS = 5_000_000_000
COPY_PAGE_NS = 512
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


class GuestKernel:
    """Sync calls and the journal of one device's guest."""

    __slots__ = (
        "_armed_ns",
        "_clock",
        "_driver",
        "_group_busy",
        "_group_waiting",
        "_journal",
        "_page_cache",
        "_rank",
        "_uncommitted_ns",
        "vcpus",
    )

    def __init__(
        self,
        clock: Clock,
        device: int,
        driver: FlushPort,
        journal: bool,
        page_cache: GuestPageCache | None,
    ) -> None:
        self._clock = clock
        self._rank = Rank.COMMIT + device
        self._driver = driver
        self._journal = journal
        self._page_cache = page_cache
        self._uncommitted_ns: int | None = (
            None  # begin of the first store the journal has not committed
        )
        self._armed_ns = NEVER
        self._group_busy = False
        self._group_waiting: list[tuple[int, Program, Callable[[bool], None]]] = []
        self.vcpus: list[StoringVCpu] = []

    # the journal (Rule G6)

    def will_store(self, t_ns: int) -> None:
        """A store is planned to begin at `t_ns`."""
        if (
            self._journal
            and self._uncommitted_ns is None
            and t_ns < self._armed_ns - JOURNAL_COMMIT_NS
        ):
            self._arm(t_ns)

    def stored(self, t_ns: int) -> None:
        """A store began at `t_ns`."""
        if self._uncommitted_ns is None or t_ns < self._uncommitted_ns:
            self._uncommitted_ns = t_ns

    def _arm(self, first_store_ns: int) -> None:
        self._armed_ns = first_store_ns + JOURNAL_COMMIT_NS
        self._clock.at(self._armed_ns, self._rank, self._commit_due, self._armed_ns)

    def _commit_due(self, armed_ns: int) -> None:
        if armed_ns != self._armed_ns:
            return
        self._armed_ns = NEVER
        self._settle()
        since = self._uncommitted_ns
        if since is not None and since + JOURNAL_COMMIT_NS <= self._clock.now:
            self._committed()
            self._driver.flush(KERNEL, _ignore)
        elif since is not None:
            self._arm(since)
        else:
            self._arm_for_planned()

    def _committed(self) -> None:
        self._uncommitted_ns = None
        self._armed_ns = NEVER
        self._arm_for_planned()

    def _arm_for_planned(self) -> None:
        for vcpu in self.vcpus:
            begin = vcpu.next_begin_ns()
            if begin is not None:
                self.will_store(begin)

    def _settle(self) -> None:
        for vcpu in self.vcpus:
            vcpu.settle()

    # sync calls (Rules G4, G9)

    def sync(self, vcpu: int, call: Call, done: Callable[[bool], None]) -> None:
        """msync, fdatasync or fsync."""
        flushes = 1
        if call == Call.FSYNC and self._journal:
            self._settle()
            if self._uncommitted_ns is not None:
                flushes = 2
                self._committed()
        if self._page_cache is None:
            self._flush_in_turn(vcpu, flushes, done)
            return
        busy_ns = self._page_cache.write_back()
        if busy_ns:
            self._clock.at(
                self._clock.now + busy_ns,
                Rank.GUEST + vcpu,
                lambda _: self._flush_in_turn(vcpu, flushes, done),
            )
        else:
            self._flush_in_turn(vcpu, flushes, done)

    def sync_alone(self, vcpu: int, call: Call, work: Work) -> I64:
        """The next sync calls of the device's only vCPU: when each returns, with success, of those
        that nothing else comes between (none, if anything else may come)."""
        one_flush = not self._journal or (
            call != Call.FSYNC and self._uncommitted_ns is not None  # the timer runs
        )
        if self._page_cache is not None or len(self.vcpus) != 1 or not one_flush:
            return work.pages[:0]
        return self._driver.flush_alone(vcpu, work)

    def _flush_in_turn(self, vcpu: int, flushes: int, done: Callable[[bool], None]) -> None:
        if flushes == 1:
            self._driver.flush(vcpu, lambda result: done(result == 0))
            return

        def second(first_result: int) -> None:
            self._driver.flush(vcpu, lambda result: done(result == 0 and first_result == 0))

        self._driver.flush(vcpu, second)

    def flush(self, vcpu: int, count: int, done: Callable[[bool], None]) -> None:
        """A block request's flushes: asked for together, or one after the other by a driver that
        has one at a time (Rule G7)."""
        if self._driver.one_at_a_time:
            self._flush_in_turn(vcpu, count, done)
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


def _ignore(_result: int) -> None:
    """Nobody waits for the kernel's own flush."""


class HostPort(Protocol):
    """Where the guest's writeback goes."""

    def copied(self, pages: I64) -> int:
        """Pages copied into L2 now; how many of them were clean there."""


class GuestPageCache:
    """L1 of a guest without DAX (Rule G2): one file's dirty pages and their flusher, with the age
    rule of H6."""

    __slots__ = (
        "_age_start_ns",
        "_clock",
        "_expire_ns",
        "_fault_ns",
        "_host",
        "_rank",
        "_writeback_ns",
        "copies",
        "sources",
        "vcpus",
    )

    def __init__(
        self,
        clock: Clock,
        device: int,
        host: HostPort,
        host_fault_ns: int,
        writeback_ns: int,
        expire_ns: int,
    ) -> None:
        self._clock = clock
        self._rank = Rank.GUEST_FLUSHER + device
        self._host = host
        self._fault_ns = host_fault_ns
        self._writeback_ns = writeback_ns
        self._expire_ns = expire_ns
        self._age_start_ns: int | None = None
        self.sources: list[PageSet] = []
        self.vcpus: list[StoringVCpu] = []
        self.copies: list[tuple[int, I64]] = []  # instant, pages
        if writeback_ns:
            clock.at(writeback_ns, self._rank, self._wake)

    fault_ns = 0  # of a store into L1

    def dirtied(self, t_ns: int) -> None:
        if self._age_start_ns is None or t_ns < self._age_start_ns:
            self._age_start_ns = t_ns

    def reserve(self, pages: int) -> None:
        """The host's thresholds do not count L1."""

    def room(self) -> int:
        return NEVER

    def dirtied_many(self) -> None:
        """The host's thresholds do not count L1."""

    def pause_ns(self, _dirtied_pages: int) -> int:
        return 0

    def write_back(self) -> int:
        """Copy all dirty pages of L1 to the device; how long that keeps the caller."""
        for vcpu in self.vcpus:
            vcpu.settle()
        if not any(source.count for source in self.sources):
            return 0
        for vcpu in self.vcpus:
            vcpu.divide()
        parts = [source.take_all().pages() for source in self.sources]
        pages = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
        self.copies.append((self._clock.now, pages))
        clean = self._host.copied(pages)
        return int(pages.size) * COPY_PAGE_NS + clean * self._fault_ns

    def _wake(self, _: None) -> None:
        now = self._clock.now
        for vcpu in self.vcpus:
            vcpu.settle()
        if self._age_start_ns is not None and now - self._age_start_ns >= self._expire_ns:
            self.write_back()
            self._age_start_ns = None
        self._clock.at(now + self._writeback_ns, self._rank, self._wake)
