"""The plot of where the bytes were: a stacked area over time, a panel for each case.

Contract: imported only when something is drawn (it loads matplotlib). A stack of many steps is
averaged over short intervals, and says so. Of many cases those that lose the most have a panel.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crashsim.experiment.units import format_duration
from crashsim.report.canvas import (
    FAINT,
    LAYER_COLOURS,
    new_figure,
    say,
    set_axis,
    size_unit,
    time_unit,
)
from crashsim.report.curves import COLUMNS, stack
from crashsim.report.timelines import labels
from crashsim.report.words import count, layer_name, worst_first
from crashsim.results import CaseResult

MOST_PANELS = 12


def panels_of(cases: list[CaseResult]) -> list[int]:
    """Which cases have a panel of their own: all, or those that lose the most."""
    if len(cases) <= MOST_PANELS:
        return list(range(len(cases)))
    worst = {case.name for case in worst_first(cases)[:MOST_PANELS]}
    return [i for i, case in enumerate(cases) if case.name in worst]


def layers_over_time(cases: list[CaseResult]) -> Figure:
    """Where the latest version of each byte had got to, stacked, a panel for each case."""
    shown = panels_of(cases)
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    height = 3.4 if rows == 1 else 2.1
    figure = new_figure(rows * height + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    names = labels(cases, 52 if columns == 2 else 90)
    used: list[str] = []
    for axes, i in zip(panels, shown, strict=False):
        used += _layer_panel(axes, cases[i], COLUMNS if columns == 1 else COLUMNS // 4)
        axes.set_title(names[i], fontsize=8.5)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[: max(0, len(shown) - columns)]:
        axes.set_xlabel("")
    handles = [
        Patch(color=LAYER_COLOURS.get(layer, FAINT), label=layer_name(layer))
        for layer in sorted({*used})
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def _layer_panel(axes: Axes, case: CaseResult, columns: int) -> list[str]:
    """Draws one case; the layers that held anything."""
    layers = {name: steps for name, steps in sorted(case.layers.items()) if any(steps.values)}
    end_ns = max(1, case.end_ns)
    axes.set_xlim(0, end_ns)
    unit = time_unit(end_ns)
    set_axis(axes.xaxis, unit, "time", ticks=6)
    if not layers:
        say(axes, "all on the media at every instant")
        return []
    # The media's side is drawn lowest: a byte sinks through the picture as it comes to rest.
    names = list(layers)[::-1]
    shape = stack([layers[name] for name in names], end_ns, columns)
    axes.stackplot(
        shape.t_ns,
        *shape.rows,
        colors=[LAYER_COLOURS.get(name, FAINT) for name in names],
        step="post",
        linewidth=0,
    )
    top = int(np.sum(shape.rows, axis=0).max())
    axes.set_ylim(0, top * 1.08)
    set_axis(axes.yaxis, size_unit(top), "not on media", ticks=4)
    if not all(steps.exact for steps in layers.values()):
        # Each layer was thinned by itself: at no one instant need they all be so large.
        axes.set_xlabel(f"time ({unit.name}), each layer at its largest")
    elif not shape.exact:
        width = format_duration(end_ns // columns)
        axes.set_xlabel(f"time ({unit.name}), averaged over {width}")
    return names


def hidden_note(cases: list[CaseResult]) -> str:
    """What the layer plot leaves out, if anything."""
    left_out = len(cases) - len(panels_of(cases))
    return f" {count(left_out)} cases that lose less are left out." if left_out else ""
