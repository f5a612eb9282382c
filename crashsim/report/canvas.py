"""How every picture looks: sizes, colours, axes with units, and bytes that do not change.

Contract: imported by the plots only, since it loads matplotlib. Colours are Okabe and Ito's, told
apart by readers with any colour vision; line styles tell them apart without colour. SVG has no date
and fixed ids, PNG no software name. `INK` and `PAPER` are used for nothing but text and ground, so
that a page may replace them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from crashsim.engine.units import format_bytes, format_duration
from crashsim.report.vector import compact
from crashsim.results import CaseResult

INK = "#252525"
PAPER = "#fefefe"
FAINT = "#9a9a9a"
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES: tuple[Any, ...] = ("-", "-", "--", "-.", (0, (1, 1)), (0, (5, 1)))
LAYER_COLOURS = {"L1": "#cc79a7", "L2": "#e69f00", "L3": "#56b4e9", "L4": "#0072b2"}
WIDTH_INCHES = 5.8
_FAR_APART = 12  # times: what is so much smaller hardly shows on an even axis
_DPI = 160

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "path.simplify": True,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "crashsim",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """The style of all plots, whatever the user's own matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


class Picture(NamedTuple):
    """What is to be drawn, of which cases, and under which name."""

    name: str
    title: str
    caption: str
    figure: Callable[[list[CaseResult]], Figure]
    cases: list[CaseResult]


def new_figure(height_inches: float) -> Figure:
    """An empty figure of the common width."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def panels(number: int, height_inches: float, *, one_scale: bool) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of one time, each as high as said: one column of a few, two of
    many; `one_scale`: their heights mean the same."""
    columns = 1 if number <= 3 else 2
    rows = -(-number // columns)
    figure = new_figure(rows * height_inches + 0.5)
    found = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=one_scale).ravel()
    for axes in found[number:]:
        axes.set_visible(False)
    for axes in found[max(0, number - columns) : number]:
        axes.tick_params(labelbottom=True)
    return figure, list(found[:number])


def common_time(figure: Figure, axes: Axes, end_ns: int, note: str = "") -> None:
    """The time up to `end_ns` across, for all panels that share it with `axes`."""
    unit = time_unit(end_ns)
    axes.set_xlim(0, end_ns)
    set_axis(axes.xaxis, unit, "", ticks=6)
    figure.supxlabel(f"time ({unit.name}){note}", fontsize=9)


def rendered(figure: Figure) -> tuple[bytes, bytes]:
    """(SVG, PNG)."""
    svg, png = io.BytesIO(), io.BytesIO()
    nothing: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(svg, format="svg", metadata=nothing)
    figure.savefig(png, format="png", metadata={"Software": None})
    return compact(svg.getvalue()), png.getvalue()


class AxisUnit(NamedTuple):
    """A unit of an axis and what one of it is in bytes or ns."""

    name: str
    scale: int


_SIZES = (AxisUnit("GiB", 1 << 30), AxisUnit("MiB", 1 << 20), AxisUnit("KiB", 1 << 10))
_TIMES = (
    AxisUnit("min", 60_000_000_000),
    AxisUnit("s", 1_000_000_000),
    AxisUnit("ms", 1_000_000),
    AxisUnit("µs", 1_000),
)


def size_unit(largest: int) -> AxisUnit:
    """The unit in which sizes up to `largest` bytes read well."""
    return next((unit for unit in _SIZES if largest >= unit.scale), AxisUnit("bytes", 1))


def time_unit(longest_ns: int) -> AxisUnit:
    """The unit in which times up to `longest_ns` read well; minutes from ten on."""
    units = _TIMES if longest_ns >= 600 * _TIMES[1].scale else _TIMES[1:]
    return next((unit for unit in units if longest_ns >= unit.scale), AxisUnit("ns", 1))


