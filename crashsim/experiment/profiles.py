"""The host's disk: its profiles and its faults.

Contract: a `Disk` is complete: what is not given comes from its profile (D5: flush times and write
bandwidth of kinds of disk; D4: power-loss protection, and the disk that answers FLUSH without doing
it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import model_validator
from pydantic.fields import FieldInfo

from crashsim.disk.faults import DISK_FAULTS
from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import ByteRate, Duration, NameIn, Ratio, Size

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


class Fault(Block):
    """Something that a disk gets wrong, by chance or at given instants."""

    share: Ratio = Key((0, 1), "Chance of each to be hit, such as 1/1000.")
    at: tuple[Duration, ...] = Key((), "Instants; the first at or after each is hit.", strict=False)

    @property
    def configured(self) -> bool:
        return bool(self.share[0] or self.at)


class DiskFaults(Block):
    """What a disk was seen to get wrong (Zheng et al., FAST'13): a `Fault` for each entry of
    `DISK_FAULTS`."""

    if TYPE_CHECKING:

        def __init__(self, **faults: Fault) -> None: ...

    def configured(self) -> dict[str, Fault]:
        """Those that are to come, by name."""
        faults = {name: getattr(self, name, Fault()) for name in DISK_FAULTS}
        return {name: fault for name, fault in faults.items() if fault.configured}

    @property
    def final(self) -> bool:
        """Whether nothing may succeed any more after one of them."""
        return any(DISK_FAULTS[name].final for name in self.configured())

    def contradictions(self) -> Iterator[Clash]:
        for name, fault in self.configured().items():
            if DISK_FAULTS[name].final and len(fault.at) > 1:
                yield Clash((name, "at"), "expected one instant: a disk dies once")


def take_over_disk_faults() -> None:
    """Give `DiskFaults` the keys of the table."""
    fields = DiskFaults.model_fields
    fields.clear()
    for name, kind in DISK_FAULTS.items():
        fields[name] = FieldInfo(annotation=Fault, default=Fault(), description=kind.description)
    DiskFaults.model_rebuild(force=True)


take_over_disk_faults()


SMALLEST_SECTOR_BYTES = 512
LARGEST_SECTOR_BYTES = 4096


class Disk(Block):
    """The disk under the backing files."""

    profile: Annotated[str, NameIn(PROFILES)] = Key(
        "consumer-nvme", "A kind of disk: the defaults of the keys below."
    )
    flush: Duration = Key(1_000_000, "How long a FLUSH takes. Default: the profile's.")
    bandwidth: ByteRate = Key(1_200_000_000, "How fast it writes. Default: the profile's.")
    plp: bool = Key(False, "Power-loss protection: its cache survives. Default: the profile's.")
    fua: bool = Key(True, "It has forced-unit-access writes. Default: the profile's.")
    ignores_flush: bool = Key(False, "It answers FLUSH and does nothing. Default: the profile's.")
    sector: Size = Key(512, "Logical sector: the unit that is written or not.")
    atom: Size = Key(512, "Power-fail atom: what a cut never tears. Default: the sector.")
    stable_writes: bool = Key(
        False, "It asks that pages do not change while they are written (checksums, RAID)."
    )
    faults: DiskFaults = Key(DiskFaults(), "What it gets wrong.")

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

    def contradictions(self) -> Iterator[Clash]:
        sector = self.sector
        if sector & (sector - 1) or not SMALLEST_SECTOR_BYTES <= sector <= LARGEST_SECTOR_BYTES:
            yield Clash(
                ("sector",), f"expected 512B, 1KiB, 2KiB or 4KiB, got {units.exact_bytes(sector)}"
            )
        elif self.atom % sector:
            yield Clash(
                ("atom",), f"expected a multiple of the sector ({units.exact_bytes(sector)})"
            )


def _is_size(value: Any) -> bool:
    try:
        return isinstance(value, int) or units.parse_bytes(value) > 0
    except (UnitError, AttributeError):
        return False
