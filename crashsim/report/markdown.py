"""A run or a comparison as Markdown: `summary.md`, and a CI job's step summary.

Contract: GitHub's dialect; the verdict first. Names from the user's files cannot break a table,
open a tag or make a link.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from crashsim.printable import printable
from crashsim.report import standing
from crashsim.report.causes import (
    coverage,
    headline,
    replay_command,
    seen_in,
    title,
    told_findings,
)
from crashsim.report.causes import verdict as verdict_of
from crashsim.report.compare import Comparison, Difference
from crashsim.report.grids import COLUMNS, notes
from crashsim.report.words import expectation_line, failed, sign, some, told, worst_first
from crashsim.results import CaseResult, Results

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$-])")
_OF_LOSS = {True: "🟢", False: "🔴", None: "🟡"}
_OF_EXPECTATIONS = {True: "✅", False: "❌", None: "▫️"}
_MOST_EXAMPLES = 10
_MOST_FINDINGS = 10
_MOST_ROWS = 100


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, and HTML too."""
    return html.escape(_SPECIAL.sub(r"\\\1", printable(text)), quote=False)


def summary(results: Results) -> str:
    """The whole of `summary.md`."""
    parts = [f"## {_OF_LOSS[standing.all_safe(results)]} crashsim: {escaped(results.experiment)}"]
    if results.description:
        parts.append(escaped(results.description))
    parts.append(f"**{escaped(standing.headline(results))}**")
    sign = _OF_EXPECTATIONS[standing.as_expected(results)]
    parts.append(f"{sign} {standing.expectations_summary(results)}")
    parts.append("\n".join(f"- {escaped(line)}" for line in standing.sentences(results)))
    parts.append(_cases(results))
    parts.append(_expectations(results))
    parts += _explored(results)
    parts += _examples(results)
    parts += _notices(results)
    parts.append(f"Seed {results.seed}, crashsim {escaped(results.version)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _cases(results: Results) -> str:
    if not results.cases:
        return ""
    shown = results.cases
    rest = ""
    if len(shown) > _MOST_ROWS:
        shown = worst_first(shown)[:_MOST_ROWS]
        rest = f"\n\nThe worst {_MOST_ROWS} of {some(len(results.cases), 'case')}."
    header = ["case", "as expected", *(column.heading for column in COLUMNS)]
    rows = [
        [escaped(case.name), sign(case), *(column.cell(case) for column in COLUMNS)]
        for case in shown
    ]
    below = "".join(f"\n\n{escaped(line)}" for line in notes(results))
    return _table(header, rows) + below + rest


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, ruler, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _expectations(results: Results) -> str:
    return "\n".join(
        f"- ❌ {escaped(case.name)}: {escaped(expectation_line(case, wrong))}"
        for case in results.cases
        for wrong in failed(case)
    )


def _examples(results: Results) -> list[str]:
    examples = told(results, _MOST_EXAMPLES)
    if not examples:
        return []
    lines = [f"- {escaped(case.name)}: {escaped(example.text)}" for case, example in examples]
    return ["### What would be lost, for example", "\n".join(lines)]


def _explored(results: Results) -> list[str]:
    """How much was explored, and the stories of the first findings."""
    cases = [case for case in worst_first(results.cases) if case.exploration]
    if not cases:
        return []
    parts = ["### Every state that a cut may leave", "\n".join(map(_coverage, cases[:_MOST_ROWS]))]
    told = [(case, *found) for case in cases for found in told_findings(case)]
    for case, finding, file in told[:_MOST_FINDINGS]:
        head = f"{title(finding)} ({seen_in(finding)}; {case.name})"
        lines = [f"**{escaped(head)}**", *(f"- {escaped(line)}" for line in finding.story)]
        if file:
            lines.append(f"- Again, in the run's folder: {_code(replay_command(file))}")
        parts.append(f"{lines[0]}\n\n" + "\n".join(lines[1:]))
    if more := len(told) - _MOST_FINDINGS:
        parts += [f"And {some(more, 'more finding')}."] if more > 0 else []
    return parts


def _coverage(case: CaseResult) -> str:
    one = case.exploration
    assert one is not None, "asked for those that were explored"
    text = f"{case.name}: {headline(one)}; {verdict_of(one)}; {coverage(one)}."
    return f"- {escaped(text)}"


def _code(text: str) -> str:
    marked = re.sub(r"([\\`*_\[\]|~])", r"\\\1", printable(text))
    return f"<code>{html.escape(marked, quote=False)}</code>"


def _notices(results: Results) -> list[str]:
    several = len(results.cases) > 1
    named = [
        (f"{escaped(c.name)}: " if several else "", n) for c in results.cases for n in c.notices
    ]
    lines = [f"- {name}{escaped(notice)}" for name, notice in named]
    return ["### Notices", "\n".join(lines)] if lines else []


def comparison_summary(comparison: Comparison) -> str:
    """A comparison as Markdown."""
    sign = "❌" if comparison.regressed else "✅"
    parts = [f"## {sign} {comparison.headline()}"]
    if comparison.notices:
        parts.append("\n".join(f"- {escaped(notice)}" for notice in comparison.notices))
    lists = {
        "Missing cases": comparison.missing,
        "Not explored any more": comparison.unexplored,
        "New cases": comparison.new,
    }
    for heading, names in lists.items():
        if names:
            parts.append(f"### {heading}\n\n" + "\n".join(f"- {escaped(name)}" for name in names))
    for heading, judgement in (
        ("Worse", "worse"),
        ("Tolerated", "tolerated"),
        ("Better", "better"),
    ):
        if changes := comparison.of(judgement):
            header = ["case", "metric", "old", "new", "change"]
            rows = map(_change_row, changes[:_MOST_ROWS])
            more = len(changes) - _MOST_ROWS
            rest = f"\n\nAnd {some(more, 'more change')}." if more > 0 else ""
            parts.append(f"### {heading}\n\n{_table(header, rows)}{rest}")
    return "\n\n".join(parts) + "\n"


def _change_row(change: Difference) -> list[str]:
    return [escaped(change.case), f"`{change.metric}`", *change.texts()]
