"""Pages cut into cells: runs of bytes that no store divides.

What is true of one byte of a cell is true of all, so one number each says who wrote them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.compiled import compiled
from crashsim.engine.pages import PAGE_BYTES, Pieces
from crashsim.engine.streams import I64


class Segments(NamedTuple):
    """Runs `[start, end)` of a page and the piece that shows there: int64[m], by page, start."""

    piece: I64
    start: I64
    end: I64


class Cells(NamedTuple):
    """The cells of all pages that are stored to, by address. int64.

    `piece_page` counts in `page`; pieces are those of the stores, in order."""

    page: I64  # [p] ascending
    page_cell: I64  # [p + 1] the page's first cell
    width: I64  # [c] bytes
    piece_row: I64  # [n] store
    piece_page: I64  # [n]
    piece_cell: I64  # [n] first cell
    piece_end: I64  # [n] behind its last


def cut(pieces: Pieces) -> Cells:
    """The cells of pieces."""
    n = pieces.row.size
    bits = n.bit_length()
    key = (pieces.page << bits) | np.arange(n)
    key.sort()
    order = key & ((1 << bits) - 1)
    key >>= bits
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[:n])
    page_cell = np.zeros(first.size + 1, dtype=np.int64)
    width = np.empty(2 * n + first.size, dtype=np.int64)
    of_piece = np.empty((3, n), dtype=np.int64)
    bounds = np.append(first, n)
    cells = _cut(bounds, order, pieces.start, pieces.end, page_cell, width, of_piece)
    return Cells(key[first], page_cell, width[:cells].copy(), pieces.row, *of_piece)


def visible_segments(pieces: Pieces) -> Segments:
    """The maximal runs of every page by the piece that wrote them last; pieces in order of time.

    Bytes that no piece covers are in no segment."""
    cells = cut(pieces)
    last = np.full(cells.width.size, -1, dtype=np.int64)
    _paint(cells.piece_cell, cells.piece_end, last)
    end = np.cumsum(cells.width)  # the pages are one behind the other
    fresh = np.append(True, last[1:] != last[:-1])[: last.size]
    fresh[cells.page_cell[:-1]] = True
    first = np.flatnonzero(fresh)
    behind = np.append(first[1:], last.size)[: first.size] - 1
    start = (end - cells.width)[first]
    size, start = end[behind] - start, start & (PAGE_BYTES - 1)
    seen = last[first] >= 0
    return Segments(last[first][seen], start[seen], (start + size)[seen])


@compiled
def _paint(first: I64, end: I64, last: I64) -> None:
    for piece in range(first.size):
        last[first[piece] : end[piece]] = piece


@compiled
def _cut(
    first: I64, order: I64, start: I64, end: I64, page_cell: I64, width: I64, of_piece: I64
) -> int:
    """Cut each page at the ends of its pieces `order[first[page] : first[page + 1]]`; returns how
    many cells there are. Fills the last three; `of_piece` has page, first cell and end."""
    bounds = np.empty(PAGE_BYTES + 1, np.int64)
    cells = 0
    for page in range(first.size - 1):
        bounds[0], bounds[1], n = 0, PAGE_BYTES, 2
        for piece in order[first[page] : first[page + 1]]:
            n = _insert(bounds, n, start[piece])
            n = _insert(bounds, n, end[piece])
        for piece in order[first[page] : first[page + 1]]:
            of_piece[0, piece] = page
            of_piece[1, piece] = cells + _place(bounds, n, start[piece])
            of_piece[2, piece] = cells + _place(bounds, n, end[piece])
        page_cell[page] = cells
        for i in range(n - 1):
            width[cells + i] = bounds[i + 1] - bounds[i]
        cells += n - 1
    page_cell[first.size - 1] = cells
    return cells


@compiled
def _place(bounds: I64, n: int, value: int) -> int:
    """How many of the first n, ascending, are smaller."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if bounds[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _insert(bounds: I64, n: int, value: int) -> int:
    """Put the value in its place if it is not there; returns how many there are then."""
    at = _place(bounds, n, value)
    if bounds[at] == value:
        return n
    for i in range(n, at, -1):
        bounds[i] = bounds[i - 1]
    bounds[at] = value
    return n + 1
