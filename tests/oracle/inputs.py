"""What the oracle is given: a world of devices, vCPU programs, a host, a disk and a guest.

Instants and durations are integer nanoseconds, offsets and lengths integer bytes relative to the
device. Writes are numbered from 0 device by device, vCPU by vCPU, in program order; vCPUs are
numbered the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAGE_BYTES = 4096
WORD_BYTES = 8
FOLIO_BYTES_MOST = 2 << 20

CALLS = ("msync", "fdatasync", "fsync", "msync-async", "sync", "sync_file_range")
DRIVERS = ("concurrent", "serialized", "ordered")
BACKINGS = ("file", "private", "tmpfs", "hugetlbfs", "ram")
KINDS = ("virtio-pmem", "nvdimm", "real-nvdimm", "virtio-blk")
CACHES = ("writeback", "unsafe", "writethrough", "none")
EXTENTS = ("written", "unwritten", "sparse")
ACCESSES = ("dax", "devdax", "direct", "cached")
FLUSHER_PHASES = ("idle", "busy", "random")
FILE_SYSTEMS = ("ext4", "xfs")
THP = ("always", "madvise", "never", "none")
ON_SYNC_ERROR = ("give-up", "retry", "panic", "rewrite")


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a virtual machine monitor does with a flush request (V1, V3)."""

    call: str
    threads: int
    queue: int
    error: int
    reuses_result: bool = False
    limits_rate: bool = False


MONITORS = {
    "qemu": Monitor("fsync", 64, 128, 1),
    "cloud-hypervisor": Monitor("fsync", 1, 256, 1),
    "crosvm": Monitor("msync", 1, 256, 1),
    "firecracker": Monitor("msync", 1, 256, 2**32 - 1, limits_rate=True),
    "firecracker-reused-result": Monitor("msync", 1, 256, 2**32 - 1, True, limits_rate=True),
}


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
    """`written`: the call is for what its vCPU wrote (`sync.range`)."""

    call: str = "msync"
    delay_ns: int = 0
    written: bool = False


@dataclass(frozen=True, slots=True)
class SyncIfDue(Item):
    t_ns: int
    call: str = "msync"
    written: bool = False


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
class OracleLimiter:
    """Rule V3: a bucket of `ops` tokens that fills in `refill_ns`, and `burst` more at first."""

    ops: int
    refill_ns: int
    burst: int = 0


Folio = int | str | tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class OracleDevice:
    """`cache` is that of a virtio-blk device; `plug_ns` is when its vCPUs begin. `folio` is a size,
    a list of (size, until) or "auto"; `grows`: what is stored makes the guest's file longer."""

    pages: int
    vcpus: tuple[Program, ...]
    backing: str = "file"
    kind: str = "virtio-pmem"
    cache: str = "writeback"
    extents: str = "written"
    folio: Folio = PAGE_BYTES
    prealloc: bool = False
    discard_data: bool = False
    plug_ns: int = 0
    rate_limiter: OracleLimiter | None = None
    grows: bool = False

    @property
    def on_file(self) -> bool:
        """Whether its pages are those of a file that the host writes back."""
        return self.backing == "file" and self.kind != "real-nvdimm"

    @property
    def in_file_cache(self) -> bool:
        """Whether a store reaches the pages of a file, be it of a tmpfs."""
        return self.on_file or self.backing in ("tmpfs", "hugetlbfs")

    @property
    def flushless(self) -> bool:
        """Whether its guest makes no device flush (V9)."""
        writethrough = self.kind == "virtio-blk" and self.cache == "writethrough"
        return writethrough or self.kind in ("nvdimm", "real-nvdimm")

    @property
    def direct(self) -> bool:
        return self.kind == "virtio-blk" and self.cache == "none"


@dataclass(frozen=True, slots=True)
class OracleHost:
    """`early` is (every_ns, numerator, denominator) or None; `writeback_ns` 0 means no flusher.
    `queue` None is the monitor's own depth; `free_bytes` None a host that is never full.
    Defaults are those of cases worked out by hand: no tick, no commit of the host's own."""

    fault_ns: int = 2400
    memory_bytes: int = 8 << 30
    background_ratio: int = 10
    dirty_ratio: int = 20
    writeback_ns: int = 5_000_000_000
    expire_ns: int = 30_000_000_000
    early: tuple[int, int, int] | None = None
    fsync_errors: tuple[int, ...] = ()
    write_errors: tuple[int, ...] = ()
    monitor: str = "qemu"
    queue: int | None = None
    free_bytes: int | None = None
    tick_ns: int = 0
    second_phase_ns: int = 0
    commit_interval_ns: int = 0
    flusher_phase: str = "busy"
    file_system: str = "ext4"
    kernel: str = "6.18"
    thp: str = "madvise"
    fsync_resets_age: bool = False


