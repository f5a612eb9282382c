"""The disk: one pipe for writes, one FLUSH at a time, a volatile cache (L4) and media (L5).

A completed write is in L4, unless it failed (H14) or its I/O was shorn there (D4). A FLUSH that
ends puts into L5 what L4 held when it was issued (D1), unless the disk ignores it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.inputs import PAGE_BYTES, OracleDisk, OracleFault, ceil_div
from tests.oracle.layers import Version
from tests.oracle.outcome import DiskFlush, Io, Outcome

IO_PAGES = 256
WRITE, FLUSH = 0, 1  # the order of completions at one instant


@dataclass(eq=False, slots=True)
class Submitted:
    """A batch on its way: `content` is known when the instant of its snapshot has passed, the
    pages of it that `never_arrive` at once. A direct write (V9) takes its content from L1."""

    number: int
    device: int
    pages: list[int]
    source: str = "L2"
    content: dict[int, dict[int, Version]] = field(default_factory=dict)
    failed: bool = False
    never_arrive: set[int] = field(default_factory=set)


Written = Callable[[Submitted, list[int], bool], None]


def merge(pages: list[int]) -> list[list[int]]:
    """Rule H5: neighbours become one I/O, cut every 256 pages from the start of the run."""
    runs: list[list[int]] = []
    for page in sorted(pages):
        if runs and runs[-1][-1] == page - 1 and len(runs[-1]) < IO_PAGES:
            runs[-1].append(page)
        else:
            runs.append([page])
    return runs


def use_up(instants: list[int], now: int) -> bool:
    """Takes out the instants that lie at or before now; whether there was one."""
    due = [instant for instant in instants if instant <= now]
    for instant in due:
        instants.remove(instant)
    return bool(due)


class Disk:
    def __init__(
        self,
        spec: OracleDisk,
        write_errors: tuple[int, ...],
        seed: int,
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        self.spec = spec
        self.seed = seed
        self.clock = clock
        self.outcome = outcome
        self.pipe_free = 0
        self.flushing = False
        self.next_flush: list[Callable[[], None]] = []
        self.commits: set[int] = set()  # pages whose commit block is in L4
        self.write_errors, self.to_shear = list(write_errors), list(spec.shorn.at)
        self.outcome.unfired_write_errors = list(write_errors)
        self.outcome.unfired_shorn = list(spec.shorn.at)
        self.outcome.unfired_ignored_flushes = list(spec.ignored_flush.at)

    def write_time(self, size_bytes: int) -> int:
        return ceil_div(size_bytes * 10**9, self.spec.bandwidth)

    def occupy(self, size_bytes: int) -> int:
        """Takes the pipe for a write submitted now; returns the instant at which it starts."""
        start = max(self.clock.now, self.pipe_free)
        self.pipe_free = start + self.write_time(size_bytes)
        return start

    def struck(self, fault: OracleFault, stream: str, n: int) -> bool:
        numerator, denominator = fault.share
        return draw(self.seed, stream, n) * denominator < numerator * 2**64

    # --- writes ---------------------------------------------------------------------------------

    def write_batch(self, batch: Submitted, done: Written) -> None:
        """`done` gets the batch, the pages of each I/O as it completes, and whether it is the
        last."""
        runs = merge(batch.pages)
        runs.sort(key=lambda run: (self.place(batch.number, run[0]), run[0]))
        start = self.occupy(len(batch.pages) * PAGE_BYTES)
        self.decide(batch, runs)
        served = 0
        for run in runs:
            served += len(run) * PAGE_BYTES
            instant = start + self.write_time(served)
            self.outcome.ios.append(Io(batch.number, run[0], len(run), instant))
            completed = partial(self.completed, batch, run, run is runs[-1], done)
            self.clock.at(instant, Rank.DISK, (WRITE,), completed)

    def decide(self, batch: Submitted, runs: list[list[int]]) -> None:
        """What goes wrong with a batch whose end is known: batches end in the order in which they
        were submitted. Reading: an instant of `shorn` is used up by the batch, even if that
        fails."""
        ends = self.pipe_free
        batch.failed = use_up(self.write_errors, ends)
        last = max(runs)
        shorn = [run for run in runs if self.sheared(batch.number, run[0])]
        if use_up(self.to_shear, ends) and last not in shorn:
            shorn.append(last)
        batch.never_arrive = {run[-1] for run in shorn}
        if batch.failed:
            batch.never_arrive = set(batch.pages)

    def sheared(self, batch: int, first_page: int) -> bool:
        return self.struck(self.spec.shorn, "shorn", batch * 2**32 + first_page)

    def place(self, batch: int, first_page: int) -> int:
        """Where an I/O of a batch stands in the order in which they are served."""
        return draw(self.seed, "disk-order", batch * 2**32 + first_page) >> 32

    def completed(self, batch: Submitted, run: list[int], last: bool, done: Written) -> None:
        for page in run:
            if page not in batch.never_arrive:
                self.outcome.layers.move(self.clock.now, "L4", batch.content[page])
            elif not batch.failed:
                self.outcome.shorn_pages.append((batch.number, page))
        if last:
            use_up(self.outcome.unfired_write_errors, self.clock.now)
            use_up(self.outcome.unfired_shorn, self.clock.now)
            if batch.failed:
                self.outcome.failed_batches.append(batch.number)
        done(batch, run, last)

    def write_journal(self, size_bytes: int, done: Callable[[], None]) -> None:
        self.outcome.journal_bytes += size_bytes
        instant = self.occupy(size_bytes) + self.write_time(size_bytes)
        self.clock.at(instant, Rank.DISK, (WRITE,), done)

    def write_commit(self, size_bytes: int, pages: set[int], done: Callable[[], None]) -> None:
        """The commit block that covers these new pages. Reading: FUA holds the pipe for its write
        time only."""
        self.outcome.journal_bytes += size_bytes
        transferred = self.occupy(size_bytes) + self.write_time(size_bytes)
        self.clock.at(transferred, Rank.DISK, (WRITE,), partial(self.committed, "L4", pages))
        if self.spec.fua:
            durable = transferred + self.spec.flush_ns
            self.clock.at(durable, Rank.DISK, (WRITE,), partial(self.fua_ended, pages, done))
        else:
            self.clock.at(transferred, Rank.DISK, (WRITE,), done)

    def fua_ended(self, pages: set[int], done: Callable[[], None]) -> None:
        if not self.spec.ignores_flush:
            self.committed("L5", pages)
        done()

    def committed(self, layer: str, pages: set[int]) -> None:
        """Rule H13: the commit block of these pages has come so far."""
        self.commits |= pages
        for page in pages:
            self.outcome.committed[layer].setdefault(page, self.clock.now)

    # --- FLUSH ----------------------------------------------------------------------------------

    def flush(self, done: Callable[[], None]) -> None:
        """Rule D1: requests that come while a FLUSH is in flight share the next."""
        self.next_flush.append(done)
        if not self.flushing:
            self.issue()

    def issue(self) -> None:
        """Reading: a commit block that the FLUSH behind it leaves in L4 (an ignored one) is made
        durable by the next FLUSH that works, as any other write (D1)."""
        sharing, self.next_flush = self.next_flush, []
        self.flushing = True
        layers = self.outcome.layers
        covered = [layers.page("L4", page) for page in sorted(layers.content["L4"])]
        commits = set(self.commits)
        if self.is_ignored():
            covered, commits = [], set()
        ended = self.clock.now + self.spec.flush_ns
        self.outcome.disk_flushes.append(DiskFlush(self.clock.now, ended))
        self.clock.at(ended, Rank.DISK, (FLUSH,), lambda: self.flushed(covered, commits, sharing))

    def is_ignored(self) -> bool:
        """Rule D4, for the FLUSH that is issued now."""
        number = len(self.outcome.disk_flushes)
        scheduled = use_up(self.outcome.unfired_ignored_flushes, self.clock.now)
        ignored = scheduled or self.struck(self.spec.ignored_flush, "ignored-flush", number)
        if ignored:
            self.outcome.ignored_flushes.append(number)
        return ignored or self.spec.ignores_flush

    def flushed(
        self,
        covered: list[dict[int, Version]],
        commits: set[int],
        sharing: list[Callable[[], None]],
    ) -> None:
        for content in covered:
            self.outcome.layers.move(self.clock.now, "L5", content)
        self.committed("L5", commits)
        self.flushing = False
        if self.next_flush:
            self.issue()
        for done in sharing:
            done()
