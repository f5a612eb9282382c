"""L1: the page cache of a guest without DAX (Rules G2, V9).

Stores dirty its pages; guest writeback (a sync, or its flusher, with the age rule of H6) copies
them all to the device. What a copy does there is the device's business: into pages of the host's
file, through them to the disk (virtio-blk with cache=writethrough), or past them (cache=none).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.folios import Folios
from crashsim.engine.pages import unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.engine.timers import Storers, WakeUps
from crashsim.pagecache.memory import CopiesIntoMemory, CopiesToDisk
from crashsim.pagecache.writeback import Memory


class GuestPageCache(Memory):
    """One file's dirty pages and their flusher. `timer(t)`: when that wakes again after `t`, None:
    never; `first_wake_ns`: for the first time, None: with the first store."""

    def __init__(
        self,
        clock: Clock,
        device: int,
        folios: Folios,  # single pages
        host: CopiesIntoMemory | CopiesToDisk,
        timer: Callable[[int], int] | None,
        first_wake_ns: int | None,
        expire_ns: int,
    ) -> None:
        super().__init__(folios, fault_ns=0, cleaned_by_sync=True)
        self._clock = clock
        self._host = host
        self._expire_ns = expire_ns
        self._age_start_ns: int | None = None
        self.sources: list[PageSet] = []
        self.vcpus = Storers()
        self.aborted_ns: int | None = None  # from then on the file system is read-only (Rule G9)
        self.copies: list[tuple[int, I64]] = []  # instant, pages
        self._wake_ups: WakeUps | None = None
        if timer is not None:
            rank = Rank.GUEST_FLUSHER + device
            self._wake_ups = WakeUps(clock, rank, timer, first_wake_ns, self.vcpus, self._wake)

    def will_store(self, t_ns: int) -> None:
        if self._wake_ups is not None:
            self._wake_ups.expect(t_ns)

    def dirtied(self, first_ns: int, _stamped_ns: int | None, _last_ns: int) -> None:
        if self._age_start_ns is None or first_ns < self._age_start_ns:
            self._age_start_ns = first_ns
            if self._wake_ups is not None:
                self._wake_ups.aged(first_ns)

    def sync(self, vcpu: int, pages: I64 | None, done: Callable[[bool], None]) -> None:
        """Write back all that is dirty, or what of `pages` is; `done(ok)` when that is over."""
        busy_ns = self._write_back(pages)
        if busy_ns is None:
            done(True)
        elif busy_ns:
            after_ns = self._clock.now + busy_ns
            rank = Rank.GUEST + vcpu
            self._clock.at(after_ns, rank, lambda _: self._host.written_through(done))
        else:
            self._host.written_through(done)

    def _write_back(self, only: I64 | None = None) -> int | None:
        """Copy dirty pages of L1 to the device; how long that keeps the caller, None if there
        were none, or none may leave any more."""
        if self.aborted_ns is not None and self._clock.now > self.aborted_ns:
            return None
        self.vcpus.catch_up()
        if not any(source.count for source in self.sources):
            return None
        if only is not None:
            dirty = unique_sorted(np.concatenate([source.folios() for source in self.sources]))
            pages = np.intersect1d(dirty, only, assume_unique=True)
            if not pages.size:
                return None
        self.vcpus.split_at_snapshot()
        if only is None:
            parts = [source.take_all().folios(self.folios) for source in self.sources]
            pages = unique_sorted(np.concatenate(parts))
        else:
            for source in self.sources:
                source.discard(pages)
        self.copies.append((self._clock.now, pages))
        return self._host.copied(pages)

    def _wake(self) -> bool:
        """A pass; whether anything in L1 is older than it may be cleaned now."""
        now = self._clock.now
        self.vcpus.catch_up()
        if self._age_start_ns is not None and now - self._age_start_ns >= self._expire_ns:
            if self._write_back() is not None:
                self._host.written_through(lambda _: None)
            self._age_start_ns = None
        return self._age_start_ns is not None
