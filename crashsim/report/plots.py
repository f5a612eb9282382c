"""All plots of a run, as SVG and PNG.

Contract: matplotlib is loaded when `draw` is called, never by importing this module. The number of
pictures does not grow with the number of cases. The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crashsim.printable import printable
from crashsim.report.moments import first_schedule
from crashsim.report.words import not_held, of_what
from crashsim.results import CaseResult, Results

if TYPE_CHECKING:
    from crashsim.report.canvas import Picture


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
    from crashsim.report.canvas import rendered, style

    plots = []
    for picture in _pictures(cases):
        with style():
            drawn = rendered(picture.figure(picture.cases))
        plots.append(Plot(picture.name, *_told(picture), *drawn))
    return plots


def _pictures(cases: list[CaseResult]) -> Iterator[Picture]:
    from crashsim.report import bars, distribution, gantt, prices, timelines
    from crashsim.report.alike import note
    from crashsim.report.canvas import Picture

    if prices.compares(cases):
        caption = prices.caption(cases)
        yield Picture("price", "Loss against price", caption, prices.loss_against_price, cases)
    if (found := first_schedule(cases)) is not None:
        caption = (
            f"{printable(found[0].name)}: a flush was acknowledged with success before write "
            f"{found[1].write}, which it covers, was durable."
        )
        draw_schedule = gantt.schedule_of_a_broken_promise
        yield Picture("schedule", "A broken promise", caption, draw_schedule, cases)
    yield Picture(
        "risk",
        "What a power cut would take, instant by instant",
        "Each byte counts whose latest value is not safe from a power cut. A shaded band spans "
        "the least and the largest value of each column."
        + note(timelines.risk_panels(cases), cases),
        timelines.risk_over_time,
        cases,
    )
    yield Picture(
        "recovery-point",
        "Recovery point: how old the lost work would be",
        "The age of the oldest write that a power cut at this instant would take."
        + note(timelines.age_panels(cases), cases),
        timelines.recovery_point_over_time,
        cases,
    )
    yield Picture(
        "distribution",
        "How likely is which loss",
        "Read: at this share of all instants a power cut takes more than this many bytes."
        + note(distribution.distribution_groups(cases), cases),
        distribution.distribution_of_loss,
        cases,
    )
    yield Picture(
        "layers",
        "Where the bytes were",
        "Bytes whose latest value had got no further than that layer."
        + note(timelines.layer_panels(cases), cases),
        timelines.layers_over_time,
        cases,
    )
    yield from bars.pictures(cases)


def _told(picture: Picture) -> tuple[str, str]:
    """Title and caption, with of what it speaks if a case is recorded."""
    if not (what := of_what(picture.cases)):
        return picture.title, picture.caption
    return f"{picture.title} ({what})", f"{picture.caption} {not_held(picture.cases)}"
