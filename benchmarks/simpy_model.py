"""The stack of `docs/model.md` as a plain SimPy program: one event for every store.

What crashsim's speed and results are compared with. Scope: one device, one vCPU with DAX, records
of one write, an `fdatasync` after every n of them or none, the periodic flusher, a host file system
with a journal, a disk with a write pipe and shared FLUSHes, with or without power-loss protection.
Within that scope the results are exact to the nanosecond. It shares no code with crashsim.

Events of one instant run in the order of their priority: the disk, the steps of an fsync (SimPy's
own events), stores that begin, the flusher, and the rest of the guest. A store that begins at the
very instant of a snapshot is therefore in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import simpy
from simpy.events import EventPriority

from benchmarks.simpy_ledger import PAGE_BYTES, Ledger

SECOND_NS = 1_000_000_000
WORD_BYTES = 8
IO_PAGES = 256
JOURNAL_BYTES = 8192
COMMIT_BYTES = 4096

_DISK, _STORE, _FLUSHER, _GUEST = map(EventPriority, (-1, 2, 3, 4))  # SimPy's own are 0 and 1
_MASK = (1 << 64) - 1

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class SimpyParameters:
    """The host and its disk; `bandwidth` in bytes a second, `writeback_ns` 0 for no flusher."""

    fault_ns: int
    flush_ns: int
    bandwidth: int
    plp: bool
    fua: bool
    writeback_ns: int
    expire_ns: int
    seed: int


@dataclass(frozen=True, slots=True)
class SimpyOutcome:
    """What the run came to. `values[i]` bytes are at risk of a power cut from `instants[i]` on; all
    instants are before `end_ns`.

    `bytes_written` counts pages, journal and commit blocks as they are submitted to the disk;
    `flushes` the requests of the guest; `guest_wait_ns` the time its syncs took.
    """

    instants: list[int]
    values: list[int]
    flushes: int
    bytes_written: int
    end_ns: int
    guest_wait_ns: int
    recovery_point_max_ns: int
    broken_promises: int


class _At(simpy.Event):
    """An event at a given delay and priority."""

    def __init__(self, env: simpy.Environment, delay_ns: float, priority: EventPriority) -> None:
        self.env = env
        self.callbacks = []
        self._ok = True
        self._value = None
        env.schedule(self, priority, delay_ns)


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _draws(seed: int, stream: str) -> Callable[[int], int]:
    """The n-th draw of a named stream."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    key = _mix(seed ^ name)
    return lambda n: _mix((key + (n + 1) * 0x9E3779B97F4A7C15) & _MASK)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


class _Disk:
    """One write pipe in front of a volatile cache; one FLUSH at a time, the next one shared."""

    def __init__(self, env: simpy.Environment, parameters: SimpyParameters, ledger: Ledger) -> None:
        self.env = env
        self.parameters = parameters
        self.ledger = ledger
        self.order = _draws(parameters.seed, "disk-order")
        self.batches = 0
        self.bytes_written = 0
        self.pipe_free_ns = 0
        self.cached: list[tuple[list[int], int]] = []
        self.flush: simpy.Event | None = None
        self.next_flush: simpy.Event | None = None

    def _reserve(self, size_bytes: int) -> int:
        """Start of a transfer, which occupies the pipe."""
        start_ns = max(int(self.env.now), self.pipe_free_ns)
        self.pipe_free_ns = start_ns + self._transfer_ns(size_bytes)
        self.bytes_written += size_bytes
        return start_ns

    def _transfer_ns(self, size_bytes: int) -> int:
        return _ceil_div(size_bytes * SECOND_NS, self.parameters.bandwidth)

    def write_pages(
        self, pages: list[int], watermark: int, completed: Callable[[list[int]], None]
    ) -> simpy.Event:
        """One batch, `pages` ascending; the event is its last completion."""
        base = self.batches << 32
        self.batches += 1
        ios = sorted(_merge(pages), key=lambda io: self.order(base + io[0]) >> 32)
        start_ns = self._reserve(len(pages) * PAGE_BYTES)
        done = self.env.event()
        sent_bytes = 0
        for io in ios:
            sent_bytes += len(io) * PAGE_BYTES
            at = _At(self.env, start_ns + self._transfer_ns(sent_bytes) - self.env.now, _DISK)
            at.callbacks.append(partial(self._completed, io, watermark, completed))
        at.callbacks.append(partial(_succeed, done))
        return done

    def _completed(
        self,
        io: list[int],
        watermark: int,
        completed: Callable[[list[int]], None],
        _event: simpy.Event,
    ) -> None:
        if self.parameters.plp:
            self.ledger.safe(int(self.env.now), io, watermark)
        else:
            self.cached.append((io, watermark))
        completed(io)

    def write_block(self, size_bytes: int, extra_ns: int = 0) -> simpy.Event:
        """A block of the file system's own; `extra_ns` makes it a FUA write."""
        end_ns = self._reserve(size_bytes) + self._transfer_ns(size_bytes)
        return _At(self.env, end_ns + extra_ns - self.env.now, _DISK)

    def request_flush(self) -> simpy.Event:
        if self.flush is None:
            return self._issue(self.env.event())
        if self.next_flush is None:
            self.next_flush = self.env.event()
        return self.next_flush

    def _issue(self, answered: simpy.Event) -> simpy.Event:
        self.flush = answered
        covered, self.cached = self.cached, []
        end = _At(self.env, self.parameters.flush_ns, _DISK)
        end.callbacks.append(lambda _event: self._flushed(covered))
        return answered

    def _flushed(self, covered: list[tuple[list[int], int]]) -> None:
        for io, watermark in covered:
            self.ledger.safe(int(self.env.now), io, watermark)
        assert self.flush is not None
        self.flush.succeed()
        waiting, self.flush, self.next_flush = self.next_flush, None, None
        if waiting is not None:
            self._issue(waiting)


