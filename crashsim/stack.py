"""The one place that wires the rooms together: an experiment and its programs in, a History out.

    vCPU ──stores──▶ (L1 ─▶) host pages ──batches──▶ disk
      └─sync─▶ kernel ─▶ driver ─▶ virtio-pmem queue ─▶ fsync ──FLUSH──▶

Nothing here knows a rule; each room knows its own and the port of the room below.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np

from crashsim.device.virtio_pmem import FlushLog, VirtioPmem
from crashsim.disk.disk import Disk, compose
from crashsim.engine.clock import Clock
from crashsim.engine.history import DeviceSpan, History
from crashsim.engine.pages import PAGE_SHIFT, pages_touched, words
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64, Stream
from crashsim.experiment.model import Experiment
from crashsim.guest.driver import Driver
from crashsim.guest.kernel import GuestKernel, GuestPageCache
from crashsim.guest.program import Program
from crashsim.guest.vcpu import VCpu
from crashsim.pagecache.cache import PageCache
from crashsim.pagecache.writeback import BackingFile, Batch

_COMPOSE_PAGES = 1 << 16
_COMPOSE_BATCHES = (1 << 12) - 1


class _HostMemory:
    """Stores of a DAX guest, and copies of one without, land in pages of the backing file."""

    __slots__ = ("_cache", "_copied", "_file", "fault_ns")

    def __init__(self, cache: PageCache, file: BackingFile, fault_ns: int) -> None:
        self._cache = cache
        self._file = file
        self._copied: PageSet | None = None
        self.fault_ns = fault_ns

    def dirtied(self, t_ns: int) -> None:
        self._file.dirtied(t_ns)

    def reserve(self, pages: int) -> None:
        self._cache.planned_pages += pages

    def room(self) -> int:
        return self._cache.room()

    def dirtied_many(self) -> None:
        self._cache.dirtied_many()

    def pause_ns(self, dirtied_pages: int) -> int:
        return self._cache.pause_ns(dirtied_pages)

    def take_copies(self) -> None:
        """The guest has no DAX: its kernel's copies are what dirties pages."""
        self._copied = PageSet(self._file.span.first_page, self._file.span.pages)
        self._file.sources.append(self._copied)

    def copied(self, pages: I64) -> int:
        assert self._copied is not None
        clean = self._copied.add_pages(pages)
        if clean:
            self._file.dirtied(self._cache.now_ns())
            self._cache.dirtied_many()
        return clean


