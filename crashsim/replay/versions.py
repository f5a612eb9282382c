"""The loss once more, the slow way: two real files, one event after the other.

An independent computation of what `power.at_risk` calculates. For every byte of the devices a file
holds the number of the store that put it there (u32, 0: as before the run): one file for what the
guest wrote, one for what the failure keeps. The History's events are applied in order of time:
stores to the guest's file, snapshots of whole pages, completions, journal commits, FLUSHes. Bytes
in which the two files differ are lost. Nothing in here looks at `power`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.replay.sparse import SparseFile

_STORE, _COPY, _DAMAGE, _DEATH, _SNAPSHOT, _COMPLETE, _COMMIT, _FUA, _FLUSHED = range(9)
_DAMAGED = np.uint32(0xFFFFFFFF)  # a stamp that no store has
_STAMP_BYTES = 4
Stamps = npt.NDArray[np.uint32]
_AS_BEFORE: Stamps = np.zeros(PAGE_BYTES, dtype=np.uint32)


class TwoFiles:
    """The guest's view and one kept layer, as files of stamps without a name in `folder`.

    `keep`: what the failure keeps: "host" (the device's memory), "file" (where that is a file's),
    "after-quit" (and not zeroed at its end), "elsewhere" (nothing), "submitted", "completed" or
    "durable"."""

    def __init__(self, history: History, keep: str, folder: Path) -> None:
        last = history.devices[-1]
        size = (last.first_page + last.pages) * PAGE_BYTES * _STAMP_BYTES
        self._history = history
        self._keep = keep
        self._files = [SparseFile(folder, size, scratch=True) for _ in range(2)]
        self._guest, self._kept = (np.frombuffer(f.map, dtype=np.uint32) for f in self._files)
        self._host: dict[int, Stamps] = {}  # L2 of a guest without DAX
        self._sent: dict[int, list[tuple[int, Stamps]]] = {}  # I/O -> its pages' content
        self._unsent: set[int] = set()  # pages of which no I/O that carries them has what they hold
        self._cached: list[int] = []  # completed I/Os, in the disk's cache
        self._cached_commits: list[int] = []
        # Rule H13: pages whose first write no kept commit covers, and what they would show.
        self._new: dict[int, int] = {}  # page -> end of its first batch
        self._hidden: dict[int, Stamps] = {}
        self._converted: set[int] = set()
        self._reserved: set[int] = set()
        self._changed: set[int] = set()  # pages to be compared again
        self._differing: dict[int, int] = {}  # page -> bytes
        self.lost_bytes = 0
        self._events = self._in_order()
        self._next = next(self._events, None)

    def advance(self, cut_ns: int) -> int:
        """Apply everything up to and including `cut_ns`; compare; return the bytes that differ."""
        while self._next is not None and self._next[0] <= cut_ns:
            self._apply(self._next)
            self._next = next(self._events, None)
        for page in sorted(self._changed):
            here = slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
            count = int(np.count_nonzero(self._guest[here] != self._kept[here]))
            self.lost_bytes += count - self._differing.pop(page, 0)
            if count:
                self._differing[page] = count
        self._changed.clear()
        return self.lost_bytes

    def close(self) -> None:
        """The files are gone."""
        del self._guest, self._kept
        for file in self._files:
            file.close()

    def _in_order(self) -> Iterator[tuple[int, int, int]]:
        history = self._history
        damage_ns = np.where(history.io_corrupted, history.io_complete_ns, NEVER)
        damage_ns[history.batch_failed[history.io_batch] != 0] = NEVER
        times = [history.store_t_ns, history.copy_t_ns, damage_ns]
        times += [np.array([history.info.dead_ns], dtype=np.int64), history.batch_t_ns]
        times += [history.io_complete_ns, history.commit_complete_ns, history.commit_fua_ns]
        times += [history.flush_disk_end_ns]
        t = np.concatenate(times)
        kind = np.repeat(np.arange(len(times)), [column.size for column in times])
        index = np.concatenate([np.arange(column.size) for column in times])
        order = np.lexsort((index, kind, t))
        self._first_io = np.searchsorted(history.io_batch, np.arange(history.batch_t_ns.size + 1))
        self._batch_end = np.zeros(history.batch_t_ns.size, dtype=np.int64)
        np.maximum.at(self._batch_end, history.io_batch, history.io_complete_ns)
        return zip(t[order].tolist(), kind[order].tolist(), index[order].tolist(), strict=True)

    def _apply(self, event: tuple[int, int, int]) -> None:
        _, kind, index = event
        if kind == _STORE:
            self._store(index)
        elif kind == _COPY:
            page = int(self._history.copy_page[index])
            self._host[page] = self._page(self._guest, page).copy()
            self._unsent.add(page)
            if self._keeps_memory(page):
                self._put(page, self._host[page])
        elif kind == _DAMAGE:
            io = self._history.io_first_page[index] + self._history.io_pages[index] - 1
            self._lose(int(io))
        elif kind == _DEATH:
            for page in sorted(self._reserved):
                self._lose(page)
        elif kind == _SNAPSHOT:
            for io in range(int(self._first_io[index]), int(self._first_io[index + 1])):
                self._submit(io)
        elif kind == _COMPLETE:
            if self._in_cache_is_kept():
                self._arrive(index)
            else:
                self._cached.append(index)
        elif kind == _COMMIT:
            if self._in_cache_is_kept():
                self._commit(index)
            else:
                self._cached_commits.append(index)
        elif self._keep == "durable" and not self._history.info.ignores_flush:
            if kind == _FUA:
                self._commit(index)
            elif not self._history.flush_disk_ignored[index]:
                self._flushed(int(self._history.flush_disk_issue_ns[index]))

    def _in_cache_is_kept(self) -> bool:
        """Whether the failure keeps what the disk completed."""
        if self._keep == "durable":
            return self._history.info.plp
        return self._keep in ("submitted", "completed")

    def _keeps_memory(self, page: int) -> bool:
        """Whether the failure keeps what is in the page of the device's memory."""
        info = self._history.info
        device = self._device(page)
        kind = info.media[device]
        if kind == "nvdimm":
            return self._keep != "elsewhere"
        if self._keep == "host":
            return True
        in_file = self._keep in ("file", "after-quit") and kind not in ("private", "ram")
        return in_file and not (self._keep == "after-quit" and info.discard_data[device])

    def _device(self, page: int) -> int:
        devices = self._history.devices
        return next(i for i, d in enumerate(devices) if page < d.first_page + d.pages)

    def _store(self, row: int) -> None:
        history = self._history
        offset, length = int(history.store_offset[row]), int(history.store_length[row])
        pages = range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1)
        self._touch(pages)
        self._guest[offset : offset + length] = row + 1
        self._unsent.update(pages)
        dax = history.info.dax[self._device(pages[0])]
        if dax and self._keeps_memory(pages[0]):  # it is in L2 at once
            self._kept[offset : offset + length] = row + 1

    def _flushed(self, issued_ns: int) -> None:
        """A FLUSH covers what had completed when it was issued."""
        history = self._history
        covered = [io for io in self._cached if int(history.io_complete_ns[io]) <= issued_ns]
        for io in covered:
            self._arrive(io)
        self._cached = [io for io in self._cached if int(history.io_complete_ns[io]) > issued_ns]
        for commit in self._cached_commits:
            if int(history.commit_complete_ns[commit]) <= issued_ns:
                self._commit(commit)

    def _commit(self, commit: int) -> None:
        """First writes that the commit covers are kept, too."""
        history = self._history
        device, covers = int(history.commit_device[commit]), int(history.commit_t_ns[commit])
        for page in [page for page, end in self._new.items() if end <= covers]:
            if self._device(page) == device:
                del self._new[page]
                self._converted.add(page)
                if page in self._hidden:
                    self._put(page, self._hidden.pop(page))

    def _submit(self, io: int) -> None:
        history = self._history
        first, batch = int(history.io_first_page[io]), int(history.io_batch[io])
        if history.batch_failed[batch]:
            return
        device = self._device(first)
        pages = range(first, first + int(history.io_pages[io]))
        if history.info.new_extents[device]:
            for page in pages:
                if page not in self._converted:
                    self._new.setdefault(page, int(self._batch_end[batch]))
        if history.io_shorn[io] or history.io_corrupted[io]:
            pages = pages[:-1]
        if len(self._unsent) < len(pages):  # what has not changed since it was sent need not be
            carried = [page for page in sorted(self._unsent) if page in pages]
        else:
            carried = [page for page in pages if page in self._unsent]
        self._unsent.difference_update(carried)
        content = []
        for page in carried:
            if history.info.dax[device]:
                content.append((page, self._page(self._guest, page).copy()))
            else:
                content.append((page, self._host.get(page, _AS_BEFORE)))
        self._sent[io] = content
        if self._keep == "submitted":
            self._arrive(io)

    def _lose(self, page: int) -> None:
        """The disk holds nothing of the page any more; what had come before arrives no more."""
        if self._keep in ("host", "file", "after-quit", "elsewhere") or page not in self._reserved:
            return
        if self._history.info.media[self._device(page)] != "file":
            return
        self._unsent.add(page)  # the next I/O mends it
        for content in self._sent.values():
            content[:] = [(one, stamps) for one, stamps in content if one != page]
        self._hidden.pop(page, None)
        stored = self._page(self._guest, page) != 0
        self._put(page, np.where(stored, _DAMAGED, np.uint32(0)))

    def _arrive(self, io: int) -> None:
        for page, content in self._sent.pop(io, ()):
            if page in self._new:
                self._hidden[page] = content
            else:
                self._put(page, content)

    def _put(self, page: int, content: Stamps) -> None:
        self._touch(range(page, page + 1))
        self._page(self._kept, page)[:] = content

    def _page(self, stamps: Stamps, page: int) -> Stamps:
        return stamps[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]

    def _touch(self, pages: range) -> None:
        for page in pages:
            if page not in self._reserved:
                self._reserved.add(page)
                for file in self._files:
                    file.reserve(page * PAGE_BYTES * _STAMP_BYTES, PAGE_BYTES * _STAMP_BYTES)
        self._changed.update(pages)
