"""Parts by atom, the epochs they are open in, and how the number of choices changes: arrays only.

An epoch is all instants between two guarantees. Within it nothing leaves the sets of what atoms may
hold and things enter, so its last instant stands for all of them (`docs/states.md`). A part is
*open* in the epochs from the one in which it enters to the one before that which its guarantee
begins; an atom's open parts are the run [low, high) of its parts, and everything before the run is
guaranteed. An *event* is an epoch at which an atom's run changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crashsim.engine.pages import unique_sorted
from crashsim.engine.streams import I64
from crashsim.states.undecided import Parts

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