@dataclass(frozen=True, slots=True)
class OracleFault:
    """A disk fault: a share of (numerator, denominator), and the first at or after instants."""

    share: tuple[int, int] = (0, 1)
    at: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OracleDisk:
    """`bandwidth` is in bytes per second."""

    bandwidth: int = 1_200_000_000
    flush_ns: int = 1_000_000
    plp: bool = False
    fua: bool = False
    ignores_flush: bool = False
    ignored_flush: OracleFault = OracleFault()
    shorn: OracleFault = OracleFault()
    corrupted: OracleFault = OracleFault()
    dead: OracleFault = OracleFault()

    @property
    def may_die(self) -> bool:
        return bool(self.dead.share[0] or self.dead.at)


@dataclass(frozen=True, slots=True)
class OracleGuest:
    """`acknowledge` is "immediate" or "synced". Defaults as for `OracleHost`."""

    driver: str = "concurrent"
    access: str = "direct"
    ext4: bool = False
    acknowledge: str = "immediate"
    on_sync_error: str = "give-up"
    tick_ns: int = 0
    second_phase_ns: int = 0
    commit_interval_ns: int = 5_000_000_000
    journal_pages: int = 0

    def dax_on(self, device: OracleDevice) -> bool:
        """Whether stores land in the device's memory: a virtio-blk device is reached through L1."""
        return self.access != "cached" and device.kind != "virtio-blk"

    def devdax_on(self, device: OracleDevice) -> bool:
        return self.access == "devdax" and device.kind != "virtio-blk"


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
    guest = world.guest
    if guest.driver not in DRIVERS or guest.acknowledge not in ("immediate", "synced"):
        raise ValueError(f"unknown guest {guest}")
    if guest.on_sync_error not in ON_SYNC_ERROR or world.host.monitor not in MONITORS:
        raise ValueError(f"unknown reaction {guest.on_sync_error} or {world.host.monitor}")
    if guest.on_sync_error == "rewrite" and guest.acknowledge != "synced":
        raise ValueError("only a program whose records a sync acknowledges can rewrite")
    for_ever = guest.on_sync_error in ("retry", "rewrite") and world.duration_ns is None
    if for_ever and world.disk.may_die:
        raise ValueError("a guest that does not give up on a dead disk never ends")
    check_kernels(world)
    if world.host.expire_ns < 1:
        raise ValueError("an age of 0 is not described")
    if world.host.queue is not None and world.host.queue < 1:
        raise ValueError("a queue has room for one request at least")
    for device in world.devices:
        check_device(device, guest, MONITORS[world.host.monitor])
        for item in (item for program in device.vcpus for item in program):
            if isinstance(item, Write | FlushedWrite):
                inside = item.offset >= 0 and item.offset + item.length <= device.pages * PAGE_BYTES
                if item.length < 1 or not inside:
                    raise ValueError(f"{item} is not inside the device")
            elif isinstance(item, Sync | SyncIfDue | GroupSync) and item.call not in CALLS:
                raise ValueError(f"unknown call in {item}")
            if isinstance(item, GroupSync) and item.call == "sync_file_range":
                raise ValueError("a range does not go with a group commit")
            if isinstance(item, FlushedWrite) and not guest.dax_on(device):
                raise ValueError("a recording enters below the guest's page cache")


def check_kernels(world: OracleWorld) -> None:
    host, guest = world.host, world.guest
    known = host.flusher_phase in FLUSHER_PHASES and host.file_system in FILE_SYSTEMS
    if not known or host.thp not in THP or guest.access not in ACCESSES:
        raise ValueError(f"unknown host {host} or access {guest.access}")
    if (guest.access == "dax" and not guest.ext4) or (guest.access == "devdax" and guest.ext4):
        raise ValueError("DAX needs ext4, and a character device has no file system")
    if guest.access == "devdax" and guest.on_sync_error in ("retry", "rewrite"):
        raise ValueError("a call that always fails is retried for ever")
    for kernel in (host, guest):
        if kernel.tick_ns < 0 or not 0 <= kernel.second_phase_ns < 10**9:
            raise ValueError(f"a second begins within a second: {kernel}")


