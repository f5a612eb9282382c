"""What goes wrong in a run, in terms that no fault has to itself.

Contract: a kind of fault is a subclass of `Injector`, one instance of it a fault of one run, by
chance or at given instants. While the run goes on it may fail batches of writeback and calls of
fsync; behind the run's end it marks columns of the History: I/Os whose last page never arrived or
arrived damaged, FLUSHes that did nothing, the instant from which the disk is dead. What it hits is
a function of the seed and of the run's columns alone. All that is made of a History knows these
columns, and no fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crashsim.engine.history import NEVER
from crashsim.engine.streams import I64, Stream


@dataclass(slots=True)
class Effects:
    """The columns of a run that faults look at, and those that they mark (see `History`)."""

    end_ns: int
    batch_end_ns: I64  # [b] ascending: there is one pipe
    io_batch: I64  # [i] ascending
    io_first_page: I64  # [i]
    flush_issue_ns: I64  # [d] ascending
    flush_end_ns: I64  # [d]
    io_shorn: I64  # [i] 1: the last page never arrived; to be marked, as all below
    io_corrupted: I64  # [i] 1: the last page arrived damaged
    flush_ignored: I64  # [d] 1: it made nothing durable
    dead_ns: int = NEVER


class Injector:
    """A fault of one run: it hits each with a chance of `share` (numerator, denominator), and the
    first at or after each of the instants `at`."""

    description: ClassVar[str] = ""
    of_this_host: ClassVar[bool] = True  # its states can be explored for this-host
    final: ClassVar[bool] = False  # nothing succeeds from then on

    def __init__(self, at: Sequence[int], share: tuple[int, int], stream: Stream) -> None:
        self.at = sorted(at)
        self.share = share
        self.configured = len(at) + bool(share[0])  # how often it is told to come
        self.stream = stream
        self.in_vain: list[int] = []

    def quiet_until_ns(self) -> int:
        """What ends before this instant it neither fails now nor later."""
        return NEVER

    def fails(self, _batch: int, _end_ns: int) -> bool:
        """Whether nothing of the batch that ends then reaches the disk."""
        return False

    def fails_sync(self, _now_ns: int) -> bool:
        """Whether an fsync of the host's that would return now fails."""
        return False

    def mark(self, effects: Effects) -> None:
        """Behind the run's end: mark what it hit."""

    def not_fired(self, _end_ns: int) -> list[int]:
        """Instants that hit nothing; the run's end for one that comes by chance and never came."""
        return self.in_vain

    # for those that mark

    def by_chance(self, counter: I64) -> I64:
        """1 where the draw of that number hits, else 0."""
        numerator, denominator = self.share
        if not numerator:
            return np.zeros(counter.size, dtype=np.int64)
        bar = min((numerator << 64) // denominator, (1 << 64) - 1)
        return (self.stream.draws(counter) < np.uint64(bar)).astype(np.int64)

    def hit_ios(self, effects: Effects) -> I64:
        """[i] 1: hit, by chance or as the last I/O of the first batch that ends at or after an
        instant."""
        batch = effects.io_batch
        last = np.append(np.flatnonzero(np.diff(batch)), batch.size - 1)
        found = self.by_chance((batch << 32) + effects.io_first_page)
        for hit in self._first_after(effects.batch_end_ns):
            found[last[np.searchsorted(batch[last], hit)]] = 1
        return self._came(found, effects)

    def hit_flushes(self, effects: Effects) -> I64:
        """[d] 1: hit, by chance or as the first that is issued at or after an instant."""
        issue_ns = effects.flush_issue_ns
        found = self.by_chance(np.arange(issue_ns.size, dtype=np.int64))
        for hit in self._first_after(issue_ns):
            found[hit] = 1
        return self._came(found, effects)

    def _first_after(self, t_ns: I64) -> list[int]:
        """Of each instant the row that it hits; notes those that hit none."""
        rows = np.searchsorted(t_ns, np.array(self.at, dtype=np.int64), "left")
        self.in_vain = [t for t, row in zip(self.at, rows, strict=True) if row == t_ns.size]
        return [int(row) for row in rows if row < t_ns.size]

    def _came(self, found: I64, effects: Effects) -> I64:
        if self.share[0] and not self.at and not found.any():
            self.in_vain = [effects.end_ns]
        return found
