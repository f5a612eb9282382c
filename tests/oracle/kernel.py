"""The guest's kernel: ext4's journal commit (G6) and the page cache of a guest without DAX (G2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.oracle.clock import Clock, Event, Rank
from tests.oracle.device import Flushes
from tests.oracle.host import Host
from tests.oracle.inputs import OracleGuest, ceil_div
from tests.oracle.outcome import Copy, Outcome

COMMIT_NS = 5_000_000_000
COPY_NS = 512
COMMIT, CACHE_FLUSHER = 1, 2  # the order of rank 3, after the vCPUs


class VcpuPort(Protocol):
    def start_due_writes(self, device: int) -> None: ...

    def divided(self, device: int, cleaned: list[int]) -> None: ...


@dataclass(eq=False, slots=True)
class Filesystem:
    """One device's: its uncommitted stores, and its dirty pages in the guest's cache (L1)."""

    timer: Event | None = None  # set while a store is not committed
    dirty: set[int] = field(default_factory=set)
    age_start: int | None = None


class Kernel:
    vcpus: VcpuPort

    def __init__(
        self, spec: OracleGuest, host: Host, flushes: Flushes, clock: Clock, outcome: Outcome
    ) -> None:
        self.spec, self.host, self.flushes = spec, host, flushes
        self.clock, self.outcome = clock, outcome
        self.filesystems = [Filesystem() for _ in host.files]
        self.copied_now: list[Copy] = []

    # --- journal commit -------------------------------------------------------------------------

    def stored(self, device: int) -> None:
        """Rule G6: the first store after a commit starts the timer."""
        filesystem = self.filesystems[device]
        if self.spec.ext4 and filesystem.timer is None:
            instant = self.clock.now + COMMIT_NS
            filesystem.timer = self.clock.at(
                instant, Rank.GUEST, (COMMIT, device), lambda: self.commit(device)
            )

    def commit(self, device: int) -> None:
        """Reading: where a sync call makes no flush, the commit makes none, too."""
        self.filesystems[device].timer = None
        if not self.outcome.devices[device].flushless:
            self.flushes.ask(device, -1, lambda success: None)

    def flush_count(self, device: int, call: str) -> int:
        """Rule G4: the device flushes of a call; an fsync commits, also a store of its instant."""
        filesystem = self.filesystems[device]
        if call == "fsync" and self.spec.ext4:
            self.vcpus.start_due_writes(device)
        if call != "fsync" or filesystem.timer is None:
            return 1
        filesystem.timer.cancelled = True
        filesystem.timer = None
        return 2

    # --- the guest's page cache -----------------------------------------------------------------

    def cache_dirty(self, device: int, pages: list[int]) -> None:
        filesystem = self.filesystems[device]
        filesystem.dirty |= set(pages)
        if filesystem.age_start is None:
            filesystem.age_start = self.clock.now
            interval = self.host.spec.writeback_ns
            if interval:
                old_enough = filesystem.age_start + self.host.spec.expire_ns
                self.clock.at(
                    ceil_div(old_enough, interval) * interval,
                    Rank.GUEST,
                    (CACHE_FLUSHER, device),
                    lambda: self.cache_flusher(device),
                )

    def cache_flusher(self, device: int) -> None:
        """The first wake-up that finds the age expired; it takes no vCPU's time. Rule V9: a host
        call follows with `writethrough`. Reading: none if there was nothing to write."""
        spec, filesystem = self.outcome.devices[device], self.filesystems[device]
        wrote = bool(filesystem.dirty)
        self.write_back(device, lambda: None)
        filesystem.age_start = None
        if wrote and spec.kind == "virtio-blk" and spec.cache == "writethrough":
            self.host.call(device, "fdatasync", lambda success: None)

    def write_back(self, device: int, written: Callable[[], None]) -> int | None:
        """Rule G2: all dirty pages of L1 are copied to the device; returns how long a sync is held
        up. None: until `written` is called (V9, `none`). Reading: that replaces the time of the
        copying."""
        spec = self.outcome.devices[device]
        if self.spec.dax_on(spec):
            return 0
        self.vcpus.start_due_writes(device)
        filesystem = self.filesystems[device]
        pages = sorted(filesystem.dirty)
        filesystem.dirty = set()
        if not pages:
            return 0
        self.host.touch(device, pages)
        copies = [Copy(self.clock.now, device, page) for page in pages]
        self.copied_now += copies
        self.outcome.copies += copies
        self.vcpus.divided(device, [])
        if spec.direct:
            self.host.direct(device, pages, written)
            return None
        clean = self.host.clean_folios(device, pages)
        self.host.make_dirty(device, pages)
        return len(pages) * COPY_NS + self.host.spec.fault_ns * clean

    def end_of_instant(self) -> None:
        """A copy at T holds every store with a begin up to and including T."""
        layers = self.outcome.layers
        for copy in self.copied_now:
            content = layers.page("L1", copy.page)
            layers.move(copy.instant, "M", content)
            device = self.outcome.devices[copy.device]
            if device.in_file_cache and not device.direct:
                layers.move(copy.instant, "L2", content)
        self.copied_now.clear()
