"""The oracle's worlds as experiments and programs of the simulator, and both answers in one form.

`comparable(world)` leaves out what a `Program` cannot say: it has one sync call and one group delay
for all its operations, and a recording has neither a journal timer nor a guest page cache; and what
an `Experiment` has no key for.
`simulated` and `predicted` give everything that happened in a run as `Facts`; what is equal
compares equal. What a failure takes is in `tests/lost_against_oracle.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from crashsim.engine.history import NEVER, History, Reason
from crashsim.engine.streams import I64
from crashsim.experiment.applications import Fill
from crashsim.experiment.backing import Backing, Device, FolioPart, RateLimiter
from crashsim.experiment.linux import EarlyWriteback, Guest, Host
from crashsim.experiment.model import Experiment
from crashsim.experiment.profiles import Disk, DiskFaults, Fault
from crashsim.experiment.sync_calls import CALLS
from crashsim.guest.program import Op, Program
from crashsim.simulate.stack import simulate
from crashsim.vmm.monitors import MONITORS
from tests.oracle import (
    FlushedWrite,
    GroupSync,
    Mark,
    OracleDevice,
    OracleFault,
    OracleWorld,
    Outcome,
    Sync,
    SyncIfDue,
    Write,
)
from tests.oracle.inputs import PAGE_BYTES, Item, first_pages, resolved
from tests.oracle.inputs import Program as Items
from tests.oracle.outcome import FlushRequest

# --- worlds ---------------------------------------------------------------------------------------


def is_recorded(world: OracleWorld) -> bool:
    items = [item for device in world.devices for program in device.vcpus for item in program]
    return any(isinstance(item, FlushedWrite | Mark) for item in items)


def comparable(world: OracleWorld) -> OracleWorld:
    """The same world, as far as a `Program` can say it."""
    devices = tuple(
        replace(device, vcpus=tuple(_one_call(program) for program in device.vcpus))
        for device in world.devices
    )
    devices = tuple(_sensible(device) for device in devices)
    guest = world.guest
    if is_recorded(world):
        guest = replace(guest, ext4=False, access="direct")
        devices = tuple(_with_dax(device) for device in devices)
    host = world.host
    if host.background_ratio >= host.dirty_ratio:
        host = replace(host, dirty_ratio=host.background_ratio + 1)
    if host.free_bytes == 0:  # no size, and no page either
        host = replace(host, free_bytes=1)
    return replace(world, devices=devices, guest=guest, host=host)


def _with_dax(device: OracleDevice) -> OracleDevice:
    """The simulator takes a recorded program for what left the guest's page cache."""
    return replace(device, kind="virtio-pmem") if device.kind == "virtio-blk" else device


def _sensible(device: OracleDevice) -> OracleDevice:
    """A device whose settings an experiment takes: those of a file are only a file's."""
    if device.kind == "virtio-blk" and device.cache == "none":
        return replace(device, folio=PAGE_BYTES, prealloc=False)
    if device.kind == "real-nvdimm":
        device = replace(device, discard_data=False)
    elif device.backing == "file":
        return device
    return replace(device, extents="written", folio=PAGE_BYTES, prealloc=False)


def _one_call(program: Items) -> Items:
    calls = [item.call for item in program if isinstance(item, Sync | SyncIfDue | GroupSync)]
    delays = [item.delay_ns for item in program if isinstance(item, GroupSync)]
    if delays and calls[0] in ("msync-async", "sync_file_range"):  # refused by an experiment
        calls = ["msync"]
    ranges = [item.written for item in program if isinstance(item, Sync | SyncIfDue)]
    written = any(ranges[:1]) and not delays and calls[0] in ("msync", "fdatasync", "fsync")
    items: list[Item] = []
    for item in program:
        if isinstance(item, GroupSync):
            item = replace(item, call=calls[0], delay_ns=delays[0])
        elif isinstance(item, Sync | SyncIfDue):
            item = replace(item, call=calls[0], written=written)
        items.append(item)
    return tuple(items)


