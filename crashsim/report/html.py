"""The report that one looks at: a single HTML file.

Contract: self-contained (plots are inline SVG, nothing is fetched), readable in light and dark and
on paper, the verdict first. Everything from the user's files is escaped by the template. The same
results and command give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from crashsim.engine.units import exact_instant, format_bytes, format_duration
from crashsim.printable import printable
from crashsim.report import causes, grids, standing, words
from crashsim.report.grids import COLUMNS, notes
from crashsim.report.moments import moments
from crashsim.report.plots import Plot
from crashsim.report.vector import inlined
from crashsim.results import Results

# Beyond these a page is no longer looked at; the rest is in results.json, and the page says so.
MOST_ROWS = 200
MOST_DETAILED = 40
MOST_EXPLORED = 40
OF_STATES = ("states", "outcomes")  # plots of what was explored; `finding-1` and on are of findings

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
    first = next((n for n in grids.LEADING if any(pair[0].name == n for pair in drawn)), "")
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
        rows=[(number[case.name], case, words.sign(case)) for case in rows],
        detailed=ranked[:MOST_DETAILED],
        answer=grids.answer(results.cases) if results.cases else None,
        leading=leading,
        failures=grids.failures(results.cases),
        plots=[(plot, svg) for plot, svg in rest if not is_of_states(plot.name)],
        explored=[case for case in ranked if case.exploration][:MOST_EXPLORED],
        explored_plots=[pair for pair in rest if pair[0].name in OF_STATES],
        pictures=_of_findings(results, {plot.name: svg for plot, svg in drawn}),
        causes=causes,
        words=words,
        moments=moments,
    )


def is_of_states(plot: str) -> bool:
    """Whether a plot of that name belongs to what was explored."""
    return plot in OF_STATES or plot.startswith("finding-")


def _of_findings(results: Results, drawn: Mapping[str, str]) -> dict[tuple[str, int], str]:
    """(case, number of the finding from 0) -> SVG."""
    pictured = enumerate(causes.pictured(results.cases), start=1)
    return {(case.name, place): drawn.get(f"finding-{n}", "") for n, (case, place) in pictured}


def _groups() -> list[tuple[str, int]]:
    """The heading above the headings: (title, columns that it spans)."""
    groups: list[tuple[str, int]] = []
    for group, columns in groupby(COLUMNS, lambda one: one.column.group):
        spans = len([*columns])
        groups += [(group, spans)] if group else [("", 1)] * spans
    return groups
