"""Bytes at risk at every instant: the distinct bytes whose latest store is not safe.

Stores are followed in order of time. Of every page the *runs* of bytes are known that are at risk,
each with the instant until which it is. A store puts its own run there: a byte that was not at risk
is one more, and one less at the later of its own safe instant and the one that it had. Where a disk
loses again what it had kept (Rule D4), all that was ever stored to the page is at risk once more;
so runs that are safe are remembered there.

Cost and memory are in proportion to the stores, whether anything becomes safe between them or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crashsim.engine.compiled import compiled
from crashsim.engine.history import History
from crashsim.engine.pages import page_span
from crashsim.engine.streams import I64
from crashsim.power.media_loss import LostAgain
from crashsim.power.safety import Safety
from crashsim.power.steps import StepFunction, merge

STRETCH_ROWS = 1 << 15
Table = npt.NDArray[Any]  # of records
_PAGE = np.dtype([("page", "i8"), ("until_ns", "i8"), ("first", "i4"), ("used", "?")], align=True)
_RUN = np.dtype([("until_ns", "i8"), ("next", "i4"), ("start", "i2"), ("end", "i2")])
_SUM = np.dtype([("t_ns", "i8"), ("bytes", "i8"), ("known", "i8"), ("used", "?")], align=True)
# Counts: a free run (-1: none), runs used, losses so far, instants known; when no run is at risk.
_FREE, _FRESH, _LOSS, _KNOWN, _UNTIL = range(5)


def at_risk(history: History, safety: Safety, lost: LostAgain | None = None) -> StepFunction:
    """Bytes at risk over time; `lost`: what the disk loses again of it."""
    _, per_store = page_span(history.store_offset, history.store_length)
    pieces = int(per_store.sum())
    losses = lost or LostAgain(*(np.empty(0, dtype=np.int64) for _ in range(4)))
    # Tables of places by remainder, less than half full. Runs that are not used take no memory.
    pages = np.zeros(2 * min(pieces, sum(span.pages for span in history.devices)) + 1, dtype=_PAGE)
    instants = sum(_others(part.safe_ns) for part in safety.stretches(STRETCH_ROWS))
    sums = np.zeros(2 * (instants + 2 * losses.t_ns.size) + 1, dtype=_SUM)
    runs = np.empty(2 * pieces + 2, dtype=_RUN)
    count = np.array([-1, 0, 0, 0, 0])
    added = np.zeros(history.store_t_ns.size, dtype=np.int64)
    for part in safety.stretches(STRETCH_ROWS):
        rows = slice(part.low, part.high)
        t_ns = history.store_t_ns[rows]
        _follow(t_ns, *part.pieces, part.safe_ns, losses, pages, runs, sums, count, added[rows])
    for which in range(int(count[_LOSS]), losses.t_ns.size):
        _lose(losses, which, pages, runs, sums, count)
    changes = sums[sums["known"][: count[_KNOWN]]]
    order = np.argsort(changes["t_ns"])
    return merge(history.store_t_ns, added, changes["t_ns"][order], changes["bytes"][order])


def _others(safe_ns: I64) -> int:
    """No fewer than the different instants among these, which seldom change from row to row."""
    return 1 + int(np.count_nonzero(safe_ns[1:] != safe_ns[:-1]))


@compiled
def _follow(
    t_ns: I64,
    row: I64,
    page: I64,
    start: I64,
    end: I64,
    safe_ns: I64,
    losses: LostAgain,
    pages: Table,
    runs: Table,
    sums: Table,
    count: I64,
    added: I64,
) -> None:
    """Pieces in order of time; fills the bytes that each store adds."""
    forget = losses.t_ns.size == 0
    for i in range(page.size):
        now_ns = t_ns[row[i]]
        while count[_LOSS] < losses.t_ns.size and losses.t_ns[count[_LOSS]] < now_ns:
            _lose(losses, count[_LOSS], pages, runs, sums, count)
            count[_LOSS] += 1
        if forget and safe_ns[i] <= now_ns:
            continue
        if forget and count[_UNTIL] <= now_ns:  # no page's runs are at risk any more
            count[_FREE], count[_FRESH] = -1, 0
        count[_UNTIL] = max(count[_UNTIL], safe_ns[i])
        place = pages[_find(pages, page[i])]
        if not place["used"]:
            place["page"], place["used"], place["first"] = page[i], True, -1
        elif place["until_ns"] <= now_ns and forget:
            place["first"] = -1
        elif place["until_ns"] <= now_ns:
            _all_safe(place, runs, count)
        place["until_ns"] = max(place["until_ns"], safe_ns[i])
        added[row[i]] += _store(place, runs, count, sums, start[i], end[i], now_ns, safe_ns[i])


@compiled
def _find(pages: Table, page: int) -> int:
    """Where the page is, or has its place."""
    at = page % pages.size
    while pages[at]["used"] and pages[at]["page"] != page:
        at = at + 1 if at + 1 < pages.size else 0
    return at


@compiled
def _add(sums: Table, count: I64, t_ns: int, change: int) -> None:
    at = t_ns % sums.size
    while sums[at]["used"] and sums[at]["t_ns"] != t_ns:
        at = at + 1 if at + 1 < sums.size else 0
    if not sums[at]["used"]:
        sums[at]["used"], sums[at]["t_ns"] = True, t_ns
        sums[count[_KNOWN]]["known"] = at  # where the instants are, to find them again
        count[_KNOWN] += 1
    sums[at]["bytes"] += change


@compiled
def _all_safe(place: Any, runs: Table, count: I64) -> None:
    """Nothing of the page is at risk: its runs are joined where they touch."""
    run = place["first"]
    while run >= 0:
        after = runs[run]["next"]
        runs[run]["until_ns"] = -1
        if after >= 0 and runs[after]["start"] == runs[run]["end"]:
            runs[run]["end"], runs[run]["next"] = runs[after]["end"], runs[after]["next"]
            _free(runs, count, after)
            continue
        run = after


@compiled
def _free(runs: Table, count: I64, run: int) -> None:
    runs[run]["next"] = count[_FREE]
    count[_FREE] = run


@compiled
def _new(
    place: Any, runs: Table, count: I64, before: int, start: int, end: int, until_ns: int
) -> int:
    """A run behind `before` (-1: at the front)."""
    run: int = count[_FREE]
    if run >= 0:
        count[_FREE] = runs[run]["next"]
    else:
        run = count[_FRESH]
        count[_FRESH] += 1
    runs[run]["start"], runs[run]["end"], runs[run]["until_ns"] = start, end, until_ns
    runs[run]["next"] = runs[before]["next"] if before >= 0 else place["first"]
    _link(place, runs, before, run)
    return run


@compiled
def _link(place: Any, runs: Table, before: int, run: int) -> None:
    if before >= 0:
        runs[before]["next"] = run
    else:
        place["first"] = run


@compiled
def _store(
    place: Any,
    runs: Table,
    count: I64,
    sums: Table,
    start: int,
    end: int,
    now_ns: int,
    safe_ns: int,
) -> int:
    """Put the run [start, end) into the page; returns the bytes that were not at risk before."""
    before, run = -1, place["first"]
    while run >= 0 and runs[run]["end"] <= start:
        before, run = run, runs[run]["next"]
    at, fresh, taken = start, 0, 0
    while at < end:
        if run < 0 or runs[run]["start"] > at:  # nothing was there
            stop = end if run < 0 else min(end, runs[run]["start"])
            fresh += stop - at
        else:
            stop, until_ns = min(end, runs[run]["end"]), runs[run]["until_ns"]
            if until_ns >= safe_ns:
                before, run, at = run, runs[run]["next"], stop
                continue
            if until_ns > now_ns:
                _add(sums, count, until_ns, stop - at)  # it does not leave then
            else:
                fresh += stop - at
            if runs[run]["start"] < at:
                right = _new(place, runs, count, run, at, runs[run]["end"], until_ns)
                runs[run]["end"] = at
                before, run = run, right
            if stop < runs[run]["end"]:
                runs[run]["start"] = stop
            else:
                after = runs[run]["next"]
                _link(place, runs, before, after)
                _free(runs, count, run)
                run = after
        taken += stop - at
        if before >= 0 and runs[before]["end"] == at and runs[before]["until_ns"] == safe_ns:
            runs[before]["end"] = stop
        else:
            before = _new(place, runs, count, before, at, stop, safe_ns)
        at = stop
    if safe_ns <= now_ns:
        return 0
    _add(sums, count, safe_ns, -taken)
    return fresh


@compiled
def _lose(
    losses: LostAgain, which: int, pages: Table, runs: Table, sums: Table, count: I64
) -> None:
    low, high = losses.low_page[which], losses.high_page[which]
    if high - low == 1:
        _lose_page(losses, which, pages[_find(pages, low)], runs, sums, count)
        return
    for at in range(pages.size):
        if low <= pages[at]["page"] < high:
            _lose_page(losses, which, pages[at], runs, sums, count)


@compiled
def _lose_page(
    losses: LostAgain, which: int, place: Any, runs: Table, sums: Table, count: I64
) -> None:
    """All that was stored to the page is at risk from now on."""
    if not place["used"]:
        return
    now_ns, lost_until_ns = losses.t_ns[which], losses.until_ns[which]
    place["until_ns"] = max(place["until_ns"], lost_until_ns)
    run = place["first"]
    while run >= 0:
        size, until_ns = runs[run]["end"] - runs[run]["start"], runs[run]["until_ns"]
        if until_ns < lost_until_ns:
            _add(sums, count, max(until_ns, now_ns), size)
            _add(sums, count, lost_until_ns, -size)
            runs[run]["until_ns"] = lost_until_ns
        run = runs[run]["next"]