def set_axis(axis: Any, unit: AxisUnit, label: str, ticks: int = 8) -> None:
    """Ticks at round numbers of `unit`, the data staying in bytes or ns; without a label none."""
    axis.set_major_locator(_RoundLocator(unit.scale, ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit.scale:.10g}"))
    if label:
        axis.set_label_text(f"{label} ({unit.name})")


class _RoundLocator(MaxNLocator):
    """Ticks at 1, 2 or 5 times a power of ten of a unit that is no power of ten."""

    def __init__(self, scale: int, ticks: int) -> None:
        super().__init__(nbins=ticks, steps=[1, 2, 5, 10])
        self._scale = scale

    def tick_values(self, vmin: float, vmax: float) -> Any:
        ticks = np.asarray(super().tick_values(vmin / self._scale, vmax / self._scale))
        return ticks * self._scale


class Scale(NamedTuple):
    """An axis whose `ticks` have names: even when `base` is 0, otherwise logarithmic, where 0 has
    a place of its own, one `step` before the least value. `note` says which in its label."""

    base: int
    lowest: float
    step: int
    ticks: list[float]
    labels: list[str]

    @property
    def note(self) -> str:
        """For the axis' label."""
        return " (logarithmic)" if self.base else ""

    @property
    def extent(self) -> float:
        """From the first tick to the last."""
        return self.ticks[-1] - self.ticks[0]

    def position(self, value: int) -> float:
        """Where a value stands."""
        if not self.base:
            return float(value)
        return math.log(value, self.base) if value > 0 else self.lowest - self.step

    def positions(self, values: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Where many values stand, those between 0 and the least tick no lower than 0."""
        given = np.asarray(values, dtype=np.int64)
        if not self.base:
            return given.astype(np.float64)
        logarithms = np.log(np.maximum(given, 1)) / math.log(self.base)
        zero = self.lowest - self.step
        found: NDArray[np.float64] = np.where(given > 0, np.maximum(logarithms, zero), zero)
        return found


def scale_of(values: Sequence[int], kind: str) -> Scale:
    """For values of `kind` bytes, ns or count: even from 0 on, or logarithmic if they are far
    apart."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) >= _FAR_APART * min(positive):
        return log_scale(values, kind)
    return even_scale(max([1, *positive]), kind)


def even_scale(largest: int, kind: str, ticks: int = 4) -> Scale:
    """From 0 to the round number at or above `largest`."""
    units = {"bytes": size_unit, "ns": time_unit}
    unit = units[kind](largest).scale if kind in units else 1
    locator = MaxNLocator(nbins=ticks, steps=[1, 2, 5, 10], integer=unit == 1)
    found = [float(tick) * unit for tick in locator.tick_values(0, largest / unit) if tick >= 0]
    return Scale(0, 0.0, 0, found, [_tick(round(tick), kind) for tick in found])


def log_scale(values: Sequence[int], kind: str) -> Scale:
    """For values of `kind` bytes, ns or count; at most seven ticks."""
    base = 2 if kind == "bytes" else 10
    positive = [value for value in values if value > 0] or [1]
    low, high = _power_below(min(positive), base), _power_below(max(positive) - 1, base) + 1
    high = max(high, low + 1)
    step = max(1, -(-(high - low) // 6))
    high = low + -(-(high - low) // step) * step
    exponents = list(range(low, high + 1, step))
    ticks: list[float] = [float(exponent) for exponent in exponents]
    labels = [_tick(base**exponent, kind) for exponent in exponents]
    if any(value == 0 for value in values):
        ticks, labels = [float(low - step), *ticks], ["0", *labels]
    return Scale(base, float(low), step, ticks, labels)


def _power_below(value: int, base: int) -> int:
    """The largest k with base**k <= value, in integers; 0 below 1."""
    power = 0
    while base ** (power + 1) <= value:
        power += 1
    return power


def _tick(value: int, kind: str) -> str:
    if value == 0:
        return "0"
    if kind == "bytes":
        return format_bytes(value)
    return format_duration(value) if kind == "ns" else f"{value:,}"


def set_scale(axis: Any, scale: Scale, label: str = "") -> None:
    """Ticks of a `Scale`, whose positions the data are given in; without a label none."""
    axis.set_major_locator(FixedLocator(scale.ticks))
    axis.set_major_formatter(FixedFormatter(scale.labels))
    if label:
        axis.set_label_text(label)


def say(axes: Axes, text: str, fontsize: float = 11) -> None:
    """Words in the middle of axes that have nothing to show."""
    axes.set_ylim(0, 1)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=fontsize)
    axes.set_yticks([])


def corner(axes: Axes, text: str) -> None:
    """Words in the upper left corner of axes, above what is drawn."""
    words = axes.text(0.01, 0.97, text, transform=axes.transAxes, va="top", fontsize=8)
    words.set_in_layout(False)


def mean_text(sizes: Sequence[float]) -> str:
    """Mean sizes in bytes, also of less than one, from the least to the largest."""
    ends = (
        f"{n:.2g} B" if 0 < n < 100 else format_bytes(round(n)) for n in (min(sizes), max(sizes))
    )
    return " to ".join(dict.fromkeys(ends))
