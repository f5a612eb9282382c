"""A run or a comparison on standard output, and progress on standard error.

Contract: what is said of the loss has the loss's colour, what is said of expectations theirs. Where
there is no room for all columns of the table the least important go, and it says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.text import Text

from crashsim.engine.units import exact_instant
from crashsim.printable import printable
from crashsim.report.compare import Comparison, Difference
from crashsim.report.grids import COLUMNS, CaseColumn, notes
from crashsim.report.moments import begin_ns, first_schedule, moments
from crashsim.report.speaker import Speaker, console_for, width_of
from crashsim.report.standing import (
    all_safe,
    as_expected,
    expectations_summary,
    headline,
    sentences,
)
from crashsim.report.words import expectation_line, failed, sign, some, told, worst_first
from crashsim.results import CaseResult, Results

_MOST_ROWS = 60
_MOST_EXAMPLES = 3
_MOST_FAILURES = 20
_NARROWEST_NAME = 18
_OF_SIGN = {"✗": "bold red", "✓": "green", "": ""}
_OF_LOSS = {True: "bold green", False: "bold red", None: "bold yellow"}


def print_results(results: Results, stream: TextIO | None = None) -> None:
    """The table of cases, examples of loss, expectations and notices."""
    console = console_for(stream)
    say = Speaker(console)
    shown = results.cases
    if console.is_terminal and len(shown) > _MOST_ROWS:
        shown = worst_first(shown)[:_MOST_ROWS]
    if shown:
        say.table(*_table_of(shown, width_of(console), console.is_terminal))
        for line in notes(results):
            say(line, "dim")
    if len(shown) < len(results.cases):
        say(f"The worst {len(shown)} of {some(len(results.cases), 'case')}.", "dim")
    if shown:
        say("")
    say(headline(results), _OF_LOSS[all_safe(results)])
    for line in sentences(results):
        say(line)
    _print_examples(results, say)
    _print_schedule(results, say)
    for case in results.cases:
        for notice in case.notices:
            say(f"Notice: {case.name}: {notice}", "yellow")
    _print_expectations(results, say)


def _table_of(
    cases: Sequence[CaseResult], width: int | None, boxed: bool
) -> tuple[list[str], list[list[Text]], str]:
    """Headings, rows, and what was left out."""
    names = [Text(printable(case.name)) for case in cases]
    columns = list(COLUMNS)
    if width is not None:
        longest = max(map(len, names))
        # In a box a name is folded; a plain one stands whole on its line.
        name = max(_NARROWEST_NAME, min(longest, width // 4)) if boxed else longest
        columns = _fitting(columns, cases, width - name - 3, boxed)
    headings = ["", "case", *(column.heading for column in columns)]
    rows = [
        [
            Text(sign(case), _OF_SIGN[sign(case)]),
            name,
            *(Text(one.cell(case), "bold red" if one.bad(case) else "") for one in columns),
        ]
        for name, case in zip(names, cases, strict=True)
    ]
    rest = [column.heading for column in COLUMNS if column not in columns]
    note = f"Not shown for want of room: {', '.join(rest)}." if rest else ""
    return headings, rows, note


def _fitting(
    columns: list[CaseColumn], cases: Sequence[CaseResult], room: int, boxed: bool
) -> list[CaseColumn]:
    """As many columns as fit, the least important given up first."""
    widths = {}
    for column in columns:
        heading = column.heading.split() if boxed else [column.heading]
        widths[column] = 2 + max(map(len, [*heading, *map(column.cell, cases)]))
    while len(columns) > 1 and sum(widths[column] for column in columns) > room:
        columns.remove(min(columns, key=lambda one: one.column.weight))
    return columns


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
        f"How a promise was broken: {case.name}, from {exact_instant(begin_ns(schedule))} on",
        "bold",
    )
    for moment in told:
        note = f", but write {schedule.write} is not durable" if moment.broken else ""
        say(f"  {moment.at:>{width}}  {moment.what}{note}", "red" if moment.broken else "")


def _print_expectations(results: Results, say: Speaker) -> None:
    failures = [(case, wrong) for case in results.cases for wrong in failed(case)]
    say("")
    for case, wrong in failures[:_MOST_FAILURES]:
        say(f"✗ {case.name}: {expectation_line(case, wrong)}", "red")
    if len(failures) > _MOST_FAILURES:
        say(f"  and {len(failures) - _MOST_FAILURES} more", "red")
    styles = {True: "green", False: "bold red", None: ""}
    say(expectations_summary(results), styles[as_expected(results)])


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


def _change_row(change: Difference, styles: dict[str, str]) -> list[Text]:
    cells = map(Text, (printable(change.case), change.metric, *change.texts()))
    return [*cells, Text(change.judgement, styles[change.judgement])]
