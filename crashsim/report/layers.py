"""The plot of where the bytes were: a stacked area over time, a panel for each case.

Contract: imported only when something is drawn (it loads matplotlib). All panels are on one scale.
What has too many steps to be drawn is drawn as the true mean of each column, and says so: only
means of layers add up. Cases that draw the same share a panel; of many, those that lose the most
have one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crashsim.engine.units import format_duration
from crashsim.report.alike import Shape, alike, names_of, worst_groups
from crashsim.report.canvas import (
    FAINT,
    LAYER_COLOURS,
    common_time,
    corner,
    mean_text,
    panels,
    say,
    set_axis,
    size_unit,
)
from crashsim.report.words import layer_name
from crashsim.results import CaseResult, Means
from crashsim.results.thinning import COLUMNS, F64, I64, clipped, edges_of, means

MOST_PANELS = 12
_COLUMNS = COLUMNS // 4
_ALIKE_COLUMNS = COLUMNS // 12
_LEAST_SEEN = 0.01  # of the height of a panel


def panels_of(cases: list[CaseResult]) -> list[list[int]]:
    """The cases of each panel; of more than `MOST_PANELS` those that lose the most."""
    every = [_curve(case) for case in cases]
    groups = alike(every, max([1.0, *(float(one.high.sum(axis=0).max()) for one in every)]))
    return worst_groups(groups, cases, MOST_PANELS)


def _curve(case: CaseResult) -> Shape:
    end_ns = max(1, case.end_ns)
    nothing = Means([], [])
    names = sorted({*LAYER_COLOURS, *case.layers})
    rows = np.stack([means(case.layers.get(n, nothing), end_ns, _ALIKE_COLUMNS) for n in names])
    return Shape(end_ns, rows, rows)


def layers_over_time(cases: list[CaseResult]) -> Figure:
    """Where the latest version of each byte had got to, stacked, a panel for each case."""
    groups = panels_of(cases)
    shown = [cases[group[0]] for group in groups]
    figure, every = panels(len(groups), 1.6 if len(groups) <= 3 else 1.3, one_scale=True)
    names = [sorted(n for n, one in case.layers.items() if any(one.values)) for case in shown]
    shapes = [
        stack([case.layers[n] for n in held[::-1]], max(1, case.end_ns), _COLUMNS) if held else None
        for case, held in zip(shown, names, strict=True)
    ]
    top = max([1.0, *(_top(shape) for shape in shapes if shape)])
    titles = names_of(groups, cases, 74 if len(groups) <= 3 else 36)
    for place, (axes, held, shape) in enumerate(zip(every, names, shapes, strict=True)):
        axes.set_title(titles[place], fontsize=8.5)
        if shape:
            colours = [LAYER_COLOURS.get(name, FAINT) for name in held[::-1]]
            axes.stackplot(shape.t_ns, *shape.rows, colors=colours, step="post", linewidth=0)
            text = _told([cases[i] for i in groups[place]], shape, top)
            corner(axes, text)
        else:
            say(axes, "all on the media at every instant")
    drawn = [shape.mean_ns for shape in shapes if shape and shape.mean_ns]
    between = " to ".join(dict.fromkeys(format_duration(of(drawn)) for of in (min, max) if drawn))
    note = f", drawn: mean of each {between}" if drawn else ""
    common_time(figure, every[0], max(1, *(case.end_ns for case in shown)), note)
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


def _told(cases: list[CaseResult], shape: Stacked, top: float) -> str:
    """The mean over the run, of all cases of a panel."""
    wholes = [
        sum(float(means(one, max(1, case.end_ns), 1)[0]) for one in case.layers.values())
        for case in cases
    ]
    text = f"mean {mean_text(wholes)}"
    if _top(shape) < top * _LEAST_SEEN:
        text += ": too little to be seen on this scale"
    return text
