"""Page arithmetic on columns of stores.

A store may cross pages; its part in one page is a *piece*: (row, page, start, end) with `0 <= start
< end <= 4096`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.streams import I64

PAGE_BYTES = 4096
PAGE_SHIFT = 12


class Pieces(NamedTuple):
    """Pieces in the order of their rows, ascending by page within a row; all int64[n]."""

    row: I64
    page: I64
    start: I64
    end: I64


def words(offset: I64, length: I64) -> I64:
    """How many aligned 8-byte words each store touches (Rule G10)."""
    last = offset + length
    last += 7
    last >>= 3
    last -= offset >> 3
    return last


def page_span(offset: I64, length: I64, shift: int = PAGE_SHIFT) -> tuple[I64, I64]:
    """First page (or unit of `1 << shift` bytes) of each store, and how many."""
    first = offset >> shift
    count = offset + length
    count -= 1
    count >>= shift
    count -= first
    count += 1
    return first, count


def pages_touched(offset: I64, length: I64) -> tuple[I64, I64 | None]:
    """(page of each piece, row of each piece); the rows are None when no store crosses one."""
    first, count = page_span(offset, length)
    if first.size == 0 or int(count.max()) == 1:
        return first, None
    row = np.repeat(np.arange(first.size, dtype=np.int64), count)
    page = np.arange(row.size, dtype=np.int64)
    page -= np.repeat(np.cumsum(count) - count, count)
    page += np.repeat(first, count)
    return page, row


def split(offset: I64, length: I64) -> Pieces:
    """All pieces of the stores."""
    page, row = pages_touched(offset, length)
    if row is None:
        start = offset & (PAGE_BYTES - 1)
        return Pieces(np.arange(page.size, dtype=np.int64), page, start, start + length)
    base = page << PAGE_SHIFT
    start = np.maximum(offset[row], base) - base
    end = np.minimum((offset + length)[row], base + PAGE_BYTES) - base
    return Pieces(row, page, start, end)


def unique_sorted(values: I64) -> I64:
    """Ascending distinct values. (`np.unique` does more than is wanted, several times slower.)"""
    if values.size <= 1:
        return values
    ordered = np.sort(values)
    keep = np.empty(ordered.size, dtype=bool)
    keep[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
    return ordered[keep]


def column(values: list[int]) -> I64:
    """int64[n] of the values."""
    return np.array(values, dtype=np.int64)


def join(parts: list[I64]) -> I64:
    """Columns one behind the other; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