class Stack:
    """A wired stack, ready to run once."""

    def __init__(self, experiment: Experiment, programs: Sequence[Program]) -> None:
        self.experiment = experiment
        self.programs = programs
        self.clock = Clock()
        self.disk = Disk(self.clock, experiment.disk)
        self.order = Stream(experiment.seed, "disk-order")
        host = experiment.host
        early = None
        if host.early_writeback is not None:
            numerator, denominator = host.early_writeback.share
            stream = Stream(experiment.seed, "early-writeback")
            early = (host.early_writeback.every, numerator, denominator, stream)
        self.cache = PageCache(
            self.clock, self.disk, host, early, list(host.fsync_errors), self._complete
        )
        self.flush_log = FlushLog()
        self.spans = spans(experiment)
        self.vcpus: list[VCpu] = []
        self.guest_caches: list[GuestPageCache] = []
        self._running = len(programs)
        self.clock.stopped = not programs
        for device, span in enumerate(self.spans):
            self._add_device(device, span)

    def _add_device(self, device: int, span: DeviceSpan) -> None:
        guest, host = self.experiment.guest, self.experiment.host
        file = self.cache.open(device, span)
        memory = _HostMemory(self.cache, file, host.fault)
        queue = VirtioPmem(self.clock, device, self.cache, self.flush_log)
        driver = Driver(self.clock, queue, guest.driver)
        programs = [p for p in self.programs if p.device == device]
        recorded = any(p.labels for p in programs)
        page_cache = None
        if not guest.dax and not recorded:
            memory.take_copies()
            page_cache = GuestPageCache(
                self.clock, device, memory, host.fault, host.dirty_writeback, host.dirty_expire
            )
            self.guest_caches.append(page_cache)
        journal = guest.file_system == "ext4" and not recorded
        kernel = GuestKernel(self.clock, device, driver, journal, page_cache)
        for program in programs:
            dirty = PageSet(span.first_page, span.pages)
            vcpu = VCpu(
                self.clock,
                len(self.vcpus),
                program,
                dirty,
                memory if page_cache is None else page_cache,
                kernel,
                self._one_finished,
            )
            self.vcpus.append(vcpu)
            kernel.vcpus.append(vcpu)
            if page_cache is None:
                file.sources.append(dirty)
                file.guests.append(vcpu)
            else:
                page_cache.sources.append(dirty)
                page_cache.vcpus.append(vcpu)
        if not file.sources:
            file.sources.append(PageSet(span.first_page, span.pages))

    def _one_finished(self) -> None:
        self._running -= 1
        self.clock.stopped = self._running == 0

    def run(self) -> History:
        """Simulate to the end and collect the History."""
        self.cache.start()
        for vcpu in self.vcpus:
            vcpu.start()
        collecting = gc.isenabled()
        gc.disable()  # nothing in the loop makes cycles, and its small objects live to the end
        try:
            self.clock.run(self.experiment.duration)
        finally:
            if collecting:
                gc.enable()
        for vcpu in self.vcpus:
            vcpu.stop()
        return self._history()

    # collecting

    def _complete(self, batch: Batch) -> None:
        """Work out when each page of a batch completes, while it is in flight."""
        pages = batch.pages()
        _, _, io_pages, complete = compose(
            np.full(pages.size, batch.number, dtype=np.int64),
            pages,
            np.array([batch.start_ns], dtype=np.int64),
            self.disk.bandwidth,
            self.order,
        )
        batch.complete_ns = np.repeat(complete, io_pages)

    def _history(self) -> History:
        io = self._compose_all()
        batches, log, disk = self.cache.batches, self.flush_log, self.disk
        stores = self._stores()
        copies = self._copies()
        acks = self._acknowledgements(stores)
        return History(
            devices=self.spans,
            facts=self._facts(),
            store_t_ns=stores[0],
            store_offset=stores[1],
            store_length=stores[2],
            store_write=stores[3],
            copy_t_ns=copies[0],
            copy_page=copies[1],
            batch_t_ns=_column([b.t_ns for b in batches]),
            batch_reason=_column([int(b.reason) for b in batches]),
            batch_device=_column([b.device for b in batches]),
            batch_whole=_column([int(b.whole) for b in batches]),
            io_batch=io[0],
            io_first_page=io[1],
            io_pages=io[2],
            io_complete_ns=io[3],
            flush_disk_issue_ns=_column([issue for issue, _ in disk.flushes]),
            flush_disk_end_ns=_column([end for _, end in disk.flushes]),
            flush_device=_column(log.device),
            flush_vcpu=_column(log.vcpu),
            flush_asked_ns=_column(log.asked_ns),
            flush_submit_ns=_column(log.submit_ns),
            flush_begin_ns=_column(log.begin_ns),
            flush_ack_ns=_column(log.ack_ns),
            flush_result=_column(log.result),
            ack_t_ns=acks[0],
            ack_device=acks[1],
            ack_low=acks[2],
            ack_high=acks[3],
            ack_label=acks[4],
        )

    def _facts(self) -> dict[str, Any]:
        disk = self.experiment.disk
        return {
            "end_ns": self.clock.now,
            "seed": self.experiment.seed,
            "dax": not self.guest_caches,
            "plp": disk.plp,
            "ignores_flush": disk.ignores_flush,
            "sector_bytes": disk.sector,
            "atom_bytes": disk.atom,
            "recorded": any(p.labels for p in self.programs),
            "guest_wait_ns": sum(vcpu.wait_ns + vcpu.throttle_ns for vcpu in self.vcpus),
            "throttle_ns": sum(vcpu.throttle_ns for vcpu in self.vcpus),
            "failed_syncs": sum(vcpu.failed_syncs for vcpu in self.vcpus),
            "metadata_bytes": self.cache.metadata_bytes,
            "writes": sum(p.offset.size for p in self.programs),
            "unfinished_writes": [
                vcpu.unfinished_write for vcpu in self.vcpus if vcpu.unfinished_write is not None
            ],
            "fsync_errors_not_fired": list(self.cache.errors_left),
        }

    def _compose_all(self) -> tuple[I64, I64, I64, I64]:
        """The I/Os of all batches, many batches at a time."""
        parts: list[tuple[I64, I64, I64, I64]] = []
        group: list[Batch] = []
        size = 0
        for batch in self.cache.batches:
            group.append(batch)
            size += sum(high - low for taken in batch.taken for _, _, low, high in taken.ranges)
            size += sum(known.size for taken in batch.taken for known in taken.known)
            if size > _COMPOSE_PAGES or len(group) == _COMPOSE_BATCHES:
                parts.append(self._compose(group))
                group, size = [], 0
        if group:
            parts.append(self._compose(group))
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, empty, empty
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return columns[0], columns[1], columns[2], columns[3]

    def _compose(self, group: list[Batch]) -> tuple[I64, I64, I64, I64]:
        batch, page = _pages_of(group)
        start = _column([b.start_ns for b in group])
        return compose(batch, page, start, self.disk.bandwidth, self.order)

    def _stores(self) -> tuple[I64, I64, I64, I64]:
        logs = [vcpu.stores for vcpu in self.vcpus]
        if len(logs) == 1 and logs[0].whole:  # the program's own columns will do
            t, program = _join(logs[0].t_ns), self.programs[0]
            number = np.arange(program.first_write, program.first_write + t.size, dtype=np.int64)
            return t, program.offset[: t.size], program.length[: t.size], number
        columns = [
            _join([part for log in logs for part in getattr(log, name)])
            for name in ("t_ns", "offset", "length", "write")
        ]
        if len(logs) > 1:  # by begin, then vCPU
            order = np.argsort(columns[0], kind="stable")
            columns = [column[order] for column in columns]
        return columns[0], columns[1], columns[2], columns[3]

    def _copies(self) -> tuple[I64, I64]:
        copies = [entry for cache in self.guest_caches for entry in cache.copies]
        copies.sort(key=lambda entry: entry[0])
        pages = [page for _, page in copies]
        times = _column([t for t, _ in copies])
        return np.repeat(times, _column([page.size for page in pages])), _join(pages)

    def _acknowledgements(
        self, stores: tuple[I64, I64, I64, I64]
    ) -> tuple[I64, I64, I64, I64, np.ndarray[tuple[int], np.dtype[np.str_]]]:
        parts = [
            _acknowledged(vcpu, program)
            for vcpu, program in zip(self.vcpus, self._by_vcpu(), strict=True)
        ]
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, empty, empty, np.empty(0, dtype=np.str_)
        if len(parts) == 1:  # in order already
            return parts[0]
        columns = [np.concatenate([part[i] for part in parts]) for i in range(4)]
        label = np.concatenate([part[4] for part in parts])
        order = np.argsort(columns[0], kind="stable")
        t, device, low, high = (column[order] for column in columns)
        return t, device, low, high, label[order]

    def _by_vcpu(self) -> list[Program]:
        return [p for device in range(len(self.spans)) for p in self.programs if p.device == device]


