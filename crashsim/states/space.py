"""All states that a cut may leave on one device, epoch by epoch.

Contract: a state is an epoch and a version for each of its atoms. What no guarantee covers may be
there or not, each atom on its own. Counts are exact. Cost of going on is in proportion to what
changed, and nothing is as large as the device.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES, unique_sorted
from crashsim.engine.streams import I64
from crashsim.guest.content import Content
from crashsim.states.atoms import Atom, Atoms, Stored, held_before
from crashsim.states.numbers import product
from crashsim.states.rules import Rules
from crashsim.states.undecided import (
    Events,
    check,
    epochs_of,
    events_of,
    parts_of,
    raced_groups,
    table_of,
)

_STRETCH_BYTES = 1 << 16
_EVENTS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True)
class Epoch:
    """All instants between two guarantees, seen at the last of them."""

    number: int
    first_ns: int
    cut_ns: int
    acks: int  # acknowledgements of this device at or before the cut: the first so many of them
    atoms: tuple[Atom, ...]  # those with more than one version, ascending
    choices: int  # exact product of the choices of all atoms, also of those left out above
    images: int  # exact product of the versions: distinct images


class _Change(NamedTuple):
    """One event of `table.Events`."""

    group: int
    low: int
    high: int
    old: int
    new: int


class Space:
    """The epochs of one device."""

    def __init__(
        self,
        history: History,
        content: Content,
        before: memoryview | None,
        device: int,
        rules: Rules,
    ) -> None:
        """`before`: what the device held before the run, zeros behind its end."""
        span = history.devices[device]
        self._made_of = (history, content, before, device)
        self.rules = rules
        self.size_bytes = span.pages * PAGE_BYTES
        parts = parts_of(history, device, rules)
        epochs = epochs_of(parts, history.end_ns)
        self._table = table_of(parts, epochs, rules.unit_bytes)
        del parts
        self._events = events_of(self._table, epochs.cut_ns.size)
        bounds = np.searchsorted(self._events.epoch, np.arange(epochs.cut_ns.size + 1))
        self._bounds: list[int] = bounds.tolist()
        acks = history.ack_t_ns[history.ack_device == device]
        self._by_gone = np.argsort(self._table.gone, kind="stable")
        self._gone = self._table.gone[self._by_gone]
        self._raced = raced_groups(self._table)
        counts = np.searchsorted(acks, epochs.cut_ns, "right")
        columns = (column.tolist() for column in (*epochs, counts))
        self._instants: list[tuple[int, int, int]] = list(zip(*columns, strict=True))
        self._stored = Stored(history, content, span.first_byte)
        self._before = memoryview(b"") if before is None else before.cast("B")

    def on_any_host(self) -> Space:
        """Those of the same device on any host, where everything stored may have survived."""
        rules = replace(self.rules, host="any-host")
        return self if rules == self.rules else Space(*self._made_of, rules)

    def __len__(self) -> int:
        """Epochs."""
        return len(self._instants)

    def at(self, t_ns: int) -> int:
        """The number of the epoch of an instant; the last one's after the run."""
        first = bisect_right(self._instants, t_ns, key=lambda one: one[0])
        return max(0, first - 1)

    def choices(self) -> Iterator[int]:
        """The exact number of choices of each epoch, without looking at any content."""
        total = 1
        old, new = self._events.old, self._events.new
        for low, high in pairwise(self._bounds):
            total = _replaced(total, old[low:high].tolist(), new[low:high].tolist())
            yield total

    def epochs(self, first: int = 0) -> Iterator[Epoch]:
        """All epochs in order, from number `first` on."""
        atoms = Atoms(self._table, self._stored, self._before, self.rules.unit_bytes)
        undecided: dict[int, Atom] = {}
        choices = images = 1
        for number, changes in enumerate(self._changes(first), first):
            gone: list[int] = []
            fresh: list[int] = []
            for change in changes:
                group = change.group
                if group in undecided:
                    gone.append(len(undecided.pop(group).versions))
                atoms.settle(group, change.low)
                if change.high > change.low:
                    atom = atoms.atom(group, change.low, change.high)
                    if atom is not None:
                        undecided[group] = atom
                        fresh.append(len(atom.versions))
            choices = _replaced(choices, [c.old for c in changes], [c.new for c in changes])
            images = _replaced(images, gone, fresh)
            open_atoms = tuple(undecided[group] for group in sorted(undecided))
            yield Epoch(number, *self._instants[number], open_atoms, choices, images)

    def epoch(self, number: int) -> Epoch:
        """One epoch alone."""
        return next(self.epochs(number))

    def _changes(self, first: int) -> Iterator[list[_Change]]:
        """What changes with each epoch from number `first` on; at first all that is open in it."""
        yield self._open_in(first)
        low = first + 1
        while low < len(self):  # many epochs at a time: lists are made faster than one by one
            bar = self._bounds[low] + _EVENTS_AT_ONCE
            high = max(low + 1, bisect_right(self._bounds, bar) - 1)
            start = self._bounds[low]
            changes = _changes_of(self._events, slice(start, self._bounds[high]))
            for number in range(low, high):
                yield changes[self._bounds[number] - start : self._bounds[number + 1] - start]
            low = high

    def _open_in(self, number: int) -> list[_Change]:
        _, last = np.unique(self._events.group[: self._bounds[number + 1]][::-1], return_index=True)
        event = self._bounds[number + 1] - 1 - last
        event = event[self._events.high[event] > self._events.low[event]]
        return [change._replace(old=1) for change in _changes_of(self._events, event)]

    def before(self) -> Iterator[tuple[int, memoryview]]:
        """(offset, bytes) of what the device held before the run, without stretches of zeros."""
        for start in range(0, len(self._before), _STRETCH_BYTES):
            stretch = self._before[start : start + _STRETCH_BYTES]
            if np.frombuffer(stretch, dtype=np.uint8).any():
                yield start, stretch

    def held_before(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of the device before the run."""
        return held_before(self._before, start, end)

    def guaranteed(self, after: int, upto: int) -> Iterator[tuple[int, memoryview]]:
        """(offset, bytes) that turn what is guaranteed in epoch `after` (-1: what the device held
        before the run) into what is guaranteed in `upto`, to be laid down in this order."""
        part = self._settled(after, upto)
        row, start, end = (
            column[part] for column in (self._table.row, self._table.start, self._table.end)
        )
        fresh = np.ones(row.size, dtype=bool)  # the parts of a store next to each other are one
        fresh[1:] = (row[1:] != row[:-1]) | (start[1:] != end[:-1])
        begin = np.flatnonzero(fresh)
        start, end = start[begin], end[np.append(begin[1:], row.size)[: begin.size] - 1]
        return zip(start.tolist(), self._stored.parts(row[begin], start, end), strict=True)

    def changed(self, after: int, upto: int) -> list[tuple[int, int]]:
        """Where `guaranteed` lays down bytes: disjoint short ranges (start, end)."""
        unit = self.rules.unit_bytes
        atom = unique_sorted(self._table.start[self._settled(after, upto)] // unit)
        fresh = (np.diff(atom, prepend=-2) != 1) | (atom * unit % _STRETCH_BYTES == 0)
        begin = np.flatnonzero(fresh)
        last = np.append(begin[1:], atom.size)[: begin.size] - 1
        ranges = atom[begin] * unit, (atom[last] + 1) * unit
        return list(zip(*(column.tolist() for column in ranges), strict=True))

    def _settled(self, after: int, upto: int) -> I64:
        """Parts to lay down from one epoch to another, by row, then address."""
        low, high = np.searchsorted(self._gone, [after, upto], "right")
        part = self._by_gone[low:high]
        table = self._table
        raced = np.isin(self._raced, table.group[part])
        if bool(raced.any()):  # a store that raced may lie below one guaranteed before it
            again = np.flatnonzero(np.isin(table.group, self._raced[raced]) & (table.gone <= upto))
            part = unique_sorted(np.concatenate([part, again]))
        return part[np.lexsort((table.start[part], table.row[part]))]

    def _check(self) -> None:
        check(self._table)


def _changes_of(events: Events, which: slice | I64) -> list[_Change]:
    columns = (events.group, events.low, events.high, events.old, events.new)
    return list(map(_Change, *(column[which].tolist() for column in columns)))


def _replaced(total: int, old: list[int], new: list[int]) -> int:
    """A product in which the factors `old` become `new`."""
    return total // product(old) * product(new)
