"""L1: the page cache of a guest without DAX (Rules G2, V9).

Stores dirty its pages; guest writeback (a sync, or its flusher, with the age rule of H6) copies
them all to the device. What a copy does there is the device's business: into pages of the host's
file, through them to the disk (virtio-blk with cache=writethrough), or past them (cache=none).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.history import NEVER
from crashsim.engine.pages import PAGE_SHIFT
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64

COPY_PAGE_NS = 512


class HostPort(Protocol):
    """Where the guest's writeback goes."""

    def copied(self, pages: I64) -> int:
        """Pages copied to the device now; how long that keeps the caller, ns."""

    def written_through(self, done: Callable[[bool], None]) -> None:
        """`done(ok)` when copies are where the device's cache mode wants them."""


class StoringVCpu(Protocol):
    """What L1 asks of a vCPU."""

    def settle(self) -> None: ...
    def divide(self) -> None: ...


class GuestPageCache:
    """One file's dirty pages and their flusher."""

    __slots__ = (
        "_age_start_ns",
        "_clock",
        "_expire_ns",
        "_host",
        "_rank",
        "_writeback_ns",
        "copies",
        "sources",
        "vcpus",
    )

    fault_ns = 0  # of a store into L1
    shift = PAGE_SHIFT
    cleaned_by_sync = True

    def __init__(
        self, clock: Clock, device: int, host: HostPort, writeback_ns: int, expire_ns: int
    ) -> None:
        self._clock = clock
        self._rank = Rank.GUEST_FLUSHER + device
        self._host = host
        self._writeback_ns = writeback_ns
        self._expire_ns = expire_ns
        self._age_start_ns: int | None = None
        self.sources: list[PageSet] = []
        self.vcpus: list[StoringVCpu] = []
        self.copies: list[tuple[int, I64]] = []  # instant, pages
        if writeback_ns:
            clock.at(writeback_ns, self._rank, self._wake)

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

    def sync(self, vcpu: int, done: Callable[[bool], None]) -> None:
        """Write back; `done(ok)` when that is over."""
        busy_ns = self._write_back()
        if busy_ns is None:
            done(True)
        elif busy_ns:
            after_ns = self._clock.now + busy_ns
            rank = Rank.GUEST + vcpu
            self._clock.at(after_ns, rank, lambda _: self._host.written_through(done))
        else:
            self._host.written_through(done)

    def _write_back(self) -> int | None:
        """Copy all dirty pages of L1 to the device; how long that keeps the caller, None if there
        were none."""
        for vcpu in self.vcpus:
            vcpu.settle()
        if not any(source.count for source in self.sources):
            return None
        for vcpu in self.vcpus:
            vcpu.divide()
        parts = [source.take_all().pages() for source in self.sources]
        pages = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
        self.copies.append((self._clock.now, pages))
        return self._host.copied(pages)

    def _wake(self, _: None) -> None:
        now = self._clock.now
        for vcpu in self.vcpus:
            vcpu.settle()
        if self._age_start_ns is not None and now - self._age_start_ns >= self._expire_ns:
            if self._write_back() is not None:
                self._host.written_through(_ignore)
            self._age_start_ns = None
        self._clock.at(now + self._writeback_ns, self._rank, self._wake)


def _ignore(_ok: bool) -> None:
    """Nobody waits for the guest's flusher."""
