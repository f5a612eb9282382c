"""Step functions for the results: exact as long as that is reasonable, thinned honestly beyond.

Contract: what is thinned says so (`exact` is False) and never shows less than there was: each value
is the largest of its interval. Layers are thinned together, at the worst instant of each interval,
so that they still add up to the whole.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from crashsim.engine.streams import I64
from crashsim.power.safety import Stage
from crashsim.power.steps import Ramps, StepFunction
from crashsim.results import Steps

EXACT_STEPS = 200_000
PICTURE_STEPS = 2_000

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


def layers(stages: dict[Stage, StepFunction], end_ns: int, limit: int) -> dict[str, Steps]:
    """Bytes at risk by the layer that holds their latest version: what got past one stage but not
    the next."""
    instants = np.unique(np.concatenate([stages[stage].instants for stage in _INWARD]))
    instants = instants[instants <= end_ns]
    exact = instants.size <= limit
    at = instants if exact else _worst_instants(stages[Stage.DURABLE], instants, end_ns, limit)
    shown = at if exact else _edges(end_ns, limit)
    found: dict[str, Steps] = {}
    for number, (inner, outer) in enumerate(pairwise(_INWARD), start=1):
        values = values_at(stages[outer], at) - values_at(stages[inner], at)
        found[f"L{number}"] = Steps(shown.tolist(), values.tolist(), exact)
    return found


def _worst_instants(whole: StepFunction, instants: I64, end_ns: int, limit: int) -> I64:
    """For each interval the instant at which the whole is largest."""
    edges = _edges(end_ns, limit)
    candidates = np.concatenate([edges, instants])
    bucket = np.searchsorted(edges, candidates, "right") - 1
    order = np.lexsort((values_at(whole, candidates), bucket))
    last = np.flatnonzero(np.diff(bucket[order], append=limit))
    worst: I64 = candidates[order[last]]
    return worst


def values_at(steps: StepFunction, t_ns: I64) -> I64:
    """The values at many instants."""
    values = np.concatenate([np.zeros(1, dtype=np.int64), steps.values])
    found: I64 = values[np.searchsorted(steps.instants, t_ns, "right")]
    return found


def _edges(end_ns: int, intervals: int) -> I64:
    whole, rest = divmod(end_ns, intervals)
    number = np.arange(intervals, dtype=np.int64)
    return number * whole + number * rest // intervals
