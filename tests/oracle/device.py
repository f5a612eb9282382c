"""The way of a flush: guest driver, virtio queue, the VMM's 64 threads, host fsync (G1, G7, V1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from tests.oracle.clock import Clock
from tests.oracle.host import Host
from tests.oracle.outcome import FlushRequest, Outcome

THREADS = 64

Done = Callable[[bool], None]


class Flushes:
    def __init__(
        self, driver: str, devices: int, clock: Clock, host: Host, outcome: Outcome
    ) -> None:
        self.one_at_a_time = driver != "concurrent"
        self.clock, self.host, self.outcome = clock, host, outcome
        self.outstanding = [False] * devices
        self.held_back: list[deque[tuple[FlushRequest, Done]]] = [deque() for _ in range(devices)]
        self.busy_threads = 0
        self.queue: deque[tuple[FlushRequest, Done]] = deque()

    def ask(self, device: int, vcpu: int, done: Done) -> None:
        """`done(success)` is called at the instant of the acknowledgement."""
        request = FlushRequest(device, vcpu, self.clock.now)
        self.outcome.flush_requests.append(request)
        if self.one_at_a_time and self.outstanding[device]:
            self.held_back[device].append((request, done))
        else:
            self.submit(request, done)

    def submit(self, request: FlushRequest, done: Done) -> None:
        self.outstanding[request.device] = True
        request.submitted = self.clock.now
        self.queue.append((request, done))
        self.start_threads()

    def start_threads(self) -> None:
        while self.queue and self.busy_threads < THREADS:
            request, done = self.queue.popleft()
            self.busy_threads += 1
            request.fsync_begun = self.clock.now
            self.host.fsync(request.device, partial(self.acknowledge, request, done))

    def acknowledge(self, request: FlushRequest, done: Done, success: bool) -> None:
        request.acknowledged = self.clock.now
        request.result = 0 if success else 1
        self.busy_threads -= 1
        self.start_threads()
        self.outstanding[request.device] = False
        if self.held_back[request.device]:
            self.submit(*self.held_back[request.device].popleft())
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
