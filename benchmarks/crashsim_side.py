"""The simulator that is measured: what `measure.Side` asks for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.simpy_model import SimpyParameters
from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import Stream
from crashsim.experiment.applications import EveryRecords, KeyValue, SizeRange, Sync
from crashsim.experiment.backing import Backing, Device
from crashsim.experiment.linux import Guest, Host
from crashsim.experiment.model import Experiment
from crashsim.experiment.profiles import Disk
from crashsim.guest.content import SyntheticContent
from crashsim.guest.synthetic import Writes, build, make_program
from crashsim.power import at_risk
from crashsim.power import per_write as losses
from crashsim.power.safety import Domain, Safety, Stage, kept_stage
from crashsim.power.steps import ramp_spread
from crashsim.replay.build import write_image
from crashsim.replay.image import certain
from crashsim.simulate.stack import simulate as run_stack

I64 = npt.NDArray[np.int64]

_PLENTY_BYTES = 1 << 50  # so much memory that neither background writeback nor throttling begins


class BenchProgram(NamedTuple):
    """One vCPU's writes and the device they go to."""

    workload: KeyValue
    device: Device
    writes: Writes


def generate(stores: int, seed: int, span_bytes: int, device_bytes: int) -> BenchProgram:
    """A program of one vCPU: `stores` writes of 64 B to 4 KiB, each inside one Zipf(0.99) page of
    the first `span_bytes` of a device of `device_bytes`, without thinking time."""
    workload = KeyValue(
        records=stores,
        slots=span_bytes // PAGE_BYTES,
        slot_size=PAGE_BYTES,
        value_size=SizeRange(min=64, max=PAGE_BYTES),
        distribution="zipf",
    )
    device = Device(size=device_bytes, backing=Backing(folio=PAGE_BYTES))
    return BenchProgram(
        workload, device, build(workload, device_bytes, 0, Stream(seed, "workload/0/0"))
    )


def columns(program: BenchProgram) -> tuple[I64, I64, I64]:
    """Offset, length, think of every write of a program."""
    writes = program.writes
    return writes.offset, writes.length, np.zeros_like(writes.offset)


def simulate(program: BenchProgram, every_records: int, host: SimpyParameters) -> History:
    """The history of a program with an `fdatasync` after every so many writes, 0 for none."""
    sync = Sync()
    if every_records:
        sync = Sync(call="fdatasync", every=EveryRecords(every_records))
    experiment = Experiment(
        seed=host.seed,
        device=program.device,
        workload=program.workload,
        sync=sync,
        guest=Guest(file_system="none", access="direct", tick=0),
        host=Host(
            memory=_PLENTY_BYTES,
            tick=0,
            commit_interval=0,
            flusher_phase="busy",
            dirty_writeback=host.writeback_ns,
            dirty_expire=host.expire_ns,
            fault=host.fault_ns,
        ),
        disk=Disk(flush=host.flush_ns, bandwidth=host.bandwidth, plp=host.plp, fua=host.fua),
    )
    return run_stack(experiment, [make_program(program.writes, program.workload, sync, 0, 0, 0)])


def loss(history: History) -> tuple[I64, I64]:
    """Bytes at risk of a power cut: instants before the end and the values from then on."""
    steps = at_risk.at_risk(history, _safety(history))
    inside = int(np.searchsorted(steps.instants, history.end_ns, "left"))
    return steps.instants[:inside], steps.values[:inside]


def figures(history: History) -> dict[str, int]:
    """flushes, bytes_written, end_ns, guest_wait_ns, recovery_point_max_ns, broken_promises."""
    first, last = losses.rows_safe(history, _safety(history))
    writes = losses.write_safety(history, first, last)
    page_bytes = int(history.io_pages.sum()) * PAGE_BYTES
    return {
        "flushes": history.flush_submit_ns.size,
        "bytes_written": page_bytes + history.info.metadata_bytes,
        "end_ns": history.end_ns,
        "guest_wait_ns": history.info.guest_wait_ns,
        "recovery_point_max_ns": ramp_spread(losses.recovery_point(writes), history.end_ns).max,
        "broken_promises": losses.broken_promises(history, last)[0].size,
    }


def rebuild(history: History, path: Path) -> None:
    """Write the guest's image at the end of a history, a sparse file of the device's size."""
    content = SyntheticContent(history.info.seed, [])
    extents = certain(history, Stage.STORED, history.end_ns)
    write_image(path, history.devices[0], extents, content, None)


def _safety(history: History) -> Safety:
    return Safety(history, kept_stage(Domain.POWER_CUT))
