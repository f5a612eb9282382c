"""What may survive a cut beyond what is certain (Rules D2, D3, H4).

Contract: `none` of it is the certain image, `all` lets every submitted write arrive, a seed draws:
the page decides whether it is lost, kept or torn, and each atom (sector, or the drive's larger
power-fail atom) of a torn page draws one of the versions it may hold. Where pages are not stable
while they are written (H4), each word of a page that an I/O carries draws the instant at which it
was read, so that stores that raced with the I/O are there in part. What the disk has damaged (D4)
shows nothing of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES, Pieces
from crashsim.engine.streams import I64, Stream
from crashsim.power.media_loss import gone, lost_again
from crashsim.power.safety import Safety, Stage
from crashsim.replay.image import IN_MEMORY, Extents, all_pieces, certain, extents

WORD_BYTES = 8


class _Fates(NamedTuple):
    """Pieces, when each was submitted and when it is safe, int64[p]."""

    pieces: Pieces
    sent_ns: I64
    safe_ns: I64


def surviving(history: History, stage: Stage, cut_ns: int, survivors: str) -> Extents:
    """The image with some of what was under way: `none`, `all`, or a seed in decimal."""
    if survivors == "none" or stage in IN_MEMORY:
        return certain(history, stage, cut_ns)
    if survivors == "all":
        return certain(history, Stage.SUBMITTED, cut_ns)
    return _drawn(history, stage, cut_ns, int(survivors))


def _drawn(history: History, stage: Stage, cut_ns: int, seed: int) -> Extents:
    fates = _fates(history, stage, cut_ns)
    if not history.info.stable_writes:
        fates = _with_captured(history, fates, stage, cut_ns, Stream(seed, "captured"))
    pieces, sent, safe = fates
    possible = sent <= cut_ns
    open_pages = np.unique(pieces.page[possible & (safe > cut_ns)])
    on_open = np.isin(pieces.page, open_pages)
    settled = (safe <= cut_ns) & ~on_open
    parts = [Pieces(*(column[settled] for column in pieces))]
    stream, atom = Stream(seed, "survivors"), history.info.atom_bytes
    for page in open_pages.tolist():
        mine = np.flatnonzero(possible & (pieces.page == page))
        parts.extend(_page_versions(fates, mine, cut_ns, page, stream, atom))
    rows = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(rows[0], kind="stable")
    return extents(history, Pieces(*(column[order] for column in rows)))


def _fates(history: History, stage: Stage, cut_ns: int) -> _Fates:
    pieces, safety = all_pieces(history), Safety(history, stage)
    safe = safety.of_pieces(pieces, history.store_t_ns)
    sent = Safety(history, Stage.SUBMITTED).of_pieces(pieces, history.store_t_ns)
    lost = lost_again(history, safety, stage)
    if lost is not None:
        hit = gone(lost, pieces.page, cut_ns)
        sent[hit] = safe[hit] = NEVER
    return _Fates(pieces, sent, safe)


def _with_captured(
    history: History, fates: _Fates, stage: Stage, cut_ns: int, stream: Stream
) -> _Fates:
    """With the words of stores that an I/O took along which began before them: they fare as what
    that I/O carries."""
    pieces, sent, safe = fates
    began = history.store_t_ns[pieces.row]
    snapshot, complete = _io_before(history, pieces.page, began)
    racing = np.flatnonzero((began <= complete) & (snapshot <= cut_ns))
    if not racing.size:
        return fates
    first = pieces.start[racing] >> 3
    count = ((pieces.end[racing] - 1) >> 3) - first + 1
    which = np.repeat(racing, count)
    nth = np.arange(which.size) - np.repeat(np.cumsum(count) - count, count)
    word = np.repeat(first, count) + nth
    row, page = pieces.row[which], pieces.page[which]
    in_store = (page * PAGE_BYTES >> 3) + word - (history.store_offset[row] >> 3)
    # Each word is read at one instant between the snapshot and the I/O's completion.
    since, until = snapshot[which], complete[which]
    draws = stream.draws(((page * PAGE_BYTES >> 3) + word << 20) ^ since)
    read_ns = since + (draws % (until - since + 1).astype(np.uint64)).astype(np.int64)
    taken = history.store_t_ns[row] + in_store <= np.minimum(read_ns, cut_ns)
    which, word, row, page = which[taken], word[taken], row[taken], page[taken]
    start = np.maximum(pieces.start[which], word * WORD_BYTES)
    end = np.minimum(pieces.end[which], (word + 1) * WORD_BYTES)
    carried = Safety(history, stage).in_file(page, snapshot[which])
    more = (Pieces(row, page, start, end), snapshot[which], carried)
    return _Fates(
        Pieces(*(np.append(old, new) for old, new in zip(pieces, more[0], strict=True))),
        np.append(sent, more[1]),
        np.append(safe, more[2]),
    )


def _io_before(history: History, page: I64, t_ns: I64) -> tuple[I64, I64]:
    """Of the last I/O of each page that was submitted before an instant, and reached the disk: when
    that was, and its completion; NEVER and -1 if there is none. Guests with DAX alone: others store
    to their own page cache."""
    dax = np.array(history.info.dax)[history.batch_device[history.io_batch]]
    failed = history.batch_failed[history.io_batch] != 0
    drops_last_page = history.io_shorn | history.io_corrupted
    pages = np.where(failed | ~dax, 0, history.io_pages - drops_last_page)
    io = np.repeat(np.arange(pages.size), pages)
    nth = np.arange(io.size) - np.repeat(np.cumsum(pages) - pages, pages)
    of_page = history.io_first_page[io] + nth
    submitted = history.batch_t_ns[history.io_batch[io]]
    instants = np.unique(np.append(submitted, t_ns))
    bits = max(instants.size.bit_length(), 1)
    key = (of_page << bits) | np.searchsorted(instants, submitted)
    order = np.argsort(key, kind="stable")
    key = key[order]
    at = np.searchsorted(key, (page << bits) | np.searchsorted(instants, t_ns), "left") - 1
    found = np.maximum(at, 0)
    hit = at >= 0
    if not key.size:
        return np.full(page.size, NEVER), np.full(page.size, -1)
    hit &= key[found] >> bits == page
    chosen = order[found]
    snapshot = np.where(hit, submitted[chosen], NEVER)
    return snapshot, np.where(hit, history.io_complete_ns[io[chosen]], -1)


def _page_versions(
    fates: _Fates, mine: I64, cut_ns: int, page: int, stream: Stream, atom: int
) -> Iterator[Pieces]:
    """Pieces of one page, cut at atoms where it is torn, as far as they survive."""
    pieces, sent, safe = fates
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
