"""The stand-in with one byte too many at risk: the benchmark must notice."""

from __future__ import annotations

from tests import bench_side
from tests.bench_side import I64, FakeHistory, columns, figures, generate, rebuild, simulate

__all__ = ["columns", "figures", "generate", "loss", "rebuild", "simulate"]


def loss(history: FakeHistory) -> tuple[I64, I64]:
    instants, values = bench_side.loss(history)
    values[-1] += 1
    return instants, values
