"""The one place that wires the rooms together: an experiment and its programs in, a History out.

    vCPU ──stores──▶ (L1 ─▶) host pages ──batches──▶ disk
      └─sync─▶ kernel ─▶ driver ─▶ virtio-pmem queue ─▶ fsync ──FLUSH──▶

Nothing here knows a rule; each room knows its own and the port of the room below.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from crashsim.device.virtio_pmem import FlushLog, TokenBucket, VirtioPmem
from crashsim.disk.faults import DISK_FAULTS
from crashsim.disk.pipe import Drive, compose
from crashsim.engine.clock import Clock
from crashsim.engine.folios import Folios, single_pages
from crashsim.engine.history import NEVER, DeviceSpan, History, RunInfo
from crashsim.engine.injector import Effects, Injector
from crashsim.engine.pages import PAGE_SHIFT, column, join
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64, Stream
from crashsim.engine.timers import Ticks
from crashsim.engine.units import LONGEST_NS
from crashsim.errors import UsageError
from crashsim.experiment.backing import Device
from crashsim.experiment.model import Experiment
from crashsim.guest.acks import acknowledgements
from crashsim.guest.driver import Driver
from crashsim.guest.l1 import GuestPageCache
from crashsim.guest.program import Program
from crashsim.guest.syscalls import GuestKernel, Journal, Path
from crashsim.guest.vcpu import VCpu
from crashsim.pagecache.cache import PageCache
from crashsim.pagecache.eio import HOST_ERRORS
from crashsim.pagecache.full_host import first_refusal
from crashsim.pagecache.memory import (
    CopiesIntoMemory,
    CopiesToDisk,
    fsync_of,
    has_flush_path,
    is_shared_file,
)
from crashsim.pagecache.writeback import BackingFile, Batch, Memory, folios_of
from crashsim.vmm.monitors import MONITORS

_COMPOSE_PAGES = 1 << 16
_COMPOSE_BATCHES = (1 << 11) - 1


class Stack:
    """A wired stack, ready to run once."""

    def __init__(self, experiment: Experiment, programs: Sequence[Program]) -> None:
        self.experiment = experiment
        self.programs = programs
        self.clock = Clock()
        disk = experiment.disk
        self.disk = Drive(self.clock, disk.bandwidth, disk.flush, disk.fua)
        self.faults = dict(_faults(experiment))
        self.order = Stream(experiment.seed, "disk-order")
        host = experiment.host
        self.cache = PageCache(
            self.clock,
            self.disk,
            host,
            Stream(experiment.seed, "early-writeback"),
            list(self.faults.values()),
            self._first_wake_ns(host.tick, 0),
            self._complete,
        )
        self.flush_log = FlushLog()
        self.spans = spans(experiment)
        self.vcpus: list[VCpu] = []
        self.kernels: list[GuestKernel] = []
        self.guest_caches: list[GuestPageCache] = []
        self.with_dax: list[bool] = []
        self._running = len(programs)
        if not programs and experiment.duration is None:
            self.clock.end_now()
        self.panicked_ns: int | None = None
        self.devices = [device for device, _, _ in experiment.resolved_devices()]
        self._guest_ticks = Ticks(experiment.guest.tick, experiment.guest.second_phase)
        for number, (span, device) in enumerate(zip(self.spans, self.devices, strict=True)):
            self._add_device(number, span, device)

    def _add_device(self, device: int, span: DeviceSpan, what: Device) -> None:
        guest, host, backing = self.experiment.guest, self.experiment.host, what.backing
        new_extents = backing.extents != "written"
        folios = Folios(span.first_page, span.pages, self.experiment.folio_parts(what))
        single = single_pages(span.first_page, span.pages)
        shared, flush_path = is_shared_file(what), has_flush_path(what)
        file = self.cache.open(device, folios, flush_path, new_extents, fsync_of(what))
        memory = file if shared else Memory(single, host.fault)
        monitor = MONITORS[self.experiment.vmm]
        limit, limiter = what.rate_limiter, None
        if limit is not None:
            limiter = TokenBucket(limit.ops, limit.refill, limit.burst)
        queue = VirtioPmem(self.clock, device, self.cache, self.flush_log, monitor, limiter)
        driver = Driver(self.clock, queue, guest.driver != "concurrent", monitor.queue)
        programs = [p for p in self.programs if p.device == device]
        recorded = any(p.labels for p in programs)
        page_cache = None
        if (guest.access == "cached" or what.type == "virtio-blk") and not recorded:
            page_cache = self._guest_cache(device, single, what, file, memory)
        self.with_dax.append(page_cache is None)
        journal = None
        if guest.file_system == "ext4" and not recorded:
            put: Callable[[], None] = lambda: None  # noqa: E731
            if shared and guest.journal_pages:
                put = partial(file.put_guest_journal, guest.journal_pages << PAGE_SHIFT)
            journal = Journal(self._guest_ticks, guest.commit_interval, put)
        has_fsync = guest.access != "devdax" or what.type == "virtio-blk"
        path = Path(flush_path, has_fsync, any(p.grows for p in programs))
        kernel = GuestKernel(self.clock, device, driver, journal, page_cache, path)
        self.kernels.append(kernel)
        for program in programs:
            store_memory = memory if page_cache is None else page_cache
            dirty = PageSet(store_memory.folios)
            vcpu = VCpu(
                self.clock,
                len(self.vcpus),
                program,
                dirty,
                store_memory,
                kernel,
                guest.on_sync_error,
                self._one_finished,
                self._panicked,
            )
            self.vcpus.append(vcpu)
            kernel.vcpus.append(vcpu)
            if page_cache is not None:
                page_cache.sources.append(dirty)
                page_cache.vcpus.append(vcpu)
            elif shared:
                file.sources.append(dirty)
                file.storers.append(vcpu)
                self.cache.storers.append(vcpu)
        if backing.prealloc and shared:
            file.prealloc()
        if not file.sources:
            file.sources.append(PageSet(folios))

    def _guest_cache(
        self, device: int, single: Folios, what: Device, file: BackingFile, memory: Memory
    ) -> GuestPageCache:
        """L1, and what its copies do."""
        copies: CopiesToDisk | CopiesIntoMemory = CopiesToDisk(self.clock, file)
        if what.cache != "none":
            through = what.cache == "writethrough"
            copies = CopiesIntoMemory(self.cache, device, memory, through)
            if is_shared_file(what):
                file.sources.append(copies.pages)
        host, ticks = self.experiment.host, self._guest_ticks
        timer = None
        if host.dirty_writeback:
            timer = partial(ticks.timer_ns, delay_ns=host.dirty_writeback)
        first_wake_ns = self._first_wake_ns(ticks.tick_ns, 1 + device)
        found = GuestPageCache(
            self.clock, device, single, copies, timer, first_wake_ns, host.dirty_expire
        )
        self.guest_caches.append(found)
        return found

    def _first_wake_ns(self, tick_ns: int, number: int) -> int | None:
        """When a flusher wakes first (Rule H6); None: with the first store."""
        host = self.experiment.host
        if host.flusher_phase == "idle" or not host.dirty_writeback:
            return None
        if host.flusher_phase == "busy":
            return Ticks(tick_ns, 0).timer_ns(0, host.dirty_writeback)
        drawn = Stream(self.experiment.seed, "flusher-phase").draws(column([number]))
        first_ns = 1 + int(drawn[0]) % host.dirty_writeback
        return -(-first_ns // tick_ns) * tick_ns if tick_ns else first_ns

    def _panicked(self) -> None:
        """The guest stops, and the run with it."""
        self.panicked_ns = self.clock.now
        self.clock.end_now()

    def _one_finished(self) -> None:
        self._running -= 1
        if self._running == 0 and self.experiment.duration is None:
            self.clock.end_now()

    def run(self) -> History:
        """Simulate to the end and collect the History."""
        self.cache.start()
        if any(device.backing.prealloc for device in self.devices):
            self.cache.dirtied_many()
        for vcpu in self.vcpus:
            vcpu.start(self.devices[vcpu.program.device].plugged)
        collecting = gc.isenabled()
        gc.disable()  # nothing in the loop makes cycles, and its small objects live to the end
        try:
            self.clock.run(self.experiment.duration, LONGEST_NS)
        finally:
            if collecting:
                gc.enable()
        for vcpu in self.vcpus:
            vcpu.stop()
        return self._history()

    # collecting

    def _complete(self, batch: Batch) -> None:
        """Work out when each folio of a batch completes, while it is in flight: with the last of
        the I/Os that it is in."""
        of = self.cache.files[batch.device].folios
        folios = batch.folios(of)
        first = of.first_page(folios)
        _, io_first, _, complete = self._compose([batch])
        low = np.searchsorted(io_first, first, "right") - 1
        end = np.searchsorted(io_first, first + of.pages(folios), "left")
        bounds = np.stack([low, end], axis=1).ravel()
        batch.complete_ns = np.maximum.reduceat(np.append(complete, 0), bounds)[::2]

    def _history(self) -> History:
        io, flushes = self._compose_all(), self.disk.flushes
        effects = Effects(
            end_ns=self.clock.now,
            batch_end_ns=column([b.end_ns for b in self.cache.batches]),
            io_batch=io[0],
            io_first_page=io[1],
            flush_issue_ns=column([issue for issue, _ in flushes]),
            flush_end_ns=column([end for _, end in flushes]),
            io_shorn=np.zeros_like(io[0]),
            io_corrupted=np.zeros_like(io[0]),
            flush_ignored=np.zeros(len(flushes), dtype=np.int64),
        )
        for fault in self.faults.values():
            fault.mark(effects)
        files, dead_ns = self.cache.files, effects.dead_ns
        commits = [c for c in self.cache.commits if files[c.device].has_new_extents]
        columns: dict[str, Any] = {
            **_table("store", ("t_ns", "offset", "length", "write"), self._stores()),
            **_table("copy", ("t_ns", "page"), self._copies()),
            **_rows("batch", ("t_ns", "reason", "device", "whole", "failed"), self.cache.batches),
            **_table("io", ("batch", "first_page", "pages", "complete_ns"), io),
            **_rows("commit", ("device", "t_ns", "complete_ns", "fua_ns"), commits),
            **_table("flush", [f.name for f in fields(FlushLog)], self.flush_log.columns()),
            **_table("ack", ("t_ns", "device", "low", "high", "label"), self._acknowledgements()),
        }
        for name in ("commit_complete_ns", "commit_fua_ns"):  # by a disk that was alive
            columns[name][columns[name] >= dead_ns] = NEVER
        return History(
            devices=self.spans,
            info=self._info(dead_ns),
            io_shorn=effects.io_shorn,
            io_corrupted=effects.io_corrupted,
            flush_disk_issue_ns=effects.flush_issue_ns,
            flush_disk_end_ns=effects.flush_end_ns,
            flush_disk_ignored=effects.flush_ignored,
            **columns,
        )

    def _info(self, dead_ns: int) -> RunInfo:
        disk, now = self.experiment.disk, self.clock.now
        devices = self.devices
        idle = tuple((key, t) for key, fault in self.faults.items() for t in fault.not_fired(now))
        return RunInfo(
            end_ns=now,
            seed=self.experiment.seed,
            dax=tuple(self.with_dax),
            media=tuple(
                "nvdimm" if device.type == "real-nvdimm" else device.backing.kind
                for device in devices
            ),
            new_extents=tuple(device.backing.extents != "written" for device in devices),
            discard_data=tuple(device.backing.discard_data for device in devices),
            journal_aborted_ns=tuple(kernel.aborted_ns for kernel in self.kernels),
            panicked_ns=self.panicked_ns,
            sigbus=None,
            plp=disk.plp,
            dead_ns=dead_ns,
            ignores_flush=disk.ignores_flush,
            sector_bytes=disk.sector,
            atom_bytes=disk.atom,
            stable_writes=disk.stable_writes,
            recorded=any(p.labels for p in self.programs),
            guest_wait_ns=sum(vcpu.wait_ns + vcpu.throttle.total_ns for vcpu in self.vcpus),
            throttle_ns=sum(vcpu.throttle.total_ns for vcpu in self.vcpus),
            failed_syncs=sum(vcpu.acknowledged.failed_syncs for vcpu in self.vcpus),
            metadata_bytes=self.cache.metadata_bytes,
            writes=sum(p.offset.size for p in self.programs),
            unfinished_writes=tuple(
                vcpu.unfinished_write for vcpu in self.vcpus if vcpu.unfinished_write is not None
            ),
            faults_configured=sum(fault.configured for fault in self.faults.values()),
            faults_not_fired=idle,
            fsync_errors_not_fired=tuple(t for key, t in idle if key == "host.fsync_errors"),
        )

    def _compose_all(self) -> list[I64]:
        """The I/Os of all batches, many batches at a time: batch, first page, pages, completion."""
        batches = self.cache.batches
        sizes = [
            sum(high - low for taken in batch.taken for _, _, low, high in taken.ranges)
            + sum(known.size for taken in batch.taken for known in taken.known)
            for batch in batches
        ]
        group = np.cumsum(sizes) // _COMPOSE_PAGES + np.arange(len(sizes)) // _COMPOSE_BATCHES
        bounds = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(sizes)]
        parts = [self._compose(batches[low:high]) for low, high in pairwise(bounds) if high > low]
        return _merged(parts, 4, in_order=True)

    def _compose(self, group: list[Batch]) -> tuple[I64, I64, I64, I64]:
        of = [file.folios for file in self.cache.files]
        batch, folio = folios_of(group, of)
        page = folio
        pages = np.ones(folio.size, dtype=np.int64)
        larger = [d for d, folios in enumerate(of) if folios.shift != PAGE_SHIFT]
        if larger:
            device = column([b.device for b in group])[batch - group[0].number]
            page = folio.copy()
            for number in larger:
                mine = np.flatnonzero(device == number)
                page[mine] = of[number].first_page(folio[mine])
                pages[mine] = of[number].pages(folio[mine])
        start = column([b.start_ns for b in group])
        return compose(batch, page, pages, start, self.disk.bandwidth, self.order)

    def _stores(self) -> list[Any]:
        logs = [vcpu.stores for vcpu in self.vcpus]
        if len(logs) == 1 and logs[0].whole:  # the program's own columns will do
            t, program = join(logs[0].t_ns), self.programs[0]
            number = np.arange(program.first_write, program.first_write + t.size, dtype=np.int64)
            return [t, program.offset[: t.size], program.length[: t.size], number]
        parts = [[*map(join, (log.t_ns, log.offset, log.length, log.write))] for log in logs]
        return _merged(parts, 4)

    def _copies(self) -> tuple[I64, I64]:
        copies = [entry for cache in self.guest_caches for entry in cache.copies]
        copies.sort(key=lambda entry: entry[0])
        pages = [page for _, page in copies]
        times = column([t for t, _ in copies])
        return np.repeat(times, column([page.size for page in pages])), join(pages)

    def _acknowledgements(self) -> list[Any]:
        parts = [
            acknowledgements(v.acknowledged, v.marks, v.stores, v.program, v.unfinished_write)
            for v in self.vcpus
        ]
        return _merged(parts, 5) if parts else [*_merged([], 4), np.empty(0, dtype=np.str_)]


def _merged(parts: Sequence[Sequence[Any]], columns: int, in_order: bool = False) -> list[Any]:
    """The columns of several parts; rows by their first column, then part."""
    found: list[Any] = [join([part[i] for part in parts]) for i in range(columns)]
    if len(parts) < 2 or in_order:
        return found
    order = np.argsort(found[0], kind="stable")
    return [one[order] for one in found]


def _table(table: str, names: Sequence[str], columns: Iterable[Any]) -> dict[str, Any]:
    """Columns of a table of the History."""
    return {f"{table}_{name}": one for name, one in zip(names, columns, strict=True)}


def _rows(table: str, names: Sequence[str], rows: Sequence[object]) -> dict[str, Any]:
    """The same, of objects that have them as attributes."""
    return _table(table, names, (column([*map(attrgetter(name), rows)]) for name in names))


def _faults(experiment: Experiment) -> Iterator[tuple[str, Injector]]:
    """The faults that are configured, by their keys."""
    for name, fault in experiment.disk.faults.configured().items():
        stream = Stream(experiment.seed, name.replace("_", "-"))
        yield f"disk.faults.{name}", DISK_FAULTS[name](fault.at, fault.share, stream)
    for name, kind in HOST_ERRORS.items():
        if at := getattr(experiment.host, name):
            yield f"host.{name}", kind(at, (0, 1), Stream(experiment.seed, name))


def spans(experiment: Experiment) -> tuple[DeviceSpan, ...]:
    """Where each device lies in the global address space."""
    places = zip(experiment.resolved_devices(), experiment.first_bytes(), strict=True)
    return tuple(
        DeviceSpan(device.name, first >> PAGE_SHIFT, device.size >> PAGE_SHIFT)
        for (device, _, _), first in places
    )


def simulate(experiment: Experiment, programs: Sequence[Program]) -> History:
    """Run the programs on the experiment's stack; up to the SIGBUS of a full host (Rule V6)."""
    history = Stack(experiment, programs).run()
    death = None
    if experiment.host.free is not None:
        numbered = sorted(programs, key=lambda program: program.first_write)
        death = first_refusal(history, experiment, join([p.offset + p.length for p in numbered]))
    if death is None:
        return history
    if death.t_ns < 2:
        raise UsageError("host.free: the first store already finds the host full")
    cut_short = experiment.model_copy(update={"duration": death.t_ns - 1})
    history = Stack(cut_short, programs).run()
    return replace(history, info=replace(history.info, sigbus=death))