def spans(experiment: Experiment) -> tuple[DeviceSpan, ...]:
    """Where each device lies in the global address space."""
    found: list[DeviceSpan] = []
    first = 0
    for device, _workload, _sync in experiment.resolved_devices():
        pages = device.size >> PAGE_SHIFT
        found.append(DeviceSpan(device.name, first, pages))
        first += pages
    return tuple(found)


def simulate(experiment: Experiment, programs: Sequence[Program]) -> History:
    """Run the programs on the experiment's stack."""
    return Stack(experiment, programs).run()


def _column(values: list[int]) -> I64:
    return np.array(values, dtype=np.int64)


def _join(parts: list[I64]) -> I64:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _pages_of(group: list[Batch]) -> tuple[I64, I64]:
    """(batch, page) of every page of the batches, ascending and distinct.

    Ranges of one program's columns that follow each other are looked at in one go."""
    number: list[int] = []
    count: list[int] = []
    pages: list[I64] = []
    run: list[Any] | None = None  # offset, length, low, high, batch numbers, sizes

    def close() -> None:
        if run is not None:
            offset, length, low, high, numbers, sizes = run
            page, row = pages_touched(offset[low:high], length[low:high])
            batch = np.repeat(_column(numbers), _column(sizes))
            keys.append(((batch if row is None else batch[row]) - base << 40) | page)

    keys: list[I64] = []
    base = group[0].number
    for batch in group:
        for taken in batch.taken:
            for known in taken.known:
                number.append(batch.number - base)
                count.append(known.size)
                pages.append(known)
            for offset, length, low, high in taken.ranges:
                if run is not None and run[0] is offset and run[3] == low:
                    run[3] = high
                    run[4].append(batch.number)
                    run[5].append(high - low)
                else:
                    close()
                    run = [offset, length, low, high, [batch.number], [high - low]]
    close()
    if pages:
        keys.append((np.repeat(_column(number), _column(count)) << 40) | np.concatenate(pages))
    key = np.concatenate(keys)
    key.sort()
    keep = np.empty(key.size, dtype=bool)
    keep[0] = True
    np.not_equal(key[1:], key[:-1], out=keep[1:])
    key = key[keep]
    return (key >> 40) + base, key & ((1 << 40) - 1)


