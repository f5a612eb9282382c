"""Plots that set loss against something else than time: its distribution, and its price.

Contract: imported only when something is drawn (it loads matplotlib). Both have logarithmic axes on
which 0 has a place of its own. Labels never lie over each other: each is put where there is room,
or left to the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from crashsim.report.canvas import (
    COLOURS,
    FAINT,
    LINES,
    log_scale,
    new_figure,
    say,
    set_log_axis,
)
from crashsim.report.curves import distribution, thinned
from crashsim.report.timelines import add_legend, coloured
from crashsim.report.words import short_names
from crashsim.results import CaseResult

MOST_NAMED = 6
MOST_IN_KEY = 24


def distribution_of_loss(cases: list[CaseResult]) -> Figure:
    """For each amount, the share of crash instants at which more is lost."""
    chosen = coloured(cases)
    figure = new_figure(3.9)
    axes = figure.subplots()
    every = [distribution(case.loss, max(1, case.end_ns)) for case in cases]
    if all(whole.values[-1] == 0 for whole in every):
        say(axes, "nothing is lost at any instant")
        axes.set_xlabel("bytes lost")
        return figure
    levels = [int(v) for whole in every for v in (*whole.values[1:2], whole.values[-1])]
    scale = log_scale([0, *levels], "bytes")
    order = [i for i in range(len(cases)) if i not in chosen] + chosen
    for i in order:
        whole = thinned(every[i])
        x = [scale.position(int(value)) for value in whole.values]
        k = chosen.index(i) if i in chosen else None
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
    set_log_axis(axes.xaxis, scale, "bytes lost (logarithmic)")
    add_legend(figure, cases, chosen)
    return figure


def loss_against_price(cases: list[CaseResult]) -> Figure:
    """One point for each case: what it loses for 99 % of the time, and what it pays."""
    named = len(cases) <= MOST_NAMED
    figure = new_figure(3.9 if named else 4.6)
    if named:
        axes = figure.subplots()
    else:
        axes, key = figure.subplots(1, 2, width_ratios=[3, 2])
        _key(key, cases)
    waits = any(case.guest_wait_ns for case in cases)
    price = [case.guest_wait_ns if waits else case.flushes for case in cases]
    loss = [case.at_risk_bytes.p99 for case in cases]
    across, up = log_scale(price, "ns" if waits else "count"), log_scale(loss, "bytes")
    points = [(across.position(p), up.position(v)) for p, v in zip(price, loss, strict=True)]
    best = [not _beaten(i, price, loss) for i in range(len(cases))]
    for (x, y), is_best in zip(points, best, strict=True):
        face = COLOURS[1] if is_best else "none"
        axes.plot(x, y, "o", markersize=7, color=COLOURS[1], markerfacecolor=face, clip_on=False)
    x_label = "guest's time spent waiting" if waits else "flushes"
    set_log_axis(axes.xaxis, across, f"{x_label} (logarithmic)")
    set_log_axis(axes.yaxis, up, "at risk, 99 % of the time at most\n(logarithmic)")
    _margins(axes, across.ticks, up.ticks)
    names = short_names([case.name for case in cases], 34)
    texts = [name if named else str(i + 1) for i, name in enumerate(names)]
    axes.set_title("filled: no other case loses less for less", fontsize=8.5)
    _place_labels(axes, points, texts)
    return figure


def _beaten(i: int, price: list[int], loss: list[int]) -> bool:
    return any(
        p <= price[i] and v <= loss[i] and (p, v) != (price[i], loss[i])
        for p, v in zip(price, loss, strict=True)
    )


def _margins(axes: Axes, x_ticks: list[float], y_ticks: list[float]) -> None:
    for ticks, set_limits in ((x_ticks, axes.set_xlim), (y_ticks, axes.set_ylim)):
        room = (ticks[-1] - ticks[0]) * 0.06
        set_limits(ticks[0] - room, ticks[-1] + room)


def _key(axes: Axes, cases: list[CaseResult]) -> None:
    axes.set_axis_off()
    names = short_names([case.name for case in cases], 44)
    lines = [f"{i + 1}  {name}" for i, name in enumerate(names)]
    if len(lines) > MOST_IN_KEY:
        lines[MOST_IN_KEY:] = ["(further numbers: see the table)"]
    text = axes.text(0, 1, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7.5)
    text.set_in_layout(False)  # else the names take the room of the points


def _place_labels(axes: Axes, points: list[tuple[float, float]], texts: list[str]) -> None:
    """Put each label at the nearest free place around its point; none where nothing is free."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in pixels]
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
