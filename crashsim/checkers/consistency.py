"""Rules that need no acknowledgements, or only the newest: whole records, prefixes, commits.

Contract: each looks at what changed since the image before, and answers for the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from crashsim.checkers.slots import TORN, Slots
from crashsim.checkers.verdict import OK, Acks, Ranges, Verdict, verdict
from crashsim.errors import UsageError
from crashsim.guest.program import Program

_NONE = -1
_NEVER = 1 << 62


class Rule:
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


class Whole(Rule):
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


class Prefix(Rule):
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


class Committed(Rule):
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
