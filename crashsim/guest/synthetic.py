"""Synthetic workloads: what a program writes, before any sync policy (`policy.py` adds that).

Each builder returns the columns of one vCPU's writes, addresses relative to the device. Programs of
several vCPUs share the work: records are dealt out evenly; logs, buffers and fills get a part of
the device each, a table is one for all. When a log is full it starts again at its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64, Stream
from crashsim.experiment.applications import (
    AppendLog,
    DoubleBuffer,
    Fill,
    KeyValue,
    Recording,
    Sync,
    Synthetic,
    WriteAheadLog,
)
from crashsim.experiment.model import Experiment
from crashsim.guest.program import Op, Program
from crashsim.guest.zipf import AliasTable, weights

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Writes:
    """n writes in r records; `barrier_at`: writes before which the program's own protocol asks for
    a sync."""

    offset: I64
    length: I64
    record_low: I64
    record_high: I64
    barrier_at: I64


@dataclass(frozen=True, slots=True)
class Share:
    """One vCPU's part: its records, and its part of the device where it has one to itself."""

    first_record: int
    records: int
    base: int  # bytes
    size: int


def share(workload: Synthetic, records: int, device_bytes: int, vcpu: int) -> Share:
    """Deal out records and space; space in whole pages."""
    each, extra = divmod(records, workload.vcpus)
    first = vcpu * each + min(vcpu, extra)
    size = device_bytes // workload.vcpus
    if workload.vcpus > 1:
        size -= size % PAGE_BYTES
    return Share(first, each + (vcpu < extra), vcpu * size, size)


def build(workload: Synthetic, device_bytes: int, vcpu: int, stream: Stream) -> Writes:
    """The writes of one vCPU."""
    if isinstance(workload, AppendLog):
        return _append_log(workload, device_bytes, vcpu)
    if isinstance(workload, KeyValue):
        return _key_value(workload, vcpu, stream)
    if isinstance(workload, DoubleBuffer):
        return _double_buffer(workload, device_bytes, vcpu)
    if isinstance(workload, WriteAheadLog):
        return _write_ahead_log(workload, device_bytes, vcpu, stream)
    assert isinstance(workload, Fill)
    return _fill(workload, device_bytes, vcpu)


def _one_write_each(offset: I64, length: I64) -> Writes:
    low = np.arange(offset.size, dtype=np.int64)
    return Writes(offset, length, low, low + 1, low[:0])


def _constant(value: int, size: int) -> I64:
    return np.broadcast_to(np.int64(value), (size,))


