"""The plots of explorations: states epoch by epoch, outcomes, and findings.

Contract: imported only when something is drawn (it loads matplotlib). Their number is bounded:
beyond so many cases, epochs, outcomes or findings the most telling ones are drawn, and the captions
say so. Colour is never the only difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from crashsim.printable import printable
from crashsim.report.canvas import COLOURS, FAINT, PAPER, Picture, new_figure
from crashsim.report.causes import bad_outcomes, percent, pictured, rejected, told_findings
from crashsim.report.fates import finding_picture
from crashsim.report.words import count, shortened, some, worst_first
from crashsim.results import CaseResult
from crashsim.results.discovery import EpochResult, ExplorationResult, FindingResult

MOST_PANELS = 6
MOST_COLUMNS = 300  # epochs beside each other
MOST_OUTCOMES = 8
_LONGEST_NAME = 44
_FAIL, _FINE = COLOURS[0], COLOURS[1]
_LEAST_COLUMNS = 6
_POWERS_ABOVE = 4
_BELOW_ONE = -0.12  # log10: a bar for one state is seen
_LOOKS: dict[str, dict[str, Any]] = {
    "images": {"facecolor": FAINT, "alpha": 0.35, "linewidth": 0},
    "checked": {"facecolor": _FINE, "edgecolor": _FINE, "linewidth": 0.5},
    "rejected": {"facecolor": PAPER, "edgecolor": _FAIL, "linewidth": 0.6, "hatch": "//////"},
}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def pictures(cases: list[CaseResult]) -> Iterator[Picture]:
    """All of a run; none when nothing was explored."""
    explored = [case for case in cases if case.exploration]
    if not explored:
        return
    shown = [
        case
        for case in worst_first(explored)[:MOST_PANELS]
        if any(epoch.checked for epoch in _epochs(case))
    ]
    rest = len(explored) - len(shown)
    note = f" {some(rest, 'other case')} not drawn." if rest else ""
    if shown:
        yield Picture(
            "states",
            "States that a cut may leave, and those that were checked",
            "Distinct images of each epoch, the time between two guarantees." + note,
            states_per_epoch,
            shown,
        )
        yield Picture(
            "outcomes",
            "What became of the states",
            "States by outcome, as the checker named it." + note,
            outcomes,
            shown,
        )
    for number, (case, place) in enumerate(pictured(cases), start=1):
        yield _picture(number, case, [*told_findings(case)][place][0])


def _picture(number: int, case: CaseResult, finding: FindingResult) -> Picture:
    outcome = shortened(finding.outcome or finding.kind, _LONGEST_NAME)
    caption = (
        f"{printable(case.name)}: the writes of epoch {finding.epoch + 1} in the order of time. "
        "Each bar is one write from its first byte to its last."
    )
    title = f"A state that is rejected: {outcome}"
    return Picture(f"finding-{number}", title, caption, lambda _: finding_picture(finding), [case])


def states_per_epoch(cases: list[CaseResult]) -> Figure:
    """Images and how many of them were checked, a panel for each case."""
    columns = 1 if len(cases) == 1 else 2
    rows = -(-len(cases) // columns)
    figure = new_figure(rows * (2.9 if rows == 1 else 2.1) + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, case in zip(panels, cases, strict=False):
        _states(axes, case, 12 if columns == 1 else 5)
        if len(cases) > 1:
            axes.set_title(shortened(case.name, _LONGEST_NAME), fontsize=8.5)
    for axes in panels[len(cases) :]:
        axes.set_visible(False)
    labels = {"images": "all images", "checked": "checked", "rejected": "of these rejected"}
    if not any(map(rejected, chain.from_iterable(map(_epochs, cases)))):
        del labels["rejected"]
    handles = [Patch(label=label, **_LOOKS[name]) for name, label in labels.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.6)
    return figure


def _states(axes: Axes, case: CaseResult, ticks: int) -> None:
    """One case: bars within each other, since the axis is one of powers; room for so many ticks."""
    found = _epochs(case)
    each = -(-len(found) // MOST_COLUMNS)
    groups = [found[n : n + each] for n in range(0, len(found), each)]
    at = np.array([group[0].number + 1 + (len(group) - 1) / 2 for group in groups])
    wide = each * (0.8 if len(groups) < MOST_COLUMNS // 3 else 1.0)
    figures: dict[str, Callable[[EpochResult], float]] = {
        "images": _images_log10,
        "checked": lambda epoch: _log10(epoch.checked),
        "rejected": lambda epoch: _log10(rejected(epoch)),
    }
    for name, figure in figures.items():
        top = np.array([max(map(figure, group)) for group in groups])
        axes.bar(at, top - _BELOW_ONE, wide, bottom=_BELOW_ONE, **_LOOKS[name])
    checked = max(figures["checked"](epoch) for epoch in found)
    beyond = _end_axis(axes, max(1.0, *map(_images_log10, found)), checked)
    _states_axis(axes.yaxis)
    axes.set_xlim(0.4, max(_LEAST_COLUMNS, len(found)) + 0.6)
    few = FixedLocator(range(1, len(found) + 1))
    many = MaxNLocator(nbins=ticks, integer=True)
    axes.xaxis.set_major_locator(few if len(found) <= ticks else many)
    of = f" (the most of each {each})" if each > 1 else ""
    axes.set_xlabel(f"epoch{of}{beyond}")
    axes.grid(False, axis="x")


def _end_axis(axes: Axes, highest: float, checked: float) -> str:
    """End the axis where what was checked can still be seen; says how far the bars go on."""
    end = math.ceil(checked) + _POWERS_ABOVE
    if highest <= 2 * end:
        axes.set_ylim(_BELOW_ONE, highest * 1.06)
        return ""
    axes.set_ylim(_BELOW_ONE, end)
    return f"; bars go on up to {_power_text(int(highest))}"


def _log10(number: int) -> float:
    """Of a number of states; that of none is where the axis begins."""
    return math.log10(number) if number > 0 else _BELOW_ONE


def _images_log10(epoch: EpochResult) -> float:
    number = epoch.images
    if number is not None:
        return _log10(number)
    return float(epoch.images_text.partition("e+")[2].partition(" ")[0])


def _states_axis(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda power, _: _power_text(round(power))))
    axis.set_label_text("states")


def _power_text(power: int) -> str:
    return count(10**power) if power < 6 else "10" + str(power).translate(_SUPERSCRIPTS)


def _epochs(case: CaseResult) -> list[EpochResult]:
    return case.exploration.epochs if case.exploration else []


class _Bar(NamedTuple):
    """An outcome of `states` states; a title of a case is a bar without a look."""

    name: str
    states: int
    share: str
    look: dict[str, Any] | None


def outcomes(cases: list[CaseResult]) -> Figure:
    """A bar for each outcome, on an axis of powers: the rare ones are those that matter."""
    bars: list[_Bar] = []
    for case in cases:
        if len(cases) > 1:
            bars.append(_Bar(shortened(case.name, 2 * _LONGEST_NAME), 0, "", None))
        bars += _bars(case.exploration) if case.exploration else []
    figure = new_figure(0.75 + 0.27 * len(bars))
    axes = figure.subplots()
    named = [place for place, bar in enumerate(bars) if bar.look]
    for place, bar in enumerate(bars):
        length = _log10(bar.states) - _BELOW_ONE
        if bar.look:
            axes.barh(place, length, 0.66, left=_BELOW_ONE, **bar.look)
            text = f" {count(bar.states)} ({bar.share})"
            axes.text(_log10(bar.states), place, text, va="center", fontsize=8)
        else:
            axes.text(_BELOW_ONE, place, bar.name, va="center", fontsize=8.5, fontweight="bold")
    axes.set_yticks(named, [bars[place].name for place in named], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(_BELOW_ONE, max([1.0, *(_log10(bar.states) for bar in bars)]) * 1.3)
    _states_axis(axes.xaxis)
    axes.grid(False, axis="y")
    labels = {"checked": "accepted", "rejected": "rejected"}
    used = [(name, look) for name, look in _LOOKS.items() if any(bar.look is look for bar in bars)]
    handles = [Patch(label=labels[name], **look) for name, look in used]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.6)
    return figure


def _bars(exploration: ExplorationResult) -> Iterator[_Bar]:
    """The most frequent outcomes of a case; the others are one bar."""
    found = list(exploration.outcomes.items())
    bad = bad_outcomes(exploration)
    for name, number in found[:MOST_OUTCOMES]:
        look = _LOOKS["rejected" if name in bad else "checked"]
        share = percent(number, exploration.checked)
        yield _Bar(shortened(name, _LONGEST_NAME), number, share, look)
    if rest := found[MOST_OUTCOMES:]:
        number = sum(states for _, states in rest)
        look = _LOOKS["rejected" if any(name in bad for name, _ in rest) else "checked"]
        share = percent(number, exploration.checked)
        yield _Bar(some(len(rest), "other outcome"), number, share, look)
