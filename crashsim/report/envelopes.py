"""Step functions made ready for drawing, without telling less than the truth.

Contract: a function of few steps is drawn as it is. One of many is reduced to an envelope: for
each of `COLUMNS` equal intervals its least and its largest value, so that no peak and no moment of
safety is lost. Parts of a whole are reduced to the mean of each interval, so that they add up.
Shares of time are computed from all steps, never from an envelope. Arrays are int64 unless they
say otherwise; times ns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crashsim.results import Means, Steps

# About the pixels across a plot: more cannot be seen.
COLUMNS = 720

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Places = NDArray[np.intp]


class Band(NamedTuple):
    """`low[i]` and `high[i]` bound the function on `[t_ns[i], t_ns[i + 1])`: equal where exact."""

    t_ns: I64
    low: I64
    high: I64

    @property
    def exact(self) -> bool:
        """Whether it is the function itself."""
        return bool(np.array_equal(self.low, self.high))


def clipped(steps: Steps, start_ns: int, end_ns: int) -> tuple[I64, I64]:
    """Instants in `[start_ns, end_ns)` and values, the first at `start_ns`."""
    values = np.asarray(steps.values, dtype=np.int64)
    return _clipped(steps.instants, values, start_ns, end_ns)


def _clipped(
    at: list[int], values: NDArray[Any], start_ns: int, end_ns: int
) -> tuple[I64, NDArray[Any]]:
    instants = np.asarray(at, dtype=np.int64)
    first = int(np.searchsorted(instants, start_ns, "right"))
    last = int(np.searchsorted(instants, end_ns, "left"))
    before = values[first - 1 : first] if first else np.zeros(1, values.dtype)
    return (
        np.concatenate([[start_ns], instants[first:last]]).astype(np.int64),
        np.concatenate([before, values[first:last]]),
    )


def band(steps: Steps, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """The function on `[start_ns, end_ns]`, as it is or as its envelope; the last value is repeated
    at `end_ns` so that it is seen."""
    t_ns, values = clipped(steps, start_ns, end_ns)
    if t_ns.size > 2 * columns:
        return envelope(steps, start_ns, end_ns, columns)
    t_ns, values = np.append(t_ns, end_ns), np.append(values, values[-1])
    return Band(t_ns, values, values)


def envelope(steps: Steps, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """The least and the largest value of each column."""
    t_ns, values = clipped(steps, start_ns, end_ns)
    edges = _edges(start_ns, end_ns, columns)
    # The value carried into an interval belongs to it; a step at its end belongs to the next.
    first = np.searchsorted(t_ns, edges[:-1], "right") - 1
    last = np.searchsorted(t_ns, edges[1:], "left")
    return Band(edges, *_extremes(values, first, last))


def _edges(start_ns: int, end_ns: int, columns: int) -> I64:
    columns = max(1, min(columns, end_ns - start_ns))
    return start_ns + (np.arange(columns + 1, dtype=np.int64) * (end_ns - start_ns)) // columns


def _extremes(values: I64, first: Places, last: Places) -> tuple[I64, I64]:
    """Least and largest of each `values[first[i]:last[i]]` (not empty); the last ones twice."""
    bounds = np.stack([first, last], axis=1).ravel()
    padded = np.append(values, values[-1])  # so that a bound may be the end
    low = np.minimum.reduceat(padded, bounds)[::2]
    high = np.maximum.reduceat(padded, bounds)[::2]
    return np.append(low, low[-1]), np.append(high, high[-1])


def line(steps: Steps, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """A quantity that changes evenly between its points (a recovery point): as it is, or its
    envelope. Two points at one instant are a jump."""
    t_ns, values = _points(steps, start_ns, end_ns)
    if t_ns.size > 2 * columns:
        return line_envelope(steps, start_ns, end_ns, columns)
    return Band(t_ns, values, values)


def line_envelope(steps: Steps, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """The least and the largest value of each column of such a quantity."""
    t_ns, values = _points(steps, start_ns, end_ns)
    edges = _edges(start_ns, end_ns, columns)
    place = np.searchsorted(t_ns, edges, "left")
    at_edges = np.rint(np.interp(edges, t_ns, values)).astype(np.int64)
    values = np.insert(values, place, at_edges)
    # Each interval has both its edges: an even slope between two points passes through them.
    start = place + np.arange(edges.size)
    return Band(edges, *_extremes(values, start[:-1], start[1:] + 1))


def _points(steps: Steps, start_ns: int, end_ns: int) -> tuple[I64, I64]:
    """Points in `[start_ns, end_ns]`, with one at each end."""
    instants = np.asarray(steps.instants, dtype=np.int64)
    values = np.asarray(steps.values, dtype=np.int64)
    ends = np.array([start_ns, end_ns], dtype=np.int64)
    if instants.size == 0:
        return ends, np.zeros_like(ends)
    inner = slice(
        int(np.searchsorted(instants, start_ns, "right")),
        int(np.searchsorted(instants, end_ns, "left")),
    )
    at_ends = np.rint(np.interp(ends, instants, values, left=0)).astype(np.int64)
    return (
        np.concatenate([ends[:1], instants[inner], ends[1:]]),
        np.concatenate([at_ends[:1], values[inner], at_ends[1:]]),
    )


class Stacked(NamedTuple):
    """Parts of a whole (float64) from each of `t_ns` to the next; `mean_ns` is 0 where they are
    exact, otherwise the length of the interval of which each value is the mean."""

    t_ns: I64
    rows: list[F64]
    mean_ns: int


def stack(layers: list[Means], end_ns: int, columns: int = COLUMNS) -> Stacked:
    """The functions on the union of their instants, or, when these are too many or thinned, the
    mean of each column: of parts that change places only the means still add up to the whole's."""
    parts = [
        _clipped(one.instants, np.asarray(one.values, np.float64), 0, end_ns) for one in layers
    ]
    t_ns = np.unique(np.concatenate([instants for instants, _ in parts]))
    exact = t_ns.size <= 2 * columns and all(one.exact for one in layers)
    if exact:
        rows = [values[np.searchsorted(at, t_ns, "right") - 1] for at, values in parts]
    else:
        t_ns = _edges(0, end_ns, columns)[:-1]
        rows = [means(one, end_ns, columns) for one in layers]
    rows = [np.append(row, row[-1]) for row in rows]
    return Stacked(np.append(t_ns, end_ns), rows, 0 if exact else end_ns // columns)


def means(steps: Means, end_ns: int, columns: int) -> F64:
    """The mean over each of `columns` equal intervals; exact also of what was thinned to a multiple
    of them."""
    values = np.asarray(steps.values, np.float64)
    t_ns, values = _clipped(steps.instants, values, 0, end_ns)
    edges = _edges(0, end_ns, columns)
    ends = np.append(t_ns, end_ns).astype(np.float64)
    area = np.concatenate([[0.0], np.cumsum(np.diff(ends) * values)])
    found: F64 = np.diff(np.interp(edges, ends, area)) / np.diff(edges)
    return found


class Distribution(NamedTuple):
    """`share[i]` (float64) of the time is spent above `values[i]`; values ascend from 0."""

    values: I64
    share: F64


def distribution(steps: Steps, end_ns: int) -> Distribution:
    """The share of crash instants at which more than each value is lost, exact in time."""
    t_ns, values = clipped(steps, 0, end_ns)
    held = np.diff(np.append(t_ns, end_ns))
    levels, place = np.unique(np.append(values, 0), return_inverse=True)
    time = np.zeros(levels.size, dtype=np.int64)
    np.add.at(time, place, np.append(held, 0))
    above = end_ns - np.cumsum(time)
    return Distribution(levels, above / max(1, end_ns))


def thinned(whole: Distribution, points: int = COLUMNS) -> Distribution:
    """For drawing: first, last and every level at which the share has changed visibly."""
    if whole.values.size <= points:
        return whole
    bins = np.floor(whole.share * points).astype(np.int64)
    keep = np.flatnonzero(np.diff(bins, prepend=bins[0] + 1) != 0)
    keep = np.unique(np.append(keep, whole.values.size - 1))
    return Distribution(whole.values[keep], whole.share[keep])


def seen(instants: list[int], start_ns: int, end_ns: int, columns: int = COLUMNS) -> I64:
    """Marks in `[start_ns, end_ns]`, at most one for each column of the picture."""
    marks = np.asarray(instants, dtype=np.int64)
    marks = marks[(marks >= start_ns) & (marks <= end_ns)]
    if marks.size <= columns:
        return marks
    column = (marks - start_ns) * columns // max(1, end_ns - start_ns)
    return marks[np.unique(column, return_index=True)[1]]
