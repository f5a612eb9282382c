"""Plots over the time of a run: bytes at risk, the recovery point, and where the bytes were.

Contract: imported only when something is drawn (it loads matplotlib). Each panel is as high as its
own worst value, which is written into it, so that the shape of every case is seen. A function of
many steps is drawn as the band between its least and largest values. Cases that draw the same share
a panel; of many, those that lose the most have one.

Where the bytes were is a stacked area, all panels on one scale. What has too many steps to be drawn
is drawn as the true mean of each column, and says so: only means of layers add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from crashsim.engine.units import exact_instant, format_bytes, format_duration
from crashsim.report.alike import Shape, alike, names_of, worst_groups
from crashsim.report.canvas import (
    COLOURS,
    FAINT,
    INK,
    LAYER_COLOURS,
    common_time,
    corner,
    even_scale,
    mean_text,
    panels,
    say,
    set_axis,
    set_scale,
    size_unit,
)
from crashsim.report.words import layer_name
from crashsim.results import CaseResult, Means
from crashsim.results.thinning import (
    COLUMNS,
    F64,
    I64,
    Band,
    band,
    clipped,
    edges_of,
    envelope,
    line,
    line_envelope,
    means,
    seen,
)

MOST_PANELS = 16
MOST_LAYER_PANELS = 12
_COLUMNS = COLUMNS // 2
_ALIKE_COLUMNS = COLUMNS // 8
_LAYER_COLUMNS = COLUMNS // 4
_ALIKE_LAYER_COLUMNS = COLUMNS // 12
_LEAST_SEEN = 0.01  # of the height of a panel
_HEADROOM, _FOOTROOM = 0.32, 0.2  # of the height: for words above, for marks below


class _Quantity(NamedTuple):
    """What is drawn: its worst value, its shape, as it is and by columns, and its words."""

    worst: Callable[[CaseResult], int]
    exact: Callable[[CaseResult], Band]
    columns: Callable[[CaseResult], Band]
    kind: str  # bytes | ns
    label: str
    never: str
    draw_style: str


_RISK = _Quantity(
    lambda case: case.at_risk_bytes.max,
    lambda case: band(case.loss, 0, _end(case), _COLUMNS),
    lambda case: envelope(case.loss, 0, _end(case), _ALIKE_COLUMNS),
    "bytes",
    "bytes at risk",
    "nothing is at risk at any instant",
    "steps-post",
)
_AGE = _Quantity(
    lambda case: case.recovery_point_ns.max,
    lambda case: line(case.recovery_point, 0, _end(case), _COLUMNS),
    lambda case: line_envelope(case.recovery_point, 0, _end(case), _ALIKE_COLUMNS),
    "ns",
    "age of the oldest unsaved write",
    "every write is safe at once",
    "default",
)


def _end(case: CaseResult) -> int:
    return max(1, case.end_ns)


def risk_over_time(cases: list[CaseResult]) -> Figure:
    """Bytes at risk of a power cut at each instant, with flushes and the host's writeback."""
    figure, every = _timeline(cases, _RISK)
    kinds = [("flush acknowledged", "|"), ("host flusher's pass", "v")]
    if any(case.marks.other_writeback for case in cases):
        kinds.append(("other host writeback", "."))
    for axes, group in zip(every, risk_panels(cases), strict=True):
        _marks(axes, cases[group[0]])
    handles = [
        Line2D([], [], color=INK, linestyle="", marker=marker, label=label)
        for label, marker in kinds
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, handletextpad=0.1)
    return figure


def recovery_point_over_time(cases: list[CaseResult]) -> Figure:
    """The age of the oldest unsaved write at each instant."""
    return _timeline(cases, _AGE)[0]


def risk_panels(cases: list[CaseResult]) -> list[list[int]]:
    """The cases of each panel of the bytes at risk."""
    return _groups(cases, _RISK)


def age_panels(cases: list[CaseResult]) -> list[list[int]]:
    """The cases of each panel of the recovery point."""
    return _groups(cases, _AGE)


def _groups(cases: list[CaseResult], what: _Quantity) -> list[list[int]]:
    curves = []
    for case in cases:
        shape = what.columns(case)
        curves.append(Shape(_end(case), shape.low.astype(float), shape.high.astype(float)))
    return worst_groups(alike(curves), cases, MOST_PANELS)


