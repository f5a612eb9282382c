"""Checkers that know the synthetic workloads: what a record is, and what was promised of it.

Contract: they go by the bytes that the program wrote, and take a record for intact if, and only if,
its checksum would (`guest/content.py`). A record of several writes is *committed* by its last one.

| rule | every state has |
|---|---|
| `records` | no torn record |
| `prefix` | with a record all earlier ones of the same vCPU, as far as not overwritten since |
| `acknowledged` | every acknowledged record, or a later one in its place (`promises.py`) |
| `atomic` | records that are whole or absent; of several writes: the one committed last is whole |

`records` and `atomic` are strict: a log whose last, unacknowledged record is torn is a finding,
although a program that looks at checksums can deal with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from crashsim.checkers.consistency import Committed, Prefix, Whole
from crashsim.checkers.promises import Promises
from crashsim.checkers.slots import Slots
from crashsim.checkers.verdict import Checker
from crashsim.engine.history import History
from crashsim.errors import UsageError
from crashsim.guest.content import Content
from crashsim.guest.program import Program

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
