"""What the oracle answers: plain lists of everything that happened, and the journal of the layers.

Pages are numbered over all devices (device 0's pages, then device 1's), and so are the byte
addresses of the layers; the offsets of stores are relative to their device. An instant that lies
after the end of the run is None, except for `Io.completed` and `DiskFlush.ended`, which are
settled when the disk takes the request.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from tests.oracle.inputs import PAGE_BYTES, OracleDevice
from tests.oracle.layers import Layers


@dataclass(frozen=True, slots=True)
class Store:
    begin: int
    vcpu: int
    device: int
    write: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A page that a guest without DAX copied from its own cache to the device."""

    instant: int
    device: int
    page: int


@dataclass(frozen=True, slots=True)
class Batch:
    """`reason` is fsync, flusher, background, early or direct."""

    number: int
    instant: int
    reason: str
    device: int
    pages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Io:
    batch: int
    first_page: int
    pages: int
    completed: int


@dataclass(frozen=True, slots=True)
class DiskFlush:
    issued: int
    ended: int


@dataclass(slots=True)
class FlushRequest:
    """`result` is 0 for success or the monitor's error code; `vcpu` is -1 for a journal commit.
    `fsync_begun` stays None for a request that is answered without a host call of its own."""

    device: int
    vcpu: int
    asked: int
    submitted: int | None = None
    fsync_begun: int | None = None
    acknowledged: int | None = None
    result: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A record (writes `first` to `last`) or, with a label, a recording's mark."""

    instant: int
    device: int
    vcpu: int
    first: int = -1
    last: int = -1
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A throttled vCPU, from the instant after its write's last word."""

    instant: int
    vcpu: int
    pause_ns: int


@dataclass(frozen=True, slots=True)
class WriteInput:
    """A write as the program has it, with the byte address of its first byte over all devices."""

    number: int
    device: int
    vcpu: int
    address: int
    length: int


@dataclass(slots=True)
class Outcome:
    writes: list[WriteInput]
    layers: Layers
    plp: bool
    devices: tuple[OracleDevice, ...]
    stores: list[Store] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    ios: list[Io] = field(default_factory=list)
    disk_flushes: list[DiskFlush] = field(default_factory=list)
    flush_requests: list[FlushRequest] = field(default_factory=list)
    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    fired_errors: list[tuple[int, int]] = field(default_factory=list)  # (set, fired)
    unfired_errors: list[int] = field(default_factory=list)
    failed_batches: list[int] = field(default_factory=list)  # H14, those that ended
    unfired_write_errors: list[int] = field(default_factory=list)
    ignored_flushes: list[int] = field(default_factory=list)  # numbers of FLUSHes
    unfired_ignored_flushes: list[int] = field(default_factory=list)
    shorn_pages: list[tuple[int, int]] = field(default_factory=list)  # batch, page
    unfired_shorn: list[int] = field(default_factory=list)
    damages: list[tuple[int, int]] = field(default_factory=list)  # D4: instant, page
    unfired_corrupted: list[int] = field(default_factory=list)
    died_ns: int | None = None  # D4: when the disk died
    # H13: when the commit of a new page's extent was in the disk's cache, and durable
    committed: dict[str, dict[int, int]] = field(default_factory=lambda: {"L4": {}, "L5": {}})
    aborts: list[tuple[int, int]] = field(default_factory=list)  # G9: instant, device
    killed_ns: int | None = None  # V6: when the store that found the host full would have begun
    failed_syncs: int = 0
    journal_bytes: int = 0  # of the host's file system
    guest_journal_bytes: int = 0
    own_commits: int = 0  # of the host's file system, by its timer (H16)
    guest_wait_ns: int = 0
    end_ns: int = 0
    device_base: list[int] = field(default_factory=list)  # byte address of each device's first byte

    @property
    def stored_bytes(self) -> int:
        """The price: what the program asked for."""
        return sum(store.length for store in self.stores)

    @property
    def written_bytes(self) -> int:
        """The price: what the disk wrote for it."""
        ios = sum(io.pages for io in self.ios) * PAGE_BYTES
        return ios + self.journal_bytes + self.guest_journal_bytes

    def device_number(self, address: int) -> int:
        return bisect_right(self.device_base, address) - 1

    def device_of(self, address: int) -> OracleDevice:
        return self.devices[self.device_number(address)]
