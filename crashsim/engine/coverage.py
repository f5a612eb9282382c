"""Who painted each byte of a page first, and who painted it last.

A *piece* is the run of bytes `[start, end)` of one page that one store wrote. Pieces of one *group*
(a page between two of its snapshots) lie over each other; their order in the arrays is their order
in time. Two questions are answered exactly, in time `n log n` and memory proportional to `n`:

- `first_cover_bytes`: how many bytes of each piece no earlier piece of its group covers. Their sum
  over a group is the size of the group's union; their running sum is that union as it grows.
- `visible_segments`: which runs of a group's final content each piece is the last writer of.

Both ask, for every byte, for the smallest time index among the pieces over it (the second one with
time reversed). A piece alone in its group needs no work. Groups are laid side by side on one line
whose coordinates are compressed to the ranks of the pieces' end points; each piece then enters its
index into two overlapping blocks of a power-of-two length, and the blocks are pushed down to single
ranks by minima. A group of very many pieces uses the page's 4096 bytes themselves as coordinates.
The work goes in chunks that stay in the processor's cache; no group is divided between two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crashsim.engine.pages import PAGE_BYTES, PAGE_SHIFT
from crashsim.engine.streams import I64

I32 = npt.NDArray[np.int32]
Integers = npt.NDArray[np.integer[Any]]

_CHUNK_PIECES = 1 << 14
_DENSE_PIECES = 1 << 10  # from here on a table over all bytes of the page is cheaper than a sort
_DENSE_LEVELS = PAGE_SHIFT + 1


class Segments(NamedTuple):
    """Runs `[start, end)` of a page and the piece that shows there: int64[m], by group, start."""

    piece: I64
    start: I64
    end: I64


class _Painted(NamedTuple):
    """`line[i] .. line[i + 1]` belongs to `pieces[winner[i]]`, to nobody if that is `len(pieces)`.

    `line` counts bytes over the chunk's groups side by side, `PAGE_BYTES` each."""

    pieces: I64
    line: I64
    winner: I32


class _Shared(NamedTuple):
    """The pieces that share their group, by group and then time, with the size of the group."""

    piece: I64
    group: I64
    size: I64


def first_cover_bytes(group: I64, start: Integers, end: Integers) -> I64:
    """Bytes of each piece that no earlier piece of its group covers, int64[n].

    `group` int64[n] of dense ids 0..G-1 in any order (G * n < 2^62); `start`, `end` any integer
    type with 0 <= start < end <= 4096.
    """
    cover: I64 = np.subtract(end, start, dtype=np.int64)
    shared = _shared(group)
    pairs = shared.piece[shared.size == 2]
    earlier, later = pairs[::2], pairs[1::2]
    overlap = np.minimum(end[earlier], end[later])
    overlap -= np.maximum(start[earlier], start[later])
    cover[later] -= np.maximum(overlap, 0)
    for pieces, line, winner in _paint(_select(shared, shared.size > 2), start, end):
        won = np.bincount(winner, weights=np.diff(line), minlength=len(pieces) + 1)
        cover[pieces] = won[:-1]
    return cover


def visible_segments(group: I64, start: Integers, end: Integers) -> Segments:
    """The maximal runs of every group's final content by their last writer, by group, then start.

    Arguments as of `first_cover_bytes`. Bytes that no piece covers are in no segment.
    """
    reverse_start, reverse_end = start[::-1], end[::-1]
    shared = _shared(group[::-1])
    alone = np.ones(len(group), dtype=np.bool_)
    alone[shared.piece] = False
    lonely = np.flatnonzero(alone)
    bounds = (side[lonely].astype(np.int64) for side in (reverse_start, reverse_end))
    parts = [Segments(lonely, *bounds)]
    parts += [_segments(painted) for painted in _paint(shared, reverse_start, reverse_end)]
    piece, first, last = (np.concatenate(column) for column in zip(*parts, strict=True))
    piece = len(group) - 1 - piece
    order = np.argsort((group[piece] << PAGE_SHIFT) + first)
    return Segments(piece[order], first[order], last[order])


