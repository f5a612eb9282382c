"""What paces a vCPU: the event that it waits for, pauses of a throttled writer (Rule H7), and how
far ahead it is worth to look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crashsim.engine.clock import Clock

_IN_VAIN_MAX = 256  # windows that are done one by one before another try to do many

Call = Callable[[], None]


@dataclass(slots=True)
class Pending:
    """The one event that a vCPU waits for. A new one, or `void`, takes the place of the last."""

    _clock: Clock
    _rank: int
    due_ns: int = -1
    _token: int = 0
    _call: Call | None = None

    def at(self, t_ns: int, call: Call) -> None:
        """Wait for `t_ns`, then call."""
        self.due_ns, self._call = t_ns, call
        self._clock.at(t_ns, self._rank, self._fire, self._token)

    def look_at(self, t_ns: int, call: Call) -> None:
        """Call then, too, unless what is waited for is void by then."""
        token = self._token
        self._clock.at(t_ns, self._rank, lambda _: call() if token == self._token else None)

    def void(self) -> None:
        """What was waited for does not come."""
        self._token += 1

    def fire_now(self) -> None:
        """What is waited for comes now, once."""
        self.void()
        self._fire(self._token)

    def _fire(self, token: int) -> None:
        if token == self._token:
            self.due_ns = -1
            assert self._call is not None
            self._call()


@dataclass(slots=True)
class Throttle:
    """Pauses of a writer. `pause_ns` is to come behind the write under way."""

    pause_ns: int = 0
    total_ns: int = 0
    _from_ns: int = 0
    _until_ns: int = 0

    def begin(self, free_ns: int) -> int:
        """The pause begins, if one is to come; when it is over."""
        if self.pause_ns:
            self.total_ns += self.pause_ns
            self._from_ns, self._until_ns = free_ns, free_ns + self.pause_ns
            self.pause_ns = 0
            return self._until_ns
        return free_ns

    def stop(self, now_ns: int) -> None:
        """The run ends: what of a pause is left is none."""
        self.total_ns -= max(0, self._until_ns - max(now_ns, self._from_ns))


@dataclass(slots=True)
class Attempts:
    """How many windows and syncs to try at once."""

    _size: int = 0  # below 0: try later
    _in_vain: int = 1

    def next(self) -> int:
        """0: not yet."""
        if self._size < 0:
            self._size += 1
            return 0
        return max(1, self._size)

    def came(self, done: int, tried: int) -> None:
        """So many of those tried were done."""
        if done:
            self._in_vain = 1
            self._size = done if done < tried else 4 * done
        else:
            self._in_vain = min(2 * self._in_vain, _IN_VAIN_MAX)
            self._size = -self._in_vain
