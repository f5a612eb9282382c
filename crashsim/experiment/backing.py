"""A device, and what lies under it: the monitor's memory backend and its file.

Contract: the default is an honest one: a shared mapping of a file whose blocks are all written.
Rules V3 (rate limiter), V4, V5, H2, H13, H15 (backings), V9 (other devices).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from crashsim.engine import units
from crashsim.experiment.applications import PAGE_BYTES, Sync, Workload
from crashsim.experiment.block import NAME, Block, Clash, Key
from crashsim.experiment.quantities import (
    Count,
    Duration,
    PositiveDuration,
    Size,
    Spelling,
    read_size,
    refused,
    text,
)

LARGEST_DEVICE_BYTES = 16 << 40
SMALLEST_FOLIO_BYTES = 4096
LARGEST_FOLIO_BYTES = 2 << 20

BackingKind = Literal["file", "private", "tmpfs", "hugetlbfs", "ram"]


def _wrong_folio(size: int) -> str | None:
    if size & (size - 1) or not SMALLEST_FOLIO_BYTES <= size <= LARGEST_FOLIO_BYTES:
        return f"expected a power of two from 4KiB to 2MiB, got {units.exact_bytes(size)}"
    return None


class FolioPart(Block):
    """A part of a file whose folios are of one size."""

    size: Size = Field(description="Of its folios: 4KiB to 2MiB, a power of two.")
    until: Size | None = Key(None, "Where the part ends. Default: with the device.")

    def contradictions(self) -> Iterator[Clash]:
        wrong = _wrong_folio(self.size)
        if wrong is not None:
            yield Clash(("size",), wrong)
        if self.until is not None and self.until % SMALLEST_FOLIO_BYTES:
            yield Clash(("until",), "expected whole pages of 4KiB")


_FOLIO_EXPECTED = "expected auto, a size such as 2MiB, or a list of {size: 64KiB, until: 16MiB}"


def _folio(value: Any, info: ValidationInfo) -> str | int | tuple[FolioPart, ...]:
    if value == "auto":
        return "auto"
    if isinstance(value, list | tuple):
        if not value:
            raise refused(f"{_FOLIO_EXPECTED}, got an empty list")
        return tuple(_folio_part(item, info) for item in value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return read_size(value, info)
    raise refused(f"{_FOLIO_EXPECTED}, got {units.shown(value)}")


def _folio_part(value: Any, info: ValidationInfo) -> FolioPart:
    try:
        return FolioPart.model_validate(value, context=info.context)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise refused(f"{_FOLIO_EXPECTED}: {where}{first['msg']}") from None
    except PydanticCustomError as error:
        raise refused(f"{_FOLIO_EXPECTED}: {error.message()}") from None


def _exact_folio(folio: str | int | tuple[FolioPart, ...]) -> Any:
    if isinstance(folio, tuple):
        return [part.model_dump(mode="json", exclude_none=True) for part in folio]
    return units.exact_bytes(folio) if isinstance(folio, int) else folio


_SIZE_TEXT: dict[str, object] = {"type": "string", "pattern": units.SIZE_PATTERN}
_UNTIL_TEXT: dict[str, object] = {"anyOf": [_SIZE_TEXT, {"type": "null"}]}
_FOLIO_PARTS = {
    name: {"description": FolioPart.model_fields[name].description, **schema}
    for name, schema in (("size", _SIZE_TEXT), ("until", _UNTIL_TEXT))
}
_FOLIO_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "properties": _FOLIO_PARTS, "additionalProperties": False},
}
_FOLIO_SCHEMA = {
    "anyOf": [{"const": "auto"}, text(units.SIZE_PATTERN, "2MiB"), _FOLIO_LIST],
}
Folio = Annotated[
    Literal["auto"] | int | tuple[FolioPart, ...], Spelling(_folio, _FOLIO_SCHEMA, _exact_folio)
]


class Backing(Block):
    """The memory that the guest sees as the device."""

    kind: BackingKind = Key(
        "file",
        "A shared mapping of a file on the disk; a private one (share=off, "
        "readonly=on, discard_writes); a file in memory; or no file at all.",
    )
    extents: Literal["written", "unwritten", "sparse"] = Key(
        "written", "The file's blocks before the run: written, only allocated, or holes."
    )
    prealloc: bool = Key(False, "Every page is dirty when the run begins.")
    discard_data: bool = Key(False, "The monitor zeroes the file when it quits.")
    folio: Folio = Key(
        "auto",
        "What the host dirties and cleans as one: a power of two from 4KiB to 2MiB, a "
        "list of parts {size, until}, or auto: what monitor, kernel and file system make of it.",
    )

    def contradictions(self) -> Iterator[Clash]:
        wrong = _wrong_folio(self.folio) if isinstance(self.folio, int) else None
        if wrong is not None:
            yield Clash(("folio",), wrong)
        if isinstance(self.folio, tuple):
            yield from _wrong_parts(self.folio)
        if self.kind != "file":
            for key in ("extents", "prealloc", "folio"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield Clash((key,), f"{key} is a file's; this backing is {self.kind}")


def _wrong_parts(parts: tuple[FolioPart, ...]) -> Iterator[Clash]:
    """Each part must end behind the one before; the last may end with the device."""
    end = 0
    for index, part in enumerate(parts):
        if part.until is None and index < len(parts) - 1:
            yield Clash(("folio", index), "only the last part may do without until")
        elif part.until is not None and part.until <= end:
            yield Clash(("folio", index, "until"), "expected more than the part before")
        end = part.until or end


class RateLimiter(Block):
    """Firecracker's limit on a device's flushes."""

    ops: Count = Field(description="How many flushes at once, and in each refill time.")
    refill: PositiveDuration = Field(description="In which time the bucket fills up.")
    burst: int = Key(0, "So many more at first, once.", ge=0, le=10**9)


class Device(Block):
    """A virtio-pmem device, or one to compare it with: one backing on the host."""

    name: str = Key("pmem0", "What reports call it.", pattern=NAME, max_length=64)
    size: Size = Field(description="Size of the device, whole pages of 4KiB, at most 16TiB.")
    type: Literal["virtio-pmem", "nvdimm", "real-nvdimm", "virtio-blk"] = Key(
        "virtio-pmem",
        "An emulated NVDIMM has no flush path; a real one needs none; virtio-blk goes "
        "through the guest's page cache.",
    )
    cache: Literal["none", "writeback", "writethrough", "unsafe"] | None = Key(
        None, "QEMU's cache mode of a virtio-blk. Default: writeback."
    )
    backing: Backing = Key(Backing(), "The memory under the device.")
    rate_limiter: RateLimiter | None = Key(None, "Firecracker's limit on flushes. Default: none.")
    plugged: Duration = Key(0, "When the device is plugged in.")
    workload: Workload | None = Key(
        None, "Under devices: what is written here. Default: the top-level workload."
    )
    sync: Sync | None = Key(
        None, "Under devices: the sync policy here. Default: the top-level sync."
    )

    def contradictions(self) -> Iterator[Clash]:
        parts = self.backing.folio
        if isinstance(parts, tuple) and parts[-1].until not in (None, self.size):
            end = units.exact_bytes(self.size)
            message = f"the last part must end with the device ({end}), or do without until"
            yield Clash(("backing", "folio", len(parts) - 1), message)
        if self.type != "virtio-blk" and self.cache is not None:
            yield Clash(("cache",), f"cache is a setting of virtio-blk, not of {self.type}")
        if self.type == "virtio-blk" and self.backing.kind != "file":
            yield Clash(("backing", "kind"), f"{self.type} is modelled over a file alone")
        past_it = self.type == "virtio-blk" and self.cache == "none"
        if past_it and (self.backing.prealloc or self.backing.folio != Backing().folio):
            message = "cache: none leaves out the host's page cache: no folio, no prealloc"
            yield Clash(("backing",), message)
        if self.rate_limiter is not None and self.type != "virtio-pmem":
            yield Clash(("rate_limiter",), f"a {self.type} has no flush requests to limit")
        if self.type == "real-nvdimm" and self.backing != Backing():
            yield Clash(("backing",), "a real NVDIMM is memory by itself, without a file")

    @field_validator("size")
    @classmethod
    def _whole_pages(cls, size: int) -> int:
        if size % PAGE_BYTES or size > LARGEST_DEVICE_BYTES:
            got = units.exact_bytes(size)
            raise refused(f"expected a multiple of 4KiB up to 16TiB, got {got}")
        return size