def _acknowledged(
    vcpu: VCpu, program: Program
) -> tuple[I64, I64, I64, I64, np.ndarray[tuple[int], np.dtype[np.str_]]]:
    """Acknowledgement columns of one vCPU: instant, device, writes [low, high), label."""
    base = program.first_write
    if vcpu.marks:
        t = _column([t for t, _, _ in vcpu.marks])
        high = _column([position for _, position, _ in vcpu.marks])
        low = np.concatenate([high[:1] * 0, high[:-1]])
        label = np.array([program.labels[i] for _, _, i in vcpu.marks], dtype=np.str_)
    else:
        if program.acknowledge_at_once:
            t = _landed_ns(vcpu, program)
            low, high = program.record_low[: t.size], program.record_high[: t.size]
        else:
            groups = np.array(vcpu.acknowledged, dtype=np.int64).reshape(-1, 3)
            size = groups[:, 2] - groups[:, 1]
            t = np.repeat(groups[:, 0], size)
            low, high = program.record_low[: t.size], program.record_high[: t.size]
            if size.size and int(groups[-1, 2]) > t.size:  # a failed sync left records out
                records = np.arange(t.size)
                records += np.repeat(groups[:, 1] - (np.cumsum(size) - size), size)
                low, high = program.record_low[records], program.record_high[records]
        label = np.broadcast_to(np.str_(""), t.shape)
    if base:
        low, high = low + base, high + base
    return t, np.broadcast_to(np.int64(program.device), t.shape), low, high, label


def _landed_ns(vcpu: VCpu, program: Program) -> I64:
    """The instant at which each finished record's last word landed, ascending."""
    stores = vcpu.stores
    write = _join(stores.write) - program.first_write
    if not write.size:
        return write
    end = _join(stores.t_ns) + words(_join(stores.offset), _join(stores.length)) - 1
    last = np.searchsorted(write, program.record_high, "left") - 1  # the last store before
    done = program.record_high <= write[-1] + 1
    landed: I64 = end[last[done]]
    return landed
