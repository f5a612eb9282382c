"""What a run of an experiment came to: the content of `results.json` (documented in
`docs/results.md`), and the one table of its figures.

Plain data, made in `crashsim/runs/measure.py`, read by everything under `crashsim/report/`. Nothing
here depends on the wall clock or the machine: the same experiment and seed give the same bytes.

A figure is one entry: the field of `CaseResult` that keeps it, with how it is made from what a run
has found and what is said of it. What may be expected, compared and tolerated, the columns of every
table of cases, the schema's sentences and `results.json` are derived from these entries.
"""

# ruff: noqa: RUF009  # what stands at a figure gives a field of its own
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal, Protocol, Self

from crashsim.results.discovery import ExplorationResult, Part

# What every figure of a recording is not.
RECORDING = "A recording shows what reached the device, not what its guest still held in memory"

SCHEMA_VERSION = 3


class Domain(StrEnum):
    """What fails; `failure` says it within a sentence."""

    PROGRAM_KILL = "program-kill", "a kill of the guest's program"
    GUEST_CRASH = "guest-crash", "a crash of the guest"
    VMM_KILL = "vmm-kill", "a kill of the monitor"
    VMM_QUIT = "vmm-quit", "a quit of the monitor"
    MIGRATION = "migration", "a migration"
    LIVE_COPY = "live-copy", "a return to a copy made while it runs"
    STORAGE_SNAPSHOT = "storage-snapshot", "a return to a storage snapshot"
    HOST_CRASH = "host-crash", "a crash of the host"
    POWER_CUT = "power-cut", "a power cut"

    failure: str

    def __new__(cls, name: str, failure: str = "") -> Self:
        domain = str.__new__(cls, name)
        domain._value_, domain.failure = name, failure
        return domain


@dataclass(frozen=True, slots=True)
class Spread(Part):
    """A quantity over the instants of a run: its maximum and two time-weighted percentiles."""

    max: int
    p50: int
    p99: int


@dataclass(frozen=True, slots=True)
class Steps(Part):
    """A step function: `values[i]` holds from `instants[i]` (ns) up to `instants[i + 1]`; 0 before.

    `exact` is False when it was thinned for the file (then each value is the largest of its
    interval)."""

    instants: list[int]
    values: list[int]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Means(Part):
    """A step function as in `Steps`, or, when it was thinned for the file (`exact` is False), its
    mean over the time from `instants[i]` up to `instants[i + 1]`, the last up to the run's end."""

    instants: list[int]
    values: list[float]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Example(Part):
    """One finding, told: `kind` is broken-promise | hole | torn | uncovered | at-risk-peak."""

    kind: str
    text: str
    t_ns: int
    write: int
    offset: int
    length: int
    layer: str
    device: str


@dataclass(frozen=True, slots=True)
class Cut(Part):
    """One chosen cut: what the calculation says is lost, and what two real files say.

    `lost_bytes` is the calculation, `compared_bytes` the bytes in which the two files differ by
    version (the two are equal or the run fails), `differing_bytes` those that would also read
    differently."""

    t_ns: int
    domain: str
    lost_bytes: int
    compared_bytes: int
    differing_bytes: int
    unsaved_writes: int
    uncovered_acknowledgements: int
    why: str


@dataclass(frozen=True, slots=True)
class Expectation(Part):
    """One line of an `expect:` block, judged."""

    metric: str
    condition: str
    actual: int
    unit: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Marks(Part):
    """Instants for the plots, ns: acknowledged flushes, flusher passes (and other host writeback),
    acknowledgements; evenly thinned to 2,000 of each."""

    flush_acks: list[int]
    flusher_passes: list[int]
    other_writeback: list[int]
    acknowledgements: list[int]


@dataclass(frozen=True, slots=True)
class ScheduleSpan(Part):
    """Something that lasts, from `begin_ns` to `end_ns` (-1: not over when the run ends).

    `lane` is store (until it is durable) | flush (a request, until acknowledged) | call (of the
    host) | writeback (until it has reached the disk's cache) | disk-flush; `text` says whose or
    what."""

    lane: str
    text: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Schedule(Part):
    """How one promise was broken: a flush acknowledged at `acknowledged_ns` although a write that
    it covers was durable at `durable_ns` only (-1: not before the run's end)."""

    device: str
    write: int
    acknowledged_ns: int
    durable_ns: int
    spans: list[ScheduleSpan]


