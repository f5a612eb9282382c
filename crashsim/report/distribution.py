"""The plot of how likely which loss is: for each amount, the share of instants that lose more.

Contract: imported only when something is drawn (it loads matplotlib). Shares of time are computed
from all steps, never from an envelope. Cases that draw the same share a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crashsim.report.alike import Shape, alike, names_of
from crashsim.report.canvas import (
    COLOURS,
    FAINT,
    LINES,
    Scale,
    log_scale,
    new_figure,
    say,
    set_scale,
)
from crashsim.report.words import some
from crashsim.results import CaseResult, Steps
from crashsim.results.thinning import COLUMNS, F64, I64, clipped

MOST_COLOURED = len(COLOURS)
_COLUMNS = 240


class Distribution(NamedTuple):
    """`share[i]` (float64) of the time is spent above `values[i]`; values ascend from 0."""

    values: I64
    share: F64


def distribution(steps: Steps, end_ns: int) -> Distribution:
    """The share of crash instants at which more than each value is lost, exact in time."""
    t_ns, values = clipped(steps, 0, end_ns)
    held = np.diff(np.append(t_ns, end_ns))
    levels, place = np.unique(np.append(values, 0), return_inverse=True)
    time = np.zeros(levels.size, dtype=np.int64)
    np.add.at(time, place, np.append(held, 0))
    above = end_ns - np.cumsum(time)
    return Distribution(levels, above / max(1, end_ns))


def thinned(whole: Distribution, points: int = COLUMNS) -> Distribution:
    """For drawing: first, last and every level at which the share has changed visibly."""
    if whole.values.size <= points:
        return whole
    bins = np.floor(whole.share * points).astype(np.int64)
    keep = np.flatnonzero(np.diff(bins, prepend=bins[0] + 1) != 0)
    keep = np.unique(np.append(keep, whole.values.size - 1))
    return Distribution(whole.values[keep], whole.share[keep])


def distribution_groups(cases: list[CaseResult]) -> list[list[int]]:
    """The cases of each line."""
    every = [distribution(case.loss, max(1, case.end_ns)) for case in cases]
    scale = _bytes_scale(every)
    edges = np.linspace(scale.ticks[0], scale.ticks[-1], _COLUMNS)
    curves = []
    for whole in every:
        place = np.searchsorted(scale.positions(whole.values), edges, "right") - 1
        share = whole.share[place]
        # Between two edges it falls from the one's share to the other's.
        curves.append(Shape(1, np.append(share[1:], share[-1]), share))
    return alike(curves, 1.0)


def _bytes_scale(every: Sequence[Distribution]) -> Scale:
    levels = [int(v) for whole in every for v in (*whole.values[1:2], whole.values[-1])]
    return log_scale([0, *levels], "bytes")


def distribution_of_loss(cases: list[CaseResult]) -> Figure:
    """For each amount, the share of crash instants at which more is lost."""
    figure = new_figure(3.4)
    axes = figure.subplots()
    every = [distribution(case.loss, max(1, case.end_ns)) for case in cases]
    if all(whole.values[-1] == 0 for whole in every):
        say(axes, "nothing is lost at any instant")
        axes.set_xlabel("bytes lost")
        return figure
    scale = _bytes_scale(every)
    groups = distribution_groups(cases)
    coloured = _spread(groups, cases)
    for group in [g for g in groups if g not in coloured] + coloured:
        whole = thinned(every[group[0]])
        x = scale.positions(whole.values)
        k = coloured.index(group) if group in coloured else None
        axes.plot(
            x,
            whole.share * 100,
            drawstyle="steps-post",
            color=FAINT if k is None else COLOURS[k],
            linestyle="-" if k is None else LINES[k],
            linewidth=0.7 if k is None else 1.8,
        )
    axes.set_xlim(scale.ticks[0], scale.ticks[-1])
    axes.set_ylim(-1, 102)
    axes.set_ylabel("share of crash instants\nthat lose more (%)")
    set_scale(axes.xaxis, scale, f"bytes lost{scale.note}")
    _legend(figure, cases, groups, coloured)
    return figure


def _spread(groups: list[list[int]], cases: list[CaseResult]) -> list[list[int]]:
    """The groups in colour: all of a few, otherwise evenly from the worst to the best."""
    if len(groups) <= MOST_COLOURED:
        return groups
    order = sorted(groups, key=lambda group: -cases[group[0]].at_risk_bytes.max)
    last = len(order) - 1
    chosen = [order[k * last // (MOST_COLOURED - 1)] for k in range(MOST_COLOURED)]
    return sorted(chosen)


def _legend(
    figure: Figure, cases: list[CaseResult], groups: list[list[int]], coloured: list[list[int]]
) -> None:
    names = names_of(coloured, cases, 70)
    handles = [
        Line2D([], [], color=COLOURS[k], linestyle=LINES[k], linewidth=1.8, label=name)
        for k, name in enumerate(names)
    ]
    if rest := sum(map(len, groups)) - sum(map(len, coloured)):
        text = f"{some(rest, 'other case')}"
        handles.append(Line2D([], [], color=FAINT, linewidth=1, label=text))
    columns = 2 if all(len(str(handle.get_label())) < 40 for handle in handles) else 1
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8)
