"""The host's fsync on a backing file (Rules H10, H11, H12).

What it promises: pages dirty when it tags them, and those then under writeback, are in the disk's
cache when the FLUSH is issued. What it does not: anything stored after the tagging. `F` alone when
the file's metadata is clean; with a dirty mtime, `W J F C F`; a FUA disk makes one request of the
last two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crashsim.engine.clock import Clock
from crashsim.engine.history import Reason
from crashsim.pagecache.writeback import NO_PAGES, BackingFile, DiskPort

JOURNAL_BYTES = 8192
COMMIT_BYTES = 4096


class Fsync:
    """One call; `done()` when it returns. Starts in the constructor."""

    __slots__ = ("_clock", "_commit", "_disk", "_done", "_file", "_later", "_rank", "_wrote")

    def __init__(
        self,
        clock: Clock,
        rank: int,
        disk: DiskPort,
        file: BackingFile,
        wrote: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._rank = rank  # of fsyncs with a step at one instant the one begun first has the lower
        self._disk = disk
        self._file = file
        self._wrote = wrote  # told of every metadata write, in bytes
        self._done = done
        self._later = NO_PAGES
        file.settle()
        self._commit = file.mtime_dirty
        file.mtime_dirty = False
        if file.idle():
            file.write_back_all(Reason.FSYNC)
            if not file.in_flight:
                self._written(None)
                return
            ready = self._written
        else:
            busy = file.under_writeback()
            dirty = file.dirty_pages()
            is_busy = np.isin(dirty, busy, assume_unique=True)
            self._later = dirty[is_busy]
            wait_ns = file.writeback_end_ns()
            file.write_back(dirty[~is_busy], Reason.FSYNC)
            if self._later.size:
                clock.at(wait_ns, rank, self._again)
                return
            ready = self._written
        clock.at(file.writeback_end_ns(), rank, ready)

    def _again(self, _: None) -> None:
        """What was under writeback has completed: write those of its pages that are dirty again."""
        file = self._file
        file.settle()
        dirty = file.dirty_pages()
        free = np.setdiff1d(dirty, file.under_writeback(), assume_unique=True)
        file.write_back(np.intersect1d(free, self._later, assume_unique=True), Reason.FSYNC)
        self._clock.at(max(self._clock.now, file.writeback_end_ns()), self._rank, self._written)

    def _written(self, _: None) -> None:
        if not self._commit:
            self._disk.flush(self._done)
            return
        _start, end = self._disk.write(JOURNAL_BYTES)
        self._wrote(JOURNAL_BYTES)
        self._clock.at(end, self._rank, self._journalled)

    def _journalled(self, _: None) -> None:
        self._disk.flush(self._flushed)

    def _flushed(self) -> None:
        _start, end = self._disk.write(COMMIT_BYTES)
        self._wrote(COMMIT_BYTES)
        if self._disk.fua:
            self._clock.at(end + self._disk.flush_ns, self._rank, self._returned)
        else:
            self._clock.at(end, self._rank, self._committed)

    def _committed(self, _: None) -> None:
        self._disk.flush(self._done)

    def _returned(self, _: None) -> None:
        self._done()
