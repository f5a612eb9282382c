"""Cases that draw the same picture: found, so that one of them is drawn, and named together.

Contract: curves are alike where each stays within the other's reach, at most one column beside it
and a fiftieth of the picture's height above or below: what the eye hardly tells apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crashsim.printable import printable
from crashsim.report.words import brief, shortened, some, worst_first
from crashsim.results import CaseResult

_TOLERANCE = 0.02
_MOST_LISTED = 4

F64 = NDArray[np.float64]


class Shape(NamedTuple):
    """`low` and `high`, of shape (columns,) or (parts, columns), bound it in each column of the
    time up to `end_ns`."""

    end_ns: int
    low: F64
    high: F64


def alike(curves: Sequence[Shape], height: float = 0) -> list[list[int]]:
    """Groups of the numbers of curves, in order; each curve is like the first of its group.
    `height` is that of the picture; 0: each curve has one as high as itself."""
    longest = max((curve.end_ns for curve in curves), default=0)
    groups: list[list[int]] = []
    for number, curve in enumerate(curves):
        for group in groups:
            if _same(curve, curves[group[0]], height, longest):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _same(one: Shape, other: Shape, height: float, longest: int) -> bool:
    if one.low.shape != other.low.shape:
        return False
    if abs(one.end_ns - other.end_ns) * one.low.shape[-1] > longest:
        return False
    room = _TOLERANCE * (height or max(one.high.max(), other.high.max()))
    return _within(one, other, room) and _within(other, one, room)


def _within(one: Shape, other: Shape, room: float) -> bool:
    fits = one.low >= _beside(other.low, np.minimum) - room
    fits &= one.high <= _beside(other.high, np.maximum) + room
    return bool(fits.all())


def _beside(values: F64, better: Any) -> F64:
    """The least or largest of each column and its neighbours."""
    found = values.copy()
    found[..., 1:] = better(found[..., 1:], values[..., :-1])
    found[..., :-1] = better(found[..., :-1], values[..., 1:])
    return found


def worst_groups(
    groups: list[list[int]], cases: Sequence[CaseResult], most: int
) -> list[list[int]]:
    """At most so many groups: those of the cases that lose the most, in the sweep's order."""
    if len(groups) <= most:
        return groups
    place = {case.name: place for place, case in enumerate(worst_first(list(cases)))}
    ranked = sorted(groups, key=lambda group: min(place[cases[i].name] for i in group))
    return sorted(ranked[:most])


def note(groups: list[list[int]], cases: Sequence[CaseResult]) -> str:
    """What a picture of these groups puts together or leaves out, if anything."""
    text = ""
    if any(len(group) > 1 for group in groups):
        text += " Cases that draw the same are drawn once."
    if left_out := len(cases) - sum(map(len, groups)):
        text += f" Left out, for they lose less: {some(left_out, 'case')}."
    return text


def names_of(groups: Sequence[Sequence[int]], cases: Sequence[CaseResult], most: int) -> list[str]:
    """A name of at most `most` characters for each group of cases: the values of a sweep of several
    settings without their keys, if these still tell the cases apart."""
    names = [printable(case.name) for case in cases]
    values = [brief(name) for name in names]
    if any("," in name for name in names) and len({*values}) == len(values):
        names = values
    return [shortened(_joint(group, cases, names), most) for group in groups]


def _joint(group: Sequence[int], cases: Sequence[CaseResult], names: Sequence[str]) -> str:
    """`none, plp-nvme / hdd` of cases that differ in one setting, of others each by its name."""
    if len(group) == len(names) > _MOST_LISTED:
        return f"all {len(group)} cases"
    rows = [cases[i].name.split(",") for i in group]
    if len(rows) > 1 and len({len(row) for row in rows}) == 1:
        columns = [list(dict.fromkeys(column)) for column in zip(*rows, strict=True)]
        if sum(len(column) > 1 for column in columns) == 1:
            # A setting alone keeps its key, once.
            first = (lambda part: part) if len(columns) == 1 else brief
            return ", ".join(
                _listed([first(column[0]), *map(brief, column[1:])]) for column in columns
            )
    return _listed([names[i] for i in group])


def _listed(values: Sequence[str]) -> str:
    if len(values) > _MOST_LISTED:
        values = [*values[: _MOST_LISTED - 1], f"{len(values) - _MOST_LISTED + 1} more"]
    return " / ".join(map(printable, values))
