"""A kernel's clock: ticks, timers that fire late, time stamps as coarse as ticks (Rules G4, G6, H6,
H11, H16).

Contract: ticks begin at instant 0. A timer never fires early, and the further away it is the
coarser is the place where it is kept (Linux `kernel/time/timer.c`, `calc_wheel_index`); a journal's
timer rounds up to whole seconds before that (`fs/jbd2/transaction.c`, `round_jiffies_up`). A tick
of 0 is a clock without coarseness.

Stores are data, and the clock learns of them late (`guest/vcpu.py`): `Anticipated` is what is due a
while after the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from crashsim.engine.clock import Clock
from crashsim.engine.history import NEVER

SECOND_NS = 1_000_000_000
_LEVEL_TICKS = 63  # of the wheel's first level; each next one is 8 times as long and as coarse


@dataclass(frozen=True, slots=True)
class Ticks:
    """How coarse a kernel's clock is, and when its first whole second is."""

    tick_ns: int
    second_phase_ns: int

    def timer_ns(self, t_ns: int, delay_ns: int) -> int:
        """When a timer that is set at `t_ns` fires."""
        if not self.tick_ns:
            return t_ns + delay_ns
        now = t_ns // self.tick_ns
        return self._wheel(now, now - (-delay_ns // self.tick_ns)) * self.tick_ns

    def commit_ns(self, t_ns: int, interval_ns: int) -> int:
        """When a journal commits a change made at `t_ns`; NEVER without an interval."""
        if not interval_ns:
            return NEVER
        tick = self.tick_ns
        if not tick:
            return t_ns + interval_ns
        now = t_ns // tick
        due_ns = (now - (-interval_ns // tick)) * tick
        seconds = (due_ns - self.second_phase_ns) // SECOND_NS + 1
        second_ns = seconds * SECOND_NS + self.second_phase_ns
        return self._wheel(now, -(-second_ns // tick)) * tick

    def _wheel(self, now: int, expires: int) -> int:
        coarse = 1
        while expires - now >= _LEVEL_TICKS * coarse:
            coarse *= 8
        return (expires // coarse + 1) * coarse


@dataclass(slots=True)
class Stamps:
    """Whether time stamps are dirty: set by an event in a later tick than the last one before the
    flag was cleared."""

    _tick_ns: int
    _last_ns: int = -1
    bar_ns: int = 0  # earlier events change nothing
    since_ns: int | None = None  # the first event that made them dirty; None: clean

    def happened(self, first_ns: int | None, last_ns: int) -> None:
        """Events: the first that is at or after `bar_ns`, if any, and the last of all."""
        if last_ns > self._last_ns:
            self._last_ns = last_ns
        if first_ns is not None and (self.since_ns is None or first_ns < self.since_ns):
            self.since_ns = first_ns

    def clear(self) -> None:
        """The flag is read and cleared."""
        self.since_ns = None
        if self._tick_ns and self._last_ns >= 0:
            self.bar_ns = (self._last_ns // self._tick_ns + 1) * self._tick_ns


class Storer(Protocol):
    """Who stores in bulk (a vCPU): the clock learns late of it."""

    def catch_up(self) -> None:
        """Account for every store that has begun by now."""

    def split_at_snapshot(self) -> None:
        """A snapshot is being taken: split the store in progress, and plan what follows again."""

    def recheck_room(self) -> None:
        """A threshold changed: look at it before the next store."""

    def journal_aborted(self) -> None:
        """No store begins after this instant."""

    def next_begin_ns(self) -> int | None:
        """When the next planned store begins, None if none is."""


class Storers(list[Storer]):
    """Those that store to one memory."""

    def catch_up(self) -> None:
        for storer in self:
            storer.catch_up()

    def split_at_snapshot(self) -> None:
        for storer in self:
            storer.split_at_snapshot()

    def planned(self) -> Iterator[int]:
        """When stores are planned next."""
        for storer in self:
            begin_ns = storer.next_begin_ns()
            if begin_ns is not None:
                yield begin_ns


@dataclass(slots=True)
class Anticipated:
    """An act that is due a while after a first store, of which it is told too late.

    `due(t)`: when, for an event at `t`; never earlier for a later one. `first()`: the event, None
    if there was none. `act()` is called when it is due."""

    _clock: Clock
    _rank: int
    _due: Callable[[int], int]
    _first: Callable[[], int | None]
    _storers: Storers
    _act: Callable[[], None]
    _armed_ns: int = NEVER
    _armed_for_ns: int = NEVER

    def expect(self, t_ns: int) -> None:
        """An event has come at `t_ns`, or may come."""
        if t_ns >= self._armed_for_ns:
            return
        due_ns = self._due(t_ns)
        if self._clock.now <= due_ns < NEVER:
            self._armed_ns, self._armed_for_ns = due_ns, t_ns
            self._clock.at(due_ns, self._rank, self._look, due_ns)

    def again(self) -> None:
        """The event is history: look for the next one."""
        self._armed_ns = self._armed_for_ns = NEVER
        for t_ns in self._storers.planned():
            self.expect(t_ns)

    def _look(self, due_ns: int) -> None:
        if due_ns != self._armed_ns:
            return
        self._armed_ns = self._armed_for_ns = NEVER
        self._storers.catch_up()
        first_ns = self._first()
        if first_ns is None:
            self.again()
        elif self._due(first_ns) == self._clock.now:
            self._act()
        else:
            self.expect(first_ns)


class WakeUps:
    """When a flusher wakes (Rule H6). `idle`: from the first event on, for as long as `look()` says
    that anything is left to wait for; otherwise from `first_ns` on, for ever."""

    def __init__(
        self,
        clock: Clock,
        rank: int,
        timer: Callable[[int], int],
        first_ns: int | None,
        storers: Storers,
        look: Callable[[], bool],
    ) -> None:
        self._clock, self._rank, self._timer, self._look = clock, rank, timer, look
        self._idle = self._sleeps = first_ns is None
        self._first_ns: int | None = None  # an age began, and no wake-up was set
        self._soon = Anticipated(
            clock, rank, timer, lambda: self._first_ns, storers, self._wake_first
        )
        if first_ns is not None:
            clock.at(first_ns, rank, self._wake)

    def expect(self, t_ns: int) -> None:
        """A store is planned at `t_ns`."""
        if self._idle:
            self._soon.expect(t_ns)

    def aged(self, t_ns: int) -> None:
        """An age began."""
        if self._idle and (self._first_ns is None or t_ns < self._first_ns):
            self._first_ns = t_ns
            self._soon.expect(t_ns)

    def _wake_first(self) -> None:
        self._first_ns = None
        self._idle = False
        self._wake(None)

    def _wake(self, _: None) -> None:
        if self._look() or not self._sleeps:
            self._clock.at(self._timer(self._clock.now), self._rank, self._wake)
        else:
            self._idle = True
            self._soon.again()
