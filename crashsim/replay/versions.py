"""The loss once more, the slow way: two real files, one event after the other.

An independent computation of what `power.at_risk` calculates; nothing in here looks at `power`. For
each cell of the pages that are ever stored to (`replay.cells`) a mapped file holds the number of
the store that put it there (u32, 0: as before the run): one file for what the guest wrote, one for
what the failure keeps. The History's events are applied to them in order of time: stores to the
guest's file, snapshots of whole pages, completions, journal commits, FLUSHes. Bytes in which the
two files differ are lost.

What an I/O takes along of a page is a *parcel*: a copy in the arena, until the disk has it for
good. A page that has not changed since it was sent need not be sent again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crashsim.engine.compiled import compiled
from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import split
from crashsim.engine.streams import I64
from crashsim.replay import cells
from crashsim.replay.cells import Cells
from crashsim.replay.events import (
    COMMIT,
    COMPLETE,
    COPY,
    DAMAGE,
    DEATH,
    FLUSHED,
    SNAPSHOT,
    STORE,
    InOrder,
    in_order,
)
from crashsim.replay.sparse import SparseFile

DAMAGED = 0xFFFFFFFF  # a stamp that no store has
_ROOM = 1 << 16  # stamps in the arena at first

Stamps = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
Table = npt.NDArray[Any]  # of records
_PAGE = np.dtype(
    [
        ("cell", "i8"),  # its cells [cell, end)
        ("end", "i8"),
        ("new_until_ns", "i8"),  # end of its first batch; -1: none yet, NEVER: covered (H13)
        ("void", "i8"),  # parcels before this number arrive no more
        ("differing", "i4"),  # bytes
        ("device", "i4"),
        ("dax", "?"),
        ("in_memory", "?"),  # the failure keeps the device's memory
        ("on_disk", "?"),
        ("new_extents", "?"),
        ("stored", "?"),
        ("changed", "?"),  # to be compared again
        ("hidden", "?"),  # it has arrived, but no commit that is kept covers it (H13)
    ]
)
_PIECE = np.dtype([("page", "i4"), ("stamp", "u4"), ("cell", "i8"), ("end", "i8")])
_BATCH = np.dtype([("io", "i8"), ("io_end", "i8"), ("end_ns", "i8"), ("carries", "?")])
# Its touched pages [page, end); those that arrive end sooner if the last one is shorn or damaged.
_IO = np.dtype(
    [(name, "i8") for name in ("complete_ns", "parcel", "parcel_end")]
    + [("page", "i4"), ("end", "i4"), ("arrives", "i4"), ("arrived", "?")]
)
_COMMITTED = np.dtype([("device", "i8"), ("covers_ns", "i8"), ("complete_ns", "i8")])
_PARCEL = np.dtype([("page", "i8"), ("at", "i8")])
_CHANGED, _NEW, _PARCELS, _UNSENT, _FILLED, _OLDEST, _SENT = range(7)
_CACHED, _FLUSHED_IOS, _COMMITS, _LOST = range(7, 11)


class _Files(NamedTuple):
    """Who takes part, how far it is, and who wrote each cell of the two files and of what is on its
    way to them."""

    page: Table
    piece: Table
    batch: Table
    io: Table
    commit: Table
    parcel: Table
    width: I64  # of each cell
    unsent: Flags  # pages: no I/O that carries it has what it holds; `counts[_UNSENT]` cells
    changed: I64  # pages to be compared, `counts[_CHANGED]` of them
    new: I64  # pages that no commit covers
    cached: I64  # I/Os that wait for a FLUSH, in order
    commits: I64  # so do these
    counts: I64
    guest: Stamps
    kept: Stamps
    host: Stamps  # L2 of guests without DAX
    hidden: Stamps  # what arrived of new pages
    arena: Stamps


class TwoFiles:
    """The guest's view and one kept layer, as files of stamps without a name in `folder`.

    `keep`: what the failure keeps: "host" (the device's memory), "file" (where that is a file's),
    "after-quit" (and not zeroed at its end), "elsewhere" (nothing), "submitted", "completed" or
    "durable"."""

    def __init__(self, history: History, keep: str, folder: Path) -> None:
        self._cells = cells.cut(split(history.store_offset, history.store_length))
        self._when_sent = keep == "submitted"
        plp = keep == "durable" and history.info.plp
        self._when_complete = keep in ("submitted", "completed") or plp
        self._events = in_order(history, keep, self._cells)
        size = max(self._cells.width.size, 1) * 4
        self._sparse = [SparseFile(folder, size, scratch=True) for _ in range(2)]
        for file in self._sparse:
            file.reserve(0, size)
        guest, kept = (np.frombuffer(file.map, dtype=np.uint32) for file in self._sparse)
        self._files = _files(history, keep, self._cells, guest, kept)

    def advance(self, cut_ns: int) -> int:
        """Apply everything up to and including `cut_ns`; compare; return the bytes that differ."""
        how = (self._when_sent, self._when_complete)
        while lacking := _advance(self._events, self._files, *how, cut_ns):
            arena = self._files.arena
            larger = np.concatenate([arena, np.empty(arena.size + lacking, dtype=np.uint32)])
            self._files = self._files._replace(arena=larger)
        return int(self._files.counts[_LOST])

    def kept_of(self, store: int) -> Stamps:
        """The stamps of a store's cells in what is kept."""
        low, high = np.searchsorted(self._cells.piece_row, [store, store + 1])
        return self._files.kept[self._cells.piece_cell[low] : self._cells.piece_end[high - 1]]

    def close(self) -> None:
        """The files are gone."""
        del self._files
        for file in self._sparse:
            file.close()


