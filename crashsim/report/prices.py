"""The plot of loss against price: a point for each case.

Contract: imported only when something is drawn (it loads matplotlib). Logarithmic axes give 0 a
place of its own. Labels never lie over each other: each is put where there is room, or left to the
table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from crashsim.report.alike import names_of
from crashsim.report.canvas import (
    COLOURS,
    FAINT,
    INK,
    Scale,
    new_figure,
    scale_of,
    set_scale,
)
from crashsim.report.standing import best, loses_acknowledged
from crashsim.results import CaseResult
from crashsim.results.thinning import F64

MOST_LABELLED = 24
_NEAR = 0.035  # of the picture: points so close have one label


class _Price(NamedTuple):
    """What is on the axis of prices: of each case, and whether more is better."""

    values: list[int]
    kind: str
    label: str
    more_is_better: bool


def _price(cases: list[CaseResult]) -> _Price:
    """The first of throughput, waiting and flushes in which the cases differ."""
    rates = [case.acknowledged_per_second for case in cases]
    if max(rates) * 98 > min(rates) * 100:
        return _Price(rates, "count", "records acknowledged per second", True)
    waits = [case.guest_wait_ns for case in cases]
    if len({*waits}) > 1:
        return _Price(waits, "ns", "guest's time spent waiting", False)
    return _Price([case.flushes for case in cases], "count", "flushes", False)


def compares(cases: list[CaseResult]) -> bool:
    """Whether there is anything to compare: cases that differ in loss or in price."""
    losses = {(case.at_risk_bytes.max, loses_acknowledged(case)) for case in cases}
    return len(cases) > 1 and (len(losses) > 1 or len({*_price(cases).values}) > 1)


def caption(cases: list[CaseResult]) -> str:
    """How the picture is read."""
    if not compares(cases):
        return ""
    side = "right" if _price(cases).more_is_better else "left"
    text = (
        f"Down loses less, {side} costs less. Filled, on the line: no other case loses as little "
        "for less, losses within 5 % of each other being the same."
    )
    if any(map(loses_acknowledged, cases)):
        text += f" Shaded: {_shaded(cases)}."
    return text


def _shaded(cases: list[CaseResult]) -> str:
    if any(case.recorded for case in cases):
        return "acknowledges records without a flush behind them"
    return "loses acknowledged records"


def _kept(cases: list[CaseResult]) -> str:
    if any(case.recorded for case in cases):
        return "each acknowledged record has a flush behind it"
    kept = (case for case in cases if not loses_acknowledged(case))
    if any(case.exploration and case.exploration.failing for case in kept):
        return "keeps every acknowledged record in the simulation; a checker rejects states"
    return "keeps every acknowledged record"


class _Spot(NamedTuple):
    """Cases that stand at one place: their numbers and where that is."""

    cases: list[int]
    x: float
    y: float


def loss_against_price(cases: list[CaseResult]) -> Figure:
    """One point for each case: what a power cut takes at worst, and what the case pays."""
    price = _price(cases)
    across = scale_of(price.values, price.kind)
    up = scale_of([case.at_risk_bytes.max for case in cases], "bytes")
    x = across.positions(np.array(price.values))
    y = up.positions(np.array([case.at_risk_bytes.max for case in cases]))
    bad = [loses_acknowledged(case) for case in cases]
    parts = [part for part in (True, False) if part in bad]
    room = 0.09 * (up.extent)
    spans = []
    for part in parts:
        here = [float(v) for v, is_bad in zip(y, bad, strict=True) if is_bad is part]
        spans.append((min(here) - room, max(here) + room))
    figure = new_figure(4.1)
    heights = [max(high - low, 3 * room) for low, high in spans]
    every = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    worth = best(cases)
    for axes, part, (low, high) in zip(every, parts, spans, strict=True):
        if part:
            axes.set_facecolor((0.835, 0.369, 0, 0.13))
            axes.set_title(_shaded(cases), fontsize=8.5, color=COLOURS[0])
        elif len(parts) > 1:
            axes.set_title(_kept(cases), fontsize=8.5)
        members = [i for i, is_bad in enumerate(bad) if is_bad is part]
        _frontier(axes, [(x[i], y[i]) for i in members if worth[i]], price.more_is_better)
        for i in members:
            colour = COLOURS[0] if part else COLOURS[1]
            face = colour if worth[i] else "none"
            axes.plot(x[i], y[i], "s" if part else "o", color=colour, markerfacecolor=face)
        set_scale(axes.yaxis, up)
        axes.set_ylim(low, high)
    side = 0.06 * (across.extent)
    every[-1].set_xlim(across.ticks[0] - side, across.ticks[-1] + side)
    set_scale(every[-1].xaxis, across, price.label + across.note)
    figure.supylabel(f"lost at worst{up.note}", fontsize=9)
    for axes, part in zip(every, parts, strict=True):
        members = [i for i, is_bad in enumerate(bad) if is_bad is part]
        spots = _spots(members, x, y, across, up)
        _label(axes, spots, cases, worth)
    return figure


def _frontier(axes: Axes, points: list[tuple[float, float]], more_is_better: bool) -> None:
    """From each case that is worth its price to the next dearer one."""
    points = sorted({*points})
    kind = "steps-pre" if more_is_better else "steps-post"
    across, up = [p for p, _ in points], [p for _, p in points]
    axes.plot(across, up, drawstyle=kind, color=INK, linewidth=1, linestyle=":", zorder=1)


def _spots(members: list[int], x: F64, y: F64, across: Scale, up: Scale) -> list[_Spot]:
    """Cases so close together that they have one label."""
    wide, high = across.extent, up.extent
    spots: list[_Spot] = []
    for i in members:
        for spot in spots:
            if abs(spot.x - x[i]) < _NEAR * wide and abs(spot.y - y[i]) < _NEAR * high:
                spot.cases.append(i)
                break
        else:
            spots.append(_Spot([i], float(x[i]), float(y[i])))
    return spots


def _label(axes: Axes, spots: list[_Spot], cases: list[CaseResult], worth: list[bool]) -> None:
    """Names where there are few; beyond, those worth their price and the others' numbers."""
    names = names_of([spot.cases for spot in spots], cases, 60)
    texts = []
    for spot, name in zip(spots, names, strict=True):
        if len(spots) > MOST_LABELLED and not any(worth[i] for i in spot.cases):
            name = ", ".join(str(i + 1) for i in spot.cases[:3]) + ("…" if spot.cases[3:] else "")
        texts.append(textwrap.fill(name, 30, break_long_words=False, break_on_hyphens=False))
    _place_labels(axes, [(spot.x, spot.y) for spot in spots], texts)


