"""What one case of an experiment came to: the content of `results.json` (documented in
`docs/results.md`).

Plain data, computed in `crashsim/runs/measure.py`, read by everything under `crashsim/report/`.
Nothing here depends on the wall clock or the machine: the same experiment and seed give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

# What every figure of a recording is not.
RECORDING = "A recording shows what reached the device, not what its guest still held in memory"

SCHEMA_VERSION = 3


class Domain(StrEnum):
    """What fails."""

    PROGRAM_KILL = "program-kill"
    GUEST_CRASH = "guest-crash"
    VMM_KILL = "vmm-kill"
    VMM_QUIT = "vmm-quit"
    MIGRATION = "migration"
    LIVE_COPY = "live-copy"
    STORAGE_SNAPSHOT = "storage-snapshot"
    HOST_CRASH = "host-crash"
    POWER_CUT = "power-cut"


# What fails, within a sentence.
FAILURES: dict[str, str] = {
    Domain.PROGRAM_KILL: "a kill of the guest's program",
    Domain.GUEST_CRASH: "a crash of the guest",
    Domain.VMM_KILL: "a kill of the monitor",
    Domain.VMM_QUIT: "a quit of the monitor",
    Domain.MIGRATION: "a migration",
    Domain.LIVE_COPY: "a return to a copy made while it runs",
    Domain.STORAGE_SNAPSHOT: "a return to a storage snapshot",
    Domain.HOST_CRASH: "a crash of the host",
    Domain.POWER_CUT: "a power cut",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity over the instants of a run: its maximum and two time-weighted percentiles."""

    max: int
    p50: int
    p99: int


@dataclass(frozen=True, slots=True)
class Steps:
    """A step function: `values[i]` holds from `instants[i]` (ns) up to `instants[i + 1]`; 0 before.

    `exact` is False when it was thinned for the file (then each value is the largest of its
    interval)."""

    instants: list[int]
    values: list[int]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Means:
    """A step function as in `Steps`, or, when it was thinned for the file (`exact` is False), its
    mean over the time from `instants[i]` up to `instants[i + 1]`, the last up to the run's end."""

    instants: list[int]
    values: list[float]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Example:
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
class Cut:
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
class Expectation:
    """One line of an `expect:` block, judged."""

    metric: str
    condition: str
    actual: int
    unit: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Marks:
    """Instants for the plots, ns: acknowledged flushes, flusher passes (and other host writeback),
    acknowledgements; evenly thinned to 2,000 of each."""

    flush_acks: list[int]
    flusher_passes: list[int]
    other_writeback: list[int]
    acknowledgements: list[int]


