"""What became of every write in a state of an epoch: the one source of what is told of it.

Contract: from the state's bytes and the History alone. A part of a write that is undecided is kept
if the state reads as if it had arrived: of equal contents of an atom the newest counts, so no more
is called lost than has to be. A part that had landed by the cut, but that this host had not begun
to write, is *held back*: it is lost, whatever the state. What is guaranteed, and what makes no
difference to any byte, is not told of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.states import Atom, Epoch, Rules
from crashsim.states.undecided import parts_of

Fate = Literal["kept", "lost", "torn"]


class WritePart(NamedTuple):
    """A write's bytes [start, end) of the device in one atom. `row`: of the History; `held_back`:
    this host had not begun to write them; `promised_ns`: a flush that covers them is acknowledged,
    NEVER: none is."""

    row: int
    start: int
    end: int
    kept: bool
    held_back: bool
    promised_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """A write and what became of its parts, which are in the order of their rows and addresses."""

    write: int
    parts: tuple[WritePart, ...]

    @property
    def row(self) -> int:
        """The first of the History that has a part of it."""
        return self.parts[0].row

    @property
    def fate(self) -> Fate:
        kept = sum(part.kept for part in self.parts)
        if kept == len(self.parts):
            return "kept"
        return "torn" if kept else "lost"

    @property
    def lost(self) -> tuple[WritePart, ...]:
        return tuple(part for part in self.parts if not part.kept)

    @property
    def lost_bytes(self) -> int:
        """Those held back are told of together."""
        return sum(part.end - part.start for part in self.lost if not part.held_back)


class RowsOf:
    """The rows of a History that make a write up, ascending."""

    def __init__(self, history: History) -> None:
        self._rows = np.argsort(history.store_write, kind="stable")
        self._writes = history.store_write[self._rows]

    def __call__(self, write: int) -> I64:
        low, high = np.searchsorted(self._writes, [write, write + 1])
        return self._rows[low:high]


class Ledger:
    """Accounts of one device's states."""

    def __init__(self, history: History, device: int, rules: Rules) -> None:
        self._history = history
        self._parts = parts_of(history, device, rules)
        row, _, end, *_ = self._parts
        first = history.store_offset[row] - history.devices[device].first_byte
        self._landed = history.store_t_ns[row] + ((end - 1) >> 3) - (first >> 3)
        self._unit = rules.unit_bytes
        # Any host keeps what is promised; both cut stores into the same parts.
        self._promised = self._parts.guaranteed_ns
        if rules.host == "this-host":
            promised = parts_of(history, device, Rules("any-host", rules.atom_bytes))
            self._promised = promised.guaranteed_ns

    def account(self, epoch: Epoch, versions: Sequence[int]) -> tuple[Told, ...]:
        """The writes of which something is undecided in the epoch, or held back, in the order of
        time. `versions`: of each atom."""
        found: dict[int, list[WritePart]] = {}
        for part in sorted([*self._undecided(epoch, versions), *self._held_back(epoch)]):
            found.setdefault(int(self._history.store_write[part.row]), []).append(part)
        told = (Told(write, tuple(parts)) for write, parts in found.items())
        return tuple(sorted(told, key=lambda one: one.row))

    def _undecided(self, epoch: Epoch, versions: Sequence[int]) -> Iterator[WritePart]:
        parts, cut_ns = self._parts, epoch.cut_ns
        is_open = (parts.enter_ns <= cut_ns) & (parts.guaranteed_ns > cut_ns)
        mine = np.flatnonzero(is_open)
        atom = parts.start[mine] // self._unit
        order = np.lexsort((parts.row[mine], parts.enter_ns[mine], atom))
        mine, atom = mine[order], atom[order]
        reached = {
            one.offset // self._unit: last_choice(one, version)
            for one, version in zip(epoch.atoms, versions, strict=True)
        }
        for number, group in groupby(range(mine.size), key=atom.tolist().__getitem__):
            if number not in reached:
                continue  # all that it may hold reads the same
            choice, entered = 0, -1
            for i in mine[list(group)].tolist():
                choice += int(parts.enter_ns[i]) != entered
                entered = int(parts.enter_ns[i])
                yield self._part(i, choice <= reached[number], held_back=False)

    def _held_back(self, epoch: Epoch) -> Iterator[WritePart]:
        late = (self._parts.enter_ns > epoch.cut_ns) & (self._landed <= epoch.cut_ns)
        for i in np.flatnonzero(late).tolist():
            yield self._part(i, kept=False, held_back=True)

    def _part(self, i: int, kept: bool, held_back: bool) -> WritePart:
        row, start, end = (int(self._parts[column][i]) for column in range(3))
        promised = int(self._promised[i])
        return WritePart(row, start, end, kept, held_back, promised)


def first_choice(atom: Atom, version: int) -> int:
    """The first choice with these bytes; 0: what is guaranteed."""
    return 1 + atom.after.index(version) if version else 0


def last_choice(atom: Atom, version: int) -> int:
    """The last one."""
    equal = (n for n in range(len(atom.after), 0, -1) if atom.after[n - 1] == version)
    return next(equal, 0)


def last_choices(atom: Atom) -> I64:
    """For each version."""
    last = np.zeros(len(atom.versions), dtype=np.int64)
    for choice, version in enumerate(atom.after, start=1):
        last[version] = choice
    return last
