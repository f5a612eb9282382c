"""The head of the page: what is lost, and what it costs not to; and which failure takes what.

Contract: pure functions of results, without matplotlib; nothing is escaped here, the template does
that. The first table has the cases that are worth their price and the one that loses the most, the
cheapest first; the second has every case, a figure being the darker the more it is. Cases of which
a table says the same share a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crashsim.report.alike import names_of
from crashsim.report.choices import best, loses_acknowledged, price
from crashsim.report.words import count, duration, size, some, worst_first
from crashsim.results import CaseResult

LEADING = ("price", "outcomes", "risk")  # the first of these pictures stands beside the answer
MOST_CHOICES = 6
MOST_ROWS = 60
_SHADES = 5
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure under its heading; `shade` from 0 (nothing) to 5; `bad` is written in red."""

    heading: str
    text: str
    bad: bool = False
    shade: int = 0


@dataclass(frozen=True, slots=True)
class GridRow:
    """The cases of which this is true, and the figures."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Grid:
    """`groups`: headings above the headings, each with the number of its columns; `rest` says what
    is left out."""

    groups: list[tuple[str, int]]
    headings: list[str]
    rows: list[GridRow]
    rest: str


def answer(cases: list[CaseResult]) -> Grid:
    """What is lost, and what it costs not to; there are cases."""
    worst = max(cases, key=lambda case: (loses_acknowledged(case), case.at_risk_bytes.max))
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (case, is_worth) in enumerate(zip(cases, best(cases), strict=True)):
        if is_worth:
            groups.setdefault(price(case), []).append(number)
    shown = [group for _, group in sorted(groups.items())][:MOST_CHOICES]
    if not any(cases[number] is worst for group in shown for number in group):
        shown.append([number for number, case in enumerate(cases) if case is worst])
    shown.sort(key=lambda group: price(cases[group[0]]))
    explored = any(case.exploration for case in cases)
    recorded = any(case.recorded for case in cases)
    names = names_of(shown, cases, _LONGEST_NAME)
    rows = []
    for name, group in zip(names, shown, strict=True):
        members = [cases[number] for number in group]
        losses, costs = _lost(members, explored, recorded), _paid(members)
        rows.append(GridRow(name, losses + costs))
    rest = len(cases) - sum(map(len, shown))
    note = f"{some(rest, 'other case')} below: none loses less for its price." if rest else ""
    spans = [("What do I lose?", len(losses)), ("What does it cost not to?", len(costs))]
    return Grid(spans, [cell.heading for cell in rows[0].cells], rows, note)


def _lost(cases: list[CaseResult], explored: bool, recorded: bool) -> list[Cell]:
    uncovered = [case.uncovered_acknowledgements.max for case in cases]
    cells = [
        Cell(
            "of what reached the device" if recorded else "at worst",
            _span([case.at_risk_bytes.max for case in cases], size),
        ),
        Cell(
            "acknowledged without a flush" if recorded else "acknowledged records",
            _span(uncovered, count),
            any(uncovered),
        ),
        Cell("work up to", _span([case.recovery_point_ns.max for case in cases], duration)),
    ]
    if explored:
        failing = [case.exploration.failing if case.exploration else 0 for case in cases]
        cells.append(Cell("states rejected", _span(failing, count), any(failing)))
    return cells


def _paid(cases: list[CaseResult]) -> list[Cell]:
    return [
        Cell("records/s", _span([case.acknowledged_per_second for case in cases], count)),
        Cell("waiting", _span([case.guest_wait_ns for case in cases], duration)),
        Cell("flushes", _span([case.flushes for case in cases], count)),
    ]


def _span(values: Sequence[int], shown: Callable[[int], str]) -> str:
    """From the least to the largest value, or the one that they all read as; no line ends within
    one."""
    ends = (shown(end(values)).replace(" ", "\u00a0") for end in (min, max))
    return " to ".join(dict.fromkeys(ends))


def failures(cases: list[CaseResult]) -> Grid | None:
    """What each failure takes at worst; None where there is only one failure."""
    shown = worst_first(cases)[:MOST_ROWS] if len(cases) > MOST_ROWS else cases
    taken: dict[tuple[int, ...], list[str]] = {}
    for domain in dict.fromkeys(domain for case in shown for domain in case.domains):
        column = tuple(case.domains[domain].max if domain in case.domains else -1 for case in shown)
        taken.setdefault(column, []).append(domain)
    if sum(map(len, taken.values())) < 2:
        return None
    values = [value for column in taken for value in column if value > 0]
    headings = {column: ", ".join(domains) for column, domains in taken.items()}
    lines = {
        case.name: [
            Cell(headings[column], _taken(column[k]), shade=_shade(column[k], values))
            for column in taken
        ]
        for k, case in enumerate(shown)
    }
    rest = len(cases) - len(shown)
    note = f"{some(rest, 'case')} that lose less left out." if rest else ""
    return Grid([], list(headings.values()), _rows(cases, lines), note)


def _taken(value: int) -> str:
    if value < 0:
        return "not asked"
    return size(value).replace(" ", "\u00a0")


def _shade(value: int, values: Sequence[int]) -> int:
    """On a scale of powers from the least to the largest of `values`."""
    if value <= 0:
        return 0
    extent = math.log(max(values) / min(values))
    place = math.log(value / min(values)) / extent if extent else 1.0
    return 1 + round(place * (_SHADES - 1))


def _rows(cases: list[CaseResult], lines: Mapping[str, list[Cell]]) -> list[GridRow]:
    """Cases of equal figures put together; in the order of `lines`."""
    number = {case.name: k for k, case in enumerate(cases)}
    groups: dict[tuple[str, ...], list[int]] = {}
    for name, cells in lines.items():
        groups.setdefault(tuple(cell.text for cell in cells), []).append(number[name])
    names = names_of(list(groups.values()), cases, _LONGEST_NAME)
    return [
        GridRow(name, lines[cases[group[0]].name])
        for name, group in zip(names, groups.values(), strict=True)
    ]
