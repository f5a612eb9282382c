"""Losses where a disk loses again what it had kept (Rule D4: damaged pages, a dead disk).

Contract: a store is safe from one instant on, except in the intervals in which its page is damaged
or its disk dead. So writes are unsafe in several intervals, and every loss is worked out from
these, slowly and exactly; with one interval each the answers are those of `power.per_write`. Such a
loss concerns what is kept by the disk: failures that keep the host's memory have it from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import split, words
from crashsim.engine.streams import I64
from crashsim.power.per_write import WriteSafety, attempts
from crashsim.power.safety import Safety, Stage
from crashsim.power.steps import Ramps, StepFunction, from_changes

_BY_THE_DISK = (Stage.SUBMITTED, Stage.COMPLETED, Stage.DURABLE)


class LostAgain(NamedTuple):
    """Of pages [low, high) nothing stored up to `t_ns` is kept in [t_ns, until_ns). int64[k], by
    t."""

    t_ns: I64
    low_page: I64
    high_page: I64
    until_ns: I64


class Intervals(NamedTuple):
    """[start, end) in which something numbered `key` is not safe. int64[m], disjoint, by key and
    start."""

    key: I64
    start: I64
    end: I64


def lost_again(history: History, safety: Safety, stage: Stage) -> LostAgain | None:
    """What the disk loses again of what a stage keeps; None if nothing."""
    if stage not in _BY_THE_DISK:
        return None
    ios = np.flatnonzero(history.io_corrupted & (history.batch_failed[history.io_batch] == 0))
    t_ns = history.io_complete_ns[ios]
    page = history.io_first_page[ios] + history.io_pages[ios] - 1
    spans = [
        span
        for span, kind in zip(history.devices, history.info.media, strict=True)
        if kind == "file"
    ]
    # The next I/O of the page mends it, also one that was in flight already (`cache: none`).
    until = safety.in_file(page, history.batch_t_ns[history.io_batch[ios]] + 1)
    low, high = page, page + 1
    dead_ns = history.info.dead_ns
    if dead_ns != NEVER:
        first = np.array([span.first_page for span in spans], dtype=np.int64)
        size = np.array([span.pages for span in spans], dtype=np.int64)
        low, high = np.append(low, first), np.append(high, first + size)
        t_ns = np.append(t_ns, np.full(first.size, dead_ns))
        until = np.append(until, np.full(first.size, NEVER))
    some = np.flatnonzero(until > t_ns)
    if not some.size:
        return None
    order = some[np.argsort(t_ns[some], kind="stable")]
    return LostAgain(t_ns[order], low[order], high[order], until[order])


def gone(lost: LostAgain, page: I64, t_ns: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of which of these pages nothing is kept at an instant."""
    found = np.zeros(page.size, dtype=bool)
    for i in np.flatnonzero((lost.t_ns <= t_ns) & (t_ns < lost.until_ns)).tolist():
        found |= (page >= lost.low_page[i]) & (page < lost.high_page[i])
    return found


