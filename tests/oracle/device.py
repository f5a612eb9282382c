"""The way of a flush: guest driver, virtio queue, the monitor's threads, host call (G1, G7, G8).

Reading: threads and queue are each device's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.oracle.clock import Clock
from tests.oracle.host import Host
from tests.oracle.inputs import MONITORS
from tests.oracle.outcome import FlushRequest, Outcome

Done = Callable[[bool], None]
Asked = tuple[FlushRequest, Done]


@dataclass(eq=False, slots=True)
class Line:
    """The requests of one device."""

    held_back: deque[Asked] = field(default_factory=deque)  # in the guest's driver
    on_queue: int = 0  # submitted, not acknowledged
    waiting: deque[Asked] = field(default_factory=deque)  # on the queue, for a thread
    busy_threads: int = 0


class Flushes:
    def __init__(self, driver: str, clock: Clock, host: Host, outcome: Outcome) -> None:
        self.clock, self.host, self.outcome = clock, host, outcome
        self.monitor = MONITORS[host.spec.monitor]
        depth = self.monitor.queue if host.spec.queue is None else host.spec.queue
        self.room = depth if driver == "concurrent" else 1
        self.lines = [Line() for _ in host.files]

    def ask(self, device: int, vcpu: int, done: Done) -> None:
        """`done(success)` is called at the instant of the acknowledgement."""
        request = FlushRequest(device, vcpu, self.clock.now)
        self.outcome.flush_requests.append(request)
        line = self.lines[device]
        line.held_back.append((request, done))
        if line.on_queue < self.room and len(line.held_back) == 1:
            self.submit(line)

    def submit(self, line: Line) -> None:
        """The first of those that the driver holds back goes onto the queue."""
        request, done = line.held_back.popleft()
        request.submitted = self.clock.now
        line.on_queue += 1
        device = self.outcome.devices[request.device]
        if device.kind == "virtio-blk" and device.cache == "unsafe":
            self.acknowledge(line, request, done, True)
            return
        line.waiting.append((request, done))
        self.start_threads(line)

    def start_threads(self, line: Line) -> None:
        while line.waiting and line.busy_threads < self.monitor.threads:
            request, done = line.waiting.popleft()
            line.busy_threads += 1
            request.fsync_begun = self.clock.now
            returned = partial(self.returned, line, request, done)
            self.host.call(request.device, self.monitor.call, returned)

    def returned(self, line: Line, request: FlushRequest, done: Done, success: bool) -> None:
        """Rule V3. Reading: with a reused result, what is submitted only because of these
        acknowledgements does not wait "by then"."""
        answered = [(request, done)]
        if self.monitor.reuses_result:
            answered += line.waiting
            line.waiting.clear()
        line.busy_threads -= 1
        self.start_threads(line)
        for one, its_done in answered:
            self.acknowledge(line, one, its_done, success)

    def acknowledge(self, line: Line, request: FlushRequest, done: Done, success: bool) -> None:
        """Rules G7 and G8: there is room for one more."""
        request.acknowledged = self.clock.now
        request.result = 0 if success else self.monitor.error
        line.on_queue -= 1
        if line.held_back:
            self.submit(line)
        done(success)

    def one_after_another(self, device: int, vcpu: int, count: int, done: Done) -> None:
        """Each is asked for when the last is acknowledged; a failure does not stop the rest."""
        self._chain(device, vcpu, count, True, done)

    def _chain(self, device: int, vcpu: int, count: int, success: bool, done: Done) -> None:
        if count == 0:
            done(success)
            return
        self.ask(
            device,
            vcpu,
            lambda ok: self._chain(device, vcpu, count - 1, success and ok, done),
        )

    def together(self, device: int, vcpu: int, count: int, done: Done) -> None:
        """All are asked for now; `done` when the last is acknowledged."""
        results: list[bool] = []

        def one(ok: bool) -> None:
            results.append(ok)
            if len(results) == count:
                done(all(results))

        for _ in range(count):
            self.ask(device, vcpu, one)
