"""What a failure takes, by brute force: at every instant at which anything changed, byte by byte.

A byte's latest version is what L0 holds, whether the failure keeps it is what the layer of the
domain holds, and no table of batches or watermarks is looked at. A layer of the disk may hold less
than before (D4): what was safe once need not be so later. Everything is said for `0 <= t <= end`, a
step (t, value) holds from t on; holes and torn writes are those of instants up to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracle.inputs import PAGE_BYTES, OracleDevice, words
from tests.oracle.layers import NOTHING, SHADOWS, Change, Version, apply
from tests.oracle.outcome import Acknowledgement, FlushRequest, Outcome, Store

DOMAINS = ("program-kill", "guest-crash", "vmm-kill", "host-crash", "power-cut")
COPIES_AND_QUITS = ("vmm-quit", "live-copy", "migration", "storage-snapshot")

NOWHERE = "nowhere"  # a layer that never holds anything

Steps = list[tuple[int, int]]


@dataclass(slots=True)
class Loss:
    """`unsaved` counts writes, `recovery` says when the oldest of them began (None: there is none),
    `uncovered` counts acknowledged records and `uncovered_marks` those of recordings, `broken` has
    the index of each flush that lied."""

    at_risk: Steps = field(default_factory=list)
    unsaved: Steps = field(default_factory=list)
    recovery: list[tuple[int, int | None]] = field(default_factory=list)
    uncovered: Steps = field(default_factory=list)
    holes: set[int] = field(default_factory=set)
    torn: set[int] = field(default_factory=set)
    broken: list[int] = field(default_factory=list)
    uncovered_marks: Steps = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mark:
    """A recording's mark, when its vCPU made the one before, and what the flush rule says."""

    ack: Acknowledgement
    since: int
    covered_from: int | None


def kept_layer(domain: str, plp: bool, device: OracleDevice) -> str:
    """The layer that survives: rules P1 to P6, V5 and V8. Two options of P4 have names of their
    own. Reading: what a direct copy (V9) wrote is kept from the copy's instant when only the
    monitor goes."""
    if domain == "migration":
        return NOWHERE
    if device.kind == "real-nvdimm":
        return "L0"
    if domain == "vmm-quit" and device.discard_data:
        return NOWHERE
    file_cache = "M" if device.direct else "L2"
    return {
        "program-kill": "L0",
        "guest-crash": "M",
        "vmm-kill": file_cache,
        "vmm-quit": file_cache,
        "live-copy": file_cache,
        "migration": NOWHERE,
        "storage-snapshot": "L4",
        "host-crash": "L4",
        "host-crash-in-flight-kept": "L3",
        "host-crash-cache-lost": "L4" if plp else "L5",
        "power-cut": "L4" if plp else "L5",
    }[domain]


def loss(outcome: Outcome, domain: str = "power-cut") -> Loss:
    """Broken promises are those of this domain; `docs/model.md` speaks of the power cut's."""
    return _Judge(outcome, domain).judge()


