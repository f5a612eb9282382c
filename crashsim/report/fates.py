"""The picture of a finding: a bar for each write in the order of time, kept, lost or torn.

Contract: imported only when something is drawn (it loads matplotlib). Each bar is one write from
its first byte to its last, whatever its size. Kept is solid, lost is hatched, so that it can be
read without colour; the fate is said in words as well. What was safe before is only outlined.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from crashsim.engine.units import exact_instant, format_bytes
from crashsim.report.canvas import COLOURS, FAINT, INK, PAPER, new_figure
from crashsim.report.words import shortened, some
from crashsim.results.discovery import BrokenAck, FindingResult, LeftOut, WriteRow

_LOST, _KEPT = COLOURS[0], COLOURS[1]
_HALF = 0.34  # of a bar's height; rows are 1 apart
_ROW_INCHES = 0.235
_BESIDE_ALPHA = 0.45  # of writes that make no difference
_LONGEST_LABEL = 40
Row = WriteRow | LeftOut


def finding_picture(finding: FindingResult) -> Figure:
    """The picture of one finding of an exploration's document."""
    picture = finding.picture
    rows = picture.rows
    ack = picture.acknowledgement
    behind = ack.behind if ack else len(rows) + 1
    places = [number + (number >= behind) for number in range(len(rows))]
    last = len(rows) + (ack is not None)
    figure = new_figure(0.75 + _ROW_INCHES * (last + 1))
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(last + 0.5, -0.6)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    for place, row in zip(places, rows, strict=True):
        _draw_row(axes, place, row)
    axes.set_yticks(places, [_name(row) for row in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if isinstance(row, WriteRow) and row.taken else "normal")
    if ack:
        _line(axes, behind, _acknowledged(ack), "--")
    _line(axes, last, f"power cut at {exact_instant(finding.cut_ns)}", "-")
    _legend(figure, rows)
    return figure


def _draw_row(axes: Axes, place: int, row: Row) -> None:
    fate = _fate(row)
    if isinstance(row, LeftOut):
        axes.text(0.5, place, fate, ha="center", va="center", fontsize=8, style="italic")
        return
    outline = Rectangle(
        (0, place - _HALF), 1, 2 * _HALF, fill=False, edgecolor=FAINT, linewidth=0.7
    )
    axes.add_patch(outline)
    for offset, length, kept in row.runs:
        start = (offset - row.offset) / row.length
        width = length / row.length
        share = kept / length  # between 0 and 1 only where many runs were put together
        alpha = 1.0 if row.taken else _BESIDE_ALPHA
        if kept < length:
            axes.add_patch(_block(start, place, width, _LOST, alpha))
        if kept:
            axes.add_patch(_block(start, place, width * share, _KEPT, alpha))
    axes.text(1.01, place, fate, va="center", fontsize=8)


def _block(start: float, place: int, width: float, colour: str, alpha: float) -> Rectangle:
    corner = (start, place - _HALF)
    return Rectangle(corner, width, 2 * _HALF, alpha=alpha, **_look(colour))


def _look(colour: str) -> dict[str, Any]:
    """Solid where kept, hatched where lost."""
    if colour == _KEPT:
        return {"facecolor": _KEPT, "edgecolor": _KEPT, "linewidth": 0.8}
    return {"facecolor": PAPER, "edgecolor": _LOST, "hatch": "//////", "linewidth": 0.8}


def _line(axes: Axes, place: int, text: str, style: str) -> None:
    """An instant between the writes before it and those after it."""
    axes.axhline(place, color=INK, linewidth=1.3, linestyle=style)
    axes.text(
        0.5,
        place,
        text,
        ha="center",
        va="center",
        fontsize=8.5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2.5},
    )


def _name(row: Row) -> str:
    """Whose row it is."""
    if isinstance(row, LeftOut):
        return "⋮"
    size, at = format_bytes(row.length), exact_instant(row.t_ns)
    return f"write {row.first}: {size} at {row.offset}, {at}"


def _fate(row: Row) -> str:
    """What became of it, in words."""
    fates = {fate: getattr(row, fate) for fate in ("kept", "lost", "torn") if getattr(row, fate)}
    if "torn" in fates and isinstance(row, WriteRow):
        gone = sum(length - kept for _, length, kept in row.runs)
        return f"torn, {format_bytes(gone)} lost"
    if isinstance(row, WriteRow):
        return next(iter(fates))
    number = some(row.kept + row.lost + row.torn, "other write")
    if len(fates) == 1:
        return f"{number}: {next(iter(fates))}"
    return f"{number}: " + ", ".join(f"{count:,} {fate}" for fate, count in fates.items())


def _acknowledged(ack: BrokenAck) -> str:
    first, last = ack.first, ack.last
    of = f"write {first}" if first == last else f"writes {first} to {last}"
    what = f"'{shortened(ack.label, _LONGEST_LABEL)}'" if ack.label else of
    return f"{what} acknowledged at {exact_instant(ack.t_ns)}: broken"


def _legend(figure: Figure, rows: list[Row]) -> None:
    drawn = [row for row in rows if isinstance(row, WriteRow)]
    handles = [
        Patch(label="kept", **_look(_KEPT)),
        Patch(label="lost", **_look(_LOST)),
    ]
    asked = sum(length for row in drawn for _, length, _ in row.runs)
    if asked < sum(row.length for row in drawn):
        handles.append(Patch(label="not in question", fill=False, edgecolor=FAINT, linewidth=0.7))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.6)
