"""What every report says of a case, in words and figures, so that they all say the same.

Contract: pure functions of `crashsim.results`. Text that came from a user's file is made printable
here; escaping for HTML, XML or Markdown is left to the report concerned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from crashsim.experiment.units import format_bytes, format_duration
from crashsim.printable import printable
from crashsim.results import CaseResult, Example, Expectation, Results

LAYER_NAMES = {
    "L0": "guest program",
    "L1": "guest page cache",
    "L2": "host page cache",
    "L3": "host writeback in flight",
    "L4": "disk's volatile cache",
    "L5": "media",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of cases; on a narrow terminal the lowest `weight` gives way first."""

    group: str
    title: str
    weight: int
    cell: Callable[[CaseResult], str]
    bad: Callable[[CaseResult], bool] = lambda case: False

    @property
    def heading(self) -> str:
        """Group and title on one line."""
        return f"{self.group} {self.title}".strip()


def _size(size_bytes: int) -> str:
    return format_bytes(size_bytes) if size_bytes else "0"


def _duration(duration_ns: int) -> str:
    return format_duration(duration_ns) if duration_ns else "0"


def count(number: int) -> str:
    """`12,345` of 12345."""
    return f"{number:,}"


COLUMNS: tuple[Column, ...] = (
    Column("at risk", "worst", 9, lambda c: _size(c.at_risk_bytes.max)),
    Column("at risk", "p50", 2, lambda c: _size(c.at_risk_bytes.p50)),
    Column("at risk", "p99", 8, lambda c: _size(c.at_risk_bytes.p99)),
    Column("recovery point", "max", 7, lambda c: _duration(c.recovery_point_ns.max)),
    Column("recovery point", "p99", 1, lambda c: _duration(c.recovery_point_ns.p99)),
    Column("acks", "uncovered", 5, lambda c: count(c.uncovered_acknowledgements.max)),
    Column(
        "broken",
        "promises",
        9,
        lambda c: count(c.broken_promises),
        lambda c: c.broken_promises > 0,
    ),
    Column("", "holes", 3, lambda c: count(c.holes)),
    Column("", "torn", 0, lambda c: count(c.torn)),
    Column("", "flushes", 4, lambda c: count(c.flushes)),
    Column("", "waiting", 6, lambda c: _duration(c.guest_wait_ns)),
)


def some(number: int, noun: str, plural: str = "") -> str:
    """`1 case`, `2 cases`; the plural is formed with s unless given."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def quantity(value: int, unit: str) -> str:
    """A figure of an expectation or a comparison: `unit` is bytes, ns or empty."""
    if unit == "bytes":
        return format_bytes(value)
    return format_duration(value) if unit == "ns" else count(value)


def shortened(text: str, longest: int) -> str:
    """At most `longest` characters, both ends kept: sweeps put what differs at either."""
    text = printable(text)
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}…{text[len(text) - tail :]}"


def short_names(names: list[str], longest: int) -> list[str]:
    """Names of at most `longest` characters. When one is too long, the values of a sweep without
    its keys, if these still tell the cases apart."""
    full = [printable(name) for name in names]
    if any(len(name) > longest for name in full):
        values = [brief(name) for name in full]
        if len({*values}) == len(values):
            full = values
    return [shortened(name, longest) for name in full]


def brief(name: str) -> str:
    """`fdatasync, 1s` of `sync=call:fdatasync+every:1s`: a sweep's values without its keys."""
    return ", ".join(map(_value, re.split("[,+]", name)))


_KEYS = re.compile(r"^(?:[\w.-]+[=:])+")


def _value(part: str) -> str:
    return _KEYS.sub("", part.strip())


UNCOVERED = "the budget ended before all the states that it was for were checked"


def uncovered(case: CaseResult) -> bool:
    """Whether a case was explored less than was asked for."""
    return case.exploration is not None and not case.exploration["reached"]


def passed(results: Results) -> bool:
    """Whether a run may be shown in green: all cases ran, wrote something, were explored as far as
    they should be, and are as expected."""
    whole = bool(results.cases) and not results.interrupted
    return whole and not _failures(results) and not any(map(uncovered, results.cases))


def _failures(results: Results) -> int:
    empty = sum(case.writes == 0 for case in results.cases)
    return empty + sum(not e.holds for case in results.cases for e in case.expectations)


def failed(case: CaseResult) -> list[Expectation]:
    """The expectations that did not come true."""
    return [expectation for expectation in case.expectations if not expectation.holds]


def expectation_line(expectation: Expectation) -> str:
    """`at_risk_max <= 1MiB, but it was 15 MiB`."""
    line = f"{expectation.metric} {printable(expectation.condition)}"
    link = "and it was" if expectation.holds else "but it was"
    return f"{line}, {link} {quantity(expectation.actual, expectation.unit)}"


