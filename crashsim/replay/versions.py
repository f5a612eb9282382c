"""The loss once more, the slow way: two real files, one event after the other.

An independent computation of what `power.at_risk` calculates. For every byte of the devices a file
holds the number of the write that put it there (u32, 0: as before the run): one file for what the
guest wrote, one for what the failure keeps. The History's events are applied in order of time:
stores to the guest's file, snapshots of whole pages, completions, FLUSHes. Bytes in which the two
files differ are lost. Nothing in here looks at `power`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.replay.sparse import SparseFile

_STORE, _COPY, _SNAPSHOT, _COMPLETE, _FLUSHED = range(5)
_STAMP_BYTES = 4
Stamps = npt.NDArray[np.uint32]


class TwoFiles:
    """The guest's view and one kept layer, as files of stamps in `folder`.

    `keep`: what the failure keeps: "host" (pages of the host's page cache), "submitted",
    "completed" or "durable"."""

    def __init__(self, history: History, keep: str, folder: Path) -> None:
        last = history.devices[-1]
        size = (last.first_page + last.pages) * PAGE_BYTES * _STAMP_BYTES
        self._history = history
        self._keep = keep
        names = ("guest.stamps", "kept.stamps")
        self._files = [SparseFile(folder / name, size, scratch=True) for name in names]
        self._guest, self._kept = (np.frombuffer(f.map, dtype=np.uint32) for f in self._files)
        self._host: dict[int, Stamps] = {}  # L2 of a guest without DAX
        self._sent: dict[int, list[tuple[int, Stamps]]] = {}  # I/O -> its pages' content
        self._cached: list[int] = []  # completed I/Os, in the disk's cache
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
        """Remove the files."""
        del self._guest, self._kept
        for file in self._files:
            file.close()
            file.path.unlink()

    def _in_order(self) -> Iterator[tuple[int, int, int]]:
        history = self._history
        times = [history.store_t_ns, history.copy_t_ns, history.batch_t_ns]
        times += [history.io_complete_ns, history.flush_disk_end_ns]
        t = np.concatenate(times)
        kind = np.repeat(np.arange(len(times)), [column.size for column in times])
        index = np.concatenate([np.arange(column.size) for column in times])
        order = np.lexsort((index, kind, t))
        self._first_io = np.searchsorted(history.io_batch, np.arange(history.batch_t_ns.size + 1))
        return zip(t[order].tolist(), kind[order].tolist(), index[order].tolist(), strict=True)

    def _apply(self, event: tuple[int, int, int]) -> None:
        _, kind, index = event
        history = self._history
        if kind == _STORE:
            offset, length = int(history.store_offset[index]), int(history.store_length[index])
            self._touch(range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1))
            self._guest[offset : offset + length] = history.store_write[index] + 1
            if self._keep == "host" and history.facts["dax"]:  # with DAX a store is in L2 at once
                self._kept[offset : offset + length] = history.store_write[index] + 1
        elif kind == _COPY:
            page = int(history.copy_page[index])
            self._host[page] = self._page(self._guest, page).copy()
            if self._keep == "host":
                self._put(page, self._host[page])
        elif kind == _SNAPSHOT:
            for io in range(int(self._first_io[index]), int(self._first_io[index + 1])):
                self._submit(io)
        elif kind == _COMPLETE:
            if self._keep == "completed" or (self._keep == "durable" and history.facts["plp"]):
                self._arrive(index)
            else:
                self._cached.append(index)
        elif self._keep == "durable" and not history.facts["ignores_flush"]:
            issued = int(history.flush_disk_issue_ns[index])
            covered = [io for io in self._cached if int(history.io_complete_ns[io]) <= issued]
            for io in covered:
                self._arrive(io)
            self._cached = [io for io in self._cached if int(history.io_complete_ns[io]) > issued]

    def _submit(self, io: int) -> None:
        first = int(self._history.io_first_page[io])
        content = []
        for page in range(first, first + int(self._history.io_pages[io])):
            if self._history.facts["dax"]:
                content.append((page, self._page(self._guest, page).copy()))
            else:
                content.append((page, self._host[page]))
        self._sent[io] = content
        if self._keep == "submitted":
            self._arrive(io)

    def _arrive(self, io: int) -> None:
        for page, content in self._sent.pop(io, ()):
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
