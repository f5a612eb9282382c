"""Stores cut at atoms, and from when to when each part is undecided.

A part *enters* when an atom can first hold it on the disk, and is *guaranteed* when a cut can no
longer take it:

| host | enters | guaranteed |
|---|---|---|
| any | its last word has landed (H8: a page may be written at any time) | the first success is \
acknowledged of a flush submitted when it was in the host's page (V2) |
| this | the snapshot that carries it is submitted (H3) | its I/O is certainly durable (D1) |

Parts of one atom in order of `enter_ns` become guaranteed in that order: a later part is never
guaranteed before an earlier one. So what an atom may hold is always a run of neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, DeviceSpan, History
from crashsim.engine.pages import PAGE_SHIFT, Pieces
from crashsim.engine.streams import I64
from crashsim.power.safety import Safety, Stage
from crashsim.states.rules import Rules


class Parts(NamedTuple):
    """Parts of one device's stores, int64[n]: row of the History, bytes [start, end) of the
    device, instants. In order of row, then address."""

    row: I64
    start: I64
    end: I64
    enter_ns: I64
    guaranteed_ns: I64


def parts_of(history: History, device: int, rules: Rules) -> Parts:
    """All parts of the device's stores."""
    span, rows = history.devices[device], history.rows_of(device)
    start = history.store_offset[rows] - span.first_byte
    end = start + history.store_length[rows]
    if rules.host == "this-host":
        return _of_this_host(history, span, rows, start, end, rules.unit_bytes)
    return _of_any_host(history, device, rows, start, end, rules.unit_bytes)


def _split(start: I64, end: I64, unit_bytes: int) -> tuple[I64, I64, I64]:
    """(index of what is cut, start, end) of the pieces of [start, end) between multiples."""
    shift = unit_bytes.bit_length() - 1
    first = start >> shift
    count = ((end - 1) >> shift) - first + 1
    which = np.repeat(np.arange(start.size, dtype=np.int64), count)
    if which.size == start.size:
        return which, start, end
    unit = np.arange(which.size, dtype=np.int64)
    unit -= np.repeat(np.cumsum(count) - count - first, count)
    unit <<= shift
    return which, np.maximum(start[which], unit), np.minimum(end[which], unit + unit_bytes)


def _of_any_host(
    history: History, device: int, rows: I64, start: I64, end: I64, unit_bytes: int
) -> Parts:
    which, low, high = _split(start, end, unit_bytes)
    row = rows[which]
    begin = history.store_t_ns[row]
    landed = begin + ((high - 1) >> 3) - (start[which] >> 3)
    in_host = landed
    if not history.info.dax[device]:
        page = (low >> PAGE_SHIFT) + history.devices[device].first_page
        in_host = Safety(history, Stage.IN_HOST).copied_ns(page, begin)
    return Parts(row, low, high, landed, _acknowledged_ns(history, device, in_host))


def _acknowledged_ns(history: History, device: int, in_host_ns: I64) -> I64:
    """First successful acknowledgement of a flush submitted at or after each instant (V2)."""
    good = np.flatnonzero((history.flush_device == device) & (history.flush_result == 0))
    submit, acknowledged = history.flush_submit_ns[good], history.flush_ack_ns[good]
    soonest = np.append(np.minimum.accumulate(acknowledged[::-1])[::-1], NEVER)
    return soonest[np.searchsorted(submit, in_host_ns, "left")]


def _of_this_host(
    history: History, span: DeviceSpan, rows: I64, start: I64, end: I64, unit_bytes: int
) -> Parts:
    on_page, low, high = _split(start, end, 1 << PAGE_SHIFT)
    page = (low >> PAGE_SHIFT) + span.first_page
    in_page = low & ((1 << PAGE_SHIFT) - 1)
    pieces = Pieces(on_page, page, in_page, in_page + high - low)
    begin = history.store_t_ns[rows]
    sent = Safety(history, Stage.SUBMITTED).of_pieces(pieces, begin)
    safe = Safety(history, Stage.DURABLE).of_pieces(pieces, begin)
    which, low, high = _split(low, high, unit_bytes)
    return Parts(rows[on_page[which]], low, high, sent[which], safe[which])
