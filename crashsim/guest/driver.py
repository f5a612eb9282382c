"""The guest's virtio-pmem driver (Rules G7, G8).

`concurrent` (Linux 5.3 on): a flush goes to the queue when it is asked for, as long as the
virtqueue has room; with the queue full it waits, and one waiter is woken for each acknowledgement
(G8).
`serialized` and `ordered`: one flush of the device is outstanding, the others wait in order of
asking, and none is merged with another. How data and preflush of one block request are ordered is
decided where the request becomes operations (`crashsim/guest/recording.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from crashsim.device.virtio_pmem import VirtioPmem
from crashsim.engine.clock import Clock
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64


@dataclass(slots=True, eq=False)
class Driver:
    """Flush requests of one device; `room`: those that the queue holds."""

    _clock: Clock
    _queue: VirtioPmem
    one_at_a_time: bool
    _room: int
    _outstanding: int = 0
    _waiting: deque[tuple[int, int, Callable[[int], None]]] = field(default_factory=deque)

    def flush(self, vcpu: int, done: Callable[[int], None]) -> None:
        """Ask for a device flush; `done(result)` at its acknowledgement."""
        if self._outstanding == (1 if self.one_at_a_time else self._room):
            self._waiting.append((vcpu, self._clock.now, done))
        else:
            self._submit(vcpu, self._clock.now, done)

    def flush_uncontended(self, vcpu: int, work: Work) -> I64:
        """Flushes of the only vCPU, one after the other; when each of those that nothing else
        comes between is acknowledged."""
        if self._outstanding:
            return work.pages[:0]
        return self._queue.submit_uncontended(vcpu, work)

    def _submit(self, vcpu: int, asked_ns: int, done: Callable[[int], None]) -> None:
        self._outstanding += 1

        def acknowledged(result: int) -> None:
            self._outstanding -= 1
            if self._waiting:
                self._submit(*self._waiting.popleft())
            done(result)

        self._queue.submit(vcpu, asked_ns, acknowledged)
