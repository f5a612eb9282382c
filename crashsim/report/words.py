"""What every report says of a case, in words and figures, so that they all say the same.

Contract: pure functions of `crashsim.results`. Text that came from a user's file is made printable
here; escaping for HTML, XML or Markdown is left to the report concerned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from crashsim.engine.units import format_bytes, format_duration
from crashsim.printable import printable
from crashsim.results import FIGURES, CaseResult, Example, Expectation, Results

_LONGEST_NAME = 60
LAYER_NAMES = {
    "L0": "guest program",
    "L1": "guest page cache",
    "L2": "host page cache",
    "L3": "host writeback in flight",
    "L4": "disk's volatile cache",
    "L5": "media",
}


def amount(value: int, unit: str) -> str:
    """`1.5 MiB`, `1.5 ms`, `1,500`, or 0: `unit` is bytes, ns or empty."""
    return quantity(value, unit) if value else "0"


def size(size_bytes: int) -> str:
    """`1.5 MiB`, or 0."""
    return amount(size_bytes, "bytes")


def duration(duration_ns: int) -> str:
    """`1.5 ms`, or 0."""
    return amount(duration_ns, "ns")


def count(number: int) -> str:
    """`12,345` of 12345."""
    return f"{number:,}"


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


def among(case: CaseResult, cases: Sequence[CaseResult]) -> str:
    """` ('sync=call:none')`: which of several cases a sentence is about; '' of the only one."""
    return f" ({quoted(case)})" if len(cases) > 1 else ""


def quoted(case: CaseResult) -> str:
    """A case's name in a sentence."""
    return f"'{shortened(case.name, _LONGEST_NAME)}'"


def of_what(cases: Sequence[CaseResult]) -> str:
    """Of a recording every figure of loss is of what reached the device: as it is put in brackets
    behind a heading, '' where no case is a recording."""
    if not any(case.recorded for case in cases):
        return ""
    every = all(case.recorded for case in cases)
    return "of what reached the device" if every else "of recordings: of what reached the device"


def not_held(cases: Sequence[CaseResult]) -> str:
    """What is missing from them, as a sentence; one of the cases is a recording."""
    every = all(case.recorded for case in cases)
    return f"What {'the' if every else 'a recorded'} guest still held in memory is not in it."


def brief(name: str) -> str:
    """`fdatasync, 1s` of `sync=call:fdatasync+every:1s`: a sweep's values without its keys."""
    return ", ".join(map(_value, re.split("[,+]", name)))


_KEYS = re.compile(r"^(?:[\w.-]+[=:])+")


def _value(part: str) -> str:
    return _KEYS.sub("", part.strip())


NOTHING = "nothing was written, so nothing was explored"
UNCOVERED = "not every state that the budget was for was checked and judged"


def uncovered(case: CaseResult) -> bool:
    """Whether a case was explored less than was asked for."""
    return case.exploration is not None and not case.exploration.reached


def failed(case: CaseResult) -> list[Expectation]:
    """The expectations that did not come true."""
    return [expectation for expectation in case.expectations if not expectation.holds]


def complaints(case: CaseResult) -> list[str]:
    """All for which a case is not as expected."""
    lines = [expectation_line(case, wrong) for wrong in failed(case)]
    lines += [UNCOVERED] * uncovered(case)
    return lines + [NOTHING] * (case.writes == 0)


def sign(case: CaseResult) -> str:
    """`✗` of a case that is not as expected, `✓` of one that is, else nothing."""
    return "✗" if complaints(case) else "✓" if case.expectations else ""


def expectation_line(case: CaseResult, expectation: Expectation) -> str:
    """`at_risk_max <= 1MiB, but it was 15 MiB`."""
    line = f"{expectation.metric} {printable(expectation.condition)}"
    link = "and it was" if expectation.holds else "but it was"
    text = f"{line}, {link} {quantity(expectation.actual, expectation.unit)}"
    figure = FIGURES.get(expectation.metric)  # None: of something else than a figure
    return f"{text} ({figure.recorded})" if case.recorded and figure and figure.recorded else text


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
