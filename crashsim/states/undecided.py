"""Stores cut at atoms, from when to when each part is undecided, and the epochs it is open in.

A part *enters* when an atom can first hold it on the disk, and is *guaranteed* when a cut can no
longer take it:

| host | enters | guaranteed |
|---|---|---|
| any | its last word has landed (H8: a page may be written at any time) | the first success is \
acknowledged of a flush submitted when it was in the host's page (V2) |
| this | the snapshot that carries it is submitted (H3) | its I/O is certainly durable (D1) |

Parts of one atom in order of `enter_ns` become guaranteed in that order: a later part is never
guaranteed before an earlier one. So what an atom may hold is always a run of neighbours.

An epoch is all instants between two guarantees. Within it nothing leaves the sets of what atoms may
hold and things enter, so its last instant stands for all of them (`docs/states.md`). A part is
*open* in the epochs from the one in which it enters to the one before that which its guarantee
begins; an atom's open parts are the run [low, high) of its parts, and everything before the run is
guaranteed. An *event* is an epoch at which an atom's run changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.history import NEVER, DeviceSpan, History
from crashsim.engine.pages import PAGE_SHIFT, Pieces, unique_sorted
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


_EPOCH_BITS = 31
_EPOCH = (1 << _EPOCH_BITS) - 1


class Epochs(NamedTuple):
    """int64[e], ascending: the first and last instant of each."""

    first_ns: I64
    cut_ns: I64


class Table(NamedTuple):
    """Parts that ever enter, by atom, then `enter_ns`, then row, int64[n]."""

    row: I64
    start: I64
    end: I64
    group: I64  # number of the atom among those stored to
    step: I64  # number of the version that the part completes; the same for parts of one instant
    first: I64  # first epoch in which it is open
    gone: I64  # first epoch in which it is guaranteed


class Events(NamedTuple):
    """By epoch, then atom, int64[m]: the atom's open run from there on, and its choices before and
    then (1: nothing is open)."""

    epoch: I64
    group: I64
    low: I64
    high: I64
    old: I64
    new: I64


def epochs_of(parts: Parts, last_ns: int) -> Epochs:
    """From 0 to `last_ns`; a guarantee takes effect at its own instant."""
    guarantees = unique_sorted(parts.guaranteed_ns[parts.guaranteed_ns <= last_ns])
    guarantees = guarantees[guarantees > 0]
    first = np.append(np.int64(0), guarantees)
    return Epochs(first, np.append(guarantees - 1, np.int64(last_ns)))


def table_of(parts: Parts, epochs: Epochs, unit_bytes: int) -> Table:
    """The parts that enter before the end, sorted."""
    shift = unit_bytes.bit_length() - 1
    atom = parts.start >> shift
    entered = parts.enter_ns <= epochs.cut_ns[-1]
    if not bool(entered.all()):
        parts = Parts(*(column[entered] for column in parts))
        atom = atom[entered]
    order = _by_atom(atom, parts.enter_ns)
    row, start, end, enter, guaranteed = (column[order] for column in parts)
    atom = atom[order]
    fresh = np.diff(atom, prepend=-1) != 0
    group = np.cumsum(fresh) - 1
    step = np.cumsum(fresh | (np.diff(enter, prepend=-1) != 0))
    first = np.searchsorted(epochs.cut_ns, enter, "left")
    gone = np.searchsorted(epochs.cut_ns, guaranteed, "left")
    return Table(row, start, end, group, step, first, gone)


def _by_atom(atom: I64, enter_ns: I64) -> I64:
    """Positions by atom, then instant, then position."""
    bits = max(1, int(atom.size).bit_length())
    order = (atom << bits) | np.arange(atom.size)
    order.sort()  # sorting packed keys is several times faster than argsort
    order &= (1 << bits) - 1
    late = np.flatnonzero(
        (np.diff(atom[order]) == 0) & (np.diff(enter_ns[order]) < 0)
    )  # stores of two vCPUs that raced
    if late.size:
        mine = np.flatnonzero(np.isin(atom[order], atom[order[late]]))
        part = order[mine]
        order[mine] = part[np.lexsort((part, enter_ns[part], atom[part]))]
    return order


def events_of(table: Table, epochs: int) -> Events:
    """Every change of every atom's open run."""
    base = table.group << _EPOCH_BITS
    enters, leaves = base | table.first, base | table.gone
    key = unique_sorted(np.concatenate([enters, leaves]))
    key = key[(key & _EPOCH) < epochs]
    high = np.searchsorted(enters, key, "right")
    low = np.searchsorted(leaves, key, "right")
    group = key >> _EPOCH_BITS
    new = np.ones(key.size, dtype=np.int64)
    some = np.flatnonzero(high > low)
    new[some] += table.step[high[some] - 1] - table.step[low[some]] + 1
    old = np.ones_like(new)
    old[1:] = np.where(group[1:] == group[:-1], new[:-1], 1)
    epoch = key & _EPOCH
    bits = max(1, int(key.size).bit_length())
    order = (epoch << bits) | np.arange(key.size)
    order.sort()
    order &= (1 << bits) - 1
    return Events(*(column[order] for column in (epoch, group, low, high, old, new)))


def raced_groups(table: Table) -> I64:
    """Atoms in which stores of two vCPUs landed in another order than they began."""
    behind = (np.diff(table.group) == 0) & (np.diff(table.row) < 0)
    return unique_sorted(table.group[1:][behind])


def check(table: Table) -> None:
    """Every invariant that the arithmetic above rests on."""
    same = np.diff(table.group) == 0
    for column in (table.step, table.first, table.gone):
        assert not bool(np.any(same & (np.diff(column) < 0))), "runs are not runs of neighbours"
    assert not bool(np.any(table.gone < table.first)), "guaranteed before it enters"