def check_device(device: OracleDevice, guest: OracleGuest, monitor: Monitor) -> None:
    known = device.backing in BACKINGS and device.kind in KINDS
    if not known or device.cache not in CACHES or device.extents not in EXTENTS:
        raise ValueError(f"unknown device {device}")
    if device.kind != "virtio-pmem" and device.backing != "file":
        raise ValueError("a device to compare with is on a shared file")
    if device.kind == "real-nvdimm" and guest.access == "cached":
        raise ValueError("a real NVDIMM below a guest without DAX is not described")
    if device.backing == "ram" and guest.on_sync_error in ("retry", "rewrite"):
        raise ValueError("a call that always fails is retried for ever")
    limiter = device.rate_limiter
    if limiter is not None:
        if device.kind != "virtio-pmem" or not monitor.limits_rate:
            raise ValueError("only Firecracker's virtio-pmem devices have a rate limiter")
        if limiter.ops < 1 or limiter.refill_ns < 1 or limiter.burst < 0:
            raise ValueError(f"no tokens ever come: {limiter}")
    sizes = [size for size, _ in folio_parts(device)]
    ends = [until for _, until in folio_parts(device)]
    if any(size & (size - 1) or not PAGE_BYTES <= size <= FOLIO_BYTES_MOST for size in sizes):
        raise ValueError(f"{sizes} are not sizes of folios")
    if any(end % PAGE_BYTES for end in ends) or ends != sorted(set(ends)) or ends[0] < 1:
        raise ValueError(f"the parts of a file end at ascending pages, not at {ends}")
    if ends[-1] != device.pages * PAGE_BYTES:
        raise ValueError("the parts of a file end with it")


def resolved(world: OracleWorld) -> OracleWorld:
    """With the sizes of folios in place of `auto`."""
    return replace(
        world,
        devices=tuple(
            replace(device, folio=auto_folio(world, device)) if device.folio == "auto" else device
            for device in world.devices
        ),
    )


def folio_parts(device: OracleDevice) -> tuple[tuple[int, int], ...]:
    """Rule H2: (size, until) in bytes; what is `auto` has been resolved."""
    assert not isinstance(device.folio, str)
    if isinstance(device.folio, int):
        return ((device.folio, device.pages * PAGE_BYTES),)
    return device.folio


def auto_folio(world: OracleWorld, device: OracleDevice) -> int:
    """Rule H2: large where the monitor advises it, and the kernel and its file system can."""
    host = world.host
    advised = host.monitor == "qemu" and device.kind in ("virtio-pmem", "nvdimm")
    first = {"ext4": (6, 16), "xfs": (5, 18)}[host.file_system]
    version = tuple(int(part) for part in host.kernel.split("."))
    large = advised and device.backing == "file" and host.thp != "none" and version >= first
    return FOLIO_BYTES_MOST if large else PAGE_BYTES


def folios_of(device: OracleDevice) -> list[range]:
    """Rule H2: the folios of a device, in pages of the device."""
    found: list[range] = []
    page = 0
    for size, until in folio_parts(device):
        end = until // PAGE_BYTES
        while page < end:
            count = size // PAGE_BYTES
            while page % count or page + count > end:
                count //= 2
            found.append(range(page, page + count))
            page += count
    return found


def first_pages(devices: tuple[OracleDevice, ...]) -> list[int]:
    """Where each device begins: behind the one before, at a multiple of its largest folio."""
    firsts: list[int] = []
    end = 0
    for device in devices:
        folio = max(size for size, _ in folio_parts(device)) // PAGE_BYTES
        firsts.append(ceil_div(end, folio) * folio)
        end = firsts[-1] + device.pages
    return firsts


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def words(offset: int, length: int) -> int:
    return ceil_div(offset + length, WORD_BYTES) - offset // WORD_BYTES


def pages(offset: int, length: int) -> list[int]:
    """The pages that the bytes touch, ascending."""
    return list(range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1))
