"""A fleet's year on standard output, in JSON, and as a picture for whoever decides.

Contract: every figure is of a `FleetLost`; a mean is shown with where 90 of 100 drawn years lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

from rich.text import Text

from crashsim.engine.units import format_bytes
from crashsim.fleet.annual import FleetLost, KindLost, Lost
from crashsim.fleet.year import Yearly
from crashsim.report.speaker import Speaker, console_for

HEADINGS = [
    "case",
    "hosts",
    "failures",
    "lost",
    "acks lost",
    "machines that lose acks",
    "may be corrupted",
    "disks dead",
]
_ALL = "all"


def print_fleet(found: FleetLost, stream: TextIO | None = None) -> None:
    """What is lost in a year, of each kind of hosts and of all; what changing saves."""
    say = Speaker(console_for(stream))
    if found.fleet.description:
        say(found.fleet.description)
    rows = [row for kind in found.kinds for row in _of_kind(kind)]
    if len(found.kinds) > 1:
        rows.append(_row(_ALL, "", "", found.now))
        if found.changed is not None:
            rows.append(_row(f"{_ALL}, changed", "", "", found.changed))
    say.table(HEADINGS, rows)
    say("")
    for line in sentences(found):
        say(line)


def sentences(found: FleetLost) -> list[str]:
    """What the table comes to, and what it rests on."""
    acks = found.now.acknowledgements
    told = [
        f"In a year failures take {_records(acks.mean)} acknowledged records "
        f"({_records(acks.low)} to {_records(acks.high)} in 90 of 100 years) and "
        f"{_size(found.now.bytes.mean)} from {_hosts(found)} hosts."
    ]
    if found.changed is not None:
        later = found.changed
        told.append(
            f"With what the file would change: {_records(later.acknowledgements.mean)} records and "
            f"{_size(later.bytes.mean)}; it saves "
            f"{_records(acks.mean - later.acknowledgements.mean)} records a year."
        )
    if found.now.corrupted is not None:
        told.append(
            "May be corrupted: cuts at instants after which the checker rejected a possible state; "
            "how often the rejected one comes is not known."
        )
    if found.now.disks:
        told.append("A dead disk takes all that is on it: such machines are counted, not weighed.")
    return told


def to_json(found: FleetLost) -> dict[str, Any]:
    """The same as plain data: `FleetLost`, field for field."""
    return (
        asdict(found)
        | {"fleet": found.fleet.model_dump(mode="json")}
        | {
            "kinds": [
                asdict(kind) | {"hosts": kind.hosts.model_dump(mode="json")} for kind in found.kinds
            ]
        }
    )


def draw_fleet(found: FleetLost) -> tuple[bytes, bytes]:
    """(SVG, PNG): acknowledged records and bytes lost in a year, kind by kind, now and changed,
    with where 90 of 100 years lie."""
    from crashsim.report import canvas

    bars = [bar for kind in found.kinds for bar in _bars(kind)]
    with canvas.style():
        figure = canvas.new_figure(0.9 + 0.34 * len(bars))
        both = figure.subplots(1, 2, sharey=True)
        for axes, title, amounts, shown in (
            (
                both[0],
                "acknowledged records",
                [one.acknowledgements for _, one, _ in bars],
                _records,
            ),
            (both[1], "bytes", [one.bytes for _, one, _ in bars], _size),
        ):
            most = round(max(one.high for one in amounts))
            unit = canvas.size_unit(most) if title == "bytes" else _count_unit(most)
            for place, ((_, _, colour), one) in enumerate(zip(bars, amounts, strict=True)):
                axes.barh(place, one.mean, height=0.62, color=canvas.COLOURS[colour])
                axes.plot([one.low, one.high], [place, place], color=canvas.INK, linewidth=1.2)
                end = max(one.high, one.mean)
                axes.annotate(
                    shown(one.mean),
                    (end, place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            canvas.set_axis(axes.xaxis, unit, "", ticks=3)
            axes.set_title(f"{title} ({unit.name})" if unit.name else title, fontsize=8.5)
            axes.set_xlim(0, 1.35 * max(most, 1))
            axes.grid(visible=False, axis="y")
        both[0].set_yticks(range(len(bars)), [name for name, _, _ in bars])
        both[0].invert_yaxis()
        figure.suptitle("Lost in a year", x=0.01, ha="left", fontsize=11)
        figure.supxlabel("bar: mean · line: 90 of 100 years", fontsize=8.5)
        return canvas.rendered(figure)


def _count_unit(most: int) -> Any:
    from crashsim.report.canvas import AxisUnit

    units = (AxisUnit("millions", 10**6), AxisUnit("thousands", 1000))
    return next((unit for unit in units if most >= unit.scale), AxisUnit("", 1))


def _bars(kind: KindLost) -> list[tuple[str, Lost, int]]:
    bars = [(kind.hosts.name, kind.now, 0)]
    if kind.changed is not None:
        bars.append((f"{kind.hosts.name}, changed", kind.changed, 1))
    return bars


def _of_kind(kind: KindLost) -> list[list[Text]]:
    failures = f"{sum(kind.failures.values()):,.4g}"
    rows = [_row(kind.hosts.name, f"{kind.hosts.count:,}", failures, kind.now)]
    if kind.changed is not None:
        sets = ", ".join(f"{key}={value}" for key, value in kind.hosts.change.items())
        rows.append(_row(f"  with {sets}", "", "", kind.changed))
    return rows


def _row(name: str, hosts: str, failures: str, lost: Lost) -> list[Text]:
    corrupted = "?" if lost.corrupted is None else f"{lost.corrupted:,.3g}"
    cells: Sequence[str] = (
        name,
        hosts,
        failures,
        _spread(lost.bytes, _size),
        _spread(lost.acknowledgements, _records),
        f"{lost.machines:,.3g}",
        corrupted,
        f"{lost.disks:,.3g}",
    )
    return [Text(cell) for cell in cells]


def _spread(one: Yearly, shown: Any) -> str:
    return f"{shown(one.mean)} ({shown(one.low)}–{shown(one.high)})"


def _size(amount: float) -> str:
    return format_bytes(round(amount))


def _records(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 10 or amount == 0 else f"{amount:,.2g}"


def _hosts(found: FleetLost) -> str:
    return f"{sum(kind.hosts.count for kind in found.kinds):,}"
