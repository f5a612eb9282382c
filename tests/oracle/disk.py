"""The disk: one pipe for writes, one FLUSH at a time, a volatile cache (L4) and media (L5).

A completed write is in L4. A FLUSH that ends puts into L5 what L4 held when it was issued (D1),
unless the disk ignores FLUSH.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.inputs import PAGE_BYTES, OracleDisk, ceil_div
from tests.oracle.layers import Version
from tests.oracle.outcome import DiskFlush, Io, Outcome

IO_PAGES = 256
WRITE, FLUSH = 0, 1  # the order of completions at one instant


@dataclass(eq=False, slots=True)
class Submitted:
    """A batch on its way: `content` is known when the instant of its snapshot has passed."""

    number: int
    pages: list[int]
    content: dict[int, dict[int, Version]] = field(default_factory=dict)


def merge(pages: list[int]) -> list[list[int]]:
    """Rule H5: neighbours become one I/O, cut every 256 pages from the start of the run."""
    runs: list[list[int]] = []
    for page in sorted(pages):
        if runs and runs[-1][-1] == page - 1 and len(runs[-1]) < IO_PAGES:
            runs[-1].append(page)
        else:
            runs.append([page])
    return runs


class Disk:
    def __init__(self, spec: OracleDisk, seed: int, clock: Clock, outcome: Outcome) -> None:
        self.spec = spec
        self.seed = seed
        self.clock = clock
        self.outcome = outcome
        self.pipe_free = 0
        self.flushing = False
        self.next_flush: list[Callable[[], None]] = []

    def write_time(self, size_bytes: int) -> int:
        return ceil_div(size_bytes * 10**9, self.spec.bandwidth)

    def occupy(self, size_bytes: int) -> int:
        """Takes the pipe for a write submitted now; returns the instant at which it starts."""
        start = max(self.clock.now, self.pipe_free)
        self.pipe_free = start + self.write_time(size_bytes)
        return start

    def write_batch(self, batch: Submitted, done: Callable[[list[int]], None]) -> None:
        """`done` gets the pages of each I/O as it completes."""
        runs = merge(batch.pages)
        runs.sort(key=lambda run: (self.place(batch.number, run[0]), run[0]))
        start = self.occupy(len(batch.pages) * PAGE_BYTES)
        served = 0
        for run in runs:
            served += len(run) * PAGE_BYTES
            instant = start + self.write_time(served)
            self.outcome.ios.append(Io(batch.number, run[0], len(run), instant))
            self.clock.at(instant, Rank.DISK, (WRITE,), partial(self.completed, batch, run, done))

    def place(self, batch: int, first_page: int) -> int:
        """Where an I/O of a batch stands in the order in which they are served."""
        return draw(self.seed, "disk-order", batch * 2**32 + first_page) >> 32

    def completed(
        self, batch: Submitted, run: list[int], done: Callable[[list[int]], None]
    ) -> None:
        for page in run:
            self.outcome.layers.move(self.clock.now, "L4", batch.content[page])
        done(run)

    def write_block(self, size_bytes: int, fua: bool, done: Callable[[], None]) -> None:
        """A journal or commit block. Reading: FUA holds the pipe for its write time only."""
        self.outcome.journal_bytes += size_bytes
        instant = self.occupy(size_bytes) + self.write_time(size_bytes)
        instant += self.spec.flush_ns if fua else 0
        self.clock.at(instant, Rank.DISK, (WRITE,), done)

    def flush(self, done: Callable[[], None]) -> None:
        """Rule D1: requests that come while a FLUSH is in flight share the next."""
        self.next_flush.append(done)
        if not self.flushing:
            self.issue()

    def issue(self) -> None:
        sharing, self.next_flush = self.next_flush, []
        self.flushing = True
        layers = self.outcome.layers
        covered = [layers.page("L4", page) for page in sorted(layers.content["L4"])]
        ended = self.clock.now + self.spec.flush_ns
        self.outcome.disk_flushes.append(DiskFlush(self.clock.now, ended))
        self.clock.at(ended, Rank.DISK, (FLUSH,), lambda: self.flushed(covered, sharing))

    def flushed(self, covered: list[dict[int, Version]], sharing: list[Callable[[], None]]) -> None:
        if not self.spec.ignores_flush:
            for content in covered:
                self.outcome.layers.move(self.clock.now, "L5", content)
        self.flushing = False
        if self.next_flush:
            self.issue()
        for done in sharing:
            done()