def experiment(world: OracleWorld) -> Experiment:
    host, disk = world.host, world.disk
    early = None
    if host.early is not None:
        early = EarlyWriteback(every=host.early[0], share=(host.early[1], host.early[2]))
    return Experiment(
        seed=world.seed,
        duration=world.duration_ns,
        devices=tuple(_device(number, device) for number, device in enumerate(world.devices)),
        workload=Fill(kind="fill"),
        vmm=host.monitor,
        guest=Guest(
            driver=world.guest.driver,  # type: ignore[arg-type]
            file_system="ext4" if world.guest.ext4 else "none",
            access="dax" if world.guest.ext4 else "devdax",  # goes with every device
            tick=world.guest.tick_ns,
            second_phase=world.guest.second_phase_ns,
            commit_interval=world.guest.commit_interval_ns,
            journal_pages=world.guest.journal_pages,
        ),
        host=Host(
            memory=host.memory_bytes,
            dirty_background_ratio=host.background_ratio,
            dirty_ratio=host.dirty_ratio,
            dirty_writeback=host.writeback_ns,
            dirty_expire=host.expire_ns,
            fault=host.fault_ns,
            early_writeback=early,
            fsync_errors=host.fsync_errors,
            write_errors=host.write_errors,
            free=host.free_bytes,
            tick=host.tick_ns,
            second_phase=host.second_phase_ns,
            commit_interval=host.commit_interval_ns,
            flusher_phase=host.flusher_phase,  # type: ignore[arg-type]
            file_system=host.file_system,  # type: ignore[arg-type]
            kernel=host.kernel,
            thp=host.thp,  # type: ignore[arg-type]
            fsync_resets_age=host.fsync_resets_age,
        ),
        disk=Disk(
            bandwidth=disk.bandwidth,
            flush=disk.flush_ns,
            plp=disk.plp,
            fua=disk.fua,
            ignores_flush=disk.ignores_flush,
            faults=DiskFaults(
                **{
                    name: Fault(share=fault.share, at=fault.at)
                    for name in ("ignored_flush", "shorn", "corrupted", "dead")
                    if (fault := getattr(disk, name)) != OracleFault()
                }
            ),
        ),
    )


def _device(number: int, device: OracleDevice) -> Device:
    return Device(
        name=f"pmem{number}",
        size=device.pages * PAGE_BYTES,
        type=device.kind,  # type: ignore[arg-type]
        cache=device.cache if device.kind == "virtio-blk" else None,  # type: ignore[arg-type]
        backing=Backing(
            kind=device.backing,  # type: ignore[arg-type]
            extents=device.extents,  # type: ignore[arg-type]
            folio=_folio(device),
            prealloc=device.prealloc,
            discard_data=device.discard_data,
        ),
        plugged=device.plug_ns,
        rate_limiter=_rate_limiter(device),
    )


def _folio(device: OracleDevice) -> Any:
    of_a_file = device.backing == "file" and device.kind != "real-nvdimm"
    if not of_a_file or (device.kind == "virtio-blk" and device.cache == "none"):
        return "auto"  # single pages: an experiment takes no size here (see `_sensible`)
    if isinstance(device.folio, tuple):
        return tuple(FolioPart(size=size, until=until) for size, until in device.folio)
    return device.folio


def _rate_limiter(device: OracleDevice) -> RateLimiter | None:
    limiter = device.rate_limiter
    if limiter is None:
        return None
    return RateLimiter(ops=limiter.ops, refill=limiter.refill_ns, burst=limiter.burst)


def programs(world: OracleWorld) -> list[Program]:
    """One for each vCPU."""
    made: list[Program] = []
    first_write = 0
    places = first_pages(resolved(world).devices)
    for number, device in enumerate(world.devices):
        for items in device.vcpus:
            builder = _Builder(world, number, places[number] * PAGE_BYTES, first_write)
            made.append(builder.program(items))
            first_write += made[-1].offset.size
    return made


