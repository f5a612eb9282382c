"""A virtio-pmem device under each monitor (Rules G1, G3, G5, V1, V2, V3, V7).

The device's duty: every write completed before a flush was requested persists before the flush
completes (V2). The monitors' way: each request is one `fsync` or `msync` of the whole backing file,
for a request has no range (G1). QEMU calls in a pool of 64 threads, requests are neither ordered
nor merged (V1); the others call one after the other (V3). Nothing is retried, and a failure is
answered with the monitor's code. So a flush persists everybody's stores (G5), and nothing but a
flush does: flushing CPU caches makes no store durable, and MAP_SYNC is refused (G3).

Firecracker from 2026-03 on answers every request that it finds when its msync has returned with
that call's result, those too that were posted while it ran: such an acknowledgement may not cover
its stores (V3). The pool is one device's here; QEMU's main loop shares one among all devices, which
matters only beyond 64 flushes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.history import NEVER
from crashsim.engine.pages import column
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64
from crashsim.pagecache.cache import PageCache
from crashsim.vmm.machine import Monitor


@dataclass(slots=True)
class FlushLog:
    """Life of every flush request, one list a column (see `History`)."""

    device: list[int] = field(default_factory=list)
    vcpu: list[int] = field(default_factory=list)
    asked_ns: list[int] = field(default_factory=list)
    submit_ns: list[int] = field(default_factory=list)
    begin_ns: list[int] = field(default_factory=list)
    ack_ns: list[int] = field(default_factory=list)
    result: list[int] = field(default_factory=list)

    def columns(self) -> list[I64]:
        """In the order of the fields."""
        return [column(getattr(self, f.name)) for f in fields(self)]

    def add(self, *columns: Iterable[int]) -> None:
        """Requests, column by column."""
        for f, values in zip(fields(self), columns, strict=True):
            getattr(self, f.name).extend(values)


@dataclass(slots=True, eq=False)
class VirtioPmem:
    """One device's queue."""

    _clock: Clock
    _device: int
    _host: PageCache
    _log: FlushLog
    _monitor: Monitor
    _limiter: TokenBucket | None = None
    _stopped: bool = False  # by the limiter
    _busy: int = 0
    _waiting: deque[tuple[int, Callable[[int], None]]] = field(default_factory=deque)

    def submit(self, vcpu: int, asked_ns: int, done: Callable[[int], None]) -> None:
        """A request arrives; `done(result)` is its acknowledgement."""
        self._waiting.append((len(self._log.device), done))
        now = self._clock.now
        self._log.add([self._device], [vcpu], [asked_ns], [now], [NEVER], [NEVER], [-1])
        self._go_on()

    def submit_uncontended(self, vcpu: int, work: Work) -> I64:
        """Flushes of a guest that is alone, see `PageCache.fsync_uncontended`; when each is
        acknowledged."""
        if self._busy or self._limiter is not None:
            return work.pages[:0]
        begin_ns, end_ns = self._host.fsync_uncontended(self._device, self._monitor.datasync, work)
        n, begin = end_ns.size, begin_ns.tolist()
        who, vcpus = [self._device] * n, [vcpu] * n
        self._log.add(who, vcpus, begin, begin, begin, end_ns.tolist(), [0] * n)
        return end_ns

    def _go_on(self) -> None:
        """Calls for requests that wait, as far as there are threads and tokens."""
        while self._busy < self._monitor.threads and self._may_take():
            self._begin(*self._waiting.popleft())

    def _may_take(self) -> bool:
        """Whether a request can be taken from the queue; without a token that stops for a while."""
        if self._stopped or not self._waiting:
            return False
        if self._limiter is not None and not self._limiter.take(self._clock.now):
            self._stopped = True
            rank = Rank.LIMITER + self._device
            self._clock.at(self._clock.now + STOPPED_NS, rank, self._go_on_again)
            return False
        return True

    def _go_on_again(self, _: None) -> None:
        self._stopped = False
        self._go_on()

    def _begin(self, request: int, done: Callable[[int], None]) -> None:
        self._busy += 1
        self._log.begin_ns[request] = self._clock.now

        def returned(ok: bool) -> None:
            self._busy -= 1
            result = 0 if ok else self._monitor.error
            served = [(request, done)]
            if self._monitor.reuses_result:
                served += self._reused()
            else:
                self._go_on()
            for one, _ in served:
                self._log.ack_ns[one] = self._clock.now
                self._log.result[one] = result
            for _, acknowledged in served:
                acknowledged(result)

        self._host.fsync(self._device, self._monitor.datasync, returned)

    def _reused(self) -> list[tuple[int, Callable[[int], None]]]:
        """Requests that get the result of a call that began before they were posted."""
        found = []
        while self._may_take():
            found.append(self._waiting.popleft())
        return found


STOPPED_NS = 100_000_000


@dataclass(slots=True)
class TokenBucket:
    """`ops` tokens, all of which come back within `refill_ns`."""

    ops: int
    refill_ns: int
    burst: int
    _tokens: int = field(init=False)
    _since_ns: int = 0  # up to when what was gained is in the bucket

    def __post_init__(self) -> None:
        self._tokens = self.ops

    def take(self, now_ns: int) -> bool:
        """A token, if there is one; instants never go back."""
        if self.burst:
            self.burst -= 1
            return True
        gained = (now_ns - self._since_ns) * self.ops // self.refill_ns
        self._tokens += gained
        if self._tokens >= self.ops:
            self._tokens, self._since_ns = self.ops, now_ns
        else:
            self._since_ns += -(-gained * self.refill_ns // self.ops)
        if not self._tokens:
            return False
        self._tokens -= 1
        return True