def _place_labels(axes: Axes, points: list[tuple[float, float]], texts: list[str]) -> None:
    """Put each label at the nearest free place around its point; none where nothing is free."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in pixels]
    for line in axes.lines:  # labels also keep off the frontier
        path = axes.transData.transform(line.get_path().vertices)
        taken += [Bbox([a, b]).padded(2) for a, b in pairwise(path) if line.get_linestyle() == ":"]
    ground = axes.get_window_extent(renderer)
    for point, text in zip(points, texts, strict=True):
        for dx, dy in _places():
            note = _annotate(axes, point, text, dx, dy)
            box = _text_box(note, renderer)
            inside = ground.x0 <= box.x0 and box.x1 <= ground.x1
            inside = inside and ground.y0 <= box.y0 and box.y1 <= ground.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()


def _text_box(note: Annotation, renderer: RendererBase) -> Bbox:
    """The words without their leader line, with a little air."""
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer).padded(1.5)


def _places() -> Iterator[tuple[float, float]]:
    """Offsets in points, nearest first."""
    for radius in (7, 14, 22, 32, 44, 58, 74):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            yield dx * radius, dy * radius


def _annotate(
    axes: Axes, point: tuple[float, float], text: str, dx: float, dy: float
) -> Annotation:
    far = abs(dx) + abs(dy) > 16
    return axes.annotate(
        text,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="bottom" if dy > 0 else "top" if dy < 0 else "center",
        fontsize=8.5,
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7} if far else None,
    )