class _Builder:
    def __init__(self, world: OracleWorld, device: int, first_byte: int, first_write: int) -> None:
        self.world, self.device = world, device
        self.first_byte, self.first_write = first_byte, first_write
        self.writes: list[tuple[int, int, int]] = []
        self.operations: list[tuple[int, int, int, int]] = []
        self.records: list[int] = [0]
        self.labels: list[str] = []

    def program(self, items: Items) -> Program:
        for item in items:
            self.add(item)
        offset, length, think = _columns(self.writes, 3)
        at, kind, delay, argument = _columns(self.operations, 4)
        calls = [i.call for i in items if isinstance(i, Sync | SyncIfDue | GroupSync)]
        delays = [i.delay_ns for i in items if isinstance(i, GroupSync)]
        made = Program(
            device=self.device,
            first_write=self.first_write,
            offset=offset,
            length=length,
            think_ns=think,
            record_low=np.array(self.records[:-1], dtype=np.int64),
            record_high=np.array(self.records[1:], dtype=np.int64),
            op_at=at,
            op_kind=kind,
            op_delay_ns=delay,
            op_argument=argument,
            call=CALLS[calls[0] if calls else "msync"],
            group_delay_ns=delays[0] if delays else 0,
            acknowledge_at_once=self.world.guest.acknowledge == "immediate",
            grows=self.world.devices[self.device].grows,
            ranged=any(i.written for i in items if isinstance(i, Sync | SyncIfDue))
            or "sync_file_range" in calls,
            labels=tuple(self.labels) or (("",) if is_recorded(self.world) else ()),
        )
        made._check()
        return made

    def operate(self, kind: Op, delay_ns: int = 0, argument: int = 0) -> None:
        self.operations.append((len(self.writes), kind, delay_ns, argument))

    def add(self, item: Item) -> None:
        match item:
            case Write():
                self.write(item, item.think_ns)
                if item.ends_record:
                    self.records.append(len(self.writes))
            case FlushedWrite():
                self.flushed_write(item)
            case Sync():
                self.operate(Op.SYNC, item.delay_ns)
            case SyncIfDue():
                self.operate(Op.SYNC_IF_DUE, 0, item.t_ns)
            case GroupSync():
                self.operate(Op.GROUP_SYNC)
            case Mark():
                self.operate(Op.MARK, item.delay_ns, len(self.labels))
                self.labels.append(item.label)

    def write(self, item: Write | FlushedWrite, think_ns: int) -> None:
        self.writes.append((self.first_byte + item.offset, item.length, think_ns))

    def flushed_write(self, item: FlushedWrite) -> None:
        """As `crashsim.guest.recording` has it."""
        think_ns, preflush = item.think_ns, item.preflush
        if preflush and self.world.guest.driver == "ordered":
            self.operate(Op.PREFLUSH, think_ns, int(item.fua))
            think_ns, preflush = 0, False
        self.write(item, think_ns)
        if preflush or item.fua:
            self.operate(Op.FLUSH, 0, int(preflush) + int(item.fua))


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> list[I64]:
    table = np.array(rows, dtype=np.int64).reshape(-1, width)
    return [np.ascontiguousarray(column) for column in table.T]


def with_its_guest(world: OracleWorld) -> Experiment:
    """The world's experiment, also where one that a file describes would be refused."""
    described = experiment(world)
    guest = described.guest.model_copy(
        update={"on_sync_error": world.guest.on_sync_error, "access": world.guest.access}
    )
    return described.model_copy(update={"guest": guest})


def simulate_world(world: OracleWorld) -> History:
    described = with_its_guest(world)
    with pytest.MonkeyPatch.context() as patch:
        if world.host.queue is not None:
            monitor = replace(MONITORS[world.host.monitor], queue=world.host.queue)
            patch.setitem(MONITORS, world.host.monitor, monitor)
        history = simulate(described, programs(world))
    history._check()
    return history


# --- what happened --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """Everything that happened, as plain sorted lists."""

    end_ns: int
    stores: list[tuple[int, ...]]  # begin, write, address, length
    copies: list[tuple[int, int]]
    batches: list[tuple[int, str, int, tuple[int, ...]]]
    ios: list[tuple[int, ...]]  # batch, first page, pages, completion
    disk_flushes: list[tuple[int, int]]
    requests: list[tuple[int, ...]]  # device, vCPU, asked, submitted, begun, ack, result
    acknowledgements: list[tuple[int, int, int, int, str]]
    guest_wait_ns: int
    failed_syncs: int
    metadata_bytes: int
    errors_left: list[int]


