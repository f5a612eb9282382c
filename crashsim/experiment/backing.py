"""What lies under a device: the monitor's memory backend and its file, and a disk's faults.

Contract: the defaults are an honest stack: a shared mapping of a file whose blocks are all written,
on a disk without faults. Rules V4, V5, H2, H13, H15 (backings), D4 (faults).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from crashsim.experiment import units
from crashsim.experiment.part import Contradiction, Part
from crashsim.experiment.quantities import Count, Duration, PositiveDuration, Ratio, Size

SMALLEST_FOLIO_BYTES = 4096
LARGEST_FOLIO_BYTES = 2 << 20

BackingKind = Literal["file", "private", "tmpfs", "hugetlbfs", "ram"]


class Backing(Part):
    """The memory that the guest sees as the device."""

    kind: BackingKind = Field(
        default="file",
        description="A shared mapping of a file on the disk; a private one (share=off, "
        "readonly=on, discard_writes); a file in memory; or no file at all.",
    )
    extents: Literal["written", "unwritten", "sparse"] = Field(
        default="written",
        description="The file's blocks before the run: written, only allocated, or holes.",
    )
    prealloc: bool = Field(default=False, description="Every page is dirty when the run begins.")
    discard_data: bool = Field(
        default=False, description="The monitor zeroes the file when it quits."
    )
    folio: Size = Field(
        default=SMALLEST_FOLIO_BYTES,
        description="What the host dirties and cleans as one: 4KiB to 2MiB, a power of two.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        folio = self.folio
        if folio & (folio - 1) or not SMALLEST_FOLIO_BYTES <= folio <= LARGEST_FOLIO_BYTES:
            yield Contradiction(
                ("folio",),
                f"expected a power of two from 4KiB to 2MiB, got {units.exact_bytes(folio)}",
            )
        if self.kind != "file":
            for key in ("extents", "prealloc", "folio"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield Contradiction((key,), f"{key} is a file's; this backing is {self.kind}")


class RateLimiter(Part):
    """Firecracker's limit on a device's flushes."""

    ops: Count = Field(description="How many flushes at once, and in each refill time.")
    refill: PositiveDuration = Field(description="In which time the bucket fills up.")
    burst: int = Field(default=0, ge=0, le=10**9, description="So many more at first, once.")


class Fault(Part):
    """Something that a disk gets wrong, by chance or at given instants."""

    share: Ratio = Field(default=(0, 1), description="Chance of each to be hit, such as 1/1000.")
    at: tuple[Duration, ...] = Field(
        default=(), strict=False, description="Instants; the first at or after each is hit."
    )

    @property
    def configured(self) -> bool:
        return bool(self.share[0] or self.at)


class DiskFaults(Part):
    """What a disk was seen to get wrong (Zheng et al., FAST'13)."""

    ignored_flush: Fault = Field(default=Fault(), description="A FLUSH that does nothing.")
    shorn: Fault = Field(
        default=Fault(), description="A write whose last page never reaches the media."
    )
    corrupted: Fault = Field(
        default=Fault(),
        description="A write whose last page arrives damaged: what was there before is lost, too.",
    )
    dead: Fault = Field(
        default=Fault(),
        description="The disk dies, at an instant or with a write: all that it held is lost.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        if len(self.dead.at) > 1:
            yield Contradiction(("dead", "at"), "expected one instant: a disk dies once")
