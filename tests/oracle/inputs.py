"""What the oracle is given: a world of devices, vCPU programs, a host, a disk and a guest.

Instants and durations are integer nanoseconds, offsets and lengths integer bytes relative to the
device. Writes are numbered from 0 device by device, vCPU by vCPU, in program order; vCPUs are
numbered the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE_BYTES = 4096
WORD_BYTES = 8

CALLS = ("msync", "fdatasync", "fsync", "msync-async")
DRIVERS = ("concurrent", "serialized", "ordered")


class Item:
    """One thing in a vCPU's program."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Write(Item):
    offset: int
    length: int
    think_ns: int = 0
    ends_record: bool = False


@dataclass(frozen=True, slots=True)
class FlushedWrite(Item):
    """A recorded write whose request carries PREFLUSH, FUA or both."""

    offset: int
    length: int
    think_ns: int = 0
    preflush: bool = True
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Sync(Item):
    call: str = "msync"
    delay_ns: int = 0


@dataclass(frozen=True, slots=True)
class SyncIfDue(Item):
    t_ns: int
    call: str = "msync"


@dataclass(frozen=True, slots=True)
class GroupSync(Item):
    delay_ns: int = 0
    call: str = "msync"


@dataclass(frozen=True, slots=True)
class Mark(Item):
    label: str
    delay_ns: int = 0


Program = tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class OracleDevice:
    pages: int
    vcpus: tuple[Program, ...]


@dataclass(frozen=True, slots=True)
class OracleHost:
    """`early` is (every_ns, numerator, denominator) or None; `writeback_ns` 0 means no flusher."""

    fault_ns: int = 2400
    memory_bytes: int = 8 << 30
    background_ratio: int = 10
    dirty_ratio: int = 20
    writeback_ns: int = 5_000_000_000
    expire_ns: int = 30_000_000_000
    early: tuple[int, int, int] | None = None
    fsync_errors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OracleDisk:
    """`bandwidth` is in bytes per second."""

    bandwidth: int = 1_200_000_000
    flush_ns: int = 1_000_000
    plp: bool = False
    fua: bool = False
    ignores_flush: bool = False


@dataclass(frozen=True, slots=True)
class OracleGuest:
    """`acknowledge` is "immediate" or "synced"."""

    driver: str = "concurrent"
    dax: bool = True
    ext4: bool = False
    acknowledge: str = "immediate"


@dataclass(frozen=True, slots=True)
class OracleWorld:
    devices: tuple[OracleDevice, ...]
    host: OracleHost = OracleHost()
    disk: OracleDisk = OracleDisk()
    guest: OracleGuest = OracleGuest()
    seed: int = 0
    duration_ns: int | None = None


def check(world: OracleWorld) -> None:
    """Raises ValueError on a world that the model does not describe."""
    if world.guest.driver not in DRIVERS or world.guest.acknowledge not in ("immediate", "synced"):
        raise ValueError(f"unknown guest {world.guest}")
    if world.host.expire_ns < 1:
        raise ValueError("an age of 0 is not described")
    for device in world.devices:
        for item in (item for program in device.vcpus for item in program):
            if isinstance(item, Write | FlushedWrite):
                inside = item.offset >= 0 and item.offset + item.length <= device.pages * PAGE_BYTES
                if item.length < 1 or not inside:
                    raise ValueError(f"{item} is not inside the device")
            elif isinstance(item, Sync | SyncIfDue | GroupSync) and item.call not in CALLS:
                raise ValueError(f"unknown call in {item}")
            if isinstance(item, FlushedWrite) and not world.guest.dax:
                raise ValueError("a recording enters below the guest's page cache")


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def words(offset: int, length: int) -> int:
    return ceil_div(offset + length, WORD_BYTES) - offset // WORD_BYTES


def pages(offset: int, length: int) -> list[int]:
    """The pages that the bytes touch, ascending."""
    return list(range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1))
