"""Step functions over the instants of a run, and what share of the time they spend where.

A `StepFunction` has strictly ascending instants; `values[i]` holds from `instants[i]` up to the
next; before the first the value is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crashsim.engine.streams import I64
from crashsim.results import Spread

_DIRECT_VALUES = 1 << 24


class StepFunction(NamedTuple):
    """int64[k] each."""

    instants: I64
    values: I64

    def at(self, t_ns: int) -> int:
        """The value at one instant."""
        i = int(np.searchsorted(self.instants, t_ns, "right")) - 1
        return int(self.values[i]) if i >= 0 else 0


def from_changes(t_ns: I64, change: I64) -> StepFunction:
    """The running sum of changes, in any order of time; instants where nothing changes are left
    out."""
    if t_ns.size == 0:
        return StepFunction(t_ns, change)
    if bool(np.any(t_ns[1:] < t_ns[:-1])):
        order = np.argsort(t_ns, kind="stable")
        t_ns, change = t_ns[order], change[order]
    return _thin(t_ns, np.cumsum(change))


def merge(up_ns: I64, up: I64, down_ns: I64, down: I64) -> StepFunction:
    """The running sum of two series of changes, each ascending in time."""
    place = np.searchsorted(up_ns, down_ns, "right")
    place += np.arange(down_ns.size)
    t_ns = np.empty(up_ns.size + down_ns.size, dtype=np.int64)
    change = np.empty_like(t_ns)
    rest = np.ones(t_ns.size, dtype=bool)
    rest[place] = False
    t_ns[place], change[place] = down_ns, down
    t_ns[rest], change[rest] = up_ns, up
    return _thin(t_ns, np.cumsum(change, out=change))


def _thin(t_ns: I64, values: I64) -> StepFunction:
    last = np.empty(t_ns.size, dtype=bool)
    last[-1:] = True
    np.not_equal(t_ns[1:], t_ns[:-1], out=last[:-1])
    if not bool(last.all()):
        t_ns, values = t_ns[last], values[last]
    change = np.empty(t_ns.size, dtype=bool)
    change[:1] = values[:1] != 0
    np.not_equal(values[1:], values[:-1], out=change[1:])
    if not bool(change.all()):
        t_ns, values = t_ns[change], values[change]
    return StepFunction(t_ns, values)


def spread(steps: StepFunction, end_ns: int) -> Spread:
    """Maximum over [0, end] and time-weighted percentiles: the smallest value that is not exceeded
    for at least that share."""
    inside = int(np.searchsorted(steps.instants, end_ns, "right"))
    instants, values = steps.instants[:inside], steps.values[:inside]
    if inside == 0 or end_ns == 0:
        return Spread(0, 0, 0)
    weight = np.diff(instants, append=end_ns)
    largest = int(values.max())
    if largest < _DIRECT_VALUES:
        time = np.bincount(values, weights=weight)  # exact below 2**53 ns, 104 days
        time[0] += int(instants[0])
        level: I64 = np.arange(time.size, dtype=np.int64)
    else:
        order = np.argsort(values, kind="stable")
        level = np.concatenate([np.zeros(1, dtype=np.int64), values[order]])
        time = np.concatenate([instants[:1], weight[order]]).astype(np.float64)
    share: npt.NDArray[np.float64] = np.cumsum(time, dtype=np.float64)
    return Spread(largest, *(_percentile(level, share, end_ns, p) for p in (50, 99)))


def _percentile(level: I64, share: npt.NDArray[np.float64], end_ns: int, percent: int) -> int:
    need = -(-end_ns * percent // 100)
    return int(level[min(int(np.searchsorted(share, need, "left")), level.size - 1)])


class Ramps(NamedTuple):
    """A quantity that grows by 1 per ns on intervals [start, end), from `low`; 0 elsewhere.
    int64[k], ascending."""

    start: I64
    end: I64
    low: I64

    def at(self, t_ns: int) -> int:
        """The value at one instant."""
        i = int(np.searchsorted(self.start, t_ns, "right")) - 1
        if i < 0 or t_ns >= int(self.end[i]):
            return 0
        return int(self.low[i]) + t_ns - int(self.start[i])


def ramp_spread(ramps: Ramps, end_ns: int) -> Spread:
    """As `spread`; the maximum is the supremum (what the interval reaches at its end)."""
    end = np.minimum(ramps.end, end_ns)
    length = end - ramps.start
    some = length > 0
    largest = int((ramps.low + length)[length >= 0].max(initial=0))  # 0 long: one at the very end
    low, length = ramps.low[some], length[some]
    if low.size == 0 or end_ns == 0:
        return Spread(largest, 0, 0)
    high = low + length
    # Time spent at or below v: flat part + sum over ramps of clamp(v - low, 0, length), linear
    # between these corners.
    corner = np.concatenate([low, high])
    slope = np.concatenate([np.ones(low.size, dtype=np.int64), -np.ones(low.size, dtype=np.int64)])
    order = np.argsort(corner, kind="stable")
    corner, slope = corner[order], np.cumsum(slope[order])
    grown = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(slope[:-1] * np.diff(corner))])
    flat = end_ns - int(length.sum())
    values = []
    for percent in (50, 99):
        need = -(-end_ns * percent // 100) - flat
        if need <= 0:
            values.append(0)
            continue
        i = int(np.searchsorted(grown, need, "left"))
        behind = int(grown[i]) - need  # not yet needed at corner i
        step = int(slope[i - 1]) if i else 1
        values.append(int(corner[i]) - behind // max(step, 1))
    return Spread(largest, values[0], values[1])
