"""A kernel's clock: its ticks, its timers, its time stamps, and the wake-ups of its flusher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.inputs import ceil_div

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Ticks:
    """`tick_ns` 0: a clock without coarseness. Whole seconds lie at `second_phase_ns` and so on."""

    tick_ns: int
    second_phase_ns: int

    def timer(self, t: int, delay_ns: int) -> int:
        """When a timer fires that is set at `t`."""
        if self.tick_ns == 0:
            return t + delay_ns
        now = t // self.tick_ns
        return wheel(now, now + ceil_div(delay_ns, self.tick_ns)) * self.tick_ns

    def commit_timer(self, t: int, delay_ns: int) -> int:
        """The same for a journal's, which is rounded up to a whole second first."""
        if self.tick_ns == 0:
            return t + delay_ns
        now = t // self.tick_ns
        expires = (now + ceil_div(delay_ns, self.tick_ns)) * self.tick_ns
        seconds = (expires - self.second_phase_ns) // SECOND + 1
        second = self.second_phase_ns + seconds * SECOND
        return wheel(now, ceil_div(second, self.tick_ns)) * self.tick_ns

    def round_up(self, t: int) -> int:
        return ceil_div(t, self.tick_ns) * self.tick_ns if self.tick_ns else t


def wheel(now: int, expires: int) -> int:
    """Both in ticks: a timer's expiry, rounded up to the granularity of its level."""
    granularity = 1
    while expires - now >= 63 * granularity:
        granularity *= 8
    return (expires // granularity + 1) * granularity


class Times:
    """Rules G4 and H11: a flag that events set, unless they fall into the tick of the last event
    at or before its last clearing."""

    def __init__(self, ticks: Ticks) -> None:
        self.tick_ns = ticks.tick_ns
        self.since: int | None = None  # the event that set it; None: the times are clean
        self.events: list[int] = []
        self.cleared: int | None = None

    @property
    def dirty(self) -> bool:
        return self.since is not None

    def event(self, b: int, always: bool = False) -> bool:
        """Something happened at `b`, now; whether it set the flag."""
        sets = not self.dirty and (always or self.is_later_tick(b))
        self.events.append(b)
        if sets:
            self.since = b
        return sets

    def is_later_tick(self, b: int) -> bool:
        if self.tick_ns == 0 or self.cleared is None:
            return True
        until = [event for event in self.events if event <= self.cleared]
        return not until or b // self.tick_ns > max(until) // self.tick_ns

    def clear(self, now: int) -> int | None:
        """Reads and clears the flag; since when it was dirty."""
        since, self.since, self.cleared = self.since, None, now
        return since

    def set_again(self, since: int) -> None:
        """A call failed that had cleared it."""
        self.since = since if self.since is None else min(since, self.since)


class Wakeups:
    """Rule H6: when a flusher wakes. `look()` is what it does then; whether it found, or left,
    something with an age. Reading: while it looks its wake-up counts as set."""

    def __init__(
        self,
        phase: str,
        ticks: Ticks,
        interval_ns: int,
        first_draw: tuple[int, int],  # seed and number
        clock: Clock,
        place: tuple[Rank, tuple[int, ...]],
        look: Callable[[], bool],
    ) -> None:
        self.ticks, self.interval_ns, self.clock = ticks, interval_ns, clock
        self.place, self.look = place, look
        self.idle, self.is_set = phase == "idle", False
        if interval_ns == 0 or self.idle:
            return
        first = ticks.timer(0, interval_ns)
        if phase == "random":
            seed, number = first_draw
            first = ticks.round_up(1 + draw(seed, "flusher-phase", number) % interval_ns)
        self.set(first)

    def age_started(self) -> None:
        if self.interval_ns and self.idle and not self.is_set:
            self.set(self.ticks.timer(self.clock.now, self.interval_ns))

    def set(self, instant: int) -> None:
        self.is_set = True
        self.clock.at(instant, *self.place, self.wake)

    def wake(self) -> None:
        any_age = self.look()
        self.is_set = False
        if any_age or not self.idle:
            self.set(self.ticks.timer(self.clock.now, self.interval_ns))