def _log_offsets(part: Share, record_bytes: int, base: int, size: int) -> I64:
    return base + np.arange(part.records, dtype=np.int64) % (size // record_bytes) * record_bytes


def _append_log(workload: AppendLog, device_bytes: int, vcpu: int) -> Writes:
    part = share(workload, workload.records, device_bytes, vcpu)
    offset = _log_offsets(part, workload.record_size, part.base, part.size)
    return _one_write_each(offset, _constant(workload.record_size, part.records))


def _key_value(workload: KeyValue, vcpu: int, stream: Stream) -> Writes:
    part = share(workload, workload.records, 0, vcpu)
    n = np.arange(part.records, dtype=np.int64)
    if workload.distribution == "zipf":
        rank = AliasTable(weights(workload.slots, workload.theta_64ths)).draw(stream, n)
        slot = scatter(rank, workload.slots)
    else:
        slot = stream.below(workload.slots, n)
    sizes = workload.value_size
    length = _constant(sizes.min, part.records)
    if sizes.max > sizes.min:
        length = sizes.min + stream.below(sizes.max - sizes.min + 1, n + workload.records)
    return _one_write_each(slot * workload.slot_bytes, length)


def scatter(rank: I64, slots: int) -> I64:
    """Spread popular ranks over the table: a bijection of [0, slots)."""
    step = int(slots * 0.6180339887)
    while np.gcd(step, slots) != 1:
        step += 1
    return rank * step % slots


def _double_buffer(workload: DoubleBuffer, device_bytes: int, vcpu: int) -> Writes:
    part = share(workload, workload.records, device_bytes, vcpu)
    side = np.arange(part.records, dtype=np.int64) & 1
    offset = np.empty(2 * part.records, dtype=np.int64)
    offset[0::2] = part.base + 2 * workload.header_size + side * workload.body_size
    offset[1::2] = part.base + side * workload.header_size
    length = np.empty_like(offset)
    length[0::2] = workload.body_size
    length[1::2] = workload.header_size
    low = np.arange(0, offset.size, 2, dtype=np.int64)
    return Writes(offset, length, low, low + 2, low + 1)


def _write_ahead_log(
    workload: WriteAheadLog, device_bytes: int, vcpu: int, stream: Stream
) -> Writes:
    log_bytes = device_bytes - workload.table_size
    part = share(workload, workload.records, log_bytes, vcpu)
    log = _log_offsets(part, workload.record_size, workload.table_size + part.base, part.size)
    page = stream.below(
        workload.table_size // workload.page_size, np.arange(part.records, dtype=np.int64)
    )
    offsets: list[I64] = []
    lengths: list[I64] = []
    lows: list[I64] = []
    barriers: list[int] = []
    written = 0
    for first in range(0, part.records, workload.checkpoint_every):
        last = min(first + workload.checkpoint_every, part.records)
        offsets.append(log[first:last])
        lengths.append(_constant(workload.record_size, last - first))
        lows.append(np.arange(written, written + last - first, dtype=np.int64))
        written += last - first
        if last - first == workload.checkpoint_every:
            pages = np.unique(page[first:last])
            barriers += [written, written + pages.size]  # log before table, table before log reuse
            offsets.append(pages * workload.page_size)
            lengths.append(_constant(workload.page_size, pages.size))
            written += pages.size
    if not offsets:
        empty = np.empty(0, dtype=np.int64)
        return Writes(empty, empty, empty, empty, empty)
    low = np.concatenate(lows)
    return Writes(
        np.concatenate(offsets),
        np.concatenate(lengths),
        low,
        low + 1,
        np.array(barriers, dtype=np.int64),
    )


def _fill(workload: Fill, device_bytes: int, vcpu: int) -> Writes:
    total = workload.size or device_bytes
    count = -(-total // workload.write_size)
    part = share(workload, count, device_bytes, vcpu)
    offset = (part.first_record + np.arange(part.records, dtype=np.int64)) * workload.write_size
    length = np.minimum(workload.write_size, total - offset)
    return _one_write_each(offset, length)


def synthetic_programs(experiment: Experiment) -> list[Program]:
    """The programs of all synthetic workloads of an experiment, devices in order, vCPUs within."""
    programs: list[Program] = []
    first_write = 0
    first_bytes = experiment.first_bytes()
    for number, (device, workload, sync) in enumerate(experiment.resolved_devices()):
        if not isinstance(workload, Recording):
            for vcpu in range(workload.vcpus):
                stream = Stream(experiment.seed, f"workload/{number}/{vcpu}")
                writes = build(workload, device.size, vcpu, stream)
                program = make_program(
                    writes, workload, sync, number, first_bytes[number], first_write
                )
                programs.append(program)
                first_write += program.offset.size
    return programs


def make_program(
    writes: Writes, workload: Synthetic, sync: Sync, device: int, first_byte: int, first_write: int
) -> Program:
    """Add the policy's operations to the writes."""
    at, kind, argument = operations(writes, sync)
    count = writes.offset.size
    think = np.broadcast_to(np.int64(0), (count,))
    if workload.rate is not None:
        pause = SECOND_NS // workload.rate
        if writes.record_low.size == count:  # each is a record
            think = np.broadcast_to(np.int64(pause), (count,))
        else:
            think = np.zeros(count, dtype=np.int64)
            think[writes.record_low] = pause
    at_once = not sync.what.made or workload.acknowledge == "before-sync"
    return Program(
        device=device,
        first_write=first_write,
        offset=writes.offset + first_byte if first_byte else writes.offset,
        length=writes.length,
        think_ns=think,
        record_low=writes.record_low,
        record_high=writes.record_high,
        op_at=at,
        op_kind=kind,
        op_delay_ns=np.broadcast_to(np.int64(0), at.shape),
        op_argument=argument,
        call=sync.what,
        group_delay_ns=sync.delay,
        acknowledge_at_once=at_once,
        grows=isinstance(workload, AppendLog) and workload.grows,
        ranged=sync.ranged,
    )


def operations(writes: Writes, sync: Sync) -> tuple[I64, I64, I64]:
    """(position, kind, argument) of the policy's operations, ascending by position."""
    empty = np.empty(0, dtype=np.int64)
    if not sync.what.made:
        return empty, empty, empty
    ends = writes.record_high
    kind, argument = Op.SYNC, 0
    if sync.group:
        kind = Op.GROUP_SYNC
    elif sync.every_ns is not None:
        kind, argument = Op.SYNC_IF_DUE, sync.every_ns
    else:
        assert sync.every_records is not None
        ends = ends[sync.every_records - 1 :: sync.every_records]
    barrier = writes.barrier_at if sync.what.writes else empty
    at = np.concatenate([ends, barrier])
    order = np.argsort(at, kind="stable")
    kinds = np.concatenate([np.full(ends.size, kind), np.full(barrier.size, Op.SYNC)])
    arguments = np.concatenate(
        [np.full(ends.size, argument), np.zeros(barrier.size, dtype=np.int64)]
    )
    return at[order], kinds[order].astype(np.int64), arguments[order].astype(np.int64)
