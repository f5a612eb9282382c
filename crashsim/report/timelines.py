"""Plots over the time of a run: bytes at risk and the recovery point.

Contract: imported only when something is drawn (it loads matplotlib). A function of many steps is
drawn as the band between its least and largest values. Of many cases a few are drawn in colour, the
worst and the best among them, the others as a faint ground.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crashsim.experiment.units import format_bytes, format_duration
from crashsim.report.canvas import (
    COLOURS,
    FAINT,
    INK,
    PAPER,
    new_figure,
    say,
    set_axis,
    size_unit,
    time_unit,
)
from crashsim.report.curves import COLUMNS, I64, Band, band, line, seen
from crashsim.report.words import short_names, some
from crashsim.results import CaseResult

MOST_COLOURED = 5
# A case below this share of the worst hardly shows beside it.
_SMALL = 20
_FLUSHES_IN_ZOOM = 8
_MOST_TICKS_IN_ZOOM = 60
_LEGEND_CHARACTERS = 135


def coloured(cases: list[CaseResult]) -> list[int]:
    """Which cases are drawn in colour, in the sweep's order: all when few; otherwise evenly spread
    from the worst to the best."""
    if len(cases) <= MOST_COLOURED:
        return list(range(len(cases)))
    order = sorted(range(len(cases)), key=lambda i: -cases[i].at_risk_bytes.max)
    last = len(order) - 1
    places = [k * last // (MOST_COLOURED - 1) for k in range(MOST_COLOURED)]
    return sorted(order[place] for place in places)


def labels(cases: list[CaseResult], longest: int) -> list[str]:
    """Names for legends and titles, with their number in the table when there are many."""
    names = short_names([case.name for case in cases], longest)
    many = len(cases) > MOST_COLOURED
    return [f"{i + 1}  {name}" if many else name for i, name in enumerate(names)]


def end_of(cases: list[CaseResult]) -> int:
    """The end of the longest run."""
    return max(1, *(case.end_ns for case in cases))


def _draw(axes: Axes, shape: Band, colour: str, *, steps: bool, width: float) -> None:
    if shape.exact:
        kind = "steps-post" if steps else "default"
        axes.plot(shape.t_ns, shape.low, drawstyle=kind, color=colour, linewidth=width)
        return
    axes.fill_between(
        shape.t_ns, shape.low, shape.high, step="post", color=colour, alpha=0.55, linewidth=0
    )
    axes.plot(shape.t_ns, shape.high, drawstyle="steps-post", color=colour, linewidth=width * 0.6)


def _ground(axes: Axes, shape: Band, *, steps: bool) -> None:
    """A case among the others: one thin line, for bands of many would cover all."""
    kind = "steps-post" if steps or not shape.exact else "default"
    axes.plot(shape.t_ns, shape.high, drawstyle=kind, color=FAINT, linewidth=0.6, alpha=0.7)


def add_legend(figure: Figure, cases: list[CaseResult], chosen: list[int]) -> None:
    """Above the plots: the chosen cases, and how many others there are."""
    names = labels(cases, 44)
    handles: list[Any] = [
        Line2D([], [], color=COLOURS[k], linewidth=2, label=names[i]) for k, i in enumerate(chosen)
    ]
    if rest := len(cases) - len(chosen):
        text = some(rest, "other case") + " (largest values)"
        handles.append(Line2D([], [], color=FAINT, linewidth=1, label=text))
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), _LEGEND_CHARACTERS // (longest + 8)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8)


def risk_over_time(cases: list[CaseResult]) -> Figure:
    """Bytes at risk of a power cut at each instant, with flushes and flusher passes."""
    chosen = coloured(cases)
    rows = [(k, i) for k, i in enumerate(chosen) if _has_marks(cases[i])]
    zoomed = _zoom(cases, chosen)
    heights = [3.3] + ([0.3 + 0.2 * len(rows)] if rows else []) + ([1.7] if zoomed else [])
    figure = new_figure(sum(heights) + 0.9)
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    end_ns = end_of(cases)
    _risk_panel(panels[0], cases, chosen, end_ns)
    if rows:
        panels[0].tick_params(labelbottom=False)
        panels[0].set_xlabel("")
        _marks_panel(panels[1], cases, rows, end_ns)
    if zoomed:
        _zoom_panel(panels[-1], cases, chosen, zoomed)
    add_legend(figure, cases, chosen)
    return figure


def _risk_panel(axes: Axes, cases: list[CaseResult], chosen: list[int], end_ns: int) -> None:
    worst = max(case.at_risk_bytes.max for case in cases)
    _all_cases(axes, cases, chosen, "loss")
    axes.set_xlim(0, end_ns)
    set_axis(axes.xaxis, time_unit(end_ns), "time")
    if worst == 0:
        say(axes, "nothing is at risk at any instant")
        axes.set_ylabel("bytes at risk")
        return
    axes.set_ylim(0, worst * 1.14)
    set_axis(axes.yaxis, size_unit(worst), "bytes at risk")
    index = max(range(len(cases)), key=lambda i: cases[i].at_risk_bytes.max)
    _point_at_worst(axes, cases[index], end_ns)
    passes = seen(cases[index].marks.flusher_passes, 0, end_ns)
    for t_ns in passes[:12]:
        axes.axvline(t_ns, color=FAINT, linestyle=":", linewidth=1, zorder=0)


def _point_at_worst(axes: Axes, case: CaseResult, end_ns: int) -> None:
    peak = case.at_risk_bytes.max
    if peak not in case.loss.values:
        return
    t_ns = case.loss.instants[case.loss.values.index(peak)]
    right = t_ns > end_ns * 0.75
    axes.annotate(
        f"worst: {format_bytes(peak)} at {format_duration(t_ns)}",
        (t_ns, peak),
        xytext=(-4 if right else 4, 4),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom",
        fontsize=8.5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
    )


def _all_cases(axes: Axes, cases: list[CaseResult], chosen: list[int], what: str) -> None:
    """The others first, so that the chosen lie above them."""
    for i, case in enumerate(cases):
        if i not in chosen:
            ground = _shape(case, what, COLUMNS // 3)
            _ground(axes, ground, steps=what == "loss")
    for k, i in enumerate(chosen):
        shape = _shape(cases[i], what)
        _draw(axes, shape, COLOURS[k], steps=what == "loss", width=1.6)


def _shape(case: CaseResult, what: str, columns: int = COLUMNS) -> Band:
    end_ns = max(1, case.end_ns)
    if what == "loss":
        return band(case.loss, 0, end_ns, columns)
    return line(case.recovery_point, 0, end_ns, columns)


def _has_marks(case: CaseResult) -> bool:
    marks = case.marks
    return bool(marks.flush_acks or marks.flusher_passes or marks.other_writeback)


def _marks_panel(
    axes: Axes, cases: list[CaseResult], rows: list[tuple[int, int]], end_ns: int
) -> None:
    for row, (k, i) in enumerate(rows):
        marks = cases[i].marks
        # Rows count downwards: flushes in the upper half, the host's own writeback below.
        low = row + (0.1 if marks.other_writeback else 0.35)
        _ticks(axes, seen(marks.flush_acks, 0, end_ns), row - 0.35, low, COLOURS[k])
        _ticks(axes, seen(marks.other_writeback, 0, end_ns), row + 0.2, row + 0.4, COLOURS[k])
        _mark(axes, seen(marks.flusher_passes, 0, end_ns), row, COLOURS[k], "v", 7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_flushes(cases[i]) for _, i in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, end_ns)
    set_axis(axes.xaxis, time_unit(end_ns), "time")
    handles = [
        Line2D([], [], color=INK, linestyle="", marker="|", label="flush acknowledged"),
        Line2D([], [], color=INK, linestyle="", marker="v", label="host flusher's pass"),
    ]
    if any(cases[i].marks.other_writeback for _, i in rows):
        handles.append(
            Line2D([], [], color=INK, linestyle="", marker=3, label="other host writeback")
        )
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 0.96),
        ncols=3,
        fontsize=8,
        handletextpad=0.1,
        borderpad=0,
    )


def _mark(axes: Axes, at: I64, height: int, colour: str, marker: str, size: int) -> None:
    if not at.size:
        return
    (marks,) = axes.plot(at, [height] * at.size, marker, color=colour, markersize=size)
    # Whole at the edges, and no part of the layout.
    marks.set_clip_on(False)
    marks.set_in_layout(False)


def _ticks(axes: Axes, at: I64, low: float, high: float, colour: str) -> None:
    """Short upright lines, as one path: a marker each would fill the file."""
    x = np.repeat(at.astype(np.float64), 3)
    y = np.tile([low, high, np.nan], at.size)
    axes.plot(x, y, color=colour, linewidth=0.9, solid_capstyle="butt")


def _flushes(case: CaseResult) -> str:
    return some(case.flushes, "flush", "flushes") if case.flushes else "no flush"


def _zoom(cases: list[CaseResult], chosen: list[int]) -> tuple[int, int, list[int]] | None:
    """Window and cases of the second look: those that hardly show beside the worst."""
    worst = max(cases[i].at_risk_bytes.max for i in chosen)
    small = [
        i
        for i in chosen
        if 0 < cases[i].at_risk_bytes.max < worst / _SMALL and len(cases[i].marks.flush_acks) > 2
    ]
    if not small:
        return None
    sparsest = min(small, key=lambda i: len(cases[i].marks.flush_acks))
    acks = sorted(cases[sparsest].marks.flush_acks)
    first = max(0, len(acks) // 2 - _FLUSHES_IN_ZOOM // 2)
    last = min(len(acks) - 1, first + _FLUSHES_IN_ZOOM)
    start, stop = acks[first], acks[last]
    if any(not cases[i].loss.exact for i in small):
        # Thinned: a short window would show the thinning, the whole run still shows the height.
        start, stop = 0, end_of(cases)
    return (start, stop, small) if stop > start else None


def _zoom_panel(
    axes: Axes, cases: list[CaseResult], chosen: list[int], zoomed: tuple[int, int, list[int]]
) -> None:
    start, stop, small = zoomed
    largest = max(cases[i].at_risk_bytes.max for i in small)
    for i in small:
        k = chosen.index(i)
        shape = band(cases[i].loss, start, min(stop, cases[i].end_ns))
        _draw(axes, shape, COLOURS[k], steps=True, width=1.6)
        at = seen(cases[i].marks.flush_acks, start, stop)
        # Marks may be thinned: some ticks would read as all of them.
        whole = len(cases[i].marks.flush_acks) >= cases[i].flushes - 1
        if whole and at.size <= _MOST_TICKS_IN_ZOOM:
            _ticks(axes, at, 0, largest * 0.12, COLOURS[k])
    axes.set_xlim(start, stop)
    axes.set_ylim(0, largest * 1.1)
    set_axis(axes.xaxis, time_unit(stop), "time")
    set_axis(axes.yaxis, size_unit(largest), "at risk", ticks=4)
    axes.set_title(
        f"a closer look at {format_duration(stop - start)} of what hardly shows above: "
        f"{format_bytes(largest)} at worst",
        fontsize=9,
    )


def recovery_point_over_time(cases: list[CaseResult]) -> Figure:
    """The age of the oldest unsaved write at each instant."""
    chosen = coloured(cases)
    figure = new_figure(3.9)
    axes = figure.subplots()
    end_ns = end_of(cases)
    _all_cases(axes, cases, chosen, "recovery point")
    worst = max(case.recovery_point_ns.max for case in cases)
    axes.set_xlim(0, end_ns)
    set_axis(axes.xaxis, time_unit(end_ns), "time")
    if worst:
        axes.set_ylim(0, worst * 1.08)
        set_axis(axes.yaxis, time_unit(worst), "age of the oldest unsaved write")
    else:
        say(axes, "every write is safe at once")
        axes.set_ylabel("age of the oldest unsaved write")
    add_legend(figure, cases, chosen)
    return figure
