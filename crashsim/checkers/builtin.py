"""Checkers that know the synthetic workloads: what a record is, and what was promised of it.

Contract: they go by the bytes that the program wrote, and take a record for intact if, and only if,
its checksum would (`guest/content.py`). A record of several writes is *committed* by its last one.
Each looks at what changed since the image before, and answers for the whole image.

| rule | every state has |
|---|---|
| `records` | no torn record |
| `prefix` | with a record all earlier ones of the same vCPU, as far as not overwritten since |
| `acknowledged` | every acknowledged record, or a later one in its place |
| `atomic` | records that are whole or absent; of several writes: the one committed last is whole |

`records` and `atomic` are strict: a log whose last, unacknowledged record is torn is a finding,
although a program that looks at checksums can deal with it. `acknowledged`, for records of one
write: with the newest acknowledged record of a slot, the slot holds that one or a later one. While
a later one is being written over it, the slot can be torn:

- where records are updated in place (a table of keys and values), neither the old nor the new one
  is there then: a finding;
- a log is reused on purpose, so what is torn may hold nothing that is older than the acknowledged
  record. When a record of a write-ahead log is not in the log any more, the pages of the checkpoint
  behind it must be in the table, or be torn by a later checkpoint, which the log repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from sortedcontainers import SortedList  # type: ignore[import-untyped]

from crashsim.checkers.slots import BEFORE, TORN, Slots
from crashsim.checkers.verdict import OK, Acks, Checker, Ranges, Verdict, verdict
from crashsim.engine.history import History
from crashsim.errors import UsageError
from crashsim.guest.content import Content
from crashsim.guest.program import Program

_NONE = -1
_NEVER = 1 << 62


class SlotRule:
    """A checker in this process that follows the slots of one device."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._begun = False

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        for slot in self._slots.look(image, changed if self._begun else None):
            self._turn(slot, image)
        self._begun = True
        return self._answer(acks)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _turn(self, slot: int, image: memoryview) -> None:
        """A slot holds something else than before, or is torn and may."""

    def _answer(self, acks: Acks) -> Verdict:
        """What there is to say when all slots are known."""
        raise NotImplementedError

    def _named(self, slot: int) -> str:
        first, last = self._slots.start[slot], self._slots.end[slot]
        return f"bytes {first} to {last - 1} of the device"


class Whole(SlotRule):
    """No record is torn."""

    def __init__(self, slots: Slots, programs: Sequence[Program]) -> None:
        super().__init__(slots)
        self._of_records = {
            slots.place(write)[0]
            for program in programs
            for low, high in _records(program)
            for write in range(low, high)
            if slots.began(write)
        }
        self._torn: set[int] = set()

    def _turn(self, slot: int, image: memoryview) -> None:
        if self._slots.held[slot] != TORN:
            self._torn.discard(slot)
        elif slot in self._of_records:
            self._torn.add(slot)

    def _answer(self, acks: Acks) -> Verdict:
        if not self._torn:
            return OK
        told = f"{len(self._torn)} torn, the first: {self._named(min(self._torn))}"
        return verdict("finding", "torn record", told)


class Prefix(SlotRule):
    """Of each vCPU's records an earlier one is missing only if all later ones are."""

    def __init__(self, slots: Slots, programs: Sequence[Program]) -> None:
        """UsageError when two vCPUs write to the same place: their order is not the program's."""
        super().__init__(slots)
        self._records: dict[int, list[int]] = {}  # slot -> the record that each version commits
        self._of: dict[int, int] = {}  # slot -> vCPU
        for vcpu, program in enumerate(programs):
            for record, (_, high) in enumerate(_records(program)):
                if slots.began(high - 1):
                    slot, version = slots.place(high - 1)
                    here = self._records.setdefault(slot, [])
                    if self._of.setdefault(slot, vcpu) != vcpu or version != len(here):
                        raise UsageError("checker prefix: several vCPUs write to the same place")
                    here.append(record)
        self._told = {slot: (records[0], _NONE) for slot, records in self._records.items()}
        # By vCPU, (record, slot): the next that each slot lacks, and the one that each has.
        self._missing = [SortedList[tuple[int, int]]() for _ in programs]
        self._present = [SortedList[tuple[int, int]]() for _ in programs]
        for slot, (missing, present) in self._told.items():
            self._missing[self._of[slot]].add((missing, slot))
            self._present[self._of[slot]].add((present, slot))

    def _turn(self, slot: int, image: memoryview) -> None:
        records = self._records.get(slot)
        if records is None:
            return
        held, present = self._slots.held[slot], _NONE
        if held == TORN:
            missing = records[max(0, self._slots.mix(slot, image).high)]
        else:
            missing = records[held + 1] if held + 1 < len(records) else _NEVER
            present = records[held] if held >= 0 else _NONE
        columns = self._missing[self._of[slot]], self._present[self._of[slot]]
        pairs = zip(columns, self._told[slot], (missing, present), strict=True)
        for column, old, new in pairs:
            if old != new:
                column.remove((old, slot))
                column.add((new, slot))
        self._told[slot] = missing, present

    def _answer(self, acks: Acks) -> Verdict:
        for missing, present in zip(self._missing, self._present, strict=True):
            if missing and missing[0] < present[-1]:
                (hole, at), (later, there) = missing[0], present[-1]
                told = f"record {hole} is not there ({self._named(at)}), "
                told += f"record {later} is ({self._named(there)})"
                return verdict("finding", "hole", told)
        return OK