def _timeline(cases: list[CaseResult], what: _Quantity) -> tuple[Figure, list[Axes]]:
    groups = _groups(cases, what)
    few = len(groups) <= 3
    figure, every = panels(len(groups), 1.75 if few else 1.2, one_scale=False)
    titles = names_of(groups, cases, 74 if few else 36)
    for axes, group, title in zip(every, groups, titles, strict=True):
        axes.set_title(title, fontsize=8.5)
        members = [cases[i] for i in group]
        worst = max(map(what.worst, members))
        if not worst:
            say(axes, what.never, fontsize=9)
            continue
        _draw(axes, what, members[0])
        scale = even_scale(worst, what.kind, ticks=4 if few else 3)
        set_scale(axes.yaxis, scale)
        axes.set_ylim(-worst * _FOOTROOM, worst * (1 + _HEADROOM))
        text = _worst(what, members, brief=not few)
        corner(axes, text)
    common_time(figure, every[0], max(map(_end, cases)))
    figure.supylabel(what.label, fontsize=9)
    return figure, every


def _draw(axes: Axes, what: _Quantity, case: CaseResult) -> None:
    shape, colour = what.exact(case), COLOURS[1]
    if shape.exact:
        axes.plot(shape.t_ns, shape.low, drawstyle=what.draw_style, color=colour, linewidth=1.4)
        return
    axes.fill_between(
        shape.t_ns, shape.low, shape.high, step="post", color=colour, alpha=0.3, linewidth=0
    )
    axes.plot(shape.t_ns, shape.high, drawstyle="steps-post", color=colour, linewidth=0.8)


def _worst(what: _Quantity, members: list[CaseResult], *, brief: bool) -> str:
    """The largest value of a panel; when it is, the mean and the flushes, as far as there is room:
    in `brief` the mean only where a band hides it, otherwise the flushes."""
    shown = format_bytes if what.kind == "bytes" else format_duration
    found = [what.worst(case) for case in members]
    text = " to ".join(dict.fromkeys((shown(min(found)), shown(max(found)))))
    steps = members[0].loss if what.kind == "bytes" else members[0].recovery_point
    if not brief and len(members) == 1 and steps.exact and found[0] in steps.values:
        text += f" at {exact_instant(steps.instants[steps.values.index(found[0])])}"
    if what.kind != "bytes":
        return f"worst: {text}"
    banded = not what.exact(members[0]).exact
    if all(case.loss.exact for case in members) and (banded or not brief):
        text += (
            f", mean {mean_text([float(means(case.loss, _end(case), 1)[0]) for case in members])}"
        )
    if brief and banded:
        return f"worst: {text}"
    flushes = [case.flushes for case in members]
    counts = dict.fromkeys((min(flushes), max(flushes)))
    told = " to ".join(f"{number:,}" if number else "no" for number in counts)
    return f"worst: {text}, {told} flush" + ("es" if max(flushes) > 1 else "")


def _marks(axes: Axes, case: CaseResult) -> None:
    """Under the curve: ticks for flushes, triangles for the flusher, dots for other writeback."""
    least, most = axes.get_ylim()
    foot = (most - least) * _FOOTROOM / (1 + _FOOTROOM + _HEADROOM)
    low, high = least + foot * 0.15, least + foot * 0.75
    marks, end_ns = case.marks, _end(case)
    _ticks(axes, seen(marks.flush_acks, 0, end_ns, _COLUMNS), low, high)
    for at, marker, size in ((marks.flusher_passes, "v", 5), (marks.other_writeback, ".", 4)):
        shown = seen(at, 0, end_ns, _COLUMNS)
        (drawn,) = axes.plot(
            shown, np.full(shown.size, (low + high) / 2), marker, color=COLOURS[0], markersize=size
        )
        drawn.set_clip_on(False)
        drawn.set_in_layout(False)
    for t_ns in seen(marks.flusher_passes, 0, end_ns, _COLUMNS)[:12]:
        axes.axvline(t_ns, color=FAINT, linestyle=":", linewidth=1, zorder=0)


def _ticks(axes: Axes, at: I64, low: float, high: float) -> None:
    """Short upright lines, as one path: a marker each would fill the file."""
    x = np.repeat(at.astype(np.float64), 3)
    y = np.tile([low, high, np.nan], at.size)
    axes.plot(x, y, color=COLOURS[0], linewidth=0.8, solid_capstyle="butt")


# --- where the bytes were -------------------------------------------------------------------------


