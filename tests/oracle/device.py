"""The way of a flush: guest driver, virtio queue, the monitor's threads, host call (G1, G7, G8),
and what holds it up: a rate limiter (V3).

Reading: threads and queue are each device's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.oracle.clock import Clock, Rank
from tests.oracle.host import Host
from tests.oracle.inputs import MONITORS, OracleLimiter, ceil_div
from tests.oracle.outcome import FlushRequest, Outcome

Done = Callable[[bool], None]
Asked = tuple[FlushRequest, Done]
STOP_NS = 100_000_000


class Bucket:
    """Rule V3. Reading: what the bucket gained is counted when a token is asked for, be it in
    vain, and at no other instant."""

    def __init__(self, spec: OracleLimiter) -> None:
        self.spec = spec
        self.tokens, self.burst, self.since = spec.ops, spec.burst, 0

    def take(self, now: int) -> bool:
        self.gain(now)
        if self.burst:
            self.burst -= 1
        elif self.tokens:
            self.tokens -= 1
        else:
            return False
        return True

    def gain(self, now: int) -> None:
        ops, refill_ns = self.spec.ops, self.spec.refill_ns
        gained = (now - self.since) * ops // refill_ns
        self.tokens = min(ops, self.tokens + gained)
        self.since = now if self.tokens == ops else self.since + ceil_div(gained * refill_ns, ops)


@dataclass(eq=False, slots=True)
class Line:
    """The requests of one device."""

    device: int
    bucket: Bucket | None
    held_back: deque[Asked] = field(default_factory=deque)  # in the guest's driver
    on_queue: int = 0  # submitted, not acknowledged
    waiting: deque[Asked] = field(default_factory=deque)  # on the queue, for a thread
    busy_threads: int = 0
    stopped: bool = False  # it found no token, and nothing is taken from the queue


class Flushes:
    def __init__(self, driver: str, clock: Clock, host: Host, outcome: Outcome) -> None:
        self.clock, self.host, self.outcome = clock, host, outcome
        self.monitor = MONITORS[host.spec.monitor]
        depth = self.monitor.queue if host.spec.queue is None else host.spec.queue
        self.room = depth if driver == "concurrent" else 1
        limiters = [device.rate_limiter for device in outcome.devices]
        buckets = [None if spec is None else Bucket(spec) for spec in limiters]
        self.lines = [Line(number, bucket) for number, bucket in enumerate(buckets)]

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
        while line.waiting and line.busy_threads < self.monitor.threads and self.may_take(line):
            request, done = line.waiting.popleft()
            line.busy_threads += 1
            request.fsync_begun = self.clock.now
            returned = partial(self.returned, line, request, done)
            self.host.call(request.device, self.monitor.call, returned)

    def may_take(self, line: Line) -> bool:
        """Rule V3: there is a token for the next request, and it is used up. Without one the queue
        stops."""
        if line.stopped or line.bucket is None:
            return not line.stopped
        if line.bucket.take(self.clock.now):
            return True
        line.stopped = True
        again = self.clock.now + STOP_NS
        self.clock.at(again, Rank.LIMITER, (line.device,), partial(self.go_on, line))
        return False

    def go_on(self, line: Line) -> None:
        line.stopped = False
        self.start_threads(line)

    def returned(self, line: Line, request: FlushRequest, done: Done, success: bool) -> None:
        """Rule V3. Reading: with a reused result, what is submitted only because of these
        acknowledgements does not wait "by then"."""
        answered = [(request, done)]
        while self.monitor.reuses_result and line.waiting and self.may_take(line):
            answered.append(line.waiting.popleft())
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
