"""The host's fsync on a backing file (Rules H10, H11, H12, H13, H14, H16).

What it promises: pages dirty when it tags them, and those then under writeback, are in the disk's
cache when the FLUSH is issued. What it does not: anything stored after the tagging. `F` alone when
the file's metadata is clean; with a dirty mtime, `W J F C F` on ext4 and `W F J F` on XFS; a FUA
disk makes one request of the last two. msync and fdatasync leave the mtime alone (H12), but every
call commits extents that were written for the first time (H13). A failed write is reported once,
and the call that reports it neither commits nor flushes (H14; Linux `ext4_sync_file`). ext4 commits
by itself, too (H16): the same without data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crashsim.disk.pipe import Drive
from crashsim.engine.history import NEVER, Reason
from crashsim.engine.streams import I64
from crashsim.pagecache.writeback import NONE, BackingFile, BoolArray

if TYPE_CHECKING:
    from crashsim.pagecache.cache import PageCache


class CommitWrites(NamedTuple):
    """What a commit writes before its first FLUSH and before its second, bytes."""

    first_bytes: int
    last_bytes: int

    def times_ns(self, disk: Drive) -> tuple[int, int]:
        """How long both take, ns."""
        return _write_ns(disk, self.first_bytes), _write_ns(disk, self.last_bytes)

    def commit_ns(self, disk: Drive) -> int:
        """How much longer a call takes that commits, on an idle disk, ns."""
        first_ns, last_ns = self.times_ns(disk)
        return first_ns + last_ns + disk.flush_ns


JOURNALS = {"ext4": CommitWrites(8192, 4096), "xfs": CommitWrites(0, 1024)}


def _write_ns(disk: Drive, size_bytes: int) -> int:
    return -(-size_bytes * 1_000_000_000 // disk.bandwidth)


def flushes_uncontended(
    disk: Drive, journal: CommitWrites, data_end_ns: I64, end_ns: I64, commits: BoolArray
) -> I64:
    """When fsyncs that meet nothing else issue their FLUSHes, ascending: their data is written at
    `data_end_ns`, they return at `end_ns`."""
    first_ns, _last_ns = journal.times_ns(disk)
    issue_ns = data_end_ns + np.where(commits, first_ns, 0)
    if disk.fua:  # the last block flushes by itself
        return issue_ns
    return np.sort(np.concatenate([issue_ns, (end_ns - disk.flush_ns)[commits]]))


class FileSystem(NamedTuple):
    """What of the host's file system a sync depends on."""

    journal: CommitWrites
    sync_resets_age: bool


@dataclass(slots=True)
class Commit:
    """A journal commit: what of `device` had ended at `t_ns` reads as written once it is kept.

    It is in the disk's cache from `complete_ns`, durable from `fua_ns` (NEVER: by a FLUSH)."""

    device: int
    t_ns: int
    complete_ns: int = NEVER
    fua_ns: int = NEVER


@dataclass(slots=True, eq=False)
class Committing:
    """One commit of a file's journal, from the step at which its data is written; `done()` at its
    end. `covers`: it makes first writes readable (H13). Starts in the constructor."""

    _cache: PageCache
    _rank: int
    _file: BackingFile
    _covers: bool
    _done: Callable[[], None]
    _commit: Commit = field(init=False)

    def __post_init__(self) -> None:
        file, cache, journal = self._file, self._cache, self._cache.system.journal
        self._commit = Commit(file.device, cache.clock.now)
        cache.commits.append(self._commit)
        file.committing += self._covers
        file.metadata_bytes += journal.first_bytes
        if journal.first_bytes:
            _start, end = self._cache.disk.write(journal.first_bytes)
            self._cache.clock.at(end, self._rank, self._journalled)
        else:
            self._journalled(None)

    def _journalled(self, _: None) -> None:
        self._cache.disk.flush(self._flushed)

    def _flushed(self) -> None:
        _start, end = self._cache.disk.write(self._cache.system.journal.last_bytes)
        self._file.metadata_bytes += self._cache.system.journal.last_bytes
        commit = self._commit
        commit.complete_ns = end
        if self._cache.disk.fua:
            commit.fua_ns = end + self._cache.disk.flush_ns
            self._cache.clock.at(commit.fua_ns, self._rank, self._returned)
        else:
            self._cache.clock.at(end, self._rank, self._committed)

    def _committed(self, _: None) -> None:
        self._cache.disk.flush(self._ended)

    def _returned(self, _: None) -> None:
        self._ended()

    def _ended(self) -> None:
        file = self._file
        if self._covers:
            file.committing -= 1
            waiting, file.behind_commit = file.behind_commit, []
            for go_on in waiting:
                go_on()
        self._done()


@dataclass(slots=True, eq=False)
class Fsync:
    """One call; `done(ok)` when it returns. Starts in the constructor."""

    _cache: PageCache
    _rank: int
    _file: BackingFile
    _datasync: bool
    _done: Callable[[bool], None]
    _later: I64 = field(init=False)  # pages under writeback that are to be written again
    _mtime_ns: int | None = field(init=False)  # what it commits
    _guest_journal_ns: int = field(init=False)

    def __post_init__(self) -> None:
        file, clock, rank = self._file, self._cache.clock, self._rank
        self._later = NONE
        file.catch_up()
        self._mtime_ns = None if self._datasync else file.mtime.since_ns
        if not self._datasync:
            file.mtime.clear()
        self._guest_journal_ns = file.write_guest_journal()
        if file.idle():
            file.write_back_all(Reason.FSYNC)
            if not file.in_flight and self._guest_journal_ns <= clock.now:
                self._written(None)
                return
        else:
            dirty = file.dirty()
            is_busy = np.isin(dirty, file.under_writeback(), assume_unique=True)
            self._later = dirty[is_busy]
            wait_ns = file.writeback_end_ns()
            file.write_back(dirty[~is_busy], Reason.FSYNC)
            if self._later.size:
                clock.at(wait_ns, rank, self._again)
                return
        clock.at(self._ready_ns(), rank, self._written)

    def _ready_ns(self) -> int:
        """When all that the call writes will have been."""
        return max(self._cache.clock.now, self._file.writeback_end_ns(), self._guest_journal_ns)

    def _again(self, _: None) -> None:
        """What was under writeback has completed: write those of its pages that are dirty again."""
        file = self._file
        file.catch_up()
        dirty = file.dirty()
        free = np.setdiff1d(dirty, file.under_writeback(), assume_unique=True)
        file.write_back(np.intersect1d(free, self._later, assume_unique=True), Reason.FSYNC)
        self._cache.clock.at(self._ready_ns(), self._rank, self._written)

    def _written(self, _: None) -> None:
        file, system = self._file, self._cache.system
        if file.error_to_report():
            if self._mtime_ns is not None:
                file.mtime_again(self._mtime_ns)
            self._done(False)
            return
        if system.sync_resets_age:
            file.forget_age()
        covers = file.convert()
        if self._mtime_ns is None and not covers:
            if file.committing:  # what it makes durable may be this call's
                file.behind_commit.append(self._wait)
            else:
                self._cache.disk.flush(self._ended)
            return
        self._mtime_ns = None
        Committing(self._cache, self._rank, file, covers, self._ended)

    def _wait(self) -> None:
        """The commit that the call waited for has ended."""
        self._cache.clock.at(self._cache.clock.now, self._rank, self._written)

    def _ended(self) -> None:
        self._done(True)
