"""The image a cut leaves, rebuilt from the History in proportion to the pages touched (Rules D2,
D3, G10, P1-P5).

Every piece that is safe at the cut, the last writer of each byte on top; a store in progress at the
cut is there as far as its words have landed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES, Pieces, split, words
from crashsim.engine.streams import I64
from crashsim.power.media_loss import gone, lost_again
from crashsim.power.safety import Safety, Stage
from crashsim.replay.cells import visible_segments

IN_MEMORY = (Stage.STORED, Stage.IN_HOST, Stage.IN_FILE, Stage.AFTER_QUIT)


@dataclass(frozen=True, slots=True)
class Extents:
    """Disjoint runs of bytes of the image and the write each shows, int64[m], ascending by address.

    `offset` is the global address, [start, end) the part of the write, `length` the write's whole
    length."""

    offset: I64
    write: I64
    start: I64
    end: I64
    length: I64


def versions_at(history: History, stage: Stage, cut_ns: int) -> I64:
    """Pieces (numbers in `all_pieces`) that a failure at `cut_ns` which keeps `stage` is certain to
    leave."""
    pieces, safety = all_pieces(history), Safety(history, stage)
    safe = safety.of_pieces(pieces, history.store_t_ns)
    lost = lost_again(history, safety, stage)
    if lost is not None:
        safe[gone(lost, pieces.page, cut_ns)] = NEVER
    return np.flatnonzero(safe <= cut_ns)


def all_pieces(history: History) -> Pieces:
    """All stores cut at page ends."""
    return split(history.store_offset, history.store_length)


def certain(history: History, stage: Stage, cut_ns: int, whole: bool = False) -> Extents:
    """The image of what the failure is certain to leave; `whole`: with stores in progress whole."""
    pieces = all_pieces(history)
    kept = versions_at(history, stage, cut_ns)
    pieces = Pieces(*(column[kept] for column in pieces))
    if stage in IN_MEMORY and not whole:
        pieces = _clip(history, pieces, cut_ns)
    return extents(history, pieces)


def damaged(history: History, stage: Stage, cut_ns: int) -> I64:
    """Pages that read as nothing anybody stored, ascending (Rule D4). Of a dead disk: all of its
    pages that the run stored to."""
    lost = lost_again(history, Safety(history, stage), stage)
    pages = np.unique(all_pieces(history).page)
    return pages[gone(lost, pages, cut_ns)] if lost is not None else pages[:0]


def _clip(history: History, pieces: Pieces, cut_ns: int) -> Pieces:
    """Leave out the words of a store in progress that have not landed at the cut (Rule G10)."""
    t = history.store_t_ns[pieces.row]
    offset, length = history.store_offset[pieces.row], history.store_length[pieces.row]
    late = np.flatnonzero(t + words(offset, length) - 1 > cut_ns)
    if not late.size:
        return pieces
    end = pieces.end.copy()
    landed = ((offset[late] >> 3) + (cut_ns - t[late] + 1)) << 3
    end[late] = np.minimum(end[late], landed - pieces.page[late] * PAGE_BYTES)
    keep = end > pieces.start
    return Pieces(pieces.row[keep], pieces.page[keep], pieces.start[keep], end[keep])


def extents(history: History, pieces: Pieces) -> Extents:
    """What shows of pieces in order of time."""
    if not pieces.row.size:
        return Extents(*(np.empty(0, dtype=np.int64) for _ in range(5)))
    shown = visible_segments(pieces)
    row = pieces.row[shown.piece]
    base = pieces.page[shown.piece] * PAGE_BYTES
    # A divided write continues in a later store: count from where the write itself began.
    skipped = history.store_offset[row] - _write_offset(history)[row]
    start = base + shown.start - history.store_offset[row] + skipped
    size = shown.end - shown.start
    length = _write_length(history)[row]
    return Extents(base + shown.start, history.store_write[row], start, start + size, length)


def _write_offset(history: History) -> I64:
    """Address at which the write of each store begins."""
    return _first_of_write(history)[0]


def _write_length(history: History) -> I64:
    """Whole length of the write of each store, as far as it was ever stored."""
    return _first_of_write(history)[1]


def _first_of_write(history: History) -> tuple[I64, I64]:
    write = history.store_write
    if write.size <= 1 or bool(np.all(np.diff(write) > 0)):
        return history.store_offset, history.store_length
    order = np.argsort(write, kind="stable")
    first = np.flatnonzero(np.diff(write[order], prepend=-1))
    which = np.cumsum(np.diff(write[order], prepend=-1) != 0) - 1
    low = np.minimum.reduceat(history.store_offset[order], first)
    high = np.maximum.reduceat((history.store_offset + history.store_length)[order], first)
    offset = np.empty_like(write)
    length = np.empty_like(write)
    offset[order] = low[which]
    length[order] = (high - low)[which]
    return offset, length
