"""The disk (Rules D1, D2, D5; of Rule D4 the disk that never honours FLUSH; of Rule H5 the
unordered completions).

What survives a power cut: everything a completed FLUSH covered; with power-loss protection
everything completed. What may or may not: the rest of the cache, in any combination (D2).
`ignores_flush` answers a FLUSH and does nothing (D4).

Writes go through one pipe of a given bandwidth, in order of submission; within a batch the I/Os are
served in an order drawn from a random stream, so that completions are unordered (H5). FLUSH (D1):
one in flight; requests that arrive meanwhile share the next one; it covers what had *completed*
when it was issued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64, U64, Stream

SECOND_NS = 1_000_000_000
IO_PAGES_MAX = 256


def transfer_ns(pages: I64, bandwidth: int) -> I64:
    """Time to write that many pages, rounded up; exact in 64 bits for any device up to 16 TiB."""
    whole, rest = divmod(PAGE_BYTES * SECOND_NS, bandwidth)
    return pages * whole + -(-(pages * rest) // bandwidth)


@dataclass(slots=True, eq=False)
class Drive:
    """Service times and FLUSH sharing; the content of the cache follows from the History."""

    _clock: Clock
    bandwidth: int
    flush_ns: int
    fua: bool
    flushes: list[tuple[int, int]] = field(default_factory=list)  # issued, ends
    _free_ns: int = 0
    _call: list[Callable[[], None]] | None = None  # whom the FLUSH in flight will tell
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def write(self, size_bytes: int) -> tuple[int, int]:
        """Submit a write now; return when its transfer starts and ends."""
        now, start = self._clock.now, self._free_ns
        if now > start:
            start = now
        self._free_ns = start - (-size_bytes * SECOND_NS // self.bandwidth)
        return start, self._free_ns

    def flush(self, done: Callable[[], None]) -> None:
        """Rule D1: issue a FLUSH now, or share the next one; `done()` when it has ended."""
        if self._call is not None:
            self._waiting.append(done)
        else:
            self._issue([done])

    def idle(self) -> bool:
        """No write in the pipe and no FLUSH in flight."""
        return self._call is None and self._free_ns <= self._clock.now

    def flushed_uncontended(self, issue_ns: I64) -> None:
        """FLUSHes that met nothing else; ascending instants, none of which is in the future."""
        end_ns = issue_ns + self.flush_ns
        self.flushes.extend(zip(issue_ns.tolist(), end_ns.tolist(), strict=True))

    def _issue(self, call: list[Callable[[], None]]) -> None:
        self._call = call
        now = self._clock.now
        self.flushes.append((now, now + self.flush_ns))
        self._clock.at(now + self.flush_ns, Rank.DISK, self._flushed)

    def _flushed(self, _: None) -> None:
        call = self._call
        assert call is not None
        self._call = None
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._issue(waiting)
        for done in call:
            done()


def compose(
    batch: I64, page: I64, pages: I64, batch_start_ns: I64, bandwidth: int, order: Stream
) -> tuple[I64, I64, I64, I64]:
    """Merge each batch's runs of pages into I/Os and say when each completes (Rule H5).

    `batch`, `page`, `pages`: int64[r], runs of pages, ascending by (batch, first page).
    `batch_start_ns`: start of the transfer, indexed by batch number minus `batch[0]`. Returns
    (batch, first page, pages, completion ns), int64[i], ascending by (batch, first page)."""
    fresh = np.empty(page.size, dtype=bool)
    if page.size == 0:
        return batch, page, page, page
    fresh[0] = True
    np.not_equal(page[1:], page[:-1] + pages[:-1], out=fresh[1:])
    fresh[1:] |= batch[1:] != batch[:-1]
    run = np.flatnonzero(fresh)
    run_pages = np.add.reduceat(pages, run)
    first = page[run]
    if int(run_pages.max()) > IO_PAGES_MAX:
        parts = -(-run_pages // IO_PAGES_MAX)
        nth = np.arange(int(parts.sum()), dtype=np.int64)
        nth -= np.repeat(np.cumsum(parts) - parts, parts)
        left = np.repeat(run_pages, parts) - nth * IO_PAGES_MAX
        first = np.repeat(first, parts) + nth * IO_PAGES_MAX
        run = np.repeat(run, parts)
        run_pages = np.minimum(left, IO_PAGES_MAX)
    io_batch, io_first = batch[run], first
    local = io_batch - io_batch[0]
    complete = np.empty(run.size, dtype=np.int64)
    served = _service_order(local, io_batch, io_first, order)
    done = np.cumsum(run_pages[served])
    ordered = local[served]
    base = np.zeros(int(local[-1]) + 1, dtype=np.int64)
    last = np.flatnonzero(np.diff(ordered))  # the last I/O of each batch but the final one
    base[ordered[last + 1]] = done[last]
    done -= base[ordered]
    complete[served] = batch_start_ns[ordered] + transfer_ns(done, bandwidth)
    return io_batch, io_first, run_pages, complete


def _service_order(local: I64, batch: I64, first_page: I64, order: Stream) -> I64:
    """Positions of the I/Os in the order in which the disk serves them: by batch, then the draw's
    top 32 bits, then page."""
    counter = (batch << 32) + first_page
    draw = order.draws(counter) >> np.uint64(32)
    if local[-1] < 1 << 12 and local.size <= 1 << 20:
        key: U64 = local.astype(np.uint64) << np.uint64(52)
        key |= draw << np.uint64(20)
        key |= np.arange(local.size, dtype=np.uint64)
        key.sort()
        key &= np.uint64((1 << 20) - 1)
        return key.view(np.int64)
    return np.lexsort((draw, local)).astype(np.int64)