def _succeed(done: simpy.Event, _event: simpy.Event) -> None:
    done.succeed()


def _merge(pages: list[int]) -> list[list[int]]:
    """Runs of neighbouring pages, cut every 256 pages from the start of a run."""
    ios: list[list[int]] = []
    last: list[int] = []
    for page in pages:
        if last and page == last[-1] + 1 and len(last) < IO_PAGES:
            last.append(page)
        else:
            last = [page]
            ios.append(last)
    return ios


class _PageCache:
    """The backing file's pages: which are dirty, which are under writeback, and the inode's age."""

    def __init__(self, env: simpy.Environment, disk: _Disk, parameters: SimpyParameters) -> None:
        self.env = env
        self.disk = disk
        self.parameters = parameters
        self.dirty: set[int] = set()
        self.writeback: set[int] = set()
        self.in_flight: dict[simpy.Event, None] = {}
        self.mtime_dirty = False
        self.age_start_ns: int | None = None
        self.guest: _Guest | None = None
        if parameters.writeback_ns:
            env.process(self._flusher())

    def dirtied(self, pages: range) -> None:
        """A store that began now found some of these clean."""
        self.dirty.update(pages)
        self.mtime_dirty = True
        if self.age_start_ns is None:
            self.age_start_ns = int(self.env.now)

    def _snapshot(self, pages: list[int]) -> simpy.Event:
        """Clean these pages, ascending, and submit their content as one batch."""
        assert self.guest is not None
        self.guest.bring_to(int(self.env.now))
        self.dirty.difference_update(pages)
        self.writeback.update(pages)
        done = self.disk.write_pages(
            pages, self.guest.stores, lambda io: self.writeback.difference_update(io)
        )
        self.in_flight[done] = None
        done.callbacks.append(lambda _event: self.in_flight.pop(done))
        return done

    def _flusher(self) -> Process:
        interval_ns = self.parameters.writeback_ns
        while True:
            yield _At(self.env, interval_ns, _FLUSHER)
            start_ns = self.age_start_ns
            if start_ns is None or self.env.now - start_ns < self.parameters.expire_ns:
                continue
            pages = sorted(self.dirty - self.writeback)
            if pages:
                self._snapshot(pages)
            if not self.dirty:
                self.age_start_ns = None

    def fsync(self) -> Process:
        in_flight = list(self.in_flight)
        busy = self.dirty & self.writeback
        ready = sorted(self.dirty - busy)
        journal, self.mtime_dirty = self.mtime_dirty, False
        waits = [self._snapshot(ready)] if ready else []
        if in_flight:
            yield self.env.all_of(in_flight)
        if busy:
            again = sorted((busy & self.dirty) - self.writeback)
            if again:
                self._snapshot(again)
            waits = list(self.in_flight)
        if waits:
            yield self.env.all_of(waits)
        if journal:
            yield self.disk.write_block(JOURNAL_BYTES)
        yield self.disk.request_flush()
        if journal and self.parameters.fua:
            yield self.disk.write_block(COMMIT_BYTES, self.parameters.flush_ns)
        elif journal:
            yield self.disk.write_block(COMMIT_BYTES)
            yield self.disk.request_flush()


