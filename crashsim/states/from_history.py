"""A state's image once more, the slow way: made anew from the History alone, atom by atom.

Contract: an independent computation of what a `Walker` lays out. It knows the stores and what
happened to pages, and nothing of epochs, parts or versions, and it never goes from one image to the
next. A state is named by its cut and, for each atom that holds more than is guaranteed, by the
newest store whose arrival it saw:

- on any host an atom holds the stores that had landed in it at an instant; guaranteed is the
  instant at which the latest flush was submitted that is acknowledged with success (Rule V2), or,
  without DAX, the last copy of the page before that;
- on this host it holds what a snapshot of its page carried (Rule H3); guaranteed is the latest one
  that is certainly on the media (Rules D1, D4, H13, H14), and of a real NVDIMM all that was stored
  (Rule V9).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.errors import ReplayMismatch
from crashsim.guest.content import Content
from crashsim.states.rules import Rules
from crashsim.states.space import Epoch
from crashsim.states.walker import Choices

_CONTENTS_KEPT = 1 << 16
_NOT_YET = -1


class Rebuilt:
    """The states of one device."""

    def __init__(
        self,
        history: History,
        content: Content,
        before: memoryview | None,
        device: int,
        rules: Rules,
    ) -> None:
        """`before`: what the device held before the run, zeros behind its end."""
        self._history, self._content = history, content
        self._device, self._this_host = device, rules.host == "this-host"
        self._unit_bytes = rules.unit_bytes
        span = history.devices[device]
        self._first_byte, self._first_page = span.first_byte, span.first_page
        held = b"" if before is None else bytes(before)
        self._before = held.ljust(span.pages * PAGE_BYTES, b"\0")
        self._dax = history.info.dax[device]
        self._medium = history.info.media[device]
        self._rows: dict[int, list[int]] = {}  # atom's offset -> rows of stores to it, ascending
        self._write: dict[int, tuple[int, int]] = {}  # write -> where it lies, global [start, end)
        self._read_stores(span.first_byte, span.end_byte)
        self._copies = self._read_copies()
        self._flushes = self._read_flushes()
        self._snapshots = self._read_snapshots() if self._this_host else {}
        self._held = lru_cache(_CONTENTS_KEPT)(self._worked_out)
        self._laid: tuple[int, bytes] = (_NOT_YET, b"")  # a cut, and all that is guaranteed at it

    def prove(self, image: memoryview, epoch: Epoch, choices: Choices) -> None:
        """ReplayMismatch unless the image is that of the state."""
        mine = np.frombuffer(self.image(epoch, choices), dtype=np.uint8)
        differing = mine != np.frombuffer(image, dtype=np.uint8)
        if differing.any():
            name = self._history.devices[self._device].name
            raise ReplayMismatch(
                f"{name}: a state of the cut at {epoch.cut_ns} ns is not the one that the History "
                f"alone gives: byte {int(differing.argmax())} differs"
            )

    def image(self, epoch: Epoch, choices: Choices) -> bytearray:
        """All bytes of the device in a state of the epoch."""
        image = bytearray(self._guaranteed(epoch.cut_ns))
        flushed_ns = self._flushed_ns(epoch.cut_ns)
        for number, version in choices:
            atom = epoch.atoms[number]
            row = atom.stores[atom.after.index(version)]
            since = self._certain_ns(atom.offset, epoch.cut_ns, flushed_ns)
            held = self._held(atom.offset, since, self._seen_ns(atom.offset, row))
            image[atom.offset : atom.offset + self._unit_bytes] = held
        return image

    def _guaranteed(self, cut_ns: int) -> bytes:
        if self._laid[0] != cut_ns:
            flushed_ns = self._flushed_ns(cut_ns)
            image = bytearray(self._before)
            for offset in self._rows:
                since = self._certain_ns(offset, cut_ns, flushed_ns)
                if since != _NOT_YET:
                    held = self._held(offset, since, since)
                    image[offset : offset + self._unit_bytes] = held
            self._laid = cut_ns, bytes(image)
        return self._laid[1]

    def _certain_ns(self, offset: int, cut_ns: int, flushed_ns: int) -> int:
        """The instant as of which the atom's content is guaranteed at the cut."""
        page = offset // PAGE_BYTES
        if not self._this_host:
            return flushed_ns if self._dax else self._copied_ns(page, flushed_ns)
        if self._medium == "nvdimm":
            return cut_ns if self._dax else self._copied_ns(page, cut_ns)
        seen = (as_of for as_of, _, kept in self._snapshots.get(page, ()) if kept <= cut_ns)
        return max(seen, default=_NOT_YET)

    def _seen_ns(self, offset: int, row: int) -> int:
        """The instant as of which the atom shows that store for the first time."""
        if not self._this_host:
            return self._landed_ns(row, offset)
        begin = int(self._history.store_t_ns[row])
        of_page = self._snapshots[offset // PAGE_BYTES]
        return next(as_of for as_of, _, _ in of_page if as_of >= begin)

    def _landed_ns(self, row: int, offset: int) -> int:
        """When the last word of the store inside the atom has landed; on this host its begin:
        snapshots divide the stores that they meet (Rule G10)."""
        begin = int(self._history.store_t_ns[row])
        if self._this_host:
            return begin
        start = int(self._history.store_offset[row]) - self._first_byte
        end = min(start + int(self._history.store_length[row]), offset + self._unit_bytes)
        return begin + ((end - 1) >> 3) - (start >> 3)

    def _worked_out(self, offset: int, since_ns: int, seen_ns: int) -> bytes:
        """The atom with what is guaranteed, as of an instant, and the stores that had landed by
        another, each over those that began before. A store that begins at the very instant of a
        guest's copy counts for copied."""
        atom = bytearray(self._before[offset : offset + self._unit_bytes])
        base = self._first_byte + offset
        for row in self._rows[offset]:
            copied = not self._dax and int(self._history.store_t_ns[row]) <= since_ns
            if not copied and self._landed_ns(row, offset) > max(since_ns, seen_ns):
                continue
            start = int(self._history.store_offset[row])
            end = min(start + int(self._history.store_length[row]), base + self._unit_bytes)
            start = max(start, base)
            atom[start - base : end - base] = self._bytes_of(row, start, end)
        return bytes(atom)

    def _bytes_of(self, row: int, start: int, end: int) -> bytes:
        """Bytes [start, end), global, as the store leaves them."""
        write = int(self._history.store_write[row])
        first, last = self._write[write]
        columns = (write, start - first, end - first, last - first)
        (part,) = self._content.parts(*(np.array([one], dtype=np.int64) for one in columns))
        return bytes(part)

    def _flushed_ns(self, cut_ns: int) -> int:
        h = self._history
        columns = (h.flush_device, h.flush_result, h.flush_submit_ns, h.flush_ack_ns)
        flushes = zip(*(column.tolist() for column in columns), strict=True)
        mine = (s for d, r, s, ack in flushes if (d, r) == (self._device, 0) and ack <= cut_ns)
        return max(mine, default=_NOT_YET)

    def _copied_ns(self, page: int, by_ns: int) -> int:
        """The last instant, up to another, at which the guest wrote the page back."""
        copies = self._copies.get(page, [])
        last = bisect_right(copies, by_ns)
        return copies[last - 1] if last else _NOT_YET

    def _read_stores(self, first_byte: int, end_byte: int) -> None:
        h, unit = self._history, self._unit_bytes
        columns = (h.store_offset, h.store_length, h.store_write)
        stores = zip(*(column.tolist() for column in columns), strict=True)
        for row, (offset, length, write) in enumerate(stores):
            start, end = self._write.get(write, (offset, offset))
            self._write[write] = min(start, offset), max(end, offset + length)
            if first_byte <= offset < end_byte:
                start = offset - first_byte
                for atom in range(start // unit * unit, start + length, unit):
                    self._rows.setdefault(atom, []).append(row)

    def _read_copies(self) -> dict[int, list[int]]:
        """Page -> instants of the guest's writeback, ascending."""
        found: dict[int, list[int]] = {}
        h = self._history
        for page, at in zip(h.copy_page.tolist(), h.copy_t_ns.tolist(), strict=True):
            found.setdefault(page - self._first_page, []).append(at)
        return found

    def _read_snapshots(self) -> dict[int, list[tuple[int, int, int]]]:
        """Page -> (what it is the content of, shown from, certain from) of each snapshot that
        reached the disk, in order."""
        h = self._history
        if self._medium != "file":
            return {}
        found: dict[int, list[tuple[int, int, int]]] = {}
        shown: dict[int, tuple[int, int]] = {}  # by page: of its first extent (Rule H13)
        for io in range(h.io_batch.size):
            batch = int(h.io_batch[io])
            if int(h.batch_device[batch]) != self._device or h.batch_failed[batch]:
                continue
            first = int(h.io_first_page[io]) - self._first_page
            pages = range(first, first + int(h.io_pages[io]))
            taken, complete = int(h.batch_t_ns[batch]), int(h.io_complete_ns[io])
            for page in pages:
                if page not in shown:
                    shown[page] = self._shown_from(batch)
                if page == pages[-1] and (h.io_shorn[io] or h.io_corrupted[io]):
                    continue  # the last page never arrived (Rule D4)
                as_of = taken if self._dax else self._copied_ns(page, taken)
                times = max(taken, shown[page][0]), max(self._durable_ns(complete), shown[page][1])
                found.setdefault(page, []).append((as_of, *times))
        return found

    def _read_flushes(self) -> list[tuple[int, int]]:
        """(issue, end) of each FLUSH of the disk that was not ignored, in order."""
        h = self._history
        if h.info.ignores_flush:
            return []
        columns = (h.flush_disk_issue_ns, h.flush_disk_end_ns, h.flush_disk_ignored)
        flushes = zip(*(column.tolist() for column in columns), strict=True)
        return [(issue, end) for issue, end, ignored in flushes if not ignored]

    def _durable_ns(self, complete_ns: int) -> int:
        """When what completed then is certainly on the media (Rule D1)."""
        h = self._history
        if h.info.plp:
            return complete_ns
        first = bisect_left(self._flushes, (complete_ns, 0))
        return self._flushes[first][1] if first < len(self._flushes) else NEVER

    def _shown_from(self, batch: int) -> tuple[int, int]:
        """From when a new extent first written by that batch may show, and does for certain."""
        h = self._history
        if not h.info.new_extents[self._device]:
            return 0, 0
        ended = int(h.io_complete_ns[h.io_batch == batch].max())
        commits = np.flatnonzero((h.commit_device == self._device) & (h.commit_t_ns >= ended))
        if not commits.size:
            return NEVER, NEVER
        complete, fua = (int(c[commits[0]]) for c in (h.commit_complete_ns, h.commit_fua_ns))
        certain = self._durable_ns(complete)
        if not (h.info.plp or h.info.ignores_flush):
            certain = min(certain, fua)
        return complete, certain
