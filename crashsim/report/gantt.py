"""The picture of a broken promise: a bar for each thing that lasted, from the store to the disk.

Contract: imported only when something is drawn (it loads matplotlib). The instant of the
acknowledgement is a line: what the flush covers ought to end left of it, and does not.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crashsim.engine.units import exact_instant
from crashsim.printable import printable
from crashsim.report.canvas import COLOURS, INK, PAPER, new_figure, set_axis, time_unit
from crashsim.report.moments import LANES, begin_ns, first_schedule
from crashsim.results import CaseResult, Schedule, ScheduleSpan

_LANE_COLOURS = dict(zip(LANES, COLOURS, strict=False))
_BESIDE = 0.25  # of the time up to the acknowledgement, that much more is shown


def schedule_of_a_broken_promise(cases: list[CaseResult]) -> Figure:
    """The first schedule of the worst case; there is one."""
    found = first_schedule(cases)
    assert found is not None, "asked for only when a promise was broken"
    _, schedule = found
    spans = sorted(schedule.spans, key=lambda span: list(LANES).index(span.lane))
    figure = new_figure(0.9 + 0.34 * len(spans))
    axes = figure.subplots()
    start, end = _window(schedule)
    for row, span in enumerate(spans):
        _bar(axes, span, row, start, end)
    acked = schedule.acknowledged_ns - start
    axes.axvline(acked, color=INK, linewidth=1.2)
    axes.annotate(
        "acknowledged",
        (acked, -0.75),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        annotation_clip=False,
    )
    axes.set_ylim(len(spans) - 0.4, -0.6)
    axes.set_yticks(range(len(spans)), [LANES[span.lane] for span in spans], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlim(0, end - start)
    set_axis(axes.xaxis, time_unit(end - start), f"time from {exact_instant(start)} on")
    return figure


def _window(schedule: Schedule) -> tuple[int, int]:
    start, acked = begin_ns(schedule), schedule.acknowledged_ns
    beside = max(1, int((acked - start) * _BESIDE))
    durable = schedule.durable_ns
    near = durable if 0 <= durable <= acked + 4 * beside else acked
    return start, near + beside


def _bar(axes: Axes, span: ScheduleSpan, row: int, start: int, end: int) -> None:
    left = span.begin_ns - start
    right = (end if span.end_ns < 0 else min(span.end_ns, end)) - start
    axes.barh(
        row,
        max(right - left, (end - start) // 400),
        left=left,
        height=0.62,
        color=_LANE_COLOURS[span.lane],
        alpha=0.45,
        linewidth=0,
    )
    # Written from its bar's beginning, or up to it where there is more room before.
    late = left > (end - start) * 0.6
    axes.annotate(
        printable(span.text),
        (left, row),
        xytext=(-4 if late else 4, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="center",
        fontsize=8,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.6},
    )