class UnsafeAgain:
    """The losses of one History and stage from which something is lost again."""

    def __init__(self, history: History, safety: Safety, lost: LostAgain, writes: WriteSafety):
        self._history = history
        self._lost = lost
        self._writes = writes
        pieces = split(history.store_offset, history.store_length)
        self._safe_ns = safety.of_pieces(pieces, history.store_t_ns)
        self._begin_ns = history.store_t_ns[pieces.row]
        order = np.lexsort((self._begin_ns, pieces.page))
        self._by_page = order
        self._pages = pieces.page[order]
        self._pieces = pieces
        which, at = self._hit()
        self._again = Intervals(which, lost.t_ns[at], lost.until_ns[at])  # of pieces
        position = np.full(history.info.writes, -1, dtype=np.int64)
        position[writes.write] = np.arange(writes.write.size)
        self._position = position[history.store_write[pieces.row]]
        self._unsafe = self._of_writes()

    def _hit(self) -> tuple[I64, I64]:
        """(piece, loss) of every piece that is lost again."""
        found: list[I64] = [np.empty(0, dtype=np.int64)]
        for i, pieces in enumerate(self._hit_by_each()):
            found.append((pieces << 32) | i)
        key = np.concatenate(found)
        return key >> 32, key & ((1 << 32) - 1)

    def _hit_by_each(self) -> Iterator[I64]:
        low, high = (np.searchsorted(self._pages, bound) for bound in self._lost[1:3])
        for first, last, t in zip(low, high, self._lost.t_ns, strict=True):
            here = self._by_page[first:last]
            yield here[self._begin_ns[here] <= t]

    def _of_writes(self) -> Intervals:
        """When each write, by its position, is not wholly safe."""
        writes, again = self._writes, self._again
        return joined(
            np.append(np.arange(writes.write.size), self._position[again.key]),
            np.append(writes.begin_ns, again.start),
            np.append(writes.whole_ns, again.end),
        )

    def unsaved(self) -> StepFunction:
        """Writes begun and not wholly safe."""
        one = np.ones(self._unsafe.key.size, dtype=np.int64)
        times = np.append(self._unsafe.start, self._unsafe.end)
        return from_changes(times, np.append(one, -one))

    def unsaved_at(self, t_ns: int) -> I64:
        """Positions of the writes that are not wholly safe at an instant."""
        unsafe = self._unsafe
        return unsafe.key[(unsafe.start <= t_ns) & (t_ns < unsafe.end)]

    def recovery_point(self) -> Ramps:
        """Age of the oldest unsaved write."""
        unsafe = self._unsafe
        begin = self._writes.begin_ns[unsafe.key]
        order = np.argsort(unsafe.start, kind="stable")
        waiting = list(
            zip(*(c[order].tolist() for c in (unsafe.start, unsafe.end, begin)), strict=True)
        )
        ramps: list[tuple[int, int, int]] = []
        open_now: list[tuple[int, int]] = []  # begin, end of the interval
        next_one = 0
        for t, until in _segments(unsafe.start, unsafe.end):
            while next_one < len(waiting) and waiting[next_one][0] <= t:
                heappush(open_now, (waiting[next_one][2], waiting[next_one][1]))
                next_one += 1
            while open_now and open_now[0][1] <= t:
                heappop(open_now)
            if not open_now:
                continue
            age = t - open_now[0][0]
            if ramps and ramps[-1][1] == t and ramps[-1][2] + t - ramps[-1][0] == age:
                ramps[-1] = (ramps[-1][0], until, ramps[-1][2])
            else:
                ramps.append((t, until, age))
        start, end, low = np.array(ramps, dtype=np.int64).reshape(-1, 3).T
        return Ramps(start, end, low)

    def uncovered(self, covered_ns: I64) -> StepFunction:
        """Acknowledged, and not covered: not yet, or its writes were lost again."""
        history = self._history
        order = np.argsort(history.ack_low, kind="stable")
        low, high = history.ack_low[order], history.ack_high[order]
        write = self._writes.write[self._position[self._again.key]]
        at = np.searchsorted(low, write, "right") - 1
        mine = np.flatnonzero((at >= 0) & (write < high[at])) if low.size else at[:0]
        ack = order[at[mine]]
        start = np.maximum(self._again.start[mine], history.ack_t_ns[ack])
        found = joined(
            np.append(np.arange(history.ack_t_ns.size), ack),
            np.append(history.ack_t_ns, start),
            np.append(covered_ns, self._again.end[mine]),
        )
        one = np.ones(found.key.size, dtype=np.int64)
        return from_changes(np.append(found.start, found.end), np.append(one, -one))

    def broken_promises(self) -> tuple[I64, I64, I64]:
        """(request, a store it covers that is lost again when it is acknowledged, until when)."""
        history = self._history
        landed = history.store_t_ns + words(history.store_offset, history.store_length) - 1
        if not all(history.info.dax):
            landed = self._in_memory(landed)
        found: list[tuple[int, int, int]] = []
        for i, hit in enumerate(self._hit_by_each()):
            if not hit.size:
                continue
            row = self._pieces.row[hit]
            first = int(row[np.argmin(landed[row])])
            t, until = int(self._lost.t_ns[i]), int(self._lost.until_ns[i])
            device = self._device(int(self._lost.low_page[i]))
            asked = (history.flush_device == device) & (history.flush_result == 0)
            asked &= (history.flush_ack_ns >= t) & (history.flush_ack_ns < until)
            asked &= history.flush_submit_ns >= landed[first]
            found.extend((request, first, until) for request in np.flatnonzero(asked).tolist())
        request, store, until_ns = np.array(found, dtype=np.int64).reshape(-1, 3).T
        request, at = np.unique(request, return_index=True)
        return request, store[at], until_ns[at]

    def _in_memory(self, landed: I64) -> I64:
        """When all of each store was in the device's memory (Rule G2)."""
        history = self._history
        copied = Safety(history, Stage.IN_HOST).of_pieces(self._pieces, history.store_t_ns)
        last = landed.copy()
        np.maximum.at(last, self._pieces.row, copied)
        for span, dax in zip(history.devices, history.info.dax, strict=True):
            if dax:
                mine = (history.store_offset >= span.first_byte) & (
                    history.store_offset < span.end_byte
                )
                last[mine] = landed[mine]
        return last

    def _device(self, page: int) -> int:
        spans = self._history.devices
        return next(i for i, d in enumerate(spans) if page < d.first_page + d.pages)

    def holes(self, end_ns: int) -> I64:
        """Positions of writes not safe at an instant of the run at which one begun later is."""
        return np.array(sorted(self._first_holes(end_ns)), dtype=np.int64)

    def hole_at(self, position: int, end_ns: int) -> tuple[int, int]:
        """An instant at which that write is not safe, and a later one that is."""
        return self._first_holes(end_ns)[position]

    def _first_holes(self, end_ns: int) -> dict[int, tuple[int, int]]:
        """For each hole its first instant, and the position of a later write that is safe then."""
        begin, unsafe = self._writes.begin_ns, self._unsafe
        events: dict[int, list[tuple[int, bool]]] = {}
        for key, start, end in zip(*(c.tolist() for c in unsafe), strict=True):
            events.setdefault(start, []).append((key, False))
            events.setdefault(end, []).append((key, True))
        is_safe = np.zeros(begin.size, dtype=bool)
        # The latest write that is safe, and the unsafe ones that are not known to be holes, oldest
        # first; entries that have changed since are skipped when they come up.
        safe: list[tuple[int, int]] = []
        waiting: list[tuple[int, int]] = []
        found: dict[int, tuple[int, int]] = {}
        for write in np.setdiff1d(np.arange(begin.size), unsafe.key).tolist():
            events.setdefault(int(begin[write]), []).append((write, True))
        for t in sorted(events):
            if t > end_ns:
                break
            for write, now_safe in events[t]:
                is_safe[write] = now_safe
                if now_safe:
                    heappush(safe, (-int(begin[write]), write))
                elif write not in found:
                    heappush(waiting, (int(begin[write]), write))
            while safe and not is_safe[safe[0][1]]:
                heappop(safe)
            while safe and waiting and waiting[0][0] < -safe[0][0]:
                _, write = heappop(waiting)
                if not is_safe[write] and write not in found:
                    found[write] = (t, safe[0][1])
        return found

    def torn(self, end_ns: int) -> I64:
        """Positions of writes of which a part is safe at an instant of the run and another not."""
        return np.array(sorted(self._first_torn(end_ns)), dtype=np.int64)

    def torn_at(self, position: int, end_ns: int) -> int:
        """The first instant at which that write is torn."""
        return self._first_torn(end_ns)[position]

    def _first_torn(self, end_ns: int) -> dict[int, int]:
        history = self._history
        attempt_of_row, write = attempts(history)
        attempt = attempt_of_row[self._pieces.row]
        count = np.bincount(attempt, minlength=write.size)
        unfinished = np.isin(write, history.info.unfinished_writes)
        count[unfinished] += 1  # the part that never began
        begin = np.full(write.size, NEVER, dtype=np.int64)
        np.minimum.at(begin, attempt, self._begin_ns)
        every = np.arange(attempt.size)
        unsafe = joined(
            np.append(every, self._again.key),
            np.append(begin[attempt], self._again.start),
            np.append(np.maximum(self._safe_ns, begin[attempt]), self._again.end),
        )
        of = attempt[unsafe.key]
        one = np.ones(of.size, dtype=np.int64)
        extra = np.flatnonzero(unfinished)
        key = np.concatenate([of, of, extra])
        t = np.concatenate([unsafe.start, unsafe.end, begin[extra]])
        change = np.concatenate([one, -one, np.ones(extra.size, dtype=np.int64)])
        order = np.lexsort((t, key))
        key, t = key[order], t[order]
        open_parts = np.cumsum(change[order])  # each group's sum is 0, but for unfinished ones
        open_parts -= np.searchsorted(extra, key)
        last = np.append((key[1:] != key[:-1]) | (t[1:] != t[:-1]), True)
        hit = np.flatnonzero(last & (open_parts > 0) & (open_parts < count[key]) & (t <= end_ns))
        position = np.full(history.info.writes, -1, dtype=np.int64)
        position[self._writes.write] = np.arange(self._writes.write.size)
        found: dict[int, int] = {}
        for where, instant in zip(position[write[key[hit]]].tolist(), t[hit].tolist(), strict=True):
            found[where] = min(instant, found.get(where, NEVER))
        return found


def joined(key: I64, start: I64, end: I64) -> Intervals:
    """The union of intervals, for each key."""
    some = end > start
    key, start, end = key[some], start[some], end[some]
    instants = np.unique(np.append(start, end))
    base = key * (instants.size + 1)
    low, high = (base + np.searchsorted(instants, column) for column in (start, end))
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order]) if order.size else high
    fresh = np.flatnonzero(np.append(True, low[1:] > high[:-1])[: low.size])
    last = np.append(fresh[1:], low.size)[: fresh.size] - 1
    whose = key[order][fresh]
    offset = whose * (instants.size + 1)
    return Intervals(whose, instants[low[fresh] - offset], instants[high[last] - offset])


def _segments(start: I64, end: I64) -> Iterator[tuple[int, int]]:
    """Between neighbouring instants at which anything changes."""
    instants = np.unique(np.append(start, end)).tolist()
    return pairwise(instants)