@dataclass(frozen=True, slots=True)
class DeviceResult(Part):
    """The figures of one device when an experiment has several."""

    name: str
    at_risk_bytes: Spread
    recovery_point_ns: Spread
    uncovered_acknowledgements: Spread
    broken_promises: int
    flushes: int


class Material(Protocol):
    """What a run has found: its `History`, and of a power cut the `Losses` of `crashsim.power`."""

    history: Any
    losses: Any

    @property
    def bytes_written(self) -> int: ...


# A number, or a quantity over time (`StepFunction`, `Ramps`), of which the `Spread` is kept.
Make = Callable[[Material], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """Where a figure stands in the tables of cases: its place from the left, and its heading; on a
    narrow terminal the lowest `weight` gives way first. `red`: when it is not 0."""

    place: int
    group: str
    title: str
    weight: int
    red: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of a case: its unit, and what it is in a sentence. `recorded`: what is said behind
    it of a recording, which does not show what its guest still held in memory. `name` and `reads`,
    the attribute of a case, are those of its field unless given."""

    unit: Literal["bytes", "ns", ""] = ""
    says: str
    column: Column | None = None
    more_is_better: bool = False
    recorded: str = ""
    name: str = ""
    reads: str = ""

    def of(self, case: CaseResult) -> int:
        """Its value in a case."""
        found = case.added[self.name] if self.name in ADDED else attrgetter(self.reads)(case)
        return int(found)


def _made(make: Make, *figures: Figure) -> Any:
    """A field of `CaseResult`, how it is made, and the figures that are read from it."""
    return field(metadata={"make": make, "figures": figures})


def _number(make: Make, says: str, column: Column | None = None, **more: Any) -> Any:
    return _made(make, Figure(says=says, column=column, **more))


def _over_time(
    make: Make, name: str, unit: Literal["bytes", "ns"], says: str, **columns: Column
) -> Any:
    """`says` of all three: the worst, and the percentiles."""
    spans = {"max": " at the worst instant"}
    spans |= {"p50": ": at most this for half of the time"}
    spans |= {"p99": ": at most this for 99 % of the time"}
    figures = [
        Figure(
            unit=unit,
            says=f"{says}{span}.",
            column=columns.get(part),
            recorded=_REACHED,
            name=f"{name}_{part}",
            reads=f"{name}_{unit}.{part}",
        )
        for part, span in spans.items()
    ]
    return _made(make, *figures)


_REACHED = "of what reached the device"
_UNFLUSHED = "without a flush behind them"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult(Part):
    """One case. Times ns, sizes bytes; losses are those of a host power cut unless a name says
    otherwise."""

    name: str
    parameters: dict[str, str]  # what the sweep set, as written
    seed: int
    end_ns: int
    writes: int = _made(lambda run: run.losses.writes.write.size)
    bytes_stored: int = _made(lambda run: run.history.store_length.sum())
    broken_promises: int = _number(
        lambda run: run.losses.broken[0].size,
        "Stores lost although a flush that covers them had succeeded.",
        Column(9, "broken", "promises", 8, red=True),
    )
    holes: int = _number(
        lambda run: run.losses.holes.size,
        "Writes that can be lost while a later one survives.",
        Column(10, "", "holes", 3),
        recorded=_REACHED,
    )
    torn: int = _number(
        lambda run: run.losses.torn.size,
        "Writes of which a part can survive without the rest.",
        Column(11, "", "torn", 0),
        recorded=_REACHED,
    )
    flushes: int = _number(
        lambda run: run.history.flush_device.size,
        "Flushes the guest asked for.",
        Column(12, "", "flushes", 10),
    )
    bytes_written: int = _number(
        lambda run: run.bytes_written, "Bytes the host wrote to the disk.", unit="bytes"
    )
    acknowledged: int = _made(
        lambda run: (run.history.ack_t_ns <= run.history.end_ns).sum(),
        Figure(says="Records the program said were done.", more_is_better=True),
        Figure(
            says="Records acknowledged for each second of the run.",
            column=Column(8, "acks", "per second", 9),
            more_is_better=True,
            name="acknowledged_per_second",
            reads="acknowledged_per_second",
        ),
    )
    guest_wait_ns: int = _number(
        lambda run: run.history.info.guest_wait_ns,
        "Time the vCPUs spent waiting for flushes.",
        Column(13, "", "waiting", 5),
        unit="ns",
        name="guest_wait",
    )
    at_risk_bytes: Spread = _over_time(
        lambda run: run.losses.at_risk,
        *("at_risk", "bytes", "Bytes at risk"),
        max=Column(2, "at risk", "worst", 11),
        p50=Column(3, "at risk", "p50", 2),
        p99=Column(4, "at risk", "p99", 6),
    )
    unsaved_writes: Spread = _made(lambda run: run.losses.unsaved)
    recovery_point_ns: Spread = _over_time(
        lambda run: run.losses.recovery,
        *("recovery_point", "ns", "Age of the oldest unsaved write"),
        max=Column(5, "recovery point", "max", 7),
        p99=Column(6, "recovery point", "p99", 1),
    )
    uncovered_acknowledgements: Spread = _number(
        lambda run: run.losses.uncovered,
        "Acknowledged records not wholly saved, at the worst instant.",
        Column(7, "acks", "uncovered", 10),
        recorded=_UNFLUSHED,
        reads="uncovered_acknowledgements.max",
    )
    failed_syncs: int = _number(
        lambda run: run.history.info.failed_syncs, "Sync calls that returned an error."
    )
    recorded: bool  # a recording: figures are of what reached the device, not of its guest's memory
    syncs: bool  # the guest's program asks for durability, whether or not it gets it
    loss: Steps  # bytes at risk of a power cut
    recovery_point: Steps  # value at each instant = age of the oldest unsaved write at that instant
    layers: dict[
        str, Means
    ]  # "L1".."L4" -> bytes whose latest version has got no further than that layer
    domains: dict[str, Spread]  # failure domain -> bytes lost over crash time
    uncovered_by_domain: dict[str, Spread]  # of the domains asked for: acknowledgements lost
    devices: list[DeviceResult]
    cuts: list[Cut]
    examples: list[Example]
    schedules: list[Schedule]
    marks: Marks
    expectations: list[Expectation] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    exploration: ExplorationResult | None = field(  # docs/exploring.md; None: nothing was explored
        default=None,
        metadata={
            "figures": [
                Figure(
                    name="findings",
                    says="Causes of states that the checker of explore rejects, without the known "
                    "ones.",
                    reads="causes",
                )
            ]
        },
    )
    findings: list[str] = field(default_factory=list)  # their files, in the run's folder
    added: dict[str, int] = field(default_factory=dict)  # by `add_figure`

    @property
    def acknowledged_per_second(self) -> int:
        """Records acknowledged for each second of the run, rounded half up."""
        return (2 * self.acknowledged * 10**9 + self.end_ns) // (2 * self.end_ns or 1)

    @property
    def causes(self) -> int:
        """Findings of the exploration, known ones included."""
        return len(self.exploration.findings) if self.exploration else 0


# How fields are made of a run, and every figure that can be expected, compared and tolerated.
MADE: dict[str, Make] = {
    one.name: one.metadata["make"] for one in fields(CaseResult) if "make" in one.metadata
}
FIGURES: dict[str, Figure] = {
    figure.name or one.name: replace(
        figure, name=figure.name or one.name, reads=figure.reads or one.name
    )
    for one in fields(CaseResult)
    for figure in one.metadata.get("figures", ())
}
ADDED: dict[str, Make] = {}


def add_figure(name: str, make: Make, figure: Figure) -> None:
    """A figure of your own: the number that `make` gives of each run. To be called before the first
    experiment is read, else RuntimeError; ValueError when there is one of that name."""
    if name in FIGURES or name in MADE:
        raise ValueError(f"there is a figure {name} already")
    if "crashsim.experiment.expect" in sys.modules:
        raise RuntimeError("figures are added before the first experiment is read")
    ADDED[name], FIGURES[name] = make, replace(figure, name=name)


@dataclass(frozen=True, slots=True)
class Results(Part):
    """A run of an experiment: every case, in the sweep's order."""

    experiment: str
    description: str
    version: str  # of crashsim
    seed: int
    cases: list[CaseResult]
    interrupted: bool = False


def to_json(results: Results) -> dict[str, Any]:
    """The document written to `results.json`: the dataclasses above, field for field, plus
    `schema`; `added` only where something was."""
    document = {"schema": SCHEMA_VERSION, **asdict(results)}
    for case in document["cases"]:
        if not case["added"]:
            del case["added"]
    return document
