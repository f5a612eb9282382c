"""A checker's own copy of an image, as a file that costs what differs.

Contract: after `bring` the file holds exactly the image, whatever was done to its content before:
written, mapped, cut or punched. Pages that are zero are holes until somebody writes to them. Nobody
may write to it while `bring` runs.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crashsim.checkers.verdict import Ranges
from crashsim.engine.pages import PAGE_BYTES
from crashsim.errors import ReplayMismatch

_STRETCH_PAGES = 1 << 8
_MOST_UNMARKED = 1 << 12


class ImageCopy:
    """`path` is the copy; images have whole pages."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._buffer = bytearray(_STRETCH_PAGES * PAGE_BYTES)
        self._fresh = True  # it has not held an image yet
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size_bytes)
        self._map = mmap.mmap(self._fd, size_bytes)
        # Pages that may be other than zero, in the file or in the image.
        self._laid = np.zeros(size_bytes // PAGE_BYTES, dtype=bool)
        self._unmarked: set[tuple[int, int]] = set()  # ranges that are still to be marked there

    def bring(self, image: memoryview, changed: Ranges | None, touched: bool) -> bool:
        """Make it hold the image; whether anybody who watches the file can have seen that.

        `changed`: where this differs from the last one; None: unknown. `touched`: somebody may have
        written to the file.

        O(what changed) if nobody did; otherwise O(pages that are or were not zero), and O(image)
        without `changed`."""
        if not (touched or self._fresh or changed is None):
            copy = self._map
            for start, end in changed:  # nobody cut the file, or it would count as touched
                copy[start:end] = image[start:end]
            self._unmarked.update(changed)
            if len(self._unmarked) > _MOST_UNMARKED:
                self._mark_laid()
            return False  # writes to a mapping are nobody's event
        self._mark_laid()
        if touched:
            self._mark_allocated()
        if self._fresh or changed is None:
            words = np.frombuffer(image, dtype=np.uint64).reshape(-1, PAGE_BYTES // 8)
            self._laid |= words.any(axis=1)
        else:
            self._unmarked.update(changed)
            self._mark_laid()
        self._compare(image)
        self._fresh = False
        return True

    def prove(self, image: memoryview) -> None:
        """ReplayMismatch unless it holds the image, every byte of it compared."""
        for start in range(0, self.size_bytes, len(self._buffer)):
            there = memoryview(self._buffer)[: min(len(self._buffer), self.size_bytes - start)]
            os.preadv(self._fd, [there], start)
            pages = np.flatnonzero(_differing_pages(there, image[start : start + len(there)]))
            if pages.size:
                at = start + int(pages[0]) * PAGE_BYTES
                raise ReplayMismatch(
                    f"a checker was to be given bytes from {at} on that are not the state's"
                )

    def close(self) -> None:
        """Let go of it; the file stays."""
        self._map.close()
        os.close(self._fd)

    def _mark_laid(self) -> None:
        for start, end in self._unmarked:
            self._laid[start // PAGE_BYTES : -(-end // PAGE_BYTES)] = True
        self._unmarked.clear()

    def _mark_allocated(self) -> None:
        """Of its size again, and all that others wrote marked."""
        if os.fstat(self._fd).st_size != self.size_bytes:
            os.ftruncate(self._fd, self.size_bytes)
        for start, end in self._allocated():
            self._laid[start // PAGE_BYTES : -(-end // PAGE_BYTES)] = True

    def _allocated(self) -> Iterator[tuple[int, int]]:
        end = 0
        while end < self.size_bytes:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
            yield start, end

    def _compare(self, image: memoryview) -> None:
        """Write the marked pages that differ."""
        for low, high in _runs(self._laid):
            for first in range(low, high, _STRETCH_PAGES):
                start = first * PAGE_BYTES
                end = min(high, first + _STRETCH_PAGES) * PAGE_BYTES
                there = memoryview(self._buffer)[: end - start]
                os.preadv(self._fd, [there], start)
                for a, b in _runs(_differing_pages(there, image[start:end])):
                    here = slice(start + a * PAGE_BYTES, start + b * PAGE_BYTES)
                    os.pwrite(self._fd, image[here], here.start)


Pages = np.ndarray[tuple[int], np.dtype[np.bool_]]


def _differing_pages(a: memoryview, b: memoryview) -> Pages:
    unequal = np.frombuffer(a, dtype=np.uint64) != np.frombuffer(b, dtype=np.uint64)
    found: Pages = unequal.reshape(-1, PAGE_BYTES // 8).any(axis=1)
    return found


def _runs(marked: Pages) -> list[tuple[int, int]]:
    """[low, high) of neighbours that are marked."""
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
    return list(zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True))