@dataclass(frozen=True, slots=True)
class ScheduleSpan:
    """Something that lasts, from `begin_ns` to `end_ns` (-1: not over when the run ends).

    `lane` is store (until it is durable) | flush (a request, until acknowledged) | call (of the
    host) | writeback (until it has reached the disk's cache) | disk-flush; `text` says whose or
    what."""

    lane: str
    text: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one promise was broken: a flush acknowledged at `acknowledged_ns` although a write that
    it covers was durable at `durable_ns` only (-1: not before the run's end)."""

    device: str
    write: int
    acknowledged_ns: int
    durable_ns: int
    spans: list[ScheduleSpan]


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """The figures of one device when an experiment has several."""

    name: str
    at_risk_bytes: Spread
    recovery_point_ns: Spread
    uncovered_acknowledgements: Spread
    broken_promises: int
    flushes: int


# --- what was explored (docs/exploring.md) --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EpochResult:
    """All instants from `first_ns` to `cut_ns`: the states that a cut in them may leave, those that
    were checked, and what came of them. A count too long for JSON is None; `..._text` has it.
    `unseen_share`: with no finding in the epoch the largest share of its images that can be bad,
    with 95 % confidence."""

    number: int
    first_ns: int
    cut_ns: int
    acks: int
    atoms: int
    choices: int | None
    choices_text: str
    images: int | None
    images_text: str
    planned: int
    checked: int
    kinds: dict[str, int]
    verdicts: dict[str, int]
    outcomes: dict[str, int]
    unseen_share: float


@dataclass(frozen=True, slots=True)
class AtomResult:
    """An atom of a finding, bytes [start, start + length); the writes next to what it holds on both
    sides: the newest kept and the oldest lost, -1: none."""

    offset: int
    start: int
    length: int
    kept_write: int
    lost_write: int


Why = Literal[
    "promise",  # the host did not keep what an acknowledged flush covered
    "flush-before-write",
    "flush-before-acknowledgement",
    "early-acknowledgement",  # given before what it rests on was made
    "torn",  # a write larger than what the disk writes as one: it is fine without it
    "any-disk",  # it fails with all kept that was made before it, too: no flush helps
    "unknown",
    "nothing-lost",
]


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would have forbidden a state. Of a flush: it has to be submitted when write `after` is
    complete, from `first_ns` on, and to complete until `last_ns`, when write `before` or the
    acknowledgement (-1) follows. Else `after`: the write that it is about; -1: none."""

    why: Why
    after: int = -1
    before: int = -1
    first_ns: int = -1
    last_ns: int = -1


@dataclass(frozen=True, slots=True)
class Original:
    """The state that was found first: where it stands in the plan, and how much it keeps."""

    epoch: int
    place: int
    kind: str
    kept_atoms: int
    atoms: int


@dataclass(frozen=True, slots=True)
class WriteRow:
    """A write in the picture of a finding. `runs`: (offset, length, bytes kept) of its parts;
    `taken`: the finding needs it kept or lost."""

    first: int  # the write, as `last`
    last: int
    kept: int  # 1 if it is, as `lost` and `torn`
    lost: int
    torn: int
    t_ns: int
    offset: int
    length: int
    taken: bool
    runs: list[list[int]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Writes that have no row of their own: from which to which, and how many of each fate."""

    first: int
    last: int
    kept: int
    lost: int
    torn: int


@dataclass(frozen=True, slots=True)
class BrokenAck:
    """The acknowledgement that a state breaks; `behind`: how many rows were written when it was
    given."""

    t_ns: int
    label: str
    first: int
    last: int
    behind: int


@dataclass(frozen=True, slots=True)
class WriteFates:
    """What became of the writes of a finding's epoch, in the order of time."""

    writes: int
    rows: list[WriteRow | LeftOut]
    acknowledgement: BrokenAck | None


@dataclass(frozen=True, slots=True)
class FindingResult:
    """A cause of failing states: one of them, shrunk and told, with how many have it. `known`: why
    it is no surprise, '': it is one."""

    kind: str
    outcome: str
    message: str
    states: int
    epochs: int
    story: list[str]
    epoch: int
    first_ns: int
    cut_ns: int
    acks: int
    acknowledgement: int
    changes: list[list[int]]
    minimal: bool
    kept: list[AtomResult]
    lost: list[AtomResult]
    remedy: Remedy
    digest: str
    original: Original
    picture: WriteFates
    known: str = ""


@dataclass(frozen=True, slots=True)
class KnownResult:
    """A finding that the experiment knows, the numbers of those that are it, and whether it
    happens."""

    name: str
    why: str
    findings: list[int]
    happens: bool


@dataclass(frozen=True, slots=True)
class ExplorationResult:
    """What came of one case's exploration; `exit_code` as `crashsim run` has it."""

    schema: int
    device: str
    host: str
    atom_bytes: int
    seed: int
    budget_states: int
    choices: int | None
    choices_text: str
    images: int | None
    images_text: str
    planned: int
    checked: int
    failing: int
    timed_out: int
    unstable: int
    ungrouped: int
    outcomes: dict[str, int]
    reached: bool
    all_epochs: int
    interrupted: bool
    exit_code: int
    findings: list[FindingResult]
    epochs: list[EpochResult]
    known: list[KnownResult] = field(default_factory=list)


# --- a case ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case. Times ns, sizes bytes; losses are those of a host power cut unless a name says
    otherwise."""

    name: str
    parameters: dict[str, str]  # what the sweep set, as written
    seed: int
    end_ns: int
    writes: int
    bytes_stored: int
    at_risk_bytes: Spread
    unsaved_writes: Spread
    recovery_point_ns: Spread
    acknowledged: int
    uncovered_acknowledgements: Spread
    broken_promises: int
    holes: int
    torn: int
    failed_syncs: int
    flushes: int
    bytes_written: int
    guest_wait_ns: int
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
    exploration: dict[str, Any] | None = None  # docs/exploring.md; None: nothing was explored
    findings: list[str] = field(default_factory=list)  # their files, in the run's folder

    @property
    def acknowledged_per_second(self) -> int:
        """Records acknowledged for each second of the run, rounded half up."""
        return (2 * self.acknowledged * 10**9 + self.end_ns) // (2 * self.end_ns or 1)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a case; `unit` is bytes, ns or empty."""

    unit: str
    of: Callable[[CaseResult], int]
    more_is_better: bool = False


# Every figure that can be expected, compared and tolerated.
METRICS: dict[str, Metric] = {
    "broken_promises": Metric("", lambda c: c.broken_promises),
    "findings": Metric("", lambda c: len((c.exploration or {}).get("findings", ()))),
    "uncovered_acknowledgements": Metric("", lambda c: c.uncovered_acknowledgements.max),
    "at_risk_max": Metric("bytes", lambda c: c.at_risk_bytes.max),
    "at_risk_p50": Metric("bytes", lambda c: c.at_risk_bytes.p50),
    "at_risk_p99": Metric("bytes", lambda c: c.at_risk_bytes.p99),
    "recovery_point_max": Metric("ns", lambda c: c.recovery_point_ns.max),
    "recovery_point_p50": Metric("ns", lambda c: c.recovery_point_ns.p50),
    "recovery_point_p99": Metric("ns", lambda c: c.recovery_point_ns.p99),
    "holes": Metric("", lambda c: c.holes),
    "torn": Metric("", lambda c: c.torn),
    "failed_syncs": Metric("", lambda c: c.failed_syncs),
    "acknowledged": Metric("", lambda c: c.acknowledged, more_is_better=True),
    "acknowledged_per_second": Metric("", lambda c: c.acknowledged_per_second, more_is_better=True),
    "flushes": Metric("", lambda c: c.flushes),
    "bytes_written": Metric("bytes", lambda c: c.bytes_written),
    "guest_wait": Metric("ns", lambda c: c.guest_wait_ns),
}


@dataclass(frozen=True, slots=True)
class Results:
    """A run of an experiment: every case, in the sweep's order."""

    experiment: str
    description: str
    version: str  # of crashsim
    seed: int
    cases: list[CaseResult]
    interrupted: bool = False


def to_json(results: Results) -> dict[str, Any]:
    """The document written to `results.json`: the dataclasses above, field for field, plus
    `schema`."""
    from dataclasses import asdict

    return {"schema": SCHEMA_VERSION, **asdict(results)}
