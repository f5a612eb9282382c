"""The host's fsync on a backing file (Rules H10, H11, H12, H13, H14).

What it promises: pages dirty when it tags them, and those then under writeback, are in the disk's
cache when the FLUSH is issued. What it does not: anything stored after the tagging. `F` alone when
the file's metadata is clean; with a dirty mtime, `W J F C F`; a FUA disk makes one request of the
last two. msync and fdatasync leave the mtime alone (H12), but every call commits extents that were
written for the first time (H13). A failed write is reported once, and the call that reports it
neither commits nor flushes (H14; Linux `ext4_sync_file`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crashsim.engine.clock import Clock
from crashsim.engine.history import NEVER, Reason
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64
from crashsim.pagecache.writeback import NO_PAGES, BackingFile, DiskPort

JOURNAL_BYTES = 8192
COMMIT_BYTES = 4096


def alone(disk: DiskPort, pages: I64, datasync: bool) -> tuple[I64, I64]:
    """What fsyncs take that find an idle disk and `pages` dirty pages each, int64[n], ns: until the
    data is written, and until they return (Rule H11). A page that is dirty has made the mtime
    dirty."""
    data_ns = disk.transfer_ns(pages)
    if datasync:
        return data_ns, data_ns + disk.flush_ns
    journal_ns, commit_ns = _metadata_ns(disk)
    metadata_ns = journal_ns + disk.flush_ns + commit_ns
    return data_ns, data_ns + disk.flush_ns + np.where(pages > 0, metadata_ns, 0)


def flushes_alone(disk: DiskPort, begin_ns: I64, pages: I64, datasync: bool) -> I64:
    """When such fsyncs issue their FLUSHes, ascending."""
    data_ns, whole_ns = alone(disk, pages, datasync)
    if datasync:
        return begin_ns + data_ns
    dirty = pages > 0
    journal_ns, _commit_ns = _metadata_ns(disk)
    issue_ns = begin_ns + data_ns + np.where(dirty, journal_ns, 0)
    if disk.fua:  # the commit block flushes by itself
        return issue_ns
    second_ns = (begin_ns + whole_ns - disk.flush_ns)[dirty]
    return np.sort(np.concatenate([issue_ns, second_ns]))


def _metadata_ns(disk: DiskPort) -> tuple[int, int]:
    """Transfer of the journal and of the commit block."""
    sizes = np.array([JOURNAL_BYTES, COMMIT_BYTES], dtype=np.int64)
    journal_ns, commit_ns = disk.transfer_ns(sizes // PAGE_BYTES).tolist()
    return journal_ns, commit_ns


@dataclass(slots=True)
class Commit:
    """A journal commit: what of `device` had ended at `t_ns` reads as written once it is kept.

    It is in the disk's cache from `complete_ns`, durable from `fua_ns` (NEVER: by a FLUSH)."""

    device: int
    t_ns: int
    complete_ns: int = NEVER
    fua_ns: int = NEVER


class Fsync:
    """One call; `done(ok)` when it returns. Starts in the constructor."""

    __slots__ = (
        "_clock",
        "_commits",
        "_covers",
        "_disk",
        "_done",
        "_file",
        "_later",
        "_mtime",
        "_rank",
    )

    def __init__(
        self,
        clock: Clock,
        rank: int,
        disk: DiskPort,
        file: BackingFile,
        datasync: bool,
        commits: list[Commit],
        done: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        self._rank = rank  # of fsyncs with a step at one instant the one begun first has the lower
        self._disk = disk
        self._file = file
        self._commits = commits
        self._done = done
        self._covers = False  # its commit makes first writes readable
        self._later = NO_PAGES
        file.settle()
        self._mtime = file.mtime_dirty and not datasync
        if self._mtime:
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
        if self._file.error_to_report():
            if self._mtime:
                self._file.mtime_dirty = True
            self._done(False)
            return
        self._covers = self._file.convert()
        if not (self._mtime or self._covers):
            if self._file.committing:  # what it makes durable may be this call's
                self._file.behind_commit.append(self._wait)
            else:
                self._disk.flush(self._ended)
            return
        self._file.committing += self._covers
        self._commits.append(Commit(self._file.device, self._clock.now))
        self._mtime = False
        commit = len(self._commits) - 1
        _start, end = self._disk.write(JOURNAL_BYTES)
        self._clock.at(end, self._rank, self._journalled, commit)

    def _wait(self) -> None:
        """The commit that the call waited for has ended."""
        self._clock.at(self._clock.now, self._rank, self._written)

    def _journalled(self, commit: int) -> None:
        self._disk.flush(lambda: self._flushed(commit))

    def _flushed(self, number: int) -> None:
        _start, end = self._disk.write(COMMIT_BYTES)
        commit = self._commits[number]
        commit.complete_ns = end
        if self._disk.fua:
            commit.fua_ns = end + self._disk.flush_ns
            self._clock.at(commit.fua_ns, self._rank, self._returned)
        else:
            self._clock.at(end, self._rank, self._committed)

    def _committed(self, _: None) -> None:
        self._disk.flush(self._ended)

    def _returned(self, _: None) -> None:
        self._ended()

    def _ended(self) -> None:
        file = self._file
        if self._covers:
            file.committing -= 1
            waiting, file.behind_commit = file.behind_commit, []
            for go_on in waiting:
                go_on()
        self._done(True)
