"""What a failure takes, in terms of writes and acknowledgements, at every instant (pure functions
of the History).

Contract: a write is safe when all its stores are. Unsaved writes, the recovery point, holes and
torn writes follow from the safe instants of writes in order of their begin; broken promises hold a
flush's acknowledgement against the stores it covers (V2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import words
from crashsim.engine.streams import I64
from crashsim.power.safety import Safety, Stage
from crashsim.power.steps import Ramps, StepFunction, from_changes, merge

_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class WriteSafety:
    """Writes in order of begin, int64[w]: number, begin, first and last instant at which a part /
    all of it is safe."""

    write: I64
    begin_ns: I64
    part_ns: I64
    whole_ns: I64


def rows_safe(history: History, safety: Safety) -> tuple[I64, I64]:
    """(first, last) safe instant over the pieces of each store, int64[n]."""
    n = history.store_t_ns.size
    first = np.empty(n, dtype=np.int64)
    last = np.empty(n, dtype=np.int64)
    for part in safety.stretches(_ROWS):
        rows = slice(part.low, part.high)
        if part.safe_ns.size == part.high - part.low:
            first[rows] = last[rows] = part.safe_ns
        else:
            start = np.flatnonzero(np.diff(part.pieces.row, prepend=-1))
            first[rows] = np.minimum.reduceat(part.safe_ns, start)
            last[rows] = np.maximum.reduceat(part.safe_ns, start)
    return first, last


def write_safety(history: History, first: I64, last: I64) -> WriteSafety:
    """Join the stores of each write."""
    write, begin = history.store_write, history.store_t_ns
    size = history.info.writes
    unfinished = history.info.unfinished_writes  # a rest of them never began
    if unfinished:
        last = np.where(np.isin(write, unfinished), NEVER, last)
    if write.size <= 1 or bool(np.all(np.diff(write) > 0)):  # one store each
        return WriteSafety(write, begin, first, last)
    start = np.full(size, NEVER, dtype=np.int64)
    whole = np.full(size, -1, dtype=np.int64)
    np.minimum.at(start, write, begin)
    np.maximum.at(whole, write, last)
    part = whole.copy()
    of, torn_from_ns = _torn_attempts(history, first, last)
    np.minimum.at(part, of, torn_from_ns)
    begun = np.flatnonzero(whole >= 0)
    begun = begun[np.argsort(start[begun], kind="stable")]
    return WriteSafety(begun, start[begun], part[begun], whole[begun])


def _torn_attempts(history: History, first: I64, last: I64) -> tuple[I64, I64]:
    """Attempts at writes (a program may make one again after an error) of which a part is safe
    before the rest: write, and since when."""
    attempt, write = attempts(history)
    part = np.full(write.size, NEVER, dtype=np.int64)
    whole = np.full(write.size, -1, dtype=np.int64)
    np.minimum.at(part, attempt, first)
    np.maximum.at(whole, attempt, last)
    some = part < whole
    return write[some], part[some]


def attempts(history: History) -> tuple[I64, I64]:
    """For each store the number of the attempt at a write that it is part of, int64[n]; and the
    write of each attempt."""
    order = np.argsort(history.store_write, kind="stable")
    write, offset = history.store_write[order], history.store_offset[order]
    fresh = np.append(True, (write[1:] != write[:-1]) | (offset[1:] <= offset[:-1]))[: write.size]
    attempt = np.empty_like(order)
    attempt[order] = np.cumsum(fresh) - 1
    return attempt, write[fresh]


def unsaved(writes: WriteSafety) -> StepFunction:
    """Writes begun and not wholly safe."""
    end = np.sort(writes.whole_ns)
    one = np.ones(end.size, dtype=np.int64)
    return merge(writes.begin_ns, one, end, -one)


def recovery_point(writes: WriteSafety) -> Ramps:
    """Age of the oldest unsaved write: intervals on which one write is the oldest."""
    before = np.empty_like(writes.whole_ns)
    before[:1] = 0
    np.maximum.accumulate(writes.whole_ns[:-1], out=before[1:])
    start = np.maximum(before, writes.begin_ns)
    oldest = np.flatnonzero(writes.whole_ns > start)
    start = start[oldest]
    return Ramps(start, writes.whole_ns[oldest], start - writes.begin_ns[oldest])


def holes(writes: WriteSafety, end_ns: int) -> I64:
    """Positions (in `writes`) of writes not safe at an instant of the run at which one begun later
    is."""
    n = writes.begin_ns.size
    if n == 0:
        return writes.begin_ns
    best = np.full(n + 1, NEVER, dtype=np.int64)
    best[:-1] = np.minimum.accumulate(writes.whole_ns[::-1])[::-1]
    later = best[np.searchsorted(writes.begin_ns, writes.begin_ns, "right")]
    return np.flatnonzero((later < writes.whole_ns) & (later <= end_ns))


def torn(writes: WriteSafety, end_ns: int) -> I64:
    """Positions of writes of which a part is safe at an instant of the run at which another is
    not."""
    return np.flatnonzero((writes.part_ns < writes.whole_ns) & (writes.part_ns <= end_ns))


def broken_promises(history: History, last: I64) -> tuple[I64, I64]:
    """Flush requests acknowledged with success while a store they cover was not safe (Rule V2).

    `last`: safe instant of each store. Returns (request, a store it lost), int64[k]."""
    requests: list[I64] = []
    stores: list[I64] = []
    landed = history.store_t_ns + words(history.store_offset, history.store_length) - 1
    in_host = landed
    if not all(history.info.dax):
        in_host = rows_safe(history, Safety(history, Stage.IN_HOST))[1]
    for device, span in enumerate(history.devices):
        # A flush does not cover what is still in L1 (Rule G2).
        there = landed if history.info.dax[device] else in_host
        asked = np.flatnonzero((history.flush_device == device) & (history.flush_result == 0))
        if not asked.size:
            continue
        row = np.arange(there.size)
        if len(history.devices) > 1:
            offset = history.store_offset
            row = row[(offset >= span.first_byte) & (offset < span.end_byte)]
        if bool(np.any(there[row][1:] < there[row][:-1])):
            row = row[np.argsort(there[row], kind="stable")]
        latest = np.maximum.accumulate(last[row])
        covered = np.searchsorted(there[row], history.flush_submit_ns[asked], "right")
        some = covered > 0
        asked, covered = asked[some], covered[some]
        broken = latest[covered - 1] > history.flush_ack_ns[asked]
        requests.append(asked[broken])
        # The store that reached the running maximum first is the one that was lost.
        worst = np.searchsorted(latest, latest[covered[broken] - 1], "left")
        stores.append(row[worst])
    if not requests:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty
    return np.concatenate(requests), np.concatenate(stores)


def acknowledgements_safe(history: History, writes: WriteSafety) -> I64:
    """When each acknowledgement is covered, int64[a].

    For a program: when all stores of its record are safe. A recording cannot see what its program
    still kept to itself: covered when the first flush submitted at or after the previous
    acknowledgement has completed with success."""
    if history.info.recorded:
        return _covered_by_flush(history)
    if not history.ack_t_ns.size:
        return history.ack_t_ns
    safe = np.full(history.info.writes + 1, -1, dtype=np.int64)
    safe[writes.write] = writes.whole_ns
    if bool(np.all(history.ack_high - history.ack_low == 1)):
        return safe[history.ack_low]
    bounds = np.stack([history.ack_low, history.ack_high], axis=1).ravel()
    return np.maximum.reduceat(safe, bounds)[::2]


def _covered_by_flush(history: History) -> I64:
    covered = np.full(history.ack_t_ns.size, NEVER, dtype=np.int64)
    for device in range(len(history.devices)):
        acks = np.flatnonzero(history.ack_device == device)
        previous = np.concatenate([np.full(1, -1, dtype=np.int64), history.ack_t_ns[acks][:-1]])
        good = np.flatnonzero((history.flush_device == device) & (history.flush_result == 0))
        submit, done = history.flush_submit_ns[good], history.flush_ack_ns[good]
        soonest = np.append(np.minimum.accumulate(done[::-1])[::-1], NEVER)
        covered[acks] = soonest[np.searchsorted(submit, previous, "left")]
    return covered


def uncovered(history: History, safe_ns: I64) -> StepFunction:
    """Acknowledged at or before an instant, and not covered at it."""
    late = np.flatnonzero(safe_ns > history.ack_t_ns)
    one = np.ones(late.size, dtype=np.int64)
    t = np.concatenate([history.ack_t_ns[late], safe_ns[late]])
    return from_changes(t, np.concatenate([one, -one]))
