"""A virtio-pmem device under QEMU (Rules G1, G3, G5, V1, V2, V7).

The device's duty: every write completed before a flush was requested persists before the flush
completes (V2). QEMU's way: each request is one `fsync` of the whole backing file (a request has no
range, G1) in a pool of 64 threads; requests are neither ordered nor merged, nothing is retried, and
a failure is answered with 1 (V1). So a flush persists everybody's stores (G5), and nothing but a
flush does: flushing CPU caches makes no store durable, and MAP_SYNC is refused (G3). The pool is
one device's here; QEMU's main loop shares one among all devices, which matters only beyond 64
flushes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from crashsim.engine.history import NEVER
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64

POOL_THREADS = 64


class FsyncPort(Protocol):
    """The host: fsync of a device's backing file; `done(result)` at its return."""

    def fsync(self, device: int, done: Callable[[int], None]) -> None: ...
    def fsync_alone(self, device: int, work: Work) -> tuple[I64, I64]: ...


class NowPort(Protocol):
    @property
    def now(self) -> int: ...


class FlushLog:
    """Life of every flush request, one list a column."""

    __slots__ = ("ack_ns", "asked_ns", "begin_ns", "device", "result", "submit_ns", "vcpu")

    def __init__(self) -> None:
        self.device: list[int] = []
        self.vcpu: list[int] = []
        self.asked_ns: list[int] = []
        self.submit_ns: list[int] = []
        self.begin_ns: list[int] = []
        self.ack_ns: list[int] = []
        self.result: list[int] = []


class VirtioPmem:
    """One device's queue."""

    __slots__ = ("_busy", "_clock", "_device", "_host", "_log", "_queue")

    def __init__(self, clock: NowPort, device: int, host: FsyncPort, log: FlushLog) -> None:
        self._clock = clock
        self._device = device
        self._host = host
        self._log = log
        self._busy = 0
        self._queue: deque[tuple[int, Callable[[int], None]]] = deque()

    def submit(self, vcpu: int, asked_ns: int, done: Callable[[int], None]) -> None:
        """A request arrives; `done(result)` is its acknowledgement."""
        log = self._log
        request = len(log.device)
        log.device.append(self._device)
        log.vcpu.append(vcpu)
        log.asked_ns.append(asked_ns)
        log.submit_ns.append(self._clock.now)
        log.begin_ns.append(NEVER)
        log.ack_ns.append(NEVER)
        log.result.append(-1)
        if self._busy < POOL_THREADS:
            self._begin(request, done)
        else:
            self._queue.append((request, done))

    def submit_alone(self, vcpu: int, work: Work) -> I64:
        """Flushes of a guest that is alone, see `PageCache.fsync_alone`; when each is
        acknowledged."""
        if self._busy:
            return work.pages[:0]
        begin_ns, end_ns = self._host.fsync_alone(self._device, work)
        n, log, begin = end_ns.size, self._log, begin_ns.tolist()
        log.device.extend([self._device] * n)
        log.vcpu.extend([vcpu] * n)
        log.asked_ns.extend(begin)
        log.submit_ns.extend(begin)
        log.begin_ns.extend(begin)
        log.ack_ns.extend(end_ns.tolist())
        log.result.extend([0] * n)
        return end_ns

    def _begin(self, request: int, done: Callable[[int], None]) -> None:
        self._busy += 1
        self._log.begin_ns[request] = self._clock.now

        def returned(result: int) -> None:
            self._log.ack_ns[request] = self._clock.now
            self._log.result[request] = result
            self._busy -= 1
            if self._queue:
                self._begin(*self._queue.popleft())
            done(result)

        self._host.fsync(self._device, returned)
