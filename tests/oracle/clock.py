"""One event at a time, and the random draws of `docs/model.md`.

Reading: the order "in which they were scheduled" depends on how a program is built, so ties inside
a rank are settled by name, in the order in which the page lists them: rank 0 writes, then FLUSH;
rank 1 by the order in which the fsyncs, and the commits of the host itself, began; rank 2 the
periodic flusher, then early writeback, each by device; rank 3 vCPUs by number, then journal
commits, then the flushers of guests without DAX, each by device; rank 5 the rate limiters and
rank 6 the host's journal timers by device.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

MASK = 2**64 - 1


class Rank(IntEnum):
    DISK = 0
    HOST = 1
    FLUSHER = 2
    GUEST = 3
    BACKGROUND = 4
    LIMITER = 5
    JOURNAL = 6


@dataclass(eq=False, slots=True)
class Event:
    instant: int
    action: Callable[[], None]
    cancelled: bool = False


class Clock:
    """The run goes on until `end` (everything at `end` itself still happens)."""

    def __init__(self, end: int | None) -> None:
        self.now = 0
        self.end = end
        self._heap: list[tuple[int, Rank, tuple[int, ...], int, Event]] = []
        self._sequence = 0

    def at(
        self, instant: int, rank: Rank, order: tuple[int, ...], action: Callable[[], None]
    ) -> Event:
        assert instant >= self.now, "an event in the past"
        event = Event(instant, action)
        self._sequence += 1
        heapq.heappush(self._heap, (instant, rank, order, self._sequence, event))
        return event

    def run(self, end_of_instant: Callable[[], None]) -> int:
        """Returns the instant of the end; `end_of_instant` is called before time moves on."""
        while self._heap and (self.end is None or self._heap[0][0] <= self.end):
            instant, _, _, _, event = heapq.heappop(self._heap)
            if event.cancelled:
                continue
            if instant > self.now:
                end_of_instant()
                self.now = instant
            event.action()
        end_of_instant()
        assert self.end is not None, "nothing left to happen, and a vCPU still waits"
        return self.end


def mix(value: int) -> int:
    """The finaliser of splitmix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def draw(seed: int, stream: str, n: int) -> int:
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    key = mix((seed ^ name) & MASK)
    return mix((key + (n + 1) * 0x9E3779B97F4A7C15) & MASK)
