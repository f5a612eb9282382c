"""The only module of the benchmarks that knows crashsim: what `harness.Side` asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.simpy_model import SimpyParameters

I64 = npt.NDArray[np.int64]


def generate(stores: int, seed: int, span_bytes: int, device_bytes: int) -> Any:
    """A program of one vCPU: `stores` writes of 64 B to 4 KiB, each inside one Zipf(0.99) page of
    the first `span_bytes` of a device of `device_bytes`, without thinking time."""
    raise NotImplementedError


def columns(program: Any) -> tuple[I64, I64, I64]:
    """Offset, length, think of every write of a program."""
    raise NotImplementedError


def simulate(program: Any, every_records: int, host: SimpyParameters) -> Any:
    """The history of a program with an `fdatasync` after every so many writes, 0 for none."""
    raise NotImplementedError


def loss(history: Any) -> tuple[I64, I64]:
    """Bytes at risk of a power cut: instants and the values from then on, changes only."""
    raise NotImplementedError


def figures(history: Any) -> dict[str, int]:
    """flushes, bytes_written, end_ns, guest_wait_ns, recovery_point_max_ns, broken_promises."""
    raise NotImplementedError


def rebuild(history: Any, path: Path) -> None:
    """Write the guest's image at the end of a history, a sparse file of the device's size."""
    raise NotImplementedError
