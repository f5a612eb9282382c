"""The report that one looks at: a single HTML file.

Contract: self-contained (plots are inline SVG, nothing is fetched), readable in light and dark and
on paper, the verdict first. Everything from the user's files is escaped by the template. The same
results and command give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from crashsim.engine.units import exact_instant, format_bytes, format_duration
from crashsim.printable import printable
from crashsim.report import answer, epochs, standing, words
from crashsim.report.moments import moments
from crashsim.report.overview import COLUMNS, notes
from crashsim.report.plots import Plot
from crashsim.report.vector import inlined
from crashsim.results import CaseResult, Results

# Beyond these a page is no longer looked at; the rest is in results.json, and the page says so.
MOST_ROWS = 200
MOST_DETAILED = 40

# As in canvas.py, which is not imported: it loads matplotlib.
_COLOURS = {"#252525": "currentColor", "#fefefe": "var(--paper)", "#0072b2": "var(--blue)"}


def html_report(results: Results, plots: Sequence[Plot], command: str) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("crashsim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": format_bytes,
        "duration": format_duration,
        "instant": exact_instant,
        "count": words.count,
        "printable": printable,
        "layer": words.layer_name,
    }
    ranked = words.worst_first(results.cases)
    rows = ranked[:MOST_ROWS] if len(ranked) > MOST_ROWS else results.cases
    number = {case.name: i for i, case in enumerate(results.cases, start=1)}
    drawn = [(plot, inlined(plot.svg, f"p{i}-", _COLOURS)) for i, plot in enumerate(plots)]
    first = next((n for n in answer.LEADING if any(pair[0].name == n for pair in drawn)), "")
    leading = [pair for pair in drawn if pair[0].name == first]
    rest = [pair for pair in drawn if pair not in leading]
    return environment.get_template("report.html.j2").render(
        results=results,
        command=command,
        safe=standing.all_safe(results),
        headline=standing.headline(results),
        verdict=standing.sentences(results),
        as_expected=standing.as_expected(results),
        expectations=standing.expectations_summary(results),
        groups=_groups(),
        columns=COLUMNS,
        notes=notes(results),
        rows=[(number[case.name], case, _state(case)) for case in rows],
        detailed=ranked[:MOST_DETAILED],
        answer=answer.answer(results.cases) if results.cases else None,
        leading=leading,
        failures=answer.failures(results.cases),
        plots=[pair for pair in rest if not epochs.is_shown(pair[0].name)],
        explored=epochs.sections(results, {plot.name: svg for plot, svg in drawn}),
        explored_plots=[pair for pair in rest if pair[0].name in epochs.OVERVIEW],
        open_epochs=epochs.OPEN_EPOCHS,
        words=words,
        moments=moments,
    )


def _groups() -> list[tuple[str, int]]:
    """The heading above the headings: (title, columns that it spans)."""
    groups: list[tuple[str, int]] = []
    for group, columns in groupby(COLUMNS, lambda one: one.column.group):
        spans = [1] if group else [1 for _ in columns]
        groups += [(group, span) for span in spans]
    return groups


def _state(case: CaseResult) -> str:
    if case.writes == 0 or words.failed(case) or words.uncovered(case):
        return "failed"
    return "held" if case.expectations else ""
