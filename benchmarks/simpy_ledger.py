"""What is at risk of a power cut, kept byte run by byte run: the books of `simpy_model`.

For every page a sorted list of disjoint runs whose latest store is not safe yet, and for every
write the number of its parts that are not safe. A store that begins stays *open* until the next
thing the vCPU does, because a snapshot may still divide it; what becomes safe meanwhile waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

PAGE_BYTES = 4096

Run = tuple[int, int, int]  # start and end in the page, number of the store


class Ledger:
    """At-risk bytes as a step function, and the age of the oldest unsaved write."""

    def __init__(self) -> None:
        self.instants: list[int] = []
        self.values: list[int] = []
        self.recovery_point_max_ns = 0
        self._at_risk_bytes = 0
        self._runs: dict[int, list[Run]] = {}
        self._parts: dict[int, deque[tuple[int, int]]] = {}  # page -> (store, write), not safe
        self._unsafe_parts: list[int] = []  # by write
        self._unsaved: deque[tuple[int, int]] = (
            deque()
        )  # (write, begin), some of them saved already
        self._open: tuple[int, int, int, int, int] | None = None
        self._waiting: list[tuple[int, list[int], int]] = []

    def begin(self, begin_ns: int, write: int, store: int, offset: int, length: int) -> None:
        """A store begins; `write` and `store` never decrease."""
        if self._open is not None:
            self.settle()
        self._open = (begin_ns, write, store, offset, length)

    def divide(self, length: int) -> None:
        """Only the first `length` bytes of the open store have landed; the rest will follow."""
        assert self._open is not None
        begin_ns, write, store, offset, _ = self._open
        self._open = (begin_ns, write, store, offset, length)
        self._settle(more_follows=True)

    def settle(self) -> None:
        """The open store, if any, was not divided."""
        if self._open is not None:
            self._settle(more_follows=False)

    def safe(self, now_ns: int, pages: list[int], watermark: int) -> None:
        """These pages hold all stores up to number `watermark` where a power cut keeps them."""
        if self._open is not None:
            self._waiting.append((now_ns, pages, watermark))
        else:
            self._safe(now_ns, pages, watermark)

    def anything_unsaved(self) -> bool:
        return bool(self._unsaved)

    def close(self, end_ns: int) -> None:
        """The run ends: nothing that happens at this instant or later is part of it."""
        self.settle()
        if self._unsaved:
            self._age(end_ns)
        inside = bisect_left(self.instants, end_ns)
        del self.instants[inside:], self.values[inside:]

    def _settle(self, more_follows: bool) -> None:
        assert self._open is not None
        begin_ns, write, store, offset, length = self._open
        self._open = None
        continued = write < len(self._unsafe_parts)
        if not continued:
            self._unsafe_parts.append(1)
            self._unsaved.append((write, begin_ns))
        self._store(begin_ns, write, store, offset, offset + length)
        if not more_follows:
            self._unsafe_parts[write] -= 1
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for now_ns, pages, watermark in waiting:
                self._safe(now_ns, pages, watermark)

    def _store(self, begin_ns: int, write: int, store: int, offset: int, end: int) -> None:
        page = offset // PAGE_BYTES
        base = page * PAGE_BYTES
        added = 0
        while True:
            stop = min(end - base, PAGE_BYTES)
            runs = self._runs.get(page)
            if runs is None:
                self._runs[page] = [(offset - base, stop, store)]
                self._parts[page] = deque([(store, write)])
                added += stop - (offset - base)
            else:
                added += _overlay(runs, offset - base, stop, store)
                self._parts[page].append((store, write))
            self._unsafe_parts[write] += 1
            base += PAGE_BYTES
            if base >= end:
                break
            page += 1
            offset = base
        if added:
            self._at_risk_bytes += added
            self._step(begin_ns)

    def _safe(self, now_ns: int, pages: Iterable[int], watermark: int) -> None:
        removed = 0
        for page in pages:
            runs = self._runs.get(page)
            if runs is None:
                continue
            parts = self._parts[page]
            while parts and parts[0][0] <= watermark:
                self._unsafe_parts[parts.popleft()[1]] -= 1
            if parts:
                removed += sum(end - start for start, end, store in runs if store <= watermark)
                runs[:] = [run for run in runs if run[2] > watermark]
            else:
                removed += sum(end - start for start, end, _ in runs)
                del self._runs[page], self._parts[page]
        if removed:
            self._at_risk_bytes -= removed
            self._step(now_ns)
        self._age(now_ns)

    def _age(self, now_ns: int) -> None:
        """Writes that are wholly safe leave; the oldest was unsaved until now."""
        unsaved, unsafe_parts = self._unsaved, self._unsafe_parts
        if unsaved:
            age_ns = now_ns - unsaved[0][1]
            if age_ns > self.recovery_point_max_ns:
                self.recovery_point_max_ns = age_ns
        while unsaved and not unsafe_parts[unsaved[0][0]]:
            unsaved.popleft()

    def _step(self, now_ns: int) -> None:
        """The value from now on; changes of one instant are one step, or none if they cancel."""
        instants, values = self.instants, self.values
        if instants and instants[-1] == now_ns:
            instants.pop()
            values.pop()
        if self._at_risk_bytes != (values[-1] if values else 0):
            instants.append(now_ns)
            values.append(self._at_risk_bytes)


def _overlay(runs: list[Run], start: int, end: int, store: int) -> int:
    """Put a run over the others; the number of bytes that were in none of them."""
    low = bisect_left(runs, (start,))
    if low and runs[low - 1][1] > start:
        low -= 1
    high = low
    covered = 0
    pieces: list[Run] = [(start, end, store)]
    while high < len(runs) and runs[high][0] < end:
        old_start, old_end, old_store = runs[high]
        covered += min(old_end, end) - max(old_start, start)
        if old_start < start:
            pieces.insert(0, (old_start, start, old_store))
        if old_end > end:
            pieces.append((end, old_end, old_store))
        high += 1
    runs[low:high] = pieces
    return end - start - covered
