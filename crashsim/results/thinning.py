"""Step functions with fewer steps, for results and pictures, that hide nothing that was there.

Contract: a function of few steps stays as it is. One of many is reduced to equal intervals, and
says so (`exact` is False): to the least and the largest value of each, so that no peak and no
moment of safety is lost; in `results.json` to the largest; parts of a whole to the mean of each, so
that they still add up. Arrays are int64 unless they say otherwise; times ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crashsim.results import Steps

EXACT_STEPS = 200_000  # of the loss in results.json
PICTURE_STEPS = 2_000  # of what is there for the eye only
COLUMNS = 720  # about the pixels across a plot: more cannot be seen
_HALF_BITS = 20

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Places = NDArray[np.intp]


class Stepped(Protocol):
    """`values[i]` holds from `instants[i]` up to the next: `Steps`, `Means`, `StepFunction`."""

    @property
    def instants(self) -> Sequence[int] | I64: ...
    @property
    def values(self) -> Sequence[int] | Sequence[float] | I64: ...


class Band(NamedTuple):
    """`low[i]` and `high[i]` bound the function on `[t_ns[i], t_ns[i + 1])`: equal where exact."""

    t_ns: I64
    low: I64
    high: I64

    @property
    def exact(self) -> bool:
        """Whether it is the function itself."""
        return bool(np.array_equal(self.low, self.high))


def clipped(steps: Stepped, start_ns: int, end_ns: int) -> tuple[I64, NDArray[Any]]:
    """Instants in `[start_ns, end_ns)` and values, the first at `start_ns`."""
    instants, values = np.asarray(steps.instants, dtype=np.int64), np.asarray(steps.values)
    if not values.size:
        values = np.zeros(0, dtype=np.int64)
    first = int(np.searchsorted(instants, start_ns, "right"))
    last = int(np.searchsorted(instants, end_ns, "left"))
    before = values[first - 1 : first] if first else np.zeros(1, values.dtype)
    return (
        np.concatenate([[start_ns], instants[first:last]]).astype(np.int64),
        np.concatenate([before, values[first:last]]),
    )


def values_at(steps: Stepped, t_ns: I64) -> NDArray[Any]:
    """The values at many instants."""
    values = np.concatenate([np.zeros(1, dtype=np.int64), steps.values])
    found: NDArray[Any] = values[np.searchsorted(steps.instants, t_ns, "right")]
    return found


def band(steps: Stepped, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """The function on `[start_ns, end_ns]`, as it is or as its envelope; the last value is repeated
    at `end_ns` so that it is seen."""
    t_ns, values = clipped(steps, start_ns, end_ns)
    if t_ns.size > 2 * columns:
        return envelope(steps, start_ns, end_ns, columns)
    t_ns, values = np.append(t_ns, end_ns), np.append(values, values[-1])
    return Band(t_ns, values, values)


def envelope(steps: Stepped, start_ns: int, end_ns: int, columns: int = COLUMNS) -> Band:
    """The least and the largest value of each column."""
    t_ns, values = clipped(steps, start_ns, end_ns)
    edges = edges_of(start_ns, end_ns, columns)
    # The value carried into an interval belongs to it; a step at its end belongs to the next.
    first = np.searchsorted(t_ns, edges[:-1], "right") - 1
    last = np.searchsorted(t_ns, edges[1:], "left")
    return Band(edges, *_extremes(values, first, last))


def edges_of(start_ns: int, end_ns: int, columns: int) -> I64:
    """The edges of so many equal intervals, one more than these."""
    columns = max(1, min(columns, end_ns - start_ns))
    whole, rest = divmod(end_ns - start_ns, columns)
    number = np.arange(columns + 1, dtype=np.int64)
    return start_ns + number * whole + number * rest // columns


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
    edges = edges_of(start_ns, end_ns, columns)
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


def largest(steps: Stepped, end_ns: int, limit: int) -> Steps:
    """The steps up to `end_ns`; beyond `limit` of them the largest value of each of as many
    intervals."""
    inside = int(np.searchsorted(steps.instants, end_ns, "right"))
    if inside <= limit:
        return Steps(
            *(np.asarray(column)[:inside].tolist() for column in (steps.instants, steps.values))
        )
    edges, _, high = envelope(steps, 0, end_ns, limit)
    high[-2] = max(high[-2], steps.values[inside - 1])  # of the very end
    return Steps(edges[:-1].tolist(), high[:-1].tolist(), exact=False)


def saw_teeth(start: I64, end: I64, low: I64, end_ns: int, limit: int) -> Steps:
    """The corners of a quantity that grows by 1 per ns on intervals [start, end), from `low`, and
    is 0 elsewhere, to be joined by straight lines; beyond `limit` the largest value of each
    interval."""
    stop = np.minimum(end, end_ns)
    some = stop > start
    start, stop, low = start[some], stop[some], low[some]
    high = low + (stop - start)
    if 3 * start.size <= limit:
        t = np.stack([start, stop - 1, stop], axis=1).ravel()
        values = np.stack([low, high - 1, np.zeros_like(low)], axis=1).ravel()
        keep = np.append(t[1:] != t[:-1], True) if t.size else np.empty(0, dtype=bool)
        keep &= t < end_ns
        return Steps(t[keep].tolist(), values[keep].tolist())
    edges = edges_of(0, end_ns, limit)
    ends, edges = edges[1:] - 1, edges[:-1]
    tooth = np.maximum(np.searchsorted(start, ends, "right") - 1, 0)
    at_end = np.where(
        (start[tooth] <= ends) & (ends < stop[tooth]), low[tooth] + ends - start[tooth], 0
    )
    np.maximum.at(at_end, np.searchsorted(edges, stop - 1, "right") - 1, high - 1)
    return Steps(edges.tolist(), at_end.tolist(), exact=False)


def means(steps: Stepped, end_ns: int, columns: int) -> F64:
    """The mean over each of `columns` equal intervals; exact also of what was thinned to a multiple
    of them."""
    t_ns, values = clipped(steps, 0, end_ns)
    edges = edges_of(0, end_ns, columns)
    at = np.sort(np.concatenate([t_ns, edges[:-1]]))  # the second of two equal ones takes no time
    values = values[np.searchsorted(t_ns, at, "right") - 1]
    held, first = np.diff(at, append=end_ns), np.searchsorted(at, edges[:-1])
    if values.dtype.kind == "f":
        return np.add.reduceat(values * held, first) / np.diff(edges)
    # Bytes times ns of a large device exceed 64 bits, so the sums are of two halves.
    upper = np.add.reduceat((values >> _HALF_BITS) * held, first).tolist()
    lower = np.add.reduceat((values & ((1 << _HALF_BITS) - 1)) * held, first).tolist()
    sums = [(high << _HALF_BITS) + low for high, low in zip(upper, lower, strict=True)]
    return np.array([a / n for a, n in zip(sums, np.diff(edges).tolist(), strict=True)])


def evenly(instants: I64) -> list[int]:
    """At most `PICTURE_STEPS` of them, evenly chosen."""
    step = -(-instants.size // PICTURE_STEPS) or 1
    return list(instants[::step].tolist())


def seen(instants: list[int], start_ns: int, end_ns: int, columns: int = COLUMNS) -> I64:
    """Marks in `[start_ns, end_ns]`, at most one for each column of the picture."""
    marks = np.asarray(instants, dtype=np.int64)
    marks = marks[(marks >= start_ns) & (marks <= end_ns)]
    if marks.size <= columns:
        return marks
    column = (marks - start_ns) * columns // max(1, end_ns - start_ns)
    return marks[np.unique(column, return_index=True)[1]]