class _Judge:
    def __init__(self, outcome: Outcome, domain: str) -> None:
        self.outcome = outcome
        self.layers = [kept_layer(domain, outcome.plp, device) for device in outcome.devices]
        self.latest: dict[int, Version] = {}
        self.kept: dict[int, Version] = {}
        self.ever: dict[int, Version] = {}  # kept, if the disk had lost nothing again
        self.now = 0
        self.marks = list_marks(outcome)
        self.stores: dict[int, list[Store]] = {}
        self.begun: dict[int, int] = {}
        self.bytes: dict[int, dict[int, Version]] = {write.number: {} for write in outcome.writes}
        for store in outcome.stores:
            self.begun.setdefault(store.write, store.begin)
            self.stores.setdefault(store.write, []).append(store)
            for address in self.addresses(store):
                self.bytes[store.write][address] = version_of(store)
        self.lengths = {write.number: write.length for write in outcome.writes}
        self.saved: set[int] = set()
        self.part_saved: set[int] = set()  # of those begun and not wholly safe, now
        self.result = Loss()

    def judge(self) -> Loss:
        changes: dict[int, list[Change]] = {0: []}
        for change in self.outcome.layers.changes:
            changes.setdefault(change.instant, []).append(change)
        others = [ack.instant for ack in self.outcome.acknowledgements]
        others += [
            r.acknowledged for r in self.outcome.flush_requests if r.acknowledged is not None
        ]
        others += [instant for instant, _ in self.outcome.damages]
        if self.outcome.died_ns is not None:
            others.append(self.outcome.died_ns)
        others += [instant for by in self.outcome.committed.values() for instant in by.values()]
        for instant in sorted({*changes, *others, self.outcome.end_ns}):
            if instant > self.outcome.end_ns:
                break
            for change in changes.get(instant, []):
                layer = self.layer_of(change.address)
                if change.layer == "L0":
                    apply(self.latest, change)
                if change.layer == layer:
                    apply(self.kept, change)
                    if change.version == NOTHING:
                        self.saved.clear()  # to be looked at again
                if change.layer == SHADOWS.get(layer, layer):
                    apply(self.ever, change)
            self.look(instant)
        return self.result

    def layer_of(self, address: int) -> str:
        return self.layers[self.outcome.device_number(address)]

    def addresses(self, store: Store) -> range:
        first = self.outcome.device_base[store.device] + store.offset
        return range(first, first + store.length)

    def holds(self, address: int, version: Version) -> bool:
        """The kept layer has this version of the byte, or a later one."""
        return self.kept.get(address, NOTHING) >= version and self.visible(address)

    def held(self, address: int, version: Version) -> bool:
        """It would have, if the disk had lost nothing again."""
        return self.ever.get(address, NOTHING) >= version and self.visible(address)

    def visible(self, address: int) -> bool:
        """Rule H13: what came to the disk is read as zeros until the commit of a new page's extent
        is in the disk's cache (for L5: durable)."""
        layer = self.layer_of(address)
        if self.outcome.device_of(address).extents == "written" or layer not in SHADOWS:
            return True
        committed = self.outcome.committed["L5" if layer == "L5" else "L4"]
        return committed.get(address // PAGE_BYTES, self.now + 1) <= self.now

    def safe(self, store: Store) -> bool:
        return all(self.holds(address, version_of(store)) for address in self.addresses(store))

    def look(self, instant: int) -> None:
        self.now, result = instant, self.result
        lost = sum(not self.holds(byte, version) for byte, version in self.latest.items())
        step(result.at_risk, instant, lost)
        unsaved = self.unsaved_writes(instant)
        step(result.unsaved, instant, len(unsaved))
        oldest = min((self.begun[write] for write in unsaved), default=None)
        if not result.recovery or result.recovery[-1][1] != oldest:
            result.recovery.append((instant, oldest))
        newest_saved = max((self.begun[write] for write in self.saved), default=-1)
        result.holes |= {write for write in unsaved if self.begun[write] < newest_saved}
        result.torn |= self.part_saved
        step(result.uncovered, instant, self.uncovered_records(instant))
        step(result.uncovered_marks, instant, sum(map(self.is_uncovered, self.marks)))
        for index, request in enumerate(self.outcome.flush_requests):
            if request.acknowledged == instant and request.result == 0 and self.broke(request):
                result.broken.append(index)

    def unsaved_writes(self, instant: int) -> list[int]:
        """Begun, not wholly safe; a rest that division left and that has not begun is not safe.
        Reading: a write that a rewrite stored twice is safe when both stores are, and began with
        the first."""
        unsaved = []
        self.part_saved = set()
        for write, begin in self.begun.items():
            if begin > instant or write in self.saved:
                continue
            safe = sum(self.holds(*byte) for byte in self.bytes[write].items())
            if safe == self.lengths[write]:
                self.saved.add(write)
                continue
            unsaved.append(write)
            if safe:
                self.part_saved.add(write)
        return unsaved

    def is_uncovered(self, mark: Mark) -> bool:
        """Reading: the writes since the previous acknowledgement are those of the mark's own vCPU
        since its own mark; what begins at the very instant of a mark was not written before it."""
        if mark.ack.instant > self.now:
            return False
        if mark.covered_from is None or mark.covered_from > self.now:
            return True
        return any(
            store.vcpu == mark.ack.vcpu
            and mark.since <= store.begin < mark.ack.instant
            and self.lost_again(store)
            for stores in self.stores.values()
            for store in stores
        )

    def lost_again(self, store: Store) -> bool:
        """Rule D4: a page of it was damaged since, and no later I/O of that is safe; or the disk
        died since. Reading: also if it was never safe before."""
        if self.layers[store.device] not in SHADOWS:
            return False
        died = self.outcome.died_ns
        if died is not None and store.begin <= died <= self.now:
            return True
        hurt = {page for at, page in self.outcome.damages if store.begin <= at <= self.now}
        return any(
            address // PAGE_BYTES in hurt and not self.holds(address, version_of(store))
            for address in self.addresses(store)
        )

    def uncovered_records(self, instant: int) -> int:
        return sum(
            any(write not in self.saved for write in range(ack.first, ack.last + 1))
            for ack in self.outcome.acknowledgements
            if ack.label is None and ack.instant <= instant
        )

    def broke(self, request: FlushRequest) -> bool:
        """A store had landed in the device's memory when the flush was submitted, and is not safe
        now (a flush does not cover L1, G2)."""
        assert request.submitted is not None
        for store in self.outcome.stores:
            landed = store.begin + words(store.offset, store.length) - 1
            promised = store.device == request.device and landed <= request.submitted
            if promised and self.in_host_at(store, request.submitted) and not self.safe(store):
                return True
        return False

    def in_host_at(self, store: Store, instant: int) -> bool:
        """The device held this version of these bytes, or later ones, at that instant."""
        held = dict.fromkeys(self.addresses(store), NOTHING)
        for change in self.outcome.layers.changes:
            if change.layer == "M" and change.instant <= instant and change.address in held:
                held[change.address] = max(held[change.address], change.version)
        return all(found >= version_of(store) for found in held.values())


def version_of(store: Store) -> Version:
    return (store.begin, store.vcpu, store.write)


def step(steps: Steps, instant: int, value: int) -> None:
    if not steps or steps[-1][1] != value:
        steps.append((instant, value))


def uncovered_marks(outcome: Outcome, domain: str = "power-cut") -> Steps:
    """The flush rule of recordings, the same for every domain but for what a disk lost again."""
    return loss(outcome, domain).uncovered_marks


def list_marks(outcome: Outcome) -> list[Mark]:
    """Reading: before a device's first mark lies the start of the run."""
    marks: list[Mark] = []
    of_device: dict[int, int] = {}
    of_vcpu: dict[int, int] = {}
    for ack in outcome.acknowledgements:
        if ack.label is not None:
            covered = covered_from(outcome, ack.device, of_device.get(ack.device, 0))
            marks.append(Mark(ack, of_vcpu.get(ack.vcpu, 0), covered))
            of_device[ack.device] = of_vcpu[ack.vcpu] = ack.instant
    return marks


def covered_from(outcome: Outcome, device: int, since: int) -> int | None:
    """The first successful completion of a flush submitted at or after `since`. Reading: only
    flushes of the mark's device count."""
    completions = [
        request.acknowledged
        for request in outcome.flush_requests
        if request.device == device
        and request.result == 0
        and request.acknowledged is not None
        and request.submitted is not None
        and request.submitted >= since
    ]
    return min(completions, default=None)
