"""Bytes at risk at every instant: the distinct bytes whose latest store is not safe.

A byte is at risk on the union of [begin, safe) over its stores. On one page the stores that become
safe together form a
*group*. As long as no store falls on a page whose earlier group is still unsafe, groups do not
touch: a store adds the bytes that no earlier store of its group covers, and the group's union
leaves at its safe instant. Pages where groups overlap in time (stores during somebody else's sync)
are worked out byte by byte.

The work goes in stretches that begin and end with nothing at risk, wherever such instants exist, so
that its cost is in proportion to the stores and memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crashsim.engine.coverage import first_cover_bytes
from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES, Pieces
from crashsim.engine.streams import I64
from crashsim.power.safety import Batched, Safety
from crashsim.power.steps import StepFunction, merge

STRETCH_ROWS = 1 << 15


def at_risk(history: History, safety: Safety) -> StepFunction:
    """Bytes at risk over time."""
    parts = [
        _stretch(history.store_t_ns[part.low : part.high], part)
        for part in _closed(history, safety)
    ]
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        return StepFunction(empty, empty)
    if len(parts) == 1:
        return parts[0]
    instants = np.concatenate([part.instants for part in parts])
    values = np.concatenate([part.values for part in parts])
    return StepFunction(instants, values)


def in_one_go(t_ns: I64, pieces: Pieces, safe_ns: I64) -> StepFunction:
    """Bytes at risk from pieces in order of time, each with its own begin; at least one."""
    return _stretch(t_ns, Batched(0, t_ns.size, pieces, safe_ns))


def _closed(history: History, safety: Safety) -> Iterator[Batched]:
    """Stretches of rows between instants at which nothing is at risk."""
    open_part: Batched | None = None
    for part in safety.stretches(STRETCH_ROWS):
        joined = part if open_part is None else _join(open_part, part)
        cut = _last_quiet(history.store_t_ns[joined.low : joined.high], joined)
        if cut > 0:
            yield _slice(joined, 0, cut)
            joined = _slice(joined, cut, joined.high - joined.low)
        open_part = joined
    if open_part is not None and open_part.high > open_part.low:
        yield open_part


def _join(a: Batched, b: Batched) -> Batched:
    pieces = Pieces(
        np.concatenate([a.pieces.row, b.pieces.row + (b.low - a.low)]),
        *(np.concatenate(pair) for pair in zip(a.pieces[1:], b.pieces[1:], strict=True)),
    )
    return Batched(a.low, b.high, pieces, np.concatenate([a.safe_ns, b.safe_ns]))


def _slice(part: Batched, first_row: int, end_row: int) -> Batched:
    low, high = np.searchsorted(part.pieces.row, [first_row, end_row])
    row, page, start, end = (column[low:high] for column in part.pieces)
    pieces = Pieces(row - first_row, page, start, end)
    return Batched(part.low + first_row, part.low + end_row, pieces, part.safe_ns[low:high])


def _last_quiet(t_ns: I64, part: Batched) -> int:
    """The last row that begins strictly after all before it are safe; 0 if none. Never the last
    stretch's end."""
    safe = part.safe_ns
    if part.pieces.row.size != t_ns.size:
        ends = np.flatnonzero(np.diff(part.pieces.row, append=t_ns.size))
        safe = np.maximum.accumulate(safe)[ends]
    else:
        safe = np.maximum.accumulate(safe)
    quiet = np.flatnonzero(safe[:-1] < t_ns[1:])
    return int(quiet[-1]) + 1 if quiet.size else 0


def _stretch(t_ns: I64, part: Batched) -> StepFunction:
    pieces, safe = part.pieces, part.safe_ns
    n = safe.size
    t = t_ns if n == t_ns.size else t_ns[pieces.row]
    bits = n.bit_length()
    key = (pieces.page << bits) | np.arange(n, dtype=np.int64)
    key.sort()
    order = key & ((1 << bits) - 1)
    key >>= bits
    sorted_safe, sorted_t = safe[order], t[order]
    fresh = np.empty(n, dtype=bool)
    fresh[0] = True
    other_page = key[1:] != key[:-1]
    other_safe = sorted_safe[1:] != sorted_safe[:-1]
    np.logical_or(other_page, other_safe, out=fresh[1:])
    overlap = other_safe & ~other_page & (sorted_safe[:-1] > sorted_t[1:])
    added = np.zeros(n, dtype=np.int64)
    gone_ns: list[I64] = []
    gone: list[I64] = []
    plain = np.ones(n, dtype=bool)
    if bool(overlap.any()):
        tangled = np.isin(key, key[1:][overlap])
        plain = ~tangled
        rows = order[tangled]
        added[rows], expiry_ns, expiry = _byte_by_byte(
            key[tangled], pieces.start[rows], pieces.end[rows], t[rows], safe[rows]
        )
        gone_ns.append(expiry_ns)
        gone.append(expiry)
        order, fresh, sorted_safe = order[plain], fresh[plain], sorted_safe[plain]
    if order.size:
        group = np.cumsum(fresh) - 1
        cover = first_cover_bytes(group, pieces.start[order], pieces.end[order])
        added[order] = cover
        first = np.flatnonzero(fresh)
        gone_ns.append(sorted_safe[first])
        gone.append(np.add.reduceat(cover, first))
    up = added
    if n != t_ns.size:
        up = np.bincount(pieces.row, weights=added, minlength=t_ns.size).astype(np.int64)
    down_ns, down = _sum_by_instant(np.concatenate(gone_ns), np.concatenate(gone))
    return merge(t_ns, up, down_ns, -down)


def _sum_by_instant(t_ns: I64, amount: I64) -> tuple[I64, I64]:
    instants, inverse = np.unique(t_ns, return_inverse=True)
    total = np.bincount(inverse, weights=amount, minlength=instants.size)
    return instants, total.astype(np.int64)


def _byte_by_byte(page: I64, start: I64, end: I64, t_ns: I64, safe_ns: I64) -> tuple[I64, I64, I64]:
    """For pieces sorted by page, then time: bytes each adds, and (instants, bytes) of what then
    leaves."""
    added = np.zeros(page.size, dtype=np.int64)
    leaving: dict[int, int] = {}
    until = np.zeros(PAGE_BYTES, dtype=np.int64)
    last_page = -1
    columns = zip(*(c.tolist() for c in (page, start, end, t_ns, safe_ns)), strict=True)
    for i, (here, low, high, begin, safe) in enumerate(columns):
        if here != last_page:
            until.fill(0)
            last_page = here
        span = until[low:high]
        sooner = span[span < safe]
        pending = sooner[sooner > begin]
        if safe > begin and sooner.size:
            added[i] = sooner.size - pending.size
            leaving[safe] = leaving.get(safe, 0) + sooner.size
            if pending.size:
                for expiry, count in zip(*np.unique(pending, return_counts=True), strict=True):
                    leaving[int(expiry)] -= int(count)
            np.maximum(span, safe, out=span)
    instants = np.array(sorted(leaving), dtype=np.int64)
    return added, instants, np.array([leaving[t] for t in instants.tolist()], dtype=np.int64)