class _Guest:
    """One vCPU and the virtio-pmem device below it.

    While a store's words land, the process already waits for what comes next; a snapshot that meets
    it divides the store and interrupts that wait, which is then planned again.
    """

    def __init__(self, env: simpy.Environment, cache: _PageCache, ledger: Ledger) -> None:
        self.env = env
        self.cache = cache
        self.ledger = ledger
        self.stores = 0
        self.flushes = 0
        self.broken_promises = 0
        self.wait_ns = 0
        self.blocked = False
        self.begin_ns = 0
        self.free_ns = 0
        self.current = (0, 0)
        self.rest: tuple[int, int, int] | None = None  # due, offset, length
        self.process: simpy.Process | None = None

    def bring_to(self, now_ns: int) -> None:
        """A snapshot is taken: divide the store in progress, plan again what has not begun."""
        if self.blocked:
            return
        if self.begin_ns <= now_ns < self.free_ns - 1:
            offset, length = self.current
            landed = now_ns - self.begin_ns + 1
            middle = (offset // WORD_BYTES + landed) * WORD_BYTES
            self.rest = (now_ns + 1, middle, offset + length - middle)
            self.free_ns = now_ns + 1
            self.ledger.divide(middle - offset)
        assert self.process is not None
        self.process.interrupt()

    def run(
        self,
        offsets: Sequence[int],
        lengths: Sequence[int],
        thinks: Sequence[int],
        every_records: int,
    ) -> Process:
        env, dirty, ledger = self.env, self.cache.dirty, self.ledger
        fault_ns = self.cache.parameters.fault_ns
        count = len(offsets)
        index = 0
        sync_due = False
        while True:
            try:
                if self.rest is not None:
                    due_ns, offset, length = self.rest
                elif sync_due:
                    yield _At(env, self.free_ns - env.now, _GUEST)
                    yield from self._sync()
                    sync_due = False
                    continue
                elif index == count:
                    yield _At(env, self.free_ns - env.now, _GUEST)
                    return
                else:
                    due_ns = self.free_ns + thinks[index]
                    offset, length = offsets[index], lengths[index]
                end = offset + length
                first, last = offset // PAGE_BYTES, (end - 1) // PAGE_BYTES
                if first == last:
                    clean = 0 if first in dirty else 1
                else:
                    clean = sum(page not in dirty for page in range(first, last + 1))
                begin_ns = due_ns + fault_ns * clean
                yield _At(env, begin_ns - env.now, _STORE)
            except simpy.Interrupt:
                continue
            self.begin_ns = begin_ns
            self.free_ns = begin_ns - (-end // WORD_BYTES) - offset // WORD_BYTES
            self.current = (offset, length)
            self.stores += 1
            if clean:
                self.cache.dirtied(range(first, last + 1))
            if self.rest is None:
                ledger.begin(begin_ns, index, self.stores, offset, length)
                index += 1
                sync_due = every_records > 0 and index % every_records == 0
            else:
                self.rest = None
                ledger.begin(begin_ns, index - 1, self.stores, offset, length)

    def _sync(self) -> Process:
        """`fdatasync`: one flush of the device, taken at once, acknowledged when fsync returns."""
        self.blocked = True
        self.ledger.settle()
        asked_ns = self.env.now
        self.flushes += 1
        yield from self.cache.fsync()
        self.wait_ns += int(self.env.now - asked_ns)
        self.broken_promises += self.ledger.anything_unsaved()
        self.free_ns = int(self.env.now)
        self.blocked = False


def simulate(
    offsets: Sequence[int],
    lengths: Sequence[int],
    thinks: Sequence[int],
    every_records: int,
    parameters: SimpyParameters,
) -> SimpyOutcome:
    """Run writes (bytes, bytes, ns) with a sync after every so many of them, 0 for none."""
    env = simpy.Environment()
    ledger = Ledger()
    disk = _Disk(env, parameters, ledger)
    cache = _PageCache(env, disk, parameters)
    guest = _Guest(env, cache, ledger)
    cache.guest = guest
    guest.process = env.process(guest.run(offsets, lengths, thinks, every_records))
    env.run(until=guest.process)
    ledger.close(int(env.now))
    return SimpyOutcome(
        instants=ledger.instants,
        values=ledger.values,
        flushes=guest.flushes,
        bytes_written=disk.bytes_written,
        end_ns=int(env.now),
        guest_wait_ns=guest.wait_ns,
        recovery_point_max_ns=ledger.recovery_point_max_ns,
        broken_promises=guest.broken_promises,
    )