def _segments(painted: _Painted) -> Segments:
    """Neighbouring intervals of one winner joined; coordinates back in the page."""
    pieces, line, winner = painted
    real = np.flatnonzero(line[1:] > line[:-1])
    winner, low, high = winner[real], line[:-1][real], line[1:][real]
    last = np.flatnonzero(np.append(winner[1:] != winner[:-1], True))
    first = np.append(0, last[:-1] + 1)
    seen = winner[first] < len(pieces)
    first, last = first[seen], last[seen]
    start = low[first] & (PAGE_BYTES - 1)
    return Segments(pieces[winner[first]], start, start + (high[last] - low[first]))


def _shared(group: I64) -> _Shared:
    size = np.bincount(group)[group]
    several = np.flatnonzero(size > 1)
    if bool(np.all(group[1:] >= group[:-1])):
        return _Shared(several, group[several], size[several])
    shift = len(group).bit_length()
    key = group[several] << shift
    key |= several
    key.sort()
    key &= (1 << shift) - 1
    return _Shared(key, group[key], size[key])


def _select(shared: _Shared, wanted: npt.NDArray[np.bool_]) -> _Shared:
    return _Shared(*(column[wanted] for column in shared))


def _paint(shared: _Shared, start: Integers, end: Integers) -> Iterator[_Painted]:
    """Every shared byte's smallest index, a chunk of whole groups at a time."""
    sparse = _select(shared, shared.size < _DENSE_PIECES)
    for low, high in _chunks(sparse.group, _CHUNK_PIECES):
        pieces, group = sparse.piece[low:high], sparse.group[low:high]
        base = np.zeros(high - low, dtype=np.int64)
        np.cumsum(group[1:] != group[:-1], out=base[1:])
        base <<= PAGE_SHIFT
        yield _Painted(pieces, *_paint_sparse(base + start[pieces], base + end[pieces]))
    dense = _select(shared, shared.size >= _DENSE_PIECES)
    for low, high in _chunks(dense.group, 1):
        pieces = dense.piece[low:high]
        line = np.arange(PAGE_BYTES + 1)
        yield _Painted(pieces, line, _paint_dense(start[pieces], end[pieces]))


def _chunks(sorted_group: I64, chunk_pieces: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole groups: as many as fit into `chunk_pieces`, one if it alone does not fit."""
    total = len(sorted_group)
    bounds = np.append(np.flatnonzero(sorted_group[1:] != sorted_group[:-1]) + 1, total)
    low = 0
    while low < total:
        next_bound = int(np.searchsorted(bounds, low, side="right"))
        last_fitting = int(np.searchsorted(bounds, low + chunk_pieces, side="right")) - 1
        high = int(bounds[max(next_bound, last_fitting)])
        yield low, high
        low = high


def _paint_sparse(line_start: I64, line_end: I64) -> tuple[I64, I32]:
    """End points in order, int64[2n], and the smallest index over each interval, int32[2n]."""
    count = len(line_start)
    ends = 2 * count
    shift = ends.bit_length()
    line = np.concatenate((line_start, line_end))
    line <<= shift
    line |= np.arange(ends)
    line.sort()  # sorting packed keys is several times faster than argsort
    rank = np.empty(ends, dtype=np.int32)
    rank[line & ((1 << shift) - 1)] = np.arange(ends, dtype=np.int32)
    line >>= shift
    table = _range_minima(rank[:count], rank[count:], ends)
    return line, table[:-1]


def _paint_dense(start: Integers, end: Integers) -> I32:
    return _range_minima(start.astype(np.int32), end.astype(np.int32), PAGE_BYTES)


def _range_minima(low: I32, high: I32, width: int) -> I32:
    """For each of `width` places the smallest i with `low[i] <= place < high[i]`, or `len(low)`."""
    length = high - low
    level = (length.astype(np.float32).view(np.int32) >> 23) - 127  # floor(log2): the exponent
    levels = int(level.max()) + 1
    table = np.full((levels, width), len(low), dtype=np.int32)
    index = np.arange(len(low), dtype=np.int32)
    row = level * np.int32(width)
    flat = table.reshape(-1)
    np.minimum.at(flat, row + low, index)
    np.minimum.at(flat, row + high - (np.int32(1) << level), index)
    for above in range(levels - 1, 0, -1):
        half = 1 << (above - 1)
        np.minimum(table[above - 1], table[above], out=table[above - 1])
        np.minimum(table[above - 1, half:], table[above, :-half], out=table[above - 1, half:])
    smallest: I32 = table[0]
    return smallest
