"""How the pages of a file lie in folios (Rule H2): what is dirtied and cleaned as one.

Contract: a file is made of parts, each with a largest folio. Within a part the folio at a page is
the largest power of two of pages that is no larger than that, divides the page's number in the
device, and does not go past the part's end. Folios are numbered upwards; with one size the number
is the page's divided by the folio's pages, so with 4 KiB it is the page's. Pages are global.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crashsim.engine.pages import PAGE_SHIFT, page_span
from crashsim.engine.streams import I64


class Folios:
    """The folios of one device's pages `first_page` to `end_page`.

    `parts`: (largest folio in bytes, end in bytes within the device), ascending; the last ends
    with the device."""

    __slots__ = ("_bits", "_number", "_page", "end", "first", "largest_bytes", "shift")

    def __init__(self, first_page: int, pages: int, parts: Sequence[tuple[int, int]]) -> None:
        runs = list(_runs(pages, parts))
        self._page = np.array([first_page + low for low, _, _ in runs], dtype=np.int64)
        self._bits = np.array([bits for _, bits, _ in runs], dtype=np.int64)
        counts = [count for _, _, count in runs]
        self.first = first_page >> runs[0][1]
        self._number = self.first + np.cumsum([0, *counts[:-1]], dtype=np.int64)
        self.end = self.first + sum(counts)
        self.largest_bytes = 1 << (PAGE_SHIFT + max(bits for _, bits, _ in runs))
        # Of a single size: folio and page are one shift apart.
        self.shift = PAGE_SHIFT + runs[0][1] if len(runs) == 1 else None

    def of_pages(self, page: I64) -> I64:
        """The folio of each page."""
        if self.shift is not None:
            return page if self.shift == PAGE_SHIFT else page >> (self.shift - PAGE_SHIFT)
        part = np.searchsorted(self._page, page, "right") - 1
        return self._number[part] + ((page - self._page[part]) >> self._bits[part])

    def first_page(self, folio: I64) -> I64:
        """The first page of each folio."""
        if self.shift is not None:
            return folio if self.shift == PAGE_SHIFT else folio << (self.shift - PAGE_SHIFT)
        part = np.searchsorted(self._number, folio, "right") - 1
        return self._page[part] + ((folio - self._number[part]) << self._bits[part])

    def pages(self, folio: I64) -> I64:
        """How many pages each folio has."""
        if self.shift is not None:
            return np.full(folio.size, 1 << (self.shift - PAGE_SHIFT), dtype=np.int64)
        each: I64 = 1 << self._bits[np.searchsorted(self._number, folio, "right") - 1]
        return each

    def count_pages(self, folio: I64) -> int:
        """How many pages they have together."""
        if self.shift is not None:
            return int(folio.size) << (self.shift - PAGE_SHIFT)
        return int(self.pages(folio).sum())

    def touched(self, offset: I64, length: I64) -> tuple[I64, I64 | None]:
        """(folio of each piece, row of each piece) of stores; the rows are None when no store
        touches two."""
        if self.shift is not None:
            first, count = page_span(offset, length, self.shift)
        else:
            first, count = page_span(offset, length)
            last = self.of_pages(first + count - 1)
            first = self.of_pages(first)
            count = last - first + 1
        if first.size == 0 or int(count.max()) == 1:
            return first, None
        row = np.repeat(np.arange(first.size, dtype=np.int64), count)
        folio = np.arange(row.size, dtype=np.int64)
        folio -= np.repeat(np.cumsum(count) - count, count)
        folio += np.repeat(first, count)
        return folio, row


def _runs(pages: int, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(first page within the device, log2 of pages in a folio, how many of those), ascending."""
    found: list[tuple[int, int, int]] = []
    page = 0
    for size_bytes, end_bytes in parts:
        largest = (size_bytes >> PAGE_SHIFT).bit_length() - 1
        end = min(pages, end_bytes >> PAGE_SHIFT)
        while page < end:
            fits = (end - page).bit_length() - 1
            aligned = (page & -page).bit_length() - 1 if page else largest
            bits = min(largest, fits, aligned)
            count = (end - page) >> bits if bits == largest else 1
            if found and found[-1][1] == bits:
                low, _, before = found.pop()
                found.append((low, bits, before + count))
            else:
                found.append((page, bits, count))
            page += count << bits
    return found


def single_pages(first_page: int, pages: int) -> Folios:
    """Every page by itself."""
    return Folios(first_page, pages, [(1 << PAGE_SHIFT, pages << PAGE_SHIFT)])
