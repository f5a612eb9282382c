"""What exploring one case came to (documented in `docs/exploring.md`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


class Part:
    """A part of `results.json`: read back it has its fields and no others."""

    __slots__ = ()
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # as pydantic has it


@dataclass(frozen=True, slots=True)
class EpochResult(Part):
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
class AtomResult(Part):
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
class Remedy(Part):
    """What would have forbidden a state. Of a flush: it has to be submitted when write `after` is
    complete, from `first_ns` on, and to complete until `last_ns`, when write `before` or the
    acknowledgement (-1) follows. Else `after`: the write that it is about; -1: none."""

    why: Why
    after: int = -1
    before: int = -1
    first_ns: int = -1
    last_ns: int = -1


@dataclass(frozen=True, slots=True)
class Original(Part):
    """The state that was found first: where it stands in the plan, and how much it keeps."""

    epoch: int
    place: int
    kind: str
    kept_atoms: int
    atoms: int


@dataclass(frozen=True, slots=True)
class WriteRow(Part):
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
class LeftOut(Part):
    """Writes that have no row of their own: from which to which, and how many of each fate."""

    first: int
    last: int
    kept: int
    lost: int
    torn: int


@dataclass(frozen=True, slots=True)
class BrokenAck(Part):
    """The acknowledgement that a state breaks; `behind`: how many rows were written when it was
    given."""

    t_ns: int
    label: str
    first: int
    last: int
    behind: int


@dataclass(frozen=True, slots=True)
class WriteFates(Part):
    """What became of the writes of a finding's epoch, in the order of time."""

    writes: int
    rows: list[WriteRow | LeftOut]
    acknowledgement: BrokenAck | None


@dataclass(frozen=True, slots=True)
class FindingResult(Part):
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
class KnownResult(Part):
    """A finding that the experiment knows, the numbers of those that are it, and whether it
    happens."""

    name: str
    why: str
    findings: list[int]
    happens: bool


@dataclass(frozen=True, slots=True)
class ExplorationResult(Part):
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
