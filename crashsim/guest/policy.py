"""From writes and a sync policy to a vCPU's program (Rules G4, H12).

One workload runs under every policy: the policy only adds operations. A program's own ordering
points (before a header, around a checkpoint) are syncs too, made whenever the policy's call flushes
at all. A program that never syncs, or that is told to, acknowledges its records as soon as they are
written.
"""

from __future__ import annotations

import numpy as np

from crashsim.engine.streams import I64, Stream
from crashsim.experiment.model import AppendLog, Experiment, Recording, Sync, Synthetic
from crashsim.guest.program import Op, Program
from crashsim.guest.synthetic import SECOND_NS, Writes, build


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
        if (
            bool(np.all(writes.record_high - writes.record_low == 1))
            and writes.record_low.size == count
        ):
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
