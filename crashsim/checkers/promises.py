"""What was acknowledged is there: the rule `acknowledged` for records of one write.

Contract: with the newest acknowledged record of a slot, the slot holds that one or a later one.
While a later one is being written over it, the slot can be torn:

- where records are updated in place (a table of keys and values), neither the old nor the new one
  is there then: a finding;
- a log is reused on purpose, so what is torn may hold nothing that is older than the acknowledged
  record. When a record of a write-ahead log is not in the log any more, the pages of the checkpoint
  behind it must be in the table, or be torn by a later checkpoint, which the log repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from crashsim.checkers.consistency import Rule
from crashsim.checkers.slots import BEFORE, TORN, Slots
from crashsim.checkers.verdict import OK, Acks, Verdict, verdict
from crashsim.guest.program import Program


class Promises(Rule):
    """Follows the newest acknowledged version of each slot."""

    def __init__(self, slots: Slots, programs: Sequence[Program], *, in_place: bool) -> None:
        super().__init__(slots)
        self._in_place = in_place
        self._floor = [BEFORE] * len(
            slots.start
        )  # the oldest version with bytes in it; in place, torn: none
        self._held = [BEFORE] * len(slots.start)
        self._page, self._logged = _checkpoints(programs)
        self._pages = {slots.place(page)[0] for page in self._page if slots.began(page)}
        self._missing = Counter(self._page.values())  # by checkpoint: pages not in the table
        self._forget()

    def _forget(self) -> None:
        self._acks = 0
        self._needed = [BEFORE] * len(self._floor)
        self._lost: set[int] = set()
        self._promised: set[int] = set()  # acknowledged writes
        self._gone: Counter[int] = Counter()  # by checkpoint: acknowledged, not in the log any more
        self._early: set[int] = set()  # checkpoints with records gone and pages not in the table

    def _turn(self, slot: int, image: memoryview) -> None:
        held = self._slots.held[slot]
        before, floor = self._floor[slot], held
        if held == TORN and not self._in_place:
            floor = self._slots.mix(slot, image).low
        self._floor[slot] = floor
        if slot in self._pages:
            for version in range(max(0, min(before, floor) + 1), max(before, floor) + 1):
                checkpoint = self._page[self._slots.write(slot, version)]
                self._missing[checkpoint] += 1 if floor < before else -1
                self._weigh(checkpoint)
        for version, gone in ((self._held[slot], 1), (held, -1)):
            if version >= 0:
                write = self._slots.write(slot, version)
                if write in self._promised:
                    self._count(write, gone)
        self._held[slot] = held
        self._judge(slot)

    def _judge(self, slot: int) -> None:
        needed = self._needed[slot]
        lost = needed != BEFORE and self._floor[slot] < needed
        (self._lost.add if lost else self._lost.discard)(slot)

    def _count(self, write: int, gone: int) -> None:
        checkpoint = self._logged.get(write)
        if checkpoint is not None:
            self._gone[checkpoint] += gone
            self._weigh(checkpoint)

    def _weigh(self, checkpoint: int) -> None:
        early = self._missing[checkpoint] > 0 and self._gone[checkpoint] > 0
        (self._early.add if early else self._early.discard)(checkpoint)

    def _answer(self, acks: Acks) -> Verdict:
        self._take(acks)
        if self._lost:
            slot = min(self._lost)
            torn = self._slots.held[slot] == TORN
            told = f"{len(self._lost)} lost, the first: write "
            told += f"{self._slots.write(slot, self._needed[slot])}, {self._named(slot)}"
            kind = "torn" if torn else "lost"
            return verdict("finding", f"{kind} acknowledged record", told)
        if self._early:
            told = f"checkpoint {min(self._early)} is not whole and its log was written over"
            return verdict("finding", "log reused too early", told)
        return OK

    def _take(self, acks: Acks) -> None:
        """The acknowledgements that were not there last time."""
        if acks.count < self._acks:
            self._forget()
        for low, high in acks.records[self._acks :]:
            for write in range(low, high):
                slot, version = self._slots.place(write)
                self._promised.add(write)
                self._count(write, int(self._held[slot] != version))
                self._needed[slot] = max(self._needed[slot], version)
                self._judge(slot)
        self._acks = acks.count


def _checkpoints(programs: Sequence[Program]) -> tuple[dict[int, int], dict[int, int]]:
    """Numbers of checkpoints: of each write that is no record, and of each record that one
    follows."""
    page: dict[int, int] = {}
    logged: dict[int, int] = {}
    checkpoints = 0
    for program in programs:
        inside = np.zeros(program.offset.size + 1, dtype=np.int64)
        np.add.at(inside, program.record_low, 1)
        np.add.at(inside, program.record_high, -1)
        others = np.flatnonzero(np.cumsum(inside[:-1]) == 0)
        begin = others[np.diff(others, prepend=-2) > 1]
        number = np.searchsorted(begin, others, "right") - 1 + checkpoints
        first = program.first_write
        page.update(zip((others + first).tolist(), number.tolist(), strict=True))
        following = np.searchsorted(begin, program.record_low, "left")
        some = following < begin.size
        records = (program.record_low[some] + first).tolist()
        logged.update(zip(records, (following[some] + checkpoints).tolist(), strict=True))
        checkpoints += begin.size
    return page, logged
