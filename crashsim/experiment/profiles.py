"""The host's disk and its profiles.

Contract: a `Disk` is complete: what is not given comes from its profile (D5: flush times and write
bandwidth of kinds of disk; D4: power-loss protection, and the disk that answers FLUSH without doing
it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.experiment.backing import DiskFaults
from crashsim.experiment.block import Block, Contradiction
from crashsim.experiment.quantities import ByteRate, Duration, NameIn, Size

_COMMON: dict[str, str | bool] = {
    "flush": "1ms",
    "bandwidth": "1.2GB/s",
    "plp": False,
    "fua": True,
    "ignores_flush": False,
}
PROFILES: dict[str, dict[str, str | bool]] = {
    "plp-nvme": {**_COMMON, "flush": "30us", "plp": True},
    "consumer-nvme": _COMMON,
    "sata-ssd": {**_COMMON, "flush": "3ms", "fua": False},
    "hdd": {**_COMMON, "flush": "10ms", "fua": False},
    "ignores-flush": {**_COMMON, "ignores_flush": True},
}

SMALLEST_SECTOR_BYTES = 512
LARGEST_SECTOR_BYTES = 4096


class Disk(Block):
    """The disk under the backing files."""

    profile: Annotated[str, NameIn(PROFILES)] = Field(
        default="consumer-nvme", description="A kind of disk: the defaults of the keys below."
    )
    flush: Duration = Field(
        default=1_000_000, description="How long a FLUSH takes. Default: the profile's."
    )
    bandwidth: ByteRate = Field(
        default=1_200_000_000, description="How fast it writes. Default: the profile's."
    )
    plp: bool = Field(
        default=False,
        description="Power-loss protection: its cache survives. Default: the profile's.",
    )
    fua: bool = Field(
        default=True, description="It has forced-unit-access writes. Default: the profile's."
    )
    ignores_flush: bool = Field(
        default=False, description="It answers FLUSH and does nothing. Default: the profile's."
    )
    sector: Size = Field(
        default=512, description="Logical sector: the unit that is written or not."
    )
    atom: Size = Field(
        default=512, description="Power-fail atom: what a cut never tears. Default: the sector."
    )
    stable_writes: bool = Field(
        default=False,
        description="It asks that pages do not change while they are written (checksums, RAID).",
    )
    faults: DiskFaults = Field(default=DiskFaults(), description="What it gets wrong.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_profile(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        profile = value.get("profile", "consumer-nvme")
        filled = dict(PROFILES.get(profile, {}) if isinstance(profile, str) else {})
        if "sector" in value and "atom" not in value and _is_size(value["sector"]):
            filled["atom"] = value["sector"]
        return {**filled, **value}

    def contradictions(self) -> Iterator[Contradiction]:
        sector = self.sector
        if sector & (sector - 1) or not SMALLEST_SECTOR_BYTES <= sector <= LARGEST_SECTOR_BYTES:
            yield Contradiction(
                ("sector",),
                f"expected 512B, 1KiB, 2KiB or 4KiB, got {units.exact_bytes(sector)}",
            )
        elif self.atom % sector:
            yield Contradiction(
                ("atom",), f"expected a multiple of the sector ({units.exact_bytes(sector)})"
            )


def _is_size(value: Any) -> bool:
    try:
        return isinstance(value, int) or units.parse_bytes(value) > 0
    except (UnitError, AttributeError):
        return False
