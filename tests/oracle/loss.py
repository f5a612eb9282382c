"""What a failure takes, by brute force: at every instant at which anything changed, byte by byte.

A byte's latest version is what L0 holds, whether the failure keeps it is what the layer of the
domain holds, and no table of batches or watermarks is looked at. Everything is said for `0 <= t <=
end`, a step (t, value) holds from t on; holes and torn writes are those of instants before the
end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracle.inputs import PAGE_BYTES, OracleDevice
from tests.oracle.layers import NOTHING, Change, Version
from tests.oracle.outcome import Acknowledgement, FlushRequest, Outcome

DOMAINS = ("program-kill", "guest-crash", "vmm-kill", "host-crash", "power-cut")
COPIES_AND_QUITS = ("vmm-quit", "live-copy", "migration", "storage-snapshot")

NOWHERE = "nowhere"  # a layer that never holds anything

Steps = list[tuple[int, int]]


@dataclass(slots=True)
class Loss:
    """`unsaved` counts writes, `recovery` says when the oldest of them began (None: there is none),
    `uncovered` counts acknowledged records, `broken` has the index of each flush that lied."""

    at_risk: Steps = field(default_factory=list)
    unsaved: Steps = field(default_factory=list)
    recovery: list[tuple[int, int | None]] = field(default_factory=list)
    uncovered: Steps = field(default_factory=list)
    holes: set[int] = field(default_factory=set)
    torn: set[int] = field(default_factory=set)
    broken: list[int] = field(default_factory=list)


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


def visible(outcome: Outcome, change: Change) -> Change | None:
    """Rule H13: what came to the disk is read as zeros until the commit of a new page's extent is
    in the disk's cache (for L5: durable). None: it never is."""
    page = change.address // PAGE_BYTES
    device = outcome.device_of(change.address)
    if device.extents == "written" or change.layer not in ("L3", "L4", "L5"):
        return change
    committed = outcome.committed["L5" if change.layer == "L5" else "L4"].get(page)
    if committed is None:
        return None
    return change._replace(instant=max(change.instant, committed))


class _Judge:
    def __init__(self, outcome: Outcome, domain: str) -> None:
        self.outcome = outcome
        self.layers = [kept_layer(domain, outcome.plp, device) for device in outcome.devices]
        self.latest: dict[int, Version] = {}
        self.kept: dict[int, Version] = {}
        self.begun: dict[int, int] = {}
        self.bytes: dict[int, dict[int, Version]] = {write.number: {} for write in outcome.writes}
        for store in outcome.stores:
            self.begun.setdefault(store.write, store.begin)
            first = outcome.device_base[store.device] + store.offset
            version = (store.begin, store.vcpu, store.write)
            for address in range(first, first + store.length):
                self.bytes[store.write][address] = version
        self.lengths = {write.number: write.length for write in outcome.writes}
        self.saved: set[int] = set()
        self.part_saved: set[int] = set()  # of those begun and not wholly safe, now
        self.result = Loss()

    def judge(self) -> Loss:
        changes: dict[int, list[Change]] = {0: []}
        for stored in self.outcome.layers.changes:
            change = visible(self.outcome, stored)
            if change is not None:
                changes.setdefault(change.instant, []).append(change)
        others = [ack.instant for ack in self.outcome.acknowledgements]
        others += [
            r.acknowledged for r in self.outcome.flush_requests if r.acknowledged is not None
        ]
        for instant in sorted({*changes, *others, self.outcome.end_ns}):
            if instant > self.outcome.end_ns:
                break
            for change in changes.get(instant, []):
                if change.layer == "L0":
                    self.apply(self.latest, change)
                if change.layer == self.layers[self.outcome.device_number(change.address)]:
                    self.apply(self.kept, change)
            self.look(instant)
        return self.result

    def apply(self, layer: dict[int, Version], change: Change) -> None:
        layer[change.address] = max(change.version, layer.get(change.address, NOTHING))

    def holds(self, address: int, version: Version) -> bool:
        """The kept layer has this version of the byte, or a later one."""
        return self.kept.get(address, NOTHING) >= version

    def look(self, instant: int) -> None:
        result = self.result
        lost = sum(not self.holds(byte, version) for byte, version in self.latest.items())
        step(result.at_risk, instant, lost)
        unsaved = self.unsaved_writes(instant)
        step(result.unsaved, instant, len(unsaved))
        oldest = min((self.begun[write] for write in unsaved), default=None)
        if not result.recovery or result.recovery[-1][1] != oldest:
            result.recovery.append((instant, oldest))
        newest_saved = max((self.begun[write] for write in self.saved), default=-1)
        if instant < self.outcome.end_ns:
            result.holes |= {write for write in unsaved if self.begun[write] < newest_saved}
            result.torn |= self.part_saved
        step(result.uncovered, instant, self.uncovered_records(instant))
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
            first = self.outcome.device_base[store.device] + store.offset
            addresses = range(first, first + store.length)
            word_count = (first + store.length - 1) // 8 - first // 8 + 1
            landed = store.begin + word_count - 1
            version = (store.begin, store.vcpu, store.write)
            promised = store.device == request.device and landed <= request.submitted
            promised = promised and self.in_host_at(addresses, version, request.submitted)
            if promised and not all(self.holds(address, version) for address in addresses):
                return True
        return False

    def in_host_at(self, addresses: range, version: Version, instant: int) -> bool:
        """The device held this version of these bytes, or later ones, at that instant."""
        held = dict.fromkeys(addresses, NOTHING)
        for change in self.outcome.layers.changes:
            if change.layer == "M" and change.instant <= instant and change.address in held:
                held[change.address] = max(held[change.address], change.version)
        return all(found >= version for found in held.values())


def step(steps: Steps, instant: int, value: int) -> None:
    if not steps or steps[-1][1] != value:
        steps.append((instant, value))


def uncovered_marks(outcome: Outcome) -> Steps:
    """The flush rule of recordings, for every domain alike. Reading: only flushes of the mark's
    device that succeeded count, and before a device's first mark lies the start of the run."""
    marks = [ack for ack in outcome.acknowledgements if ack.label is not None]
    covered = [covered_from(outcome, marks, index) for index in range(len(marks))]
    instants = {0, *(mark.instant for mark in marks), *(c for c in covered if c is not None)}
    steps: Steps = []
    for instant in sorted(instants):
        open_marks = sum(
            mark.instant <= instant and (c is None or c > instant)
            for mark, c in zip(marks, covered, strict=True)
        )
        step(steps, instant, open_marks)
    return steps


def covered_from(outcome: Outcome, marks: list[Acknowledgement], index: int) -> int | None:
    """The first completion of a flush submitted at or after the previous acknowledgement."""
    device = marks[index].device
    since = max((mark.instant for mark in marks[:index] if mark.device == device), default=0)
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