def _files(history: History, keep: str, cut: Cells, guest: Stamps, kept: Stamps) -> _Files:
    info = history.info
    page = np.zeros(cut.page.size, dtype=_PAGE)
    ends = [span.end_page for span in history.devices]
    device = page["device"] = np.searchsorted(ends, cut.page, "right")
    page["cell"], page["end"], page["new_until_ns"] = cut.page_cell[:-1], cut.page_cell[1:], -1
    page["dax"], page["new_extents"] = np.array([info.dax, info.new_extents])[:, device]
    page["in_memory"] = np.array([_keeps_memory(history, keep, i) for i in range(len(ends))])[
        device
    ]
    page["on_disk"] = np.array([kind == "file" for kind in info.media])[device]
    piece = np.zeros(cut.piece_row.size, dtype=_PIECE)
    piece["page"], piece["cell"], piece["end"] = cut.piece_page, cut.piece_cell, cut.piece_end
    piece["stamp"] = cut.piece_row + 1
    batch = np.zeros(history.batch_t_ns.size, dtype=_BATCH)
    bounds = np.searchsorted(history.io_batch, np.arange(batch.size + 1))
    batch["io"], batch["io_end"] = bounds[:-1], bounds[1:]
    batch["carries"] = history.batch_failed == 0
    np.maximum.at(batch["end_ns"], history.io_batch, history.io_complete_ns)
    io = np.zeros(history.io_batch.size, dtype=_IO)
    end_page = history.io_first_page + history.io_pages
    io["page"] = np.searchsorted(cut.page, history.io_first_page)
    io["end"] = io["arrives"] = np.searchsorted(cut.page, end_page)
    lame = np.flatnonzero(history.io_corrupted | history.io_shorn)
    io["arrives"][lame] = np.searchsorted(cut.page, end_page[lame] - 1)
    io["complete_ns"] = history.io_complete_ns
    commit = np.zeros(history.commit_t_ns.size, dtype=_COMMITTED)
    commit["device"], commit["covers_ns"] = history.commit_device, history.commit_t_ns
    commit["complete_ns"] = history.commit_complete_ns
    # A page is sent again when it was stored to, copied or lost since.
    damaged = np.count_nonzero(history.io_corrupted)
    parcels = piece.size + history.copy_page.size + int(damaged) + page.size
    return _Files(
        page=page,
        piece=piece,
        batch=batch,
        io=io,
        commit=commit,
        parcel=np.empty(parcels, dtype=_PARCEL),
        width=cut.width,
        unsent=np.zeros(-(-page.size // 8) * 8, dtype=bool),
        changed=np.empty(page.size, dtype=np.int64),
        new=np.empty(page.size, dtype=np.int64),
        cached=np.empty(io.size, dtype=np.int64),
        commits=np.empty(commit.size, dtype=np.int64),
        counts=np.zeros(_LOST + 1, dtype=np.int64),
        guest=guest,
        kept=kept,
        host=np.zeros(guest.size, dtype=np.uint32),
        hidden=np.zeros(guest.size, dtype=np.uint32),
        arena=np.empty(_ROOM, dtype=np.uint32),
    )


def _keeps_memory(history: History, keep: str, device: int) -> bool:
    """Whether the failure keeps the device's memory."""
    kind = history.info.media[device]
    if kind == "nvdimm":
        return keep != "elsewhere"
    if keep == "host":
        return True
    in_file = keep in ("file", "after-quit") and kind not in ("private", "ram")
    return in_file and not (keep == "after-quit" and history.info.discard_data[device])


@compiled
def _advance(
    events: InOrder, files: _Files, when_sent: bool, when_complete: bool, until_ns: int
) -> int:
    """Apply all events up to `until_ns` and compare; or stop before a snapshot, and say how much
    room its copies lack."""
    first, times, whats, at = events
    counts, ios = files.counts, files.io
    while True:
        kind, t_ns = -1, until_ns
        for k in range(at.size):
            if at[k] < first[k + 1] and (
                times[at[k]] < t_ns or (kind < 0 and times[at[k]] == t_ns)
            ):
                kind, t_ns = k, times[at[k]]
        if kind < 0:
            _compare(files)
            return 0
        what = whats[at[kind]]
        if kind == STORE:
            piece = files.piece[what]
            page = files.page[piece["page"]]
            page["stored"] = True
            _touch(files.page, files.changed, counts, piece["page"])
            _unsend(files.page, files.unsent, counts, piece["page"])
            files.guest[piece["cell"] : piece["end"]] = piece["stamp"]
            if page["dax"] and page["in_memory"]:  # it is in L2 at once
                files.kept[piece["cell"] : piece["end"]] = piece["stamp"]
        elif kind == COPY:
            page = files.page[what]
            _unsend(files.page, files.unsent, counts, what)
            _copy(files.host, page["cell"], files.guest, page["cell"], page["end"] - page["cell"])
            if page["in_memory"]:
                _put(files, what, files.host, page["cell"])
        elif kind == DAMAGE:
            _lose(files, what)
        elif kind == DEATH:
            for each in range(files.page.size):
                _lose(files, each)
        elif kind == SNAPSHOT:
            batch = files.batch[what]
            lacking = _make_room(files)
            if lacking:
                return lacking
            for io in range(batch["io"], batch["io_end"]):
                if batch["carries"]:
                    _send(files, ios[io], batch["end_ns"])
                counts[_SENT] = io + 1
                if when_sent:
                    _arrive(files, ios[io])
        elif kind == COMPLETE:
            if when_complete:
                _arrive(files, ios[what])
            else:
                files.cached[counts[_CACHED]] = what
                counts[_CACHED] += 1
        elif kind == COMMIT and not when_complete:
            files.commits[counts[_COMMITS]] = what
            counts[_COMMITS] += 1
        elif kind == FLUSHED:
            _flushed(files, what)
        else:
            _commit(files, files.commit[what])
        at[kind] += 1


@compiled
def _make_room(files: _Files) -> int:
    """If what is unsent finds no room move what is under way to the front; how much is lacking
    then."""
    counts, arena, ios, parcels = files.counts, files.arena, files.io, files.parcel
    if counts[_FILLED] + counts[_UNSENT] <= arena.size:
        return 0
    while counts[_OLDEST] < counts[_SENT] and ios[counts[_OLDEST]]["arrived"]:
        counts[_OLDEST] += 1
    filled = 0
    for io in range(counts[_OLDEST], counts[_SENT]):
        if not ios[io]["arrived"]:
            for parcel in range(ios[io]["parcel"], ios[io]["parcel_end"]):
                page = files.page[parcels[parcel]["page"]]
                size = page["end"] - page["cell"]
                _copy(arena, filled, arena, parcels[parcel]["at"], size)
                parcels[parcel]["at"] = filled
                filled += size
    counts[_FILLED] = filled
    # Twice as much, so that this is not done for little.
    lacking: int = max(2 * filled + counts[_UNSENT] - arena.size, 0)
    return lacking


@compiled
def _send(files: _Files, io: Any, end_ns: int) -> None:
    """Copy what the I/O takes along; its batch ends at `end_ns`."""
    counts, pages = files.counts, files.page
    if io["page"] < io["end"] and pages[io["page"]]["new_extents"]:  # all are of one device
        for each in range(io["page"], io["end"]):
            if pages[each]["new_until_ns"] == -1:
                pages[each]["new_until_ns"] = end_ns
                files.new[counts[_NEW]] = each
                counts[_NEW] += 1
    io["parcel"] = counts[_PARCELS]
    eights = files.unsent.view(np.uint64)
    each = io["page"] - 1
    while each < io["arrives"] - 1:
        each += 1
        if each % 8 == 0 and eights[each >> 3] == 0:  # as a rule little of a folio has changed
            each += 7
        elif files.unsent[each]:
            page, parcel = pages[each], files.parcel[counts[_PARCELS]]
            size = page["end"] - page["cell"]
            files.unsent[each] = False
            counts[_UNSENT] -= size
            source = files.guest if page["dax"] else files.host
            _copy(files.arena, counts[_FILLED], source, page["cell"], size)
            parcel["page"], parcel["at"] = each, counts[_FILLED]
            counts[_PARCELS] += 1
            counts[_FILLED] += size
    io["parcel_end"] = counts[_PARCELS]


@compiled
def _arrive(files: _Files, io: Any) -> None:
    if io["arrived"]:
        return
    io["arrived"] = True
    for number in range(io["parcel"], io["parcel_end"]):
        parcel = files.parcel[number]
        page = files.page[parcel["page"]]
        if number < page["void"]:
            continue
        if page["new_extents"] and page["new_until_ns"] != NEVER:
            page["hidden"] = True
            size = page["end"] - page["cell"]
            _copy(files.hidden, page["cell"], files.arena, parcel["at"], size)
        else:
            _put(files, parcel["page"], files.arena, parcel["at"])


@compiled
def _flushed(files: _Files, issued_ns: int) -> None:
    """A FLUSH covers what had completed when it was issued."""
    counts, waiting, left = files.counts, files.commits, 0
    while counts[_FLUSHED_IOS] < counts[_CACHED]:
        io = files.io[files.cached[counts[_FLUSHED_IOS]]]
        if io["complete_ns"] > issued_ns:
            break
        _arrive(files, io)
        counts[_FLUSHED_IOS] += 1
    for i in range(counts[_COMMITS]):
        if files.commit[waiting[i]]["complete_ns"] <= issued_ns:
            _commit(files, files.commit[waiting[i]])
        else:
            waiting[left] = waiting[i]
            left += 1
    counts[_COMMITS] = left


@compiled
def _commit(files: _Files, commit: Any) -> None:
    """First writes that the commit covers are kept, too."""
    left = 0
    for i in range(files.counts[_NEW]):
        page = files.page[files.new[i]]
        if page["new_until_ns"] <= commit["covers_ns"] and page["device"] == commit["device"]:
            page["new_until_ns"] = NEVER
            if page["hidden"]:
                page["hidden"] = False
                _put(files, files.new[i], files.hidden, page["cell"])
        else:
            files.new[left] = files.new[i]
            left += 1
    files.counts[_NEW] = left


@compiled
def _lose(files: _Files, which: int) -> None:
    """The disk holds nothing of the page any more; what had come before arrives no more."""
    page = files.page[which]
    if page["stored"] and page["on_disk"]:
        # The next I/O mends it.
        _unsend(files.page, files.unsent, files.counts, which)
        page["void"] = files.counts[_PARCELS]
        page["hidden"] = False
        _touch(files.page, files.changed, files.counts, which)
        for cell in range(page["cell"], page["end"]):
            files.kept[cell] = DAMAGED if files.guest[cell] else 0


@compiled
def _unsend(pages: Table, unsent: Flags, counts: I64, which: int) -> None:
    if not unsent[which]:
        unsent[which] = True
        counts[_UNSENT] += pages[which]["end"] - pages[which]["cell"]


@compiled
def _put(files: _Files, which: int, source: Stamps, at: int) -> None:
    _touch(files.page, files.changed, files.counts, which)
    first, end = files.page[which]["cell"], files.page[which]["end"]
    _copy(files.kept, first, source, at, end - first)


@compiled
def _copy(to: Stamps, there: int, source: Stamps, here: int, size: int) -> None:
    for i in range(size):
        to[there + i] = source[here + i]


@compiled
def _touch(pages: Table, changed: I64, counts: I64, which: int) -> None:
    if not pages[which]["changed"]:
        pages[which]["changed"] = True
        changed[counts[_CHANGED]] = which
        counts[_CHANGED] += 1


@compiled
def _compare(files: _Files) -> None:
    """Count the bytes that differ, on pages that were touched."""
    for which in files.changed[: files.counts[_CHANGED]]:
        page, differing = files.page[which], 0
        for cell in range(page["cell"], page["end"]):
            if files.guest[cell] != files.kept[cell]:
                differing += files.width[cell]
        files.counts[_LOST] += differing - page["differing"]
        page["differing"] = differing
        page["changed"] = False
    files.counts[_CHANGED] = 0
