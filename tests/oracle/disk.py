"""The disk: one pipe for writes, one FLUSH at a time, a volatile cache (L4) and media (L5).

A completed write is in L4, unless it failed (H14) or its I/O was shorn or damaged there (D4). A
FLUSH that ends puts into L5 what L4 held when it was issued (D1), unless the disk ignores it. A
damaged page and a dead disk take out what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.oracle.clock import Clock, Rank, draw
from tests.oracle.inputs import PAGE_BYTES, OracleDisk, OracleFault, ceil_div
from tests.oracle.layers import SHADOWS, Version
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
    damaged: set[int] = field(default_factory=set)  # of these, what was there before goes, too


@dataclass(frozen=True, slots=True)
class Cached:
    """A page of L4 at the instant at which a FLUSH was issued."""

    page: int
    content: dict[int, Version]
    shadow: dict[int, Version]
    times_damaged: int


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
        self.on_way: list[Submitted] = []
        self.times_damaged: dict[int, int] = {}  # page -> how often
        self.dies: int | None = None  # known before it comes
        self.write_errors, self.to_shear = list(write_errors), list(spec.shorn.at)
        self.to_corrupt = list(spec.corrupted.at)
        self.outcome.unfired_write_errors = list(write_errors)
        self.outcome.unfired_shorn = list(spec.shorn.at)
        self.outcome.unfired_corrupted = list(spec.corrupted.at)
        self.outcome.unfired_ignored_flushes = list(spec.ignored_flush.at)
        if spec.dead.at:
            self.die_at(min(spec.dead.at))

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
        self.on_way.append(batch)
        served = 0
        for run in runs:
            served += len(run) * PAGE_BYTES
            instant = start + self.write_time(served)
            self.outcome.ios.append(Io(batch.number, run[0], len(run), instant))
            completed = partial(self.completed, batch, run, run is runs[-1], done)
            self.clock.at(instant, Rank.DISK, (WRITE,), completed)

    def decide(self, batch: Submitted, runs: list[list[int]]) -> None:
        """What goes wrong with a batch whose end is known: batches end in the order in which they
        were submitted. Reading: an instant of `shorn` or `corrupted` is used up by the batch, even
        if that fails; a page that is both shorn and damaged is damaged."""
        ends = self.pipe_free
        if self.struck(self.spec.dead, "dead", batch.number):
            self.die_at(ends)
        batch.failed = use_up(self.write_errors, ends) or self.dead_at(ends)
        shorn = self.last_pages(batch, runs, self.spec.shorn, "shorn", self.to_shear)
        damaged = self.last_pages(batch, runs, self.spec.corrupted, "corrupted", self.to_corrupt)
        batch.never_arrive, batch.damaged = shorn | damaged, damaged
        if batch.failed:
            batch.never_arrive, batch.damaged = set(batch.pages), set()

    def last_pages(
        self,
        batch: Submitted,
        runs: list[list[int]],
        fault: OracleFault,
        stream: str,
        instants: list[int],
    ) -> set[int]:
        """Rule D4: the last pages of the batch's I/Os that a fault strikes."""
        struck = {
            run[-1] for run in runs if self.struck(fault, stream, batch.number * 2**32 + run[0])
        }
        if use_up(instants, self.pipe_free):
            struck.add(max(batch.pages))
        return struck

    def place(self, batch: int, first_page: int) -> int:
        """Where an I/O of a batch stands in the order in which they are served."""
        return draw(self.seed, "disk-order", batch * 2**32 + first_page) >> 32

    def completed(self, batch: Submitted, run: list[int], last: bool, done: Written) -> None:
        for page in run:
            if page not in batch.never_arrive:
                self.outcome.layers.arrive(self.clock.now, "L4", batch.content[page])
            elif page in batch.damaged:
                self.damage(batch, page)
            elif not batch.failed:
                self.outcome.shorn_pages.append((batch.number, page))
        if last:
            use_up(self.outcome.unfired_write_errors, self.clock.now)
            use_up(self.outcome.unfired_shorn, self.clock.now)
            use_up(self.outcome.unfired_corrupted, self.clock.now)
            self.on_way.remove(batch)
            if batch.failed:
                self.outcome.failed_batches.append(batch.number)
        done(batch, run, last)

    # --- what is lost again ---------------------------------------------------------------------

    def damage(self, batch: Submitted, page: int) -> None:
        """Rule D4: what was there before is gone, too. Reading: a later batch of the page that is
        on its way already (V9, `none`) mends it."""
        now, layers = self.clock.now, self.outcome.layers
        self.outcome.damages.append((now, page))
        self.times_damaged[page] = self.times_damaged.get(page, 0) + 1
        for layer in SHADOWS:
            layers.lose(now, layer, page)
        for later in self.on_way:
            if later.number > batch.number and page not in later.never_arrive:
                layers.move(now, "L3", later.content.get(page, {}))

    def die_at(self, instant: int) -> None:
        """Rule D4: the disk dies then, unless it does so earlier."""
        if self.dies is None or instant < self.dies:
            self.dies = instant
            self.clock.at(instant, Rank.DISK, (WRITE,), self.die)

    def dead_at(self, instant: int) -> bool:
        return self.dies is not None and self.dies <= instant

    @property
    def dead(self) -> bool:
        return self.dead_at(self.clock.now)

    def die(self) -> None:
        if self.outcome.died_ns is None:
            self.outcome.died_ns = self.clock.now
            for layer in SHADOWS:
                for page in list(self.outcome.layers.content[layer]):
                    self.outcome.layers.lose(self.clock.now, layer, page)

    # --- the journal of the host's file system --------------------------------------------------

    def write_journal(self, size_bytes: int, done: Callable[[], None]) -> None:
        self.outcome.journal_bytes += size_bytes
        self.write_block(size_bytes, done)

    def write_guest_journal(self, size_bytes: int, done: Callable[[], None]) -> None:
        self.outcome.guest_journal_bytes += size_bytes
        self.write_block(size_bytes, done)

    def write_block(self, size_bytes: int, done: Callable[[], None]) -> None:
        """No fault strikes it."""
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
        """Rule H13: the commit block of these pages has come so far, unless the disk is dead."""
        if self.dead:
            return
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
        covered, commits = self.in_cache(), set(self.commits)
        if self.is_ignored():
            covered, commits = [], set()
        ended = self.clock.now + self.spec.flush_ns
        self.outcome.disk_flushes.append(DiskFlush(self.clock.now, ended))
        self.clock.at(ended, Rank.DISK, (FLUSH,), lambda: self.flushed(covered, commits, sharing))

    def in_cache(self) -> list[Cached]:
        layers = self.outcome.layers
        return [
            Cached(
                page,
                layers.page("L4", page),
                layers.page(SHADOWS["L4"], page),
                self.times_damaged.get(page, 0),
            )
            for page in sorted(layers.content[SHADOWS["L4"]])
        ]

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
        covered: list[Cached],
        commits: set[int],
        sharing: list[Callable[[], None]],
    ) -> None:
        """A page that was damaged meanwhile stays lost."""
        now, layers = self.clock.now, self.outcome.layers
        for one in covered if not self.dead else []:
            layers.move(now, SHADOWS["L5"], one.shadow)
            if one.times_damaged == self.times_damaged.get(one.page, 0):
                layers.move(now, "L5", one.content)
        self.committed("L5", commits)
        self.flushing = False
        if self.next_flush:
            self.issue()
        for done in sharing:
            done()
