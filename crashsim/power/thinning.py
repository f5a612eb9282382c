"""Step functions for the results: exact as long as that is reasonable, thinned honestly beyond.

Contract: what is thinned says so (`exact` is False). Losses and recovery points never show less
than there was: each value is the largest of its interval. Layers are thinned to the mean of each
interval: only means still add up to that of the whole.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from crashsim.engine.streams import I64
from crashsim.power.safety import Stage
from crashsim.power.steps import Ramps, StepFunction
from crashsim.results import Means, Steps

EXACT_STEPS = 200_000
PICTURE_STEPS = 2_000
MEANS = 720  # a multiple of the columns of any picture, so that each of these has a mean of its own
_HALF_BITS = 20

_INWARD = (Stage.STORED, Stage.IN_HOST, Stage.SUBMITTED, Stage.COMPLETED, Stage.DURABLE)


def largest(steps: StepFunction, end_ns: int, limit: int) -> Steps:
    """The steps up to `end_ns`; beyond `limit` of them the largest value of each of as many
    intervals."""
    inside = int(np.searchsorted(steps.instants, end_ns, "right"))
    t, values = steps.instants[:inside], steps.values[:inside]
    if inside <= limit:
        return Steps(t.tolist(), values.tolist())
    edges = _edges(end_ns, limit)
    worst = values_at(steps, edges)
    np.maximum.at(worst, np.searchsorted(edges, t, "right") - 1, values)
    return Steps(edges.tolist(), worst.tolist(), exact=False)


def saw_teeth(ramps: Ramps, end_ns: int, limit: int) -> Steps:
    """The corners of a quantity that grows with time, to be joined by straight lines; beyond
    `limit` the largest value of each interval."""
    stop = np.minimum(ramps.end, end_ns)
    some = stop > ramps.start
    start, stop, low = ramps.start[some], stop[some], ramps.low[some]
    high = low + (stop - start)
    if 3 * start.size <= limit:
        t = np.stack([start, stop - 1, stop], axis=1).ravel()
        values = np.stack([low, high - 1, np.zeros_like(low)], axis=1).ravel()
        keep = np.append(t[1:] != t[:-1], True) if t.size else np.empty(0, dtype=bool)
        keep &= t < end_ns
        return Steps(t[keep].tolist(), values[keep].tolist())
    edges = _edges(end_ns, limit)
    ends = np.append(edges[1:], end_ns) - 1
    tooth = np.maximum(np.searchsorted(start, ends, "right") - 1, 0)
    at_end = np.where(
        (start[tooth] <= ends) & (ends < stop[tooth]), low[tooth] + ends - start[tooth], 0
    )
    np.maximum.at(at_end, np.searchsorted(edges, stop - 1, "right") - 1, high - 1)
    return Steps(edges.tolist(), at_end.tolist(), exact=False)


def layers(
    stages: dict[Stage, StepFunction], end_ns: int, limit: int, intervals: int = MEANS
) -> dict[str, Means]:
    """Bytes at risk by the layer that holds their latest version: what got past one stage but not
    the next; beyond `limit` steps the mean of each of `intervals` (fewer than `limit`)."""
    instants = np.unique(np.concatenate([stages[stage].instants for stage in _INWARD]))
    instants = instants[instants <= end_ns]
    exact = instants.size <= limit
    edges = _edges(end_ns, min(intervals, end_ns))
    at = instants if exact else np.union1d(instants, edges)
    found: dict[str, Means] = {}
    for number, (inner, outer) in enumerate(pairwise(_INWARD), start=1):
        values = values_at(stages[outer], at) - values_at(stages[inner], at)
        shown = values.tolist() if exact else _means(at, values, edges, end_ns)
        found[f"L{number}"] = Means((at if exact else edges).tolist(), shown, exact)
    return found


def _means(t: I64, values: I64, edges: I64, end_ns: int) -> list[float]:
    """Of a step function over the time from each edge to the next; the edges are among `t`.

    Bytes times ns of a large device exceed 64 bits, so the sums are of two halves."""
    held = np.diff(np.append(t, end_ns))
    first = np.searchsorted(t, edges)
    upper = np.add.reduceat((values >> _HALF_BITS) * held, first).tolist()
    lower = np.add.reduceat((values & ((1 << _HALF_BITS) - 1)) * held, first).tolist()
    widths = np.diff(np.append(edges, end_ns)).tolist()
    return [
        ((high << _HALF_BITS) + low) / width
        for high, low, width in zip(upper, lower, widths, strict=True)
    ]


def values_at(steps: StepFunction, t_ns: I64) -> I64:
    """The values at many instants."""
    values = np.concatenate([np.zeros(1, dtype=np.int64), steps.values])
    found: I64 = values[np.searchsorted(steps.instants, t_ns, "right")]
    return found


def _edges(end_ns: int, intervals: int) -> I64:
    whole, rest = divmod(end_ns, intervals)
    number = np.arange(intervals, dtype=np.int64)
    return number * whole + number * rest // intervals
