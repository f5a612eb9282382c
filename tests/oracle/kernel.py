"""The guest's kernel: ext4's journal commit (G6) and the page cache of a guest without DAX (G2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tests.oracle.clock import Clock, Rank
from tests.oracle.device import Done, Flushes
from tests.oracle.host import Host
from tests.oracle.inputs import OracleGuest
from tests.oracle.outcome import Copy, Outcome
from tests.oracle.ticks import Ticks, Times, Wakeups

COPY_NS = 512
COMMIT, CACHE_FLUSHER = 1, 2  # the order of rank 3, after the vCPUs


class VcpuPort(Protocol):
    def start_due_writes(self, device: int) -> None: ...

    def divided(self, device: int, cleaned: list[int]) -> None: ...

    def aborted(self, device: int) -> None: ...


@dataclass(eq=False, slots=True)
class Filesystem:
    """One device's: its times, its journal, and its dirty pages in the guest's cache (L1)."""

    times: Times
    aborted: int | None = None  # rule G9: since when
    dirty: set[int] = field(default_factory=set)
    age_start: int | None = None
    wakeups: Wakeups | None = None  # of the flusher of L1, if there is one


class Kernel:
    vcpus: VcpuPort

    def __init__(
        self,
        spec: OracleGuest,
        seed: int,
        host: Host,
        flushes: Flushes,
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        self.spec, self.host, self.flushes = spec, host, flushes
        self.clock, self.outcome = clock, outcome
        self.ticks = Ticks(spec.tick_ns, spec.second_phase_ns)
        self.filesystems = [Filesystem(Times(self.ticks)) for _ in host.files]
        self.copied_now: list[Copy] = []
        for number, device in enumerate(outcome.devices):
            if not spec.dax_on(device):
                self.filesystems[number].wakeups = Wakeups(
                    host.spec.flusher_phase,
                    self.ticks,
                    host.spec.writeback_ns,
                    (seed, 1 + number),
                    clock,
                    (Rank.GUEST, (CACHE_FLUSHER, number)),
                    partial(self.cache_flusher, number),
                )

    # --- journal commit -------------------------------------------------------------------------

    def stored(self, device: int) -> None:
        """Rule G6: a store that makes the times dirty starts the timer. Those of a growing file
        always do."""
        since = self.clock.now
        grows = self.outcome.devices[device].grows
        times = self.filesystems[device].times
        if not self.spec.ext4 or not times.event(since, always=grows):
            return
        if self.spec.commit_interval_ns:
            instant = self.ticks.commit_timer(since, self.spec.commit_interval_ns)
            timer_fired = partial(self.timer_fired, device, since)
            self.clock.at(instant, Rank.GUEST, (COMMIT, device), timer_fired)

    def timer_fired(self, device: int, since: int) -> None:
        filesystem = self.filesystems[device]
        if filesystem.times.since != since or filesystem.aborted is not None:
            return
        self.commit(device)
        if not self.outcome.devices[device].flushless:
            self.flush(device, -1, 2, True, lambda success: None)

    def commit(self, device: int) -> None:
        """Rule G6, what goes before its flushes."""
        self.filesystems[device].times.clear(self.clock.now)
        self.host.guest_commits(device, self.spec.journal_pages)

    def commits(self, device: int, call: str) -> bool:
        """Rule G4: whether a call that is made now commits, also a store of its instant."""
        if not self.spec.ext4 or self.over(device):
            return False
        grows = self.outcome.devices[device].grows and call in ("msync", "fdatasync")
        if call != "fsync" and not grows:
            return False
        self.vcpus.start_due_writes(device)
        return self.filesystems[device].times.dirty

    def flush_count(self, call: str) -> int:
        """Rule G4: the device flushes of a call that does not commit."""
        if call == "sync":
            return int(self.spec.ext4)
        return int(call not in ("msync-async", "sync_file_range"))

    def aborted(self, device: int) -> int | None:
        """Rule G9: when the journal did."""
        return self.filesystems[device].aborted

    def over(self, device: int) -> bool:
        """Rule G9: now lies after the instant at which the journal aborted."""
        since = self.filesystems[device].aborted
        return since is not None and self.clock.now > since

    def flush(self, device: int, vcpu: int, count: int, commits: bool, done: Done) -> None:
        """So many flushes, each asked for when the last is acknowledged; a failure does not stop
        the rest. Those of a commit abort the journal if they fail (G9), and what would be asked
        for after that is not made, but for the rest of the commit that failed."""

        def asked_for(left: int, failed: bool) -> None:
            if left == 0:
                done(not failed)
            elif self.over(device) and not (commits and failed):
                done(False)
            else:
                self.flushes.ask(device, vcpu, partial(acknowledged, left - 1, failed))

        def acknowledged(left: int, failed: bool, success: bool) -> None:
            if commits and not success:
                self.abort(device)
            asked_for(left, failed or not success)

        asked_for(count, False)

    def abort(self, device: int) -> None:
        if self.filesystems[device].aborted is None:
            self.filesystems[device].aborted = self.clock.now
            self.outcome.aborts.append((self.clock.now, device))
            self.vcpus.aborted(device)

    # --- the guest's page cache -----------------------------------------------------------------

    def cache_dirty(self, device: int, pages: list[int]) -> None:
        filesystem = self.filesystems[device]
        filesystem.dirty |= set(pages)
        if filesystem.age_start is None:
            filesystem.age_start = self.clock.now
            assert filesystem.wakeups is not None
            filesystem.wakeups.age_started()

    def cache_flusher(self, device: int) -> bool:
        """Rule H6 in the guest; it takes no vCPU's time. Rule V9: a host call follows with
        `writethrough`. Reading: none if there was nothing to write."""
        spec, filesystem = self.outcome.devices[device], self.filesystems[device]
        start = filesystem.age_start
        if start is None or self.clock.now - start < self.host.spec.expire_ns:
            return start is not None
        self.vcpus.start_due_writes(device)
        wrote = bool(filesystem.dirty) and not self.over(device)
        self.write_back(device, None, lambda: None)
        if not filesystem.dirty:
            filesystem.age_start = None
        if wrote and spec.kind == "virtio-blk" and spec.cache == "writethrough":
            self.host.call(device, "fdatasync", lambda success: None)
        return filesystem.age_start is not None

    def write_back(
        self, device: int, of: set[int] | None, written: Callable[[], None]
    ) -> int | None:
        """Rule G2: all dirty pages of L1, or those `of` a range, are copied to the device; returns
        how long a sync is held up. None: until `written` is called (V9, `none`). Reading: that
        replaces the time of the copying. After the journal aborted nothing is written back."""
        spec = self.outcome.devices[device]
        if self.spec.dax_on(spec) or self.over(device):
            return 0
        self.vcpus.start_due_writes(device)
        filesystem = self.filesystems[device]
        pages = sorted(filesystem.dirty if of is None else filesystem.dirty & of)
        filesystem.dirty -= set(pages)
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
        if clean:
            self.host.times_event(device)
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
