"""The event loop: a heap of `(t_ns, rank, sequence)`.

Contract: events run in order of time, then rank, then the order in which they were scheduled;
nothing is ever scheduled in the past. An event cannot be cancelled: a handler that may be outdated
carries a token and looks at it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

from crashsim.engine.history import NEVER
from crashsim.errors import UsageError


class Rank(IntEnum):
    """Who goes first among events of one instant. Where there are several of a kind, their number
    is added: of the fsync, of the vCPU, of the device."""

    DISK = 0
    HOST = 1 << 40
    FLUSHER = 2 << 40
    EARLY = 3 << 40
    GUEST = 4 << 40
    COMMIT = 5 << 40
    GUEST_FLUSHER = 6 << 40
    BACKGROUND = 7 << 40
    LIMITER = 8 << 40
    HOST_JOURNAL = 9 << 40


class Clock:
    """Integer-nanosecond discrete-event loop."""

    __slots__ = ("_heap", "_sequence", "_until_ns", "now")

    def __init__(self) -> None:
        self.now = 0
        self._until_ns = NEVER
        self._heap: list[tuple[int, int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0

    def at(self, t_ns: int, rank: int, call: Callable[[Any], None], argument: Any = None) -> None:
        """Run `call(argument)` at `t_ns`."""
        self._sequence += 1
        heappush(self._heap, (t_ns, rank, self._sequence, call, argument))

    def quiet_until_ns(self) -> int:
        """The instant before which nothing is scheduled; a handler that knows that it would be the
        only one to act may move `now` on to any earlier instant."""
        return min(self._heap[0][0], self._until_ns) if self._heap else self._until_ns

    def end_now(self) -> None:
        """The run ends with this instant."""
        self._until_ns = self.now

    def run(self, until_ns: int | None, longest_ns: int = NEVER) -> None:
        """Run up to and including `until_ns`, or without one until somebody ends it; UsageError
        when that has not come by `longest_ns`."""
        last_ns = longest_ns if until_ns is None else until_ns
        self._until_ns = min(last_ns, self._until_ns)
        heap = self._heap
        while heap and heap[0][0] <= self._until_ns:
            self.now, _rank, _sequence, call, argument = heappop(heap)
            call(argument)
        if until_ns is not None or self._until_ns != longest_ns:
            self.now = self._until_ns
        elif heap:
            raise UsageError(
                f"the guest is not done after {longest_ns // 10**9:,} s of its time: "
                "give a duration, or less to do"
            )