class Committed(SlotRule):
    """Of records of several writes the newest whose last write is there is whole, and with
    `promised` it is not older than any acknowledged one."""

    def __init__(self, slots: Slots, programs: Sequence[Program], promised: bool) -> None:
        super().__init__(slots)
        self._promised = promised
        self._records = [_records(program) for program in programs]
        self._commits = [
            sorted({slots.place(high - 1)[0] for _, high in records if slots.began(high - 1)})
            for records in self._records
        ]
        self._record_of = {
            high - 1: (vcpu, record)
            for vcpu, records in enumerate(self._records)
            for record, (_, high) in enumerate(records)
        }
        self._acknowledged = [_NONE] * len(programs)
        self._acks = 0

    def _answer(self, acks: Acks) -> Verdict:
        self._take(acks)
        for vcpu, acknowledged in enumerate(self._acknowledged):
            newest = self._newest(vcpu)
            if self._promised and newest < acknowledged:
                there = f"the newest is {newest}" if newest != _NONE else "none is"
                told = f"record {acknowledged} was acknowledged and is not there; {there}"
                return verdict("finding", "lost acknowledged record", told)
            if newest != _NONE and (acknowledged != _NONE or not self._promised):
                for write in range(*self._records[vcpu][newest]):
                    slot, version = self._slots.place(write)
                    if self._slots.held[slot] != version:
                        told = f"record {newest} is committed without {self._named(slot)}"
                        return verdict("finding", "committed in part", told)
        return OK

    def _take(self, acks: Acks) -> None:
        if acks.count < self._acks:
            self._acknowledged, self._acks = [_NONE] * len(self._records), 0
        for _, high in acks.records[self._acks :]:
            vcpu, record = self._record_of[high - 1]
            self._acknowledged[vcpu] = max(self._acknowledged[vcpu], record)
        self._acks = acks.count

    def _newest(self, vcpu: int) -> int:
        """The newest committed record, -1 without one."""
        newest = _NONE
        for slot in self._commits[vcpu]:
            held = self._slots.held[slot]
            if held >= 0:
                newest = max(newest, self._record_of[self._slots.write(slot, held)][1])
        return newest


def _records(program: Program) -> list[tuple[int, int]]:
    """Each record's writes [low, high), by number."""
    first = program.first_write
    low, high = (program.record_low + first).tolist(), (program.record_high + first).tolist()
    return list(zip(low, high, strict=True))


class Promises(SlotRule):
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


RuleName = Literal["records", "prefix", "acknowledged", "atomic"]
_LOGS = ("append-log", "write-ahead-log")  # they write over their records on purpose


def built_in(
    rule: RuleName,
    kind: str,
    history: History,
    programs: Sequence[Program],
    device: int,
    content: Content,
    before: memoryview | None = None,
    paranoid: bool = False,
) -> Checker:
    """The checker for a device whose workload is of that kind (`append-log` ...). UsageError where
    the rule means nothing."""
    mine = [program for program in programs if program.device == device]
    if kind == "recording" or not any(program.record_low.size for program in mine):
        raise UsageError(f"checker {rule}: a {kind} has no records that crashsim knows")
    slots = Slots(history, mine, device, content, before, paranoid)
    if rule == "prefix":
        return Prefix(slots, mine)
    several = any(bool((p.record_high - p.record_low > 1).any()) for p in mine)
    if several and rule != "records":
        return Committed(slots, mine, promised=rule == "acknowledged")
    if rule == "acknowledged":
        return Promises(slots, mine, in_place=kind not in _LOGS)
    return Whole(slots, mine)
