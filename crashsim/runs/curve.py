"""A quantity at every instant of a run, exactly.

Contract: from each instant of `t_ns` to the next the value stays at `values[i]` (bytes at risk), or
grows from there by 1 each nanosecond where `grows` says so (an age, such as the recovery point).
Before the first instant it is 0. Nothing is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from crashsim.engine.streams import I64
from crashsim.engine.units import format_bytes, format_duration, parse_duration
from crashsim.power.steps import Ramps, StepFunction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Instant = int | str  # nanoseconds, or text with a unit such as "12.3s"
Unit = Literal["bytes", "ns", "acknowledgements"]
_AXES = {"bytes": "B", "ns": "s", "acknowledgements": "number"}


def instant(t: Instant) -> int:
    """Nanoseconds. UnitError when the text is no duration."""
    return parse_duration(t) if isinstance(t, str) else int(t)


@dataclass(frozen=True, eq=False)
class Curve:
    """`t_ns`, `values`: int64[k], instants ascending; `grows`: bool[k], whether the value grows by
    1 each ns until the next instant. The run covers [0, `end_ns`). `unit` is of the values."""

    name: str
    unit: Unit
    t_ns: I64
    values: I64
    grows: npt.NDArray[np.bool_]
    end_ns: int

    @property
    def bytes(self) -> I64:
        """The values of a curve of bytes."""
        if self.unit != "bytes":
            shown = "nanoseconds" if self.unit == "ns" else self.unit
            raise AttributeError(f"{self.name} is a curve of {shown}: see `values`")
        return self.values

    def at(self, t: Instant) -> int:
        """The value at one instant of the run."""
        t_ns = instant(t)
        i = int(np.searchsorted(self.t_ns, t_ns, "right")) - 1
        if i < 0:
            return 0
        return int(self.values[i]) + (t_ns - int(self.t_ns[i]) if self.grows[i] else 0)

    @property
    def max(self) -> int:
        """The largest value, the run's last instant included; of one that grows, what it comes
        to."""
        _, high, _ = self._parts()
        low = self.values[self.t_ns <= self.end_ns]
        return int(max(low.max(initial=0), high.max(initial=0)))

    @property
    def mean(self) -> float:
        """Over time."""
        low, high, length = self._parts()
        if not self.end_ns:
            return 0.0
        return float(((low + high) * 0.5 * length).sum() / self.end_ns)

    def quantile(self, share: float) -> int:
        """The smallest value that the quantity does not exceed for at least that share of the run.
        ValueError unless 0 <= share <= 1."""
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share from 0 to 1, got {share}")
        low, high, length = self._parts()
        need = ceil(Fraction(share).limit_denominator(1_000_000) * self.end_ns)
        zero = self.end_ns - int(length.sum())  # before the first instant
        smallest, largest = 0, self.max
        if need <= zero:
            return 0
        while smallest < largest:
            middle = (smallest + largest) // 2
            if zero + _time_within(low, high, length, middle) >= need:
                largest = middle
            else:
                smallest = middle + 1
        return smallest

    def _parts(self) -> tuple[I64, I64, I64]:
        """(value at the start, value come to at the end, ns) of each part inside the run."""
        inside = self.t_ns < self.end_ns
        t_ns, low = self.t_ns[inside], self.values[inside]
        length = np.diff(t_ns, append=self.end_ns)
        return low, low + np.where(self.grows[inside], length, 0), length

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw it with matplotlib, into `axes` if given."""
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(8, 3), layout="constrained").add_subplot()
        low, high, _ = self._parts()
        edges = np.append(np.append(0, self.t_ns[self.t_ns < self.end_ns]), self.end_ns)
        x = np.repeat(edges, 2)[1:-1] / 1e9
        y = np.append([0, 0], np.stack([low, high], axis=1).ravel())
        axes.plot(x, y / 1e9 if self.unit == "ns" else y, linewidth=1)
        axes.set_xlabel("time of the run [s]")
        axes.set_ylabel(f"{self.name} [{_AXES[self.unit]}]")
        axes.set_xlim(0, self.end_ns / 1e9)
        axes.set_ylim(bottom=0)
        return axes

    def _repr_png_(self) -> Any:
        """The picture that a notebook shows."""
        from io import BytesIO

        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = self.plot().get_figure(root=True)
        if figure is None:
            return None
        FigureCanvasAgg(figure)
        out = BytesIO()
        figure.savefig(out, format="png", dpi=110)
        return out.getvalue()

    def __repr__(self) -> str:
        shown = {"bytes": format_bytes, "ns": format_duration}.get(self.unit, str)
        return (
            f"<Curve {self.name}: max {shown(self.max)}, 99 % {shown(self.quantile(0.99))}, "
            f"over {format_duration(self.end_ns)}>"
        )


def of_steps(name: str, steps: StepFunction, end_ns: int, unit: Unit = "bytes") -> Curve:
    """A step function."""
    still = np.zeros(steps.instants.size, dtype=np.bool_)
    return Curve(name, unit, steps.instants, steps.values, still, end_ns)


def of_ramps(name: str, ramps: Ramps, end_ns: int) -> Curve:
    """An age that grows on intervals and is 0 between them."""
    gap = np.append(ramps.end[:-1] != ramps.start[1:], True) if ramps.start.size else np.empty(0)
    rest = np.flatnonzero(gap)
    t_ns = np.append(ramps.start, ramps.end[rest])
    values = np.append(ramps.low, np.zeros(rest.size, dtype=np.int64))
    grows = np.append(np.ones(ramps.start.size, dtype=np.bool_), np.zeros(rest.size, np.bool_))
    order = np.argsort(t_ns, kind="stable")
    return Curve(name, "ns", t_ns[order], values[order], grows[order], end_ns)


def _time_within(low: I64, high: I64, length: I64, value: int) -> int:
    """Nanoseconds of the parts at which the quantity is at most `value`. What grows passes each
    value once: it is at most `value` for `value - low` ns, as `ramp_spread` has it."""
    grows = high > low
    flat = length[(low <= value) & ~grows].sum()
    return int(flat + np.clip(value - low[grows], 0, length[grows]).sum())
