"""A stand-in for crashsim in the benchmark's own tests: the SimPy model, so the two sides agree."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import simpy_model
from benchmarks.simpy_model import SimpyOutcome, SimpyParameters

I64 = npt.NDArray[np.int64]


class FakeProgram(NamedTuple):
    offset: I64
    length: I64
    device_bytes: int


class FakeHistory(NamedTuple):
    outcome: SimpyOutcome
    device_bytes: int


def generate(stores: int, seed: int, span_bytes: int, device_bytes: int) -> FakeProgram:
    rng = np.random.default_rng(seed)
    length = rng.integers(64, 4097, stores)
    page = rng.integers(0, min(span_bytes // 4096, 64), stores)
    return FakeProgram(page * 4096 + rng.integers(0, 4097 - length), length, device_bytes)


def columns(program: FakeProgram) -> tuple[I64, I64, I64]:
    return program.offset, program.length, np.zeros_like(program.offset)


def simulate(program: FakeProgram, every_records: int, host: SimpyParameters) -> FakeHistory:
    offset, length, think = (column.tolist() for column in columns(program))
    outcome = simpy_model.simulate(offset, length, think, every_records, host)
    return FakeHistory(outcome, program.device_bytes)


def loss(history: FakeHistory) -> tuple[I64, I64]:
    return np.array(history.outcome.instants), np.array(history.outcome.values)


def figures(history: FakeHistory) -> dict[str, int]:
    figures = asdict(history.outcome)
    del figures["instants"], figures["values"]
    return figures


def rebuild(history: FakeHistory, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(history.device_bytes)
