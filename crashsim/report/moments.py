"""The schedule of a broken promise in words: one line for each thing that happened, in order.

Contract: pure functions of `crashsim.results.Schedule`. Instants are told from the first one on. At
one instant what ends comes before what begins, and a host call returns before its flush is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crashsim.engine.units import format_duration
from crashsim.report.words import worst_first
from crashsim.results import CaseResult, Schedule, ScheduleSpan

LANES = {
    "store": "write not durable",
    "flush": "flush request",
    "call": "host call",
    "writeback": "host writeback",
    "disk-flush": "disk FLUSH",
}
_ORDER = tuple(LANES)
_FAILED = ", failed"


@dataclass(frozen=True, slots=True)
class Moment:
    """`at` is told from the schedule's beginning; `broken`: here the promise is."""

    at: str
    what: str
    broken: bool


def first_schedule(cases: list[CaseResult]) -> tuple[CaseResult, Schedule] | None:
    """That of the worst case that has any."""
    for case in worst_first(cases):
        if case.schedules:
            return case, case.schedules[0]
    return None


def begin_ns(schedule: Schedule) -> int:
    """The first instant of a schedule."""
    return min(span.begin_ns for span in schedule.spans)


def moments(schedule: Schedule) -> list[Moment]:
    """All that happened, in order; last what did not."""
    start = begin_ns(schedule)
    stored_ns = max((s.begin_ns for s in schedule.spans if s.lane == "store"), default=start)
    told = [
        Moment(f"+{format_duration(t_ns - start)}", what, broken)
        for (t_ns, _, _), what, broken in sorted(_events(schedule.spans, stored_ns))
    ]
    if schedule.durable_ns < 0:
        told.append(Moment("never", f"write {schedule.write} is durable", False))
    return told


_When = tuple[int, int, int]  # instant, phase, place among those of one instant and phase


def _events(spans: list[ScheduleSpan], stored_ns: int) -> Iterator[tuple[_When, str, bool]]:
    for span in spans:
        place = _ORDER.index(span.lane)
        begins, ends = _words(span)
        yield (span.begin_ns, 1, place), begins, False
        if span.end_ns >= 0:
            # What takes no time ends after everything that begins then.
            phase = 2 if span.end_ns == span.begin_ns else 0
            covers = span.lane == "flush" and span.begin_ns > stored_ns
            covers &= not span.text.endswith(_FAILED)  # a promise, and broken
            yield (span.end_ns, phase, len(_ORDER) - place), ends, covers


def _words(span: ScheduleSpan) -> tuple[str, str]:
    """(when it begins, when it ends)."""
    text, failed, _ = span.text.partition(_FAILED)
    if span.lane == "store":
        return f"{text}, is stored", f"{text.partition(',')[0]} is durable"
    if span.lane == "flush":
        ends = "fails: the guest is told once" if failed else "is acknowledged with success"
        return f"{text} submits a flush", f"the flush of {text} {ends}"
    if span.lane == "call":
        return f"the host call {text} begins", f"the host call {text} returns"
    if span.lane == "writeback":
        arrives = "this writeback fails" if failed else "the disk has these pages"
        return f"the host writes pages back, {text}", arrives
    does = f" (it {text})" if text else ""
    return f"the disk begins a FLUSH{does}", f"the FLUSH ends{does}"
