"""One measurement in a process of its own: `python -m benchmarks.measure SIDE NAME ARGUMENTS`.

`SIDE` names a module that has the functions of `Side`, `ARGUMENTS` is a JSON object. The answer is
one JSON object on standard output. A process for each measurement, because a peak of memory cannot
be taken back; times are taken inside, so starting Python is not in them.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from benchmarks import exploring, simpy_model, users
from benchmarks.simpy_model import SimpyParameters

I64 = npt.NDArray[np.int64]
SEED = 1
SECOND_NS = 1_000_000_000

# A consumer NVMe drive under the kernel's default timers: the host of every measurement.
HOST = SimpyParameters(
    fault_ns=2400,
    flush_ns=1_000_000,
    bandwidth=1_200_000_000,
    plp=False,
    fua=True,
    writeback_ns=5 * SECOND_NS,
    expire_ns=30 * SECOND_NS,
    seed=SEED,
)


class Side(Protocol):
    """A simulator to be measured; `crashsim_side` documents the functions."""

    def generate(self, stores: int, seed: int, span_bytes: int, device_bytes: int) -> Any: ...
    def columns(self, program: Any) -> tuple[I64, I64, I64]: ...
    def simulate(self, program: Any, every_records: int, host: SimpyParameters) -> Any: ...
    def loss(self, history: Any) -> tuple[I64, I64]: ...
    def figures(self, history: Any) -> dict[str, int]: ...
    def rebuild(self, history: Any, path: Path) -> None: ...


Answer = dict[str, Any]


def stack(side: Side, stores: int, every_records: int, span_bytes: int) -> Answer:
    """Seconds of each step of one simulation, and the process's peak memory."""
    start = perf_counter()
    program = side.generate(stores, SEED, span_bytes, span_bytes)
    generated = perf_counter()
    history = side.simulate(program, every_records, HOST)
    simulated = perf_counter()
    instants, _ = side.loss(history)
    known = perf_counter()
    return {
        "generate_s": generated - start,
        "simulate_s": simulated - generated,
        "loss_s": known - simulated,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "steps": len(instants),
        "flushes": side.figures(history)["flushes"],
    }


def versus(side: Side, stores: int, every_records: int, span_bytes: int) -> Answer:
    """Seconds of both simulators on the same writes, the loss included, and where they differ."""
    program = side.generate(stores, SEED, span_bytes, span_bytes)
    start = perf_counter()
    history = side.simulate(program, every_records, HOST)
    instants, values = side.loss(history)
    crashsim_s = perf_counter() - start
    offset, length, think = (column.tolist() for column in side.columns(program))
    start = perf_counter()
    outcome = simpy_model.simulate(offset, length, think, every_records, HOST)
    simpy_s = perf_counter() - start
    start = perf_counter()
    after_store = users.plain(offset, length, every_records)
    plain_s = perf_counter() - start
    different = differences(outcome, instants, values, side.figures(history))
    if max(after_store) != max(values):
        different.append(f"most lost: {max(values)} against {max(after_store)} in a plain loop")
    return {
        "crashsim_s": crashsim_s,
        "plain_s": plain_s,
        "simpy_s": simpy_s,
        "steps": len(outcome.instants),
        "different": different,
    }


def equality(side: Side, stores: int, span_bytes: int) -> Answer:
    """Both simulators under hosts that use every part of the model; no time is taken."""
    program = side.generate(stores, SEED, span_bytes, span_bytes)
    offset, length, think = (column.tolist() for column in side.columns(program))
    different, steps, cases = [], 0, 0
    for host in _hosts():
        for every_records in (0, 1, 37):
            history = side.simulate(program, every_records, host)
            instants, values = side.loss(history)
            outcome = simpy_model.simulate(offset, length, think, every_records, host)
            found = differences(outcome, instants, values, side.figures(history))
            different += [f"sync every {every_records}, {host}: {line}" for line in found]
            steps += len(outcome.instants)
            cases += 1
    return {"different": different, "steps": steps, "cases": cases}


def _hosts() -> list[SimpyParameters]:
    """With and without PLP and FUA, and a flusher busy enough to divide stores."""
    hosts = []
    for plp in (False, True):
        for fua in (False, True):
            for writeback_ns, expire_ns in ((0, 0), (1_000_003, 2_000_000), (20_011, 0)):
                base = asdict(HOST) | {"flush_ns": 30_000, "plp": plp, "fua": fua}
                hosts.append(
                    SimpyParameters(**base | {"writeback_ns": writeback_ns, "expire_ns": expire_ns})
                )
    return hosts


def differences(
    outcome: simpy_model.SimpyOutcome, instants: I64, values: I64, figures: dict[str, int]
) -> list[str]:
    """What differs between the two, told; empty when nothing does."""
    lines = []
    expected = (np.array(outcome.instants, np.int64), np.array(outcome.values, np.int64))
    for name, ours, theirs in zip(
        ("instants", "values"), (instants, values), expected, strict=True
    ):
        if not np.array_equal(ours, theirs):
            low = min(len(ours), len(theirs))
            apart = np.flatnonzero(ours[:low] != theirs[:low])
            first = int(apart[0]) if len(apart) else low
            ends = (ours[first : first + 1].tolist(), theirs[first : first + 1].tolist())
            lines.append(
                f"loss {name}: {len(ours)} against {len(theirs)} in SimPy, "
                f"first difference at {first}: {ends[0]} against {ends[1]}"
            )
    for name, value in asdict(outcome).items():
        if name not in ("instants", "values") and figures[name] != value:
            lines.append(f"{name}: {figures[name]} against {value} in SimPy")
    return lines


def image(side: Side, stores: int, span_bytes: int, device_bytes: int) -> Answer:
    """Seconds to rebuild the image of a device of which only `span_bytes` are ever touched."""
    program = side.generate(stores, SEED, span_bytes, device_bytes)
    history = side.simulate(program, 1000, HOST)
    offset, length, _ = side.columns(program)
    ends = np.concatenate((offset >> 12, (offset + length - 1) >> 12))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        start = perf_counter()
        side.rebuild(history, path)
        seconds = perf_counter() - start
        size_bytes = path.stat().st_size
    return {"rebuild_s": seconds, "pages": len(np.unique(ends)), "size_bytes": size_bytes}


MEASUREMENTS: dict[str, Callable[..., Answer]] = {
    "stack": stack,
    "versus": versus,
    "equality": equality,
    "image": image,
    "whole": users.whole,
    "recorded": users.recorded,
    "by_function": users.by_function,
    "by_command": users.by_command,
    "programs": exploring.programs,
    "recording": exploring.recording,
}


def main(arguments: list[str]) -> None:
    side_name, name, options = arguments
    side = cast(Side, importlib.import_module(side_name))
    json.dump(MEASUREMENTS[name](side, **json.loads(options)), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
