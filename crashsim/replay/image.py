"""The image a cut leaves, rebuilt from the History in proportion to the pages touched (Rules D2,
D3, G10, P1-P5).

Certain image: every piece that is safe at the cut, the last writer of each byte on top. `survivors`
decide about what was under way (submitted to the disk but not certain): `none` is the certain
image, `all` lets every submitted write arrive, a seed draws: the page decides whether it is lost,
kept or torn, and each atom (sector, or the drive's larger power-fail atom) of a torn page draws one
of the versions it may hold. A store in progress at the cut is there as far as its words have
landed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES, Pieces, split, words
from crashsim.engine.paint import visible_segments
from crashsim.engine.streams import I64, Stream
from crashsim.power.safety import Safety, Stage

_IN_MEMORY = (Stage.STORED, Stage.IN_HOST, Stage.IN_FILE, Stage.AFTER_QUIT)


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
    pieces = all_pieces(history)
    safe = Safety(history, stage).of_pieces(pieces, history.store_t_ns)
    return np.flatnonzero(safe <= cut_ns)


def all_pieces(history: History) -> Pieces:
    """All stores cut at page ends."""
    return split(history.store_offset, history.store_length)


def certain(history: History, stage: Stage, cut_ns: int, whole: bool = False) -> Extents:
    """The image of what the failure is certain to leave; `whole`: with stores in progress whole."""
    pieces = all_pieces(history)
    kept = versions_at(history, stage, cut_ns)
    pieces = Pieces(*(column[kept] for column in pieces))
    if stage in _IN_MEMORY and not whole:
        pieces = _clip(history, pieces, cut_ns)
    return _extents(history, pieces)


def surviving(history: History, stage: Stage, cut_ns: int, survivors: str) -> Extents:
    """The image with some of what was under way: `none`, `all`, or a seed in decimal."""
    if survivors == "none" or stage in _IN_MEMORY:
        return certain(history, stage, cut_ns)
    if survivors == "all":
        return certain(history, Stage.SUBMITTED, cut_ns)
    return _drawn(history, stage, cut_ns, int(survivors))


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


def _extents(history: History, pieces: Pieces) -> Extents:
    if not pieces.row.size:
        return Extents(*(np.empty(0, dtype=np.int64) for _ in range(5)))
    pages, group = np.unique(pieces.page, return_inverse=True)
    shown = visible_segments(group.astype(np.int64), pieces.start, pieces.end)
    row = pieces.row[shown.piece]
    base = pages[group[shown.piece]] * PAGE_BYTES
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


def _drawn(history: History, stage: Stage, cut_ns: int, seed: int) -> Extents:
    pieces = all_pieces(history)
    safe = Safety(history, stage).of_pieces(pieces, history.store_t_ns)
    sent = Safety(history, Stage.SUBMITTED).of_pieces(pieces, history.store_t_ns)
    possible = sent <= cut_ns
    open_pages = np.unique(pieces.page[possible & (safe > cut_ns)])
    on_open = np.isin(pieces.page, open_pages)
    settled = (safe <= cut_ns) & ~on_open
    parts = [Pieces(*(column[settled] for column in pieces))]
    stream = Stream(seed, "survivors")
    for page in open_pages.tolist():
        mine = np.flatnonzero(possible & (pieces.page == page))
        parts.extend(
            _page_versions(
                pieces, mine, safe, sent, cut_ns, page, stream, history.facts["atom_bytes"]
            )
        )
    rows = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(rows[0], kind="stable")
    return _extents(history, Pieces(*(column[order] for column in rows)))


def _page_versions(
    pieces: Pieces,
    mine: I64,
    safe: I64,
    sent: I64,
    cut_ns: int,
    page: int,
    stream: Stream,
    atom: int,
) -> Iterator[Pieces]:
    """Pieces of one page, cut at atoms where it is torn, as far as they survive."""
    # Versions of the page: what is certain, then one for each snapshot that was under way.
    versions = np.unique(sent[mine[safe[mine] > cut_ns]])
    draw = stream.draw(page << 8)
    kind = draw % 3
    choice = (draw >> 8) % (versions.size + 1)
    if kind == 0:
        choice = 0
    bounds = (
        range(0, PAGE_BYTES, min(atom, PAGE_BYTES))
        if kind == 2
        else range(0, PAGE_BYTES, PAGE_BYTES)
    )
    width = bounds.step
    for number, low in enumerate(bounds):
        if kind == 2:
            choice = stream.draw((page << 8) + 1 + number) % (versions.size + 1)
        bar = versions[choice - 1] if choice else -1
        kept = mine[(safe[mine] <= cut_ns) | (sent[mine] <= bar)]
        start = np.maximum(pieces.start[kept], low)
        end = np.minimum(pieces.end[kept], low + width)
        some = end > start
        kept = kept[some]
        yield Pieces(pieces.row[kept], pieces.page[kept], start[some], end[some])
