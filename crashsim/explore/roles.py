"""What a cause has in common with others like it: which kinds of writes were kept and lost.

Contract: a state *shows* a cause when it keeps some of a write of each role that the cause keeps,
lacks some of one of each role that it loses (one made before the kept ones, if that is so in the
cause), and has torn one of each role that it tears. A write's role is its length and its place in
the record that it belongs to; in a recording, where a mark may stand for anything, its length, and
its address if that is written again and again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.explore.account import RowsOf, last_choices
from crashsim.explore.selection import touches
from crashsim.states import Epoch

Role = tuple[int, int]
Mask = npt.NDArray[np.bool_]

_OFTEN = 8  # writes to an address that make it a place of its own
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Pattern:
    """Roles, ascending, each once."""

    kept: tuple[Role, ...]
    lost: tuple[Role, ...]
    torn: tuple[Role, ...]
    lost_first: bool  # a lost write was made before a kept one

    @property
    def is_empty(self) -> bool:
        """It takes no write to be kept or lost."""
        return not (self.kept or self.lost or self.torn)


class Roles:
    """The role of every write of a History."""

    def __init__(self, history: History) -> None:
        self._history = history
        order = np.argsort(history.ack_low, kind="stable")
        self._low, self._high = history.ack_low[order], history.ack_high[order]
        self.rows = RowsOf(history)
        address, times = np.unique(history.store_offset, return_counts=True)
        self._busy = set(address[times >= _OFTEN].tolist())

    def role(self, write: int) -> Role:
        """Of a write that was stored."""
        rows = self.rows(write)
        length = int(self._history.store_length[rows].sum())
        if self._history.info.recorded:
            offset = int(self._history.store_offset[rows[0]])
            return length, offset if offset in self._busy else -1
        record = int(np.searchsorted(self._low, write, "right")) - 1
        known = record >= 0 and write < self._high[record]
        return length, write - int(self._low[record]) if known else -1

    def pattern(self, kept: Iterable[int], lost: Iterable[int]) -> Pattern:
        """Of a cause that keeps and loses parts of these writes."""
        survived, gone = sorted(set(kept)), sorted(set(lost))
        only_kept = [write for write in survived if write not in gone]
        only_lost = [write for write in gone if write not in survived]
        torn = [write for write in gone if write in survived]
        first = min((int(self.rows(write)[0]) for write in only_lost), default=_NEVER)
        last = max((int(self.rows(write)[0]) for write in only_kept), default=-1)
        return Pattern(
            self._roles(only_kept), self._roles(only_lost), self._roles(torn), first < last
        )

    def _roles(self, writes: list[int]) -> tuple[Role, ...]:
        return tuple(sorted({self.role(write) for write in writes}))


class Fates:
    """What became of the writes of an epoch in many of its states at once.

    `versions`: int64[states, atoms]."""

    def __init__(self, epoch: Epoch, roles: Roles, store_write: I64, versions: I64) -> None:
        self._versions = versions
        self._ranks = [last_choices(atom) for atom in epoch.atoms]
        # By role: (number in the order of time, (atom, choice that has it) of each of its parts)
        self._writes: dict[Role, list[tuple[int, list[tuple[int, int]]]]] = {}
        for number, (write, touched) in enumerate(touches(epoch.atoms, store_write).items()):
            parts = [(touch.atom, touch.choice) for touch in touched]
            self._writes.setdefault(roles.role(write), []).append((number, parts))
        self._known: dict[Role, tuple[I64, I64, Mask]] = {}

    def show(self, pattern: Pattern) -> Mask:
        """bool[states]: those that show the pattern."""
        states = len(self._versions)
        shown = np.ones(states, dtype=bool)
        first_lost = np.full(states, -1, dtype=np.int64)
        last_kept = np.full(states, _NEVER, dtype=np.int64)
        for role in pattern.lost:
            first_lost = np.maximum(first_lost, self._of(role)[0])
        for role in pattern.kept:
            last_kept = np.minimum(last_kept, self._of(role)[1])
        for role in pattern.torn:
            shown &= self._of(role)[2]
        shown &= (first_lost < _NEVER) & (last_kept >= 0)
        return shown & (first_lost < last_kept) if pattern.lost_first else shown

    def _of(self, role: Role) -> tuple[I64, I64, Mask]:
        """Numbers of the first write of the role that is not whole (_NEVER), and of the last one
        of which something arrived (-1); and whether one is torn."""
        known = self._known.get(role)
        if known is None:
            states = len(self._versions)
            first_lost = np.full(states, _NEVER, dtype=np.int64)
            last_kept = np.full(states, -1, dtype=np.int64)
            torn = np.zeros(states, dtype=bool)
            for number, parts in self._writes.get(role, ()):
                arrived = [
                    self._ranks[atom][self._versions[:, atom]] >= choice for atom, choice in parts
                ]
                some, whole = np.logical_or.reduce(arrived), np.logical_and.reduce(arrived)
                first_lost[(first_lost == _NEVER) & ~whole] = number
                last_kept[some] = number
                torn |= some & ~whole
            known = self._known[role] = first_lost, last_kept, torn
        return known
