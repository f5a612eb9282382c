"""What is measured of exploring: programs as checkers, a long recording.

Each function answers with plain numbers; nothing is asserted about time.
"""

from __future__ import annotations

import os
import resource
import struct
import tempfile
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from crashsim.checkers.spec import Command
from crashsim.experiment.applications import KeyValue, Recording, SizeRange
from crashsim.experiment.backing import Device
from crashsim.experiment.linux import Guest
from crashsim.experiment.model import Experiment
from crashsim.explore.budget import Budget
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import explore
from crashsim.simulate.inputs import make_inputs
from crashsim.simulate.stack import simulate
from crashsim.states import Rules, Space

MIB = 1 << 20
SECTOR_BYTES = 512
TRUE = "/bin/true"

Answer = dict[str, Any]


def _target(stores: int, command: str | None = None) -> Target:
    """Values of 64 B to 4 KiB in random slots of 4 MiB, without a sync."""
    experiment = Experiment(
        device=Device(size=4 * MIB),
        workload=KeyValue(
            records=stores, slots=1024, slot_size=4096, value_size=SizeRange(min=64, max=4096)
        ),
        guest=Guest(file_system="none"),
    )
    inputs = make_inputs(experiment)
    history = simulate(experiment, inputs.programs)
    space = Space(history, inputs.content, None, 0, Rules("any-host", SECTOR_BYTES))
    return Target(history, 0, space, lambda: Command(command or TRUE).checker())


def programs(_side: object, states: int, seconds: float, rounds: int) -> Answer:
    """States a second with a program as checker, on all processors, and how many of that program
    the machine can spawn by itself: medians of rounds, each with its own share, for a machine that
    is not alone is never as fast twice."""
    workers = os.cpu_count() or 1
    target = _target(8, TRUE)
    spawned, explored, checked = [_spawned(workers, seconds)], [], 0
    for _ in range(rounds):
        start = perf_counter()
        found = explore(target, Budget(states), seed=1, workers=workers)
        explored.append(found.result.checked / (perf_counter() - start))
        spawned.append(_spawned(workers, seconds))
        checked += found.result.checked
    shares = [
        2 * one / (before + after)
        for one, (before, after) in zip(explored, pairwise(spawned), strict=True)
    ]
    return {
        "explored": median(explored),
        "spawned": median(spawned),
        "share": median(shares),
        "checked": checked,
    }


def _spawned(workers: int, seconds: float) -> float:
    """How many /bin/true a second end, from so many processes that do nothing else."""
    context = get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    processes = [
        context.Process(target=_spawn_on, args=(seconds, sender)) for _receiver, sender in pipes
    ]
    for process in processes:
        process.start()
    rate = sum(float(receiver.recv()) for receiver, _sender in pipes)
    for process in processes:
        process.join()
    return rate


def _spawn_on(seconds: float, sender: Connection) -> None:
    count, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        os.waitpid(os.posix_spawn(TRUE, [TRUE], {}), 0)
        count += 1
    sender.send(count / (perf_counter() - start))


def recording(_side: object, writes: int) -> Answer:
    """Seconds until a recording of so many writes of a sector, a flush after every 100, is ready to
    explore: its states counted, its first epoch at hand."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.log"
        size = write_log(path, writes)
        start = perf_counter()
        experiment = Experiment(
            device=Device(size=1 << 30),
            workload=Recording(kind="recording", log=str(path), clock=10_000),
            guest=Guest(file_system="none"),
        )
        inputs = make_inputs(experiment)
        history = simulate(experiment, inputs.programs)
        space = Space(history, inputs.content, None, 0, Rules("any-host", SECTOR_BYTES))
        digits = sum(choices.bit_length() for choices in space.choices())
        atoms = len(next(iter(space.epochs())).atoms)
        seconds = perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "peak_bytes": peak * 1024,
        "log_bytes": size,
        "atoms": atoms,
        "bits": digits,
    }


def write_log(path: Path, writes: int) -> int:
    """A dm-log-writes log, in memory at once: entries of two sectors, and flushes of one."""
    flushes = writes // 100
    place = np.random.default_rng(1).integers(0, (1 << 30) // 4096, writes) * 8
    entry = np.zeros((writes + flushes, 2, SECTOR_BYTES // 8), dtype="<u8")
    is_flush = np.zeros(writes + flushes, dtype=bool)
    is_flush[100::101] = True
    is_flush = is_flush[: writes + flushes]
    entry[~is_flush, 0, 0] = place[: int((~is_flush).sum())]
    entry[~is_flush, 0, 1] = 1
    entry[~is_flush, 1, :] = np.arange(int((~is_flush).sum()))[:, None]
    entry[is_flush, 0, 2] = 1
    head = struct.pack("<QQQI", 0x6A736677736872, 1, entry.shape[0], SECTOR_BYTES)
    whole = np.ones((entry.shape[0], 2), dtype=bool)
    whole[is_flush, 1] = False
    with path.open("wb") as file:
        file.write(head.ljust(SECTOR_BYTES, b"\0"))
        file.write(entry[whole].tobytes())
    return path.stat().st_size
