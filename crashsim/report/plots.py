"""All plots of a run, as SVG and PNG.

Contract: matplotlib is loaded when `draw` is called, never by importing this module. The number of
pictures does not grow with the number of cases. The same results give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from crashsim.printable import printable
from crashsim.report.moments import first_schedule
from crashsim.report.words import not_held, of_what
from crashsim.results import CaseResult, Results


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: `name` is its file's, `title` and `caption` are for the page."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes


def draw(results: Results) -> list[Plot]:
    """The pictures of a run, in the order in which they are read; none without cases."""
    cases = results.cases
    if not cases:
        return []
    from crashsim.report import bars, distribution, gantt, layers, prices, timelines
    from crashsim.report.alike import note
    from crashsim.report.canvas import rendered, style

    pictures = (
        ("price", "Loss against price", prices.caption(cases), prices.loss_against_price),
        (
            "schedule",
            "A broken promise",
            _broken_promise(cases),
            gantt.schedule_of_a_broken_promise,
        ),
        (
            "risk",
            "What a power cut would take, instant by instant",
            "Each byte counts whose latest value is not safe from a power cut. A shaded band spans "
            "the least and the largest value of each column."
            + note(timelines.risk_panels(cases), cases),
            timelines.risk_over_time,
        ),
        (
            "recovery-point",
            "Recovery point: how old the lost work would be",
            "The age of the oldest write that a power cut at this instant would take."
            + note(timelines.age_panels(cases), cases),
            timelines.recovery_point_over_time,
        ),
        (
            "distribution",
            "How likely is which loss",
            "Read: at this share of all instants a power cut takes more than this many bytes."
            + note(distribution.distribution_groups(cases), cases),
            distribution.distribution_of_loss,
        ),
        (
            "layers",
            "Where the bytes were",
            "Bytes whose latest value had got no further than that layer."
            + note(layers.panels_of(cases), cases),
            layers.layers_over_time,
        ),
    )
    plots = []
    for name, title, caption, figure_of in pictures:
        if name == "price" and not prices.compares(cases):
            continue
        if name == "schedule" and first_schedule(cases) is None:
            continue  # every promise was kept
        with style():
            drawn = rendered(figure_of(cases))
        plots.append(Plot(name, *_told(title, caption, cases), *drawn))
    for picture in bars.pictures(cases):
        with style():
            drawn = rendered(picture.figure())
        words = _told(picture.title, picture.caption, picture.cases)
        plots.append(Plot(picture.name, *words, *drawn))
    return plots


def _told(title: str, caption: str, cases: list[CaseResult]) -> tuple[str, str]:
    """Title and caption of a picture of these cases, and of what it speaks if one is recorded."""
    if not (what := of_what(cases)):
        return title, caption
    return f"{title} ({what})", f"{caption} {not_held(cases)}"


def _broken_promise(cases: list[CaseResult]) -> str:
    found = first_schedule(cases)
    if found is None:
        return ""
    case, schedule = found
    return (
        f"{printable(case.name)}: a flush was acknowledged with success before write "
        f"{schedule.write}, which it covers, was durable."
    )
