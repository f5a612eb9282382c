"""The tables: what is lost and what it costs not to, which failure takes what, and all cases.

Contract: pure functions of results, without matplotlib; nothing is escaped here. The first table
has the cases that are worth their price and the one that loses the most, the cheapest first; the
second has every case, a figure being the darker the more it is. Cases of which a table says the
same share a row. The table of cases, the same in every report, has whether a case is safe and each
figure that has a `Column`, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crashsim.report.alike import names_of
from crashsim.report.standing import best, loses_acknowledged, price, standing
from crashsim.report.words import amount, count, duration, size, some, worst_first
from crashsim.results import FIGURES, RECORDING, CaseResult, Column, Figure, Results

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


# --- the table of cases ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaseColumn:
    """A column with its cells; `bad` ones are written in red."""

    column: Column
    cell: Callable[[CaseResult], str]
    bad: Callable[[CaseResult], bool]

    @property
    def heading(self) -> str:
        """Group and title on one line."""
        return f"{self.column.group} {self.column.title}".strip()


_SAFE = {True: "yes", False: "no", None: "?"}


def _shown(figure: Figure, column: Column) -> CaseColumn:
    return CaseColumn(
        column,
        lambda case: amount(figure.of(case), figure.unit),
        lambda case: column.red and figure.of(case) > 0,
    )


COLUMNS: tuple[CaseColumn, ...] = (
    CaseColumn(
        Column(1, "", "safe", 12),
        lambda case: _SAFE[standing(case).safe],
        lambda case: standing(case).safe is False,
    ),
    *sorted(
        (_shown(figure, figure.column) for figure in FIGURES.values() if figure.column),
        key=lambda one: one.column.place,
    ),
)


def notes(results: Results) -> list[str]:
    """What the reader of the table has to know."""
    lines = [
        "Safe: it is shown that nothing acknowledged is lost. \u2713, \u2717: as expected, or not."
    ]
    recorded = sum(case.recorded for case in results.cases)
    if recorded:
        which = "" if recorded == len(results.cases) else f" of {recorded:,} cases"
        lines.append(
            f"{RECORDING}: at risk, recovery point, holes and torn{which} are of the former, and "
            "an acknowledgement is uncovered when it had no flush behind it."
        )
    return lines