def simulated(history: History) -> Facts:
    pages: dict[int, list[int]] = {}
    ios = rows(history.io_batch, history.io_first_page, history.io_pages, history.io_complete_ns)
    for batch, first, count, _ in ios:
        pages.setdefault(batch, []).extend(range(first, first + count))
    batches = rows(history.batch_t_ns, history.batch_reason, history.batch_device)
    requests = rows(
        history.flush_device,
        history.flush_vcpu,
        history.flush_asked_ns,
        history.flush_submit_ns,
        history.flush_begin_ns,
        history.flush_ack_ns,
        history.flush_result,
    )
    acks = rows(history.ack_t_ns, history.ack_device, history.ack_low, history.ack_high)
    recorded = history.info.recorded
    return Facts(
        end_ns=history.end_ns,
        stores=rows(
            history.store_t_ns, history.store_write, history.store_offset, history.store_length
        ),
        copies=sorted(zip(history.copy_t_ns.tolist(), history.copy_page.tolist(), strict=True)),
        batches=[
            (t, Reason(reason).name.lower(), device, tuple(sorted(pages[number])))
            for number, (t, reason, device) in enumerate(batches)
        ],
        ios=sorted(ios),
        disk_flushes=list(
            zip(
                history.flush_disk_issue_ns.tolist(),
                history.flush_disk_end_ns.tolist(),
                strict=True,
            )
        ),
        requests=sorted(requests),
        acknowledgements=[
            (t, device, -1 if recorded else low, -1 if recorded else high, str(label))
            for (t, device, low, high), label in zip(acks, history.ack_label, strict=True)
            if t <= history.end_ns  # a record whose last word lands behind it is told, too
        ],
        guest_wait_ns=history.info.guest_wait_ns,
        failed_syncs=history.info.failed_syncs,
        metadata_bytes=history.info.metadata_bytes,
        errors_left=list(history.info.fsync_errors_not_fired),
    )


def rows(*columns: I64) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def predicted(outcome: Outcome, recorded: bool) -> Facts:
    base = outcome.device_base
    return Facts(
        end_ns=outcome.end_ns,
        stores=[
            (store.begin, store.write, base[store.device] + store.offset, store.length)
            for store in outcome.stores
        ],
        copies=sorted((copy.instant, copy.page) for copy in outcome.copies),
        batches=[(b.instant, b.reason, b.device, b.pages) for b in outcome.batches],
        ios=sorted((io.batch, io.first_page, io.pages, io.completed) for io in outcome.ios),
        disk_flushes=[(flush.issued, flush.ended) for flush in outcome.disk_flushes],
        requests=sorted(
            (
                *(r.device, r.vcpu, r.asked, r.submitted),
                _begun(outcome, r),
                NEVER if r.acknowledged is None else r.acknowledged,
                -1 if r.result is None else r.result,
            )
            for r in outcome.flush_requests
            if r.submitted is not None
        ),
        acknowledgements=[
            (ack.instant, ack.device, ack.first, ack.last + (not recorded), ack.label or "")
            for ack in outcome.acknowledgements
            if (ack.label is not None) == recorded
        ],
        guest_wait_ns=outcome.guest_wait_ns,
        failed_syncs=outcome.failed_syncs,
        metadata_bytes=outcome.journal_bytes + outcome.guest_journal_bytes,
        errors_left=outcome.unfired_errors,
    )


def _begun(outcome: Outcome, request: FlushRequest) -> int:
    """The simulator's host answers for a cache=unsafe disk at once, too."""
    device = outcome.devices[request.device]
    if device.kind == "virtio-blk" and device.cache == "unsafe" and request.submitted is not None:
        return request.submitted
    return NEVER if request.fsync_begun is None else request.fsync_begun


def differences(one: Any, other: Any) -> dict[str, tuple[object, object]]:
    """Field -> the two values, for the fields that differ."""
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
