"""What the guest's program writes, and when it asks for durability.

Contract: `Workload` is one of the kinds below, told apart by `kind`. Sizes are bytes, durations
nanoseconds. `Recording` is a recorded block log: its times and flushes come from the file, so it
has neither rate nor sync policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import (
    Count,
    Duration,
    NameIn,
    PositiveDuration,
    Rate,
    Size,
    Spelling,
    Theta,
    refused,
)
from crashsim.experiment.sync_calls import CALLS, SyncCall
from crashsim.traces.formats import FORMATS

KIB = 1024
PAGE_BYTES = 4096
MOST_WRITES = 10**9


@dataclass(frozen=True, slots=True)
class EveryRecords:
    """A sync after every `records`-th record of a vCPU."""

    records: int


@dataclass(frozen=True, slots=True)
class EveryTime:
    """A sync after the first record that ends `ns` or more after the last sync returned."""

    ns: int


_RECORDS = re.compile(r"\s*([0-9]{1,12})\s?records?\s*\Z")
_EVERY_EXPECTED = "expected a number of records such as 100 records, or a duration such as 1s"


def _every(value: Any, _: ValidationInfo) -> EveryRecords | EveryTime:
    if isinstance(value, EveryRecords | EveryTime):
        return value
    if isinstance(value, str):
        counted = _RECORDS.match(value)
        if counted is not None and int(counted[1]) > 0:
            return EveryRecords(int(counted[1]))
        try:
            ns = units.parse_duration(value)
        except UnitError:
            ns = 0
        if counted is None and ns > 0:
            return EveryTime(ns)
    raise refused(f"{_EVERY_EXPECTED}, got {units.shown(value)}")


def _every_text(every: EveryRecords | EveryTime) -> str:
    if isinstance(every, EveryTime):
        return units.exact_duration(every.ns)
    return f"{every.records} record{'' if every.records == 1 else 's'}"


_EVERY_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*[0-9]{1,12}\s?records?\s*$"},
        {"type": "string", "pattern": units.DURATION_PATTERN},
    ],
    "examples": ["100 records", "1s"],
}
Every = Annotated[EveryRecords | EveryTime, Spelling(_every, _EVERY_SCHEMA, _every_text)]


class Sync(Block):
    """When the program asks for durability, and with which call."""

    call: Annotated[str, NameIn(CALLS)] = Key(
        "none", "The call that asks for durability; none for never."
    )
    every: Every | None = Key(
        None, "How often: `100 records` or `1s`. Default: after every record."
    )
    group: bool = Key(False, "Group commit: one vCPU syncs for all that wait at that moment.")
    delay: Duration = Key(0, "How long the leader of a group waits for others before it syncs.")
    range: Literal["whole", "written"] = Key(
        "whole",
        "What a call is for: the whole, or what was written since the last one. It "
        "matters in the guest's page cache; a device flush has no range.",
    )

    @property
    def what(self) -> SyncCall:
        """What its call does."""
        return CALLS[self.call]

    @property
    def ranged(self) -> bool:
        """Whether its calls have a range."""
        return self.range == "written" or self.what.ranged

    @property
    def flushes(self) -> bool:
        """Whether its call ever flushes the device."""
        return self.what.flushes != "never"

    @property
    def every_records(self) -> int | None:
        """Records between syncs; None without syncs or when they are timed."""
        if isinstance(self.every, EveryRecords):
            return self.every.records
        return 1 if self.every is None and self.what.made else None

    @property
    def every_ns(self) -> int | None:
        """Time between syncs; None when they are counted in records."""
        return self.every.ns if isinstance(self.every, EveryTime) else None

    def contradictions(self) -> Iterator[Clash]:
        if self.call == "none" and self.every is not None:
            yield Clash(("every",), "call is none, so there is nothing to do every time")
        if self.range == "written" and self.call in ("none", "msync-async", "sync"):
            yield Clash(("range",), f"{self.call} has no range")
        if self.range == "written" and self.group:
            yield Clash(("range",), "a group commit is for the whole")
        if self.group and self.call in ("none", "msync-async", "sync_file_range"):
            yield Clash(
                ("group",), f"a group commit needs a call that waits for the disk, not {self.call}"
            )
        if self.group and self.every is not None:
            yield Clash(("every",), "a group commit syncs after each record: every does not apply")
        if self.delay and not self.group:
            yield Clash(("delay",), "delay applies to group commits only (group: true)")


class Synthetic(Block):
    """What all workloads but recordings have."""

    vcpus: int = Key(1, "How many vCPUs run the program at once.", ge=1, le=128)
    rate: Rate | None = Key(None, "Records per second of each vCPU. Default: as fast as it can.")
    acknowledge: Literal["after-sync", "before-sync"] = Key(
        "after-sync", "When the program says that a record is done. Without syncs: at once."
    )

    def least_bytes(self) -> int:
        """The smallest device on which the workload has room."""
        return 1

    def _in_parts(self, part_bytes: int) -> int:
        """Room for a part for each vCPU; parts of several begin at page boundaries."""
        if self.vcpus == 1:
            return part_bytes
        return self.vcpus * -(-part_bytes // PAGE_BYTES) * PAGE_BYTES


class AppendLog(Synthetic):
    """Checksummed records, one after the other; a full log starts again at its beginning."""

    kind: Literal["append-log"] = Key("append-log", "Records appended to a log.")
    records: Count = Field(description="How many records are written, by all vCPUs together.")
    record_size: Size = Key(256, "Size of a record with its checksum.")
    grows: bool = Key(
        False, "Each record makes the file longer, so that fdatasync commits as fsync does."
    )

    def least_bytes(self) -> int:
        return self._in_parts(self.record_size)


class SizeRange(Block):
    """Sizes drawn at random, both ends included."""

    min: Size = Field(description="The smallest size.")
    max: Size = Field(description="The largest size.")

    @model_validator(mode="before")
    @classmethod
    def _one_size(cls, value: Any) -> Any:
        return value if isinstance(value, dict | SizeRange) else {"min": value, "max": value}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        one_size = {"type": "string", "pattern": units.SIZE_PATTERN, "examples": ["1KiB"]}
        return {"anyOf": [one_size, handler.resolve_ref_schema(handler(core))]}

    def contradictions(self) -> Iterator[Clash]:
        if self.min > self.max:
            yield Clash(("min",), "min is larger than max")


class KeyValue(Synthetic):
    """Slots of a table, overwritten in place at random."""

    kind: Literal["key-value"] = Key("key-value", "Slots updated at random.")
    records: Count = Field(description="How many updates are made, by all vCPUs together.")
    slots: Count = Field(description="How many slots the table has.")
    value_size: SizeRange = Key(SizeRange(min=KIB, max=KIB), "Size of a value, or {min, max}.")
    slot_size: Size | None = Key(
        None, "Distance between slots. Default: the largest value, rounded up to 8."
    )
    distribution: Literal["uniform", "zipf"] = Key(
        "uniform", "How slots are chosen: all alike, or a few much more often."
    )
    theta: Theta = Key(Decimal("0.99"), "Skew of zipf: 0 is uniform, 0.99 strong; rounded to 1/64.")

    @property
    def slot_bytes(self) -> int:
        """Distance between slots, bytes."""
        return self.slot_size or -(-self.value_size.max // 8) * 8

    @property
    def theta_64ths(self) -> int:
        """The skew in 64ths."""
        return round(self.theta * 64)

    def least_bytes(self) -> int:
        return self.slots * self.slot_bytes

    def inapplicable(self) -> frozenset[str]:
        return frozenset() if self.distribution == "zipf" else frozenset({"theta"})

    def contradictions(self) -> Iterator[Clash]:
        if self.slot_size is not None and self.slot_size < self.value_size.max:
            yield Clash(("slot_size",), "a slot is smaller than the largest value")
        if self.model_fields_set & self.inapplicable():
            yield Clash(("theta",), "theta applies to distribution: zipf only")


class DoubleBuffer(Synthetic):
    """Two copies of a body, and a header that says which is valid."""

    kind: Literal["double-buffer"] = Key(
        "double-buffer", "Body written to A or B in turn, then a header."
    )
    records: Count = Field(description="How often the body is replaced, by all vCPUs together.")
    body_size: Size = Field(description="Size of one copy of the body.")
    header_size: Size = Key(512, "Size of the header that names the valid copy.")

    def least_bytes(self) -> int:
        return self._in_parts(2 * (self.body_size + self.header_size))


class WriteAheadLog(Synthetic):
    """Records to a log first; pages of a table at checkpoints."""

    kind: Literal["write-ahead-log"] = Key(
        "write-ahead-log", "A log, and a table brought up to date at checkpoints."
    )
    records: Count = Field(description="How many records are written, by all vCPUs together.")
    record_size: Size = Key(256, "Size of a log record.")
    table_size: Size = Field(description="Size of the table, a multiple of page_size.")
    page_size: Size = Key(4 * KIB, "Size of a page of the table.")
    checkpoint_every: Count = Key(100, "Records between checkpoints.")

    def least_bytes(self) -> int:
        return self.table_size + self._in_parts(self.checkpoint_every * self.record_size)

    def contradictions(self) -> Iterator[Clash]:
        if self.table_size % self.page_size:
            yield Clash(
                ("table_size",),
                f"expected a multiple of page_size ({units.exact_bytes(self.page_size)}), "
                f"got {units.exact_bytes(self.table_size)}",
            )


class Fill(Synthetic):
    """The device written once from its beginning."""

    kind: Literal["fill"] = Key("fill", "Sequential writes from the beginning.")
    size: Size | None = Key(None, "How much is written. Default: the whole device.")
    write_size: Size = Key(1024 * KIB, "Size of one write.")

    def least_bytes(self) -> int:
        return self.size or 1

    def contradictions(self) -> Iterator[Clash]:
        if self.size is not None and self.size > self.write_size * MOST_WRITES:
            yield Clash(("write_size",), f"more than {MOST_WRITES} writes")


class Recording(Block):
    """A recorded block log."""

    kind: Literal["recording"] = Key("recording", "A recorded block log.")
    log: str = Field(min_length=1, description="The log, relative to this file; .gz is accepted.")
    format: Annotated[str, NameIn(FORMATS)] = Key("dm-log-writes", "How the log is laid out.")
    times: str | None = Key(
        None, "When each entry arrived (u64 ns each), relative to this file.", min_length=1
    )
    image: str | None = Key(
        None, "What the device held before, relative to this file.", min_length=1
    )
    clock: PositiveDuration = Key(100_000, "Time between two entries of a log without times.")

    def inapplicable(self) -> frozenset[str]:
        return frozenset() if self.times is None else frozenset({"clock"})

    def contradictions(self) -> Iterator[Clash]:
        if self.model_fields_set & self.inapplicable():
            yield Clash(("clock",), "clock applies to recordings without times")


Workload = Annotated[
    AppendLog | KeyValue | DoubleBuffer | WriteAheadLog | Fill | Recording,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Block]] = {
    one.model_fields["kind"].default: one for one in get_args(get_args(Workload)[0])
}