def expectations_summary(results: Results) -> str:
    """How many expectations hold; says so when there are none."""
    judged = [e for case in results.cases for e in case.expectations]
    wrong = sum(not e.holds for e in judged)
    if not judged:
        return "Nothing was expected of this run: it was measured, not judged."
    if len(judged) == 1:
        return "The one expectation " + ("did not come true." if wrong else "holds.")
    if not wrong:
        return f"All {some(len(judged), 'expectation')} hold."
    return f"{count(wrong)} of {some(len(judged), 'expectation')} did not come true."


def told(results: Results, most: int) -> list[tuple[CaseResult, Example]]:
    """Examples worth telling: the worst cases first, each with one of a kind before the next."""
    rounds: dict[int, list[tuple[CaseResult, Example]]] = {}
    for case in worst_first(results.cases):
        kinds: dict[str, Example] = {}
        for example in case.examples:
            kinds.setdefault(example.kind, example)
        for number, example in enumerate(kinds.values()):
            rounds.setdefault(number, []).append((case, example))
    ordered = [pair for number in sorted(rounds) for pair in rounds[number]]
    return ordered[:most]


def verdict(results: Results) -> list[str]:
    """The run in plain words, gravest first: one sentence or two for each finding."""
    if not results.cases:
        return ["Nothing was explored: no case came to a result."]
    lines = _gravest(results)
    # A guest kernel's own journal commit flushes too, but that is not the program's sync.
    without = [case for case in results.cases if not case.syncs]
    synced = [case for case in results.cases if case.syncs]
    if without:
        lines.append("Without a sync, " + _worst_of(without))
    if synced:
        lines.append("With syncs, " + _worst_of(synced))
    return lines


def _gravest(results: Results) -> list[str]:
    lines = []
    if results.interrupted:
        done = some(len(results.cases), "case")
        lines.append(f"Interrupted: {done} had finished, the others did not run.")
    if empty := [printable(case.name) for case in results.cases if case.writes == 0]:
        lines.append(f"Nothing was written in {', '.join(empty)}: that shows nothing.")
    broken = [case for case in results.cases if case.broken_promises]
    if broken:
        worst = max(broken, key=lambda case: case.broken_promises)
        lines.append(
            f"Promises are broken in {some(len(broken), 'case')}: in {printable(worst.name)} "
            f"{some(worst.broken_promises, 'flush', 'flushes')} "
            "reported success before the data was safe from a power cut."
        )
    return lines


def _worst_of(cases: list[CaseResult]) -> str:
    worst = max(cases, key=lambda case: (case.at_risk_bytes.max, case.recovery_point_ns.max))
    where = f" ({printable(worst.name)})"
    if worst.at_risk_bytes.max == 0:
        return "a power cut takes nothing at any instant."
    text = f"a power cut takes {format_bytes(worst.at_risk_bytes.max)} at worst"
    text += f", and work up to {format_duration(worst.recovery_point_ns.max)} old{where}."
    forgotten = max(cases, key=lambda case: case.uncovered_acknowledgements.max)
    if uncovered := forgotten.uncovered_acknowledgements.max:
        text += f" Of the records acknowledged to the world, up to {count(uncovered)} would be lost"
        other = uncovered > worst.uncovered_acknowledgements.max
        text += f" ({printable(forgotten.name)})." if other else "."
    elif worst.acknowledged:
        text += " No record acknowledged to the world is ever lost."
    if worst.guest_wait_ns:
        text += f" The price: {_price(worst)}."
    best = min(cases, key=lambda case: (case.at_risk_bytes.max, case.recovery_point_ns.max))
    if best.guest_wait_ns and best.at_risk_bytes.max < worst.at_risk_bytes.max:
        text += f" At best it takes {format_bytes(best.at_risk_bytes.max)}"
        text += f" ({printable(best.name)}: {_price(best)})."
    return text


def _price(case: CaseResult) -> str:
    wait = f"{format_duration(case.guest_wait_ns)} of waiting"
    return f"{some(case.flushes, 'flush', 'flushes')}, {wait}" if case.flushes else wait


def worst_first(cases: list[CaseResult]) -> list[CaseResult]:
    """Cases in order of how bad they are; equal ones in the sweep's order."""
    return sorted(cases, key=_badness, reverse=True)


def _badness(case: CaseResult) -> tuple[int, int, int, int]:
    wrong = len(failed(case))
    return (case.broken_promises, wrong, case.at_risk_bytes.max, case.recovery_point_ns.max)


def layer_name(layer: str) -> str:
    """`L2 host page cache` of `L2`."""
    name = LAYER_NAMES.get(layer)
    return f"{layer} {name}" if name else printable(layer)
