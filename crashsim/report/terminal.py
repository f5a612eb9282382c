"""A run or a comparison on standard output, and progress on standard error.

Contract: a terminal gets a table that fits it, colour unless NO_COLOR is set; a pipe or a file gets
plain aligned columns without boxes, colours or shortened names. A character that the stream cannot
carry is replaced, never a traceback. Text from the user's files is never taken for markup or for a
terminal's control sequences.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crashsim.experiment.units import format_duration
from crashsim.printable import printable
from crashsim.report.compare import Change, Comparison
from crashsim.report.schedule import begin_ns, first_schedule, moments
from crashsim.report.words import (
    COLUMNS,
    Column,
    expectation_line,
    expectations_summary,
    failed,
    passed,
    some,
    told,
    uncovered,
    verdict,
    worst_first,
)
from crashsim.results import CaseResult, Results

_MOST_ROWS = 60
_MOST_EXAMPLES = 3
_MOST_FAILURES = 20
_NARROWEST_NAME = 18


def console_for(stream: TextIO | None = None) -> Console:
    """A console on `stream` (standard output unless given) that leaves words as they are."""
    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)


def print_results(results: Results, stream: TextIO | None = None) -> None:
    """The table of cases, examples of loss, expectations and notices."""
    console = console_for(stream)
    say = Speaker(console)
    shown = results.cases
    if console.is_terminal and len(shown) > _MOST_ROWS:
        shown = worst_first(shown)[:_MOST_ROWS]
    if shown:
        say.table(*_table_of(shown, console))
    if len(shown) < len(results.cases):
        say(f"The worst {len(shown)} of {some(len(results.cases), 'case')}.", "dim")
    if shown:
        say("")
    for line in verdict(results):
        say(line, "bold" if not passed(results) else "")
    _print_examples(results, say)
    _print_schedule(results, say)
    for case in results.cases:
        for notice in case.notices:
            say(f"Notice: {case.name}: {notice}", "yellow")
    _print_expectations(results, say)


def _table_of(
    cases: Sequence[CaseResult], console: Console
) -> tuple[list[str], list[list[Text]], str]:
    """Headings, rows, and what was left out."""
    names = [Text(printable(case.name)) for case in cases]
    columns = list(COLUMNS)
    if console.is_terminal:
        room = (
            console.width - max(_NARROWEST_NAME, min(max(map(len, names)), console.width // 3)) - 3
        )
        columns = _fitting(columns, cases, room)
    headings = ["", "case", *(column.heading for column in columns)]
    rows = [
        [_sign(case), name, *(_cell(column, case) for column in columns)]
        for name, case in zip(names, cases, strict=True)
    ]
    rest = [column.heading for column in COLUMNS if column not in columns]
    note = f"Not shown for want of room: {', '.join(rest)}." if rest else ""
    return headings, rows, note


def _fitting(columns: list[Column], cases: Sequence[CaseResult], room: int) -> list[Column]:
    """As many columns as fit, the least important given up first."""
    widths = {column: 2 + max(len(word) for word in _words(column, cases)) for column in columns}
    while len(columns) > 1 and sum(widths[column] for column in columns) > room:
        columns.remove(min(columns, key=lambda column: column.weight))
    return columns


def _words(column: Column, cases: Sequence[CaseResult]) -> list[str]:
    return [*column.heading.split(), *(column.cell(case) for case in cases)]


def _sign(case: CaseResult) -> Text:
    if case.writes == 0 or failed(case) or uncovered(case):
        return Text("✗", "bold red")
    return Text("✓" if case.expectations else "", "green")


def _cell(column: Column, case: CaseResult) -> Text:
    return Text(column.cell(case), "bold red" if column.bad(case) else "")


class Speaker:
    """Says lines and tables as the console's stream can carry them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._encoding = getattr(console.file, "encoding", None) or "utf-8"

    def __call__(self, line: str, style: str = "") -> None:
        text = Text(self._carried(printable(line)), style)
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def table(self, headings: list[str], rows: list[list[Text]], note: str = "") -> None:
        rows = [[self._carried_text(cell) for cell in row] for row in rows]
        if self._console.is_terminal:
            self._boxed(headings, rows)
        else:
            self._plain(headings, rows)
        if note:
            self(note, "dim")

    def _boxed(self, headings: list[str], rows: list[list[Text]]) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
        names = headings.index("case")
        for index, heading in enumerate(headings):
            if heading == "":
                table.add_column("", no_wrap=True)
            elif index <= names:
                table.add_column(heading, overflow="fold", vertical="bottom")
            else:
                # One word a line: a heading is no wider than its figures.
                words = heading.replace(" ", "\n")
                table.add_column(words, justify="right", no_wrap=True, vertical="bottom")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def _plain(self, headings: list[str], rows: list[list[Text]]) -> None:
        lines = [headings, *([cell.plain for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        names = headings.index("case")
        for line in lines:
            cells = [
                cell.ljust(width) if index <= names else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            self("  ".join(cells).rstrip())

    def _carried_text(self, text: Text) -> Text:
        carried = self._carried(text.plain)
        return text if carried == text.plain else Text(carried, text.style)

    def _carried(self, text: str) -> str:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            for character, plain in (("µ", "u"), ("✗", "x"), ("✓", "+"), ("…", "...")):
                text = text.replace(character, plain)
            return text.encode(self._encoding, "replace").decode(self._encoding)
        return text


def _print_examples(results: Results, say: Speaker) -> None:
    examples = told(results, _MOST_EXAMPLES)
    if not examples:
        return
    say("")
    say("For example:", "bold")
    for case, example in examples:
        say(f"  {case.name}: {example.text}")


def _print_schedule(results: Results, say: Speaker) -> None:
    found = first_schedule(results.cases)
    if found is None:
        return
    case, schedule = found
    told = moments(schedule)
    width = max(len(moment.at) for moment in told)
    say("")
    say(
        f"How a promise was broken: {case.name}, from {format_duration(begin_ns(schedule))} on",
        "bold",
    )
    for moment in told:
        note = f", but write {schedule.write} is not durable" if moment.broken else ""
        say(f"  {moment.at:>{width}}  {moment.what}{note}", "red" if moment.broken else "")


def _print_expectations(results: Results, say: Speaker) -> None:
    failures = [(case, wrong) for case in results.cases for wrong in failed(case)]
    say("")
    for case, wrong in failures[:_MOST_FAILURES]:
        say(f"✗ {case.name}: {expectation_line(wrong)}", "red")
    if len(failures) > _MOST_FAILURES:
        say(f"  and {len(failures) - _MOST_FAILURES} more", "red")
    say(expectations_summary(results), "green" if passed(results) else "bold red")


def print_comparison(comparison: Comparison, stream: TextIO | None = None) -> None:
    """What became worse first, then the rest, then the outcome."""
    say = Speaker(console_for(stream))
    for notice in comparison.notices:
        say(f"Notice: {notice}", "yellow")
    styles = {"worse": "red", "tolerated": "yellow", "better": "green"}
    changes = [change for judgement in styles for change in comparison.of(judgement)]
    if changes:
        headings = ["case", "metric", "old", "new", "change", "judgement"]
        say.table(headings, [_change_row(change, styles) for change in changes])
    for name in comparison.missing:
        say(f"Missing: {name}", "red")
    for name in comparison.unexplored:
        say(f"Not explored any more: {name}", "red")
    for name in comparison.new:
        say(f"New: {name}")
    say(comparison.headline(), "bold red" if comparison.regressed else "green")


def _change_row(change: Change, styles: dict[str, str]) -> list[Text]:
    figures = [change.old_text(), change.new_text(), change.change_text()]
    return [
        Text(printable(change.case)),
        Text(change.metric),
        *map(Text, figures),
        Text(change.judgement, styles[change.judgement]),
    ]