def layer_panels(cases: list[CaseResult]) -> list[list[int]]:
    """The cases of each panel; of more than `MOST_LAYER_PANELS` those that lose the most."""
    every = [_shape(case) for case in cases]
    groups = alike(every, max([1.0, *(float(one.high.sum(axis=0).max()) for one in every)]))
    return worst_groups(groups, cases, MOST_LAYER_PANELS)


def _shape(case: CaseResult) -> Shape:
    end_ns = _end(case)
    nothing = Means([], [])
    names = sorted({*LAYER_COLOURS, *case.layers})
    rows = np.stack(
        [means(case.layers.get(n, nothing), end_ns, _ALIKE_LAYER_COLUMNS) for n in names]
    )
    return Shape(end_ns, rows, rows)


def layers_over_time(cases: list[CaseResult]) -> Figure:
    """Where the latest version of each byte had got to, stacked, a panel for each case."""
    groups = layer_panels(cases)
    shown = [cases[group[0]] for group in groups]
    figure, every = panels(len(groups), 1.6 if len(groups) <= 3 else 1.3, one_scale=True)
    names = [sorted(n for n, one in case.layers.items() if any(one.values)) for case in shown]
    shapes = [
        stack([case.layers[n] for n in held[::-1]], _end(case), _LAYER_COLUMNS) if held else None
        for case, held in zip(shown, names, strict=True)
    ]
    top = max([1.0, *(_top(shape) for shape in shapes if shape)])
    titles = names_of(groups, cases, 74 if len(groups) <= 3 else 36)
    for place, (axes, held, shape) in enumerate(zip(every, names, shapes, strict=True)):
        axes.set_title(titles[place], fontsize=8.5)
        if shape:
            colours = [LAYER_COLOURS.get(name, FAINT) for name in held[::-1]]
            axes.stackplot(shape.t_ns, *shape.rows, colors=colours, step="post", linewidth=0)
            text = _mean_of_layers([cases[i] for i in groups[place]], shape, top)
            corner(axes, text)
        else:
            say(axes, "all on the media at every instant")
    drawn = [shape.mean_ns for shape in shapes if shape and shape.mean_ns]
    between = " to ".join(dict.fromkeys(format_duration(of(drawn)) for of in (min, max) if drawn))
    note = f", drawn: mean of each {between}" if drawn else ""
    common_time(figure, every[0], max(map(_end, shown)), note)
    if any(shapes):
        every[0].set_ylim(0, top * 1.3)
        unit = size_unit(int(top))
        set_axis(every[0].yaxis, unit, "", ticks=4)
        figure.supylabel(f"not on media ({unit.name})", fontsize=9)
    handles = [
        Patch(color=LAYER_COLOURS.get(layer, FAINT), label=layer_name(layer))
        for layer in sorted({layer for held in names for layer in held})
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


class Stacked(NamedTuple):
    """Parts of a whole (float64) from each of `t_ns` to the next; `mean_ns` is 0 where they are
    exact, otherwise the length of the interval of which each value is the mean."""

    t_ns: I64
    rows: list[F64]
    mean_ns: int


def stack(layers: list[Means], end_ns: int, columns: int = COLUMNS) -> Stacked:
    """The functions on the union of their instants, or, when these are too many or thinned, the
    mean of each column: of parts that change places only the means still add up to the whole's."""
    parts = [clipped(one, 0, end_ns) for one in layers]
    t_ns = np.unique(np.concatenate([instants for instants, _ in parts]))
    exact = t_ns.size <= 2 * columns and all(one.exact for one in layers)
    if exact:
        rows = [values[np.searchsorted(at, t_ns, "right") - 1] for at, values in parts]
    else:
        t_ns = edges_of(0, end_ns, columns)[:-1]
        rows = [means(one, end_ns, columns) for one in layers]
    rows = [np.append(row, row[-1]) for row in rows]
    return Stacked(np.append(t_ns, end_ns), rows, 0 if exact else end_ns // columns)


def _top(shape: Stacked) -> float:
    return float(np.sum(shape.rows, axis=0).max())


def _mean_of_layers(cases: list[CaseResult], shape: Stacked, top: float) -> str:
    """The mean over the run, of all cases of a panel."""
    wholes = [
        sum(float(means(one, _end(case), 1)[0]) for one in case.layers.values()) for case in cases
    ]
    text = f"mean {mean_text(wholes)}"
    if _top(shape) < top * _LEAST_SEEN:
        text += ": too little to be seen on this scale"
    return text
