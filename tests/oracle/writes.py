"""A vCPU's writes: planned with their faults, begun, divided at snapshots, told to the layers.

Stores are told when they end or are divided, never later than the end of an instant at which pages
were cleaned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.oracle.clock import Clock, Event, Rank
from tests.oracle.host import Host
from tests.oracle.inputs import (
    WORD_BYTES,
    FlushedWrite,
    OracleGuest,
    Program,
    Write,
    pages,
    words,
)
from tests.oracle.kernel import Kernel
from tests.oracle.outcome import Acknowledgement, Outcome, Pause, Store

VCPU = 0  # the order of rank 3: vCPUs before kernel timers


@dataclass(frozen=True, slots=True)
class Planned:
    """A write, or what division left of one, of a vCPU that is `free` from then on. `pause_ns` is
    what its earlier parts brought."""

    write: int
    offset: int
    length: int
    free: int
    due: int
    ends_record: bool
    pause_ns: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    plan: Planned
    begin: int
    pause_ns: int
    told: bool = False

    @property
    def last_word(self) -> int:
        return self.begin + words(self.plan.offset, self.plan.length) - 1


@dataclass(eq=False, slots=True)
class Vcpu:
    number: int
    device: int
    program: Program
    first_write: int
    next_write: int
    position: int = 0
    pending: Event | None = None
    action: Callable[[Vcpu], None] | None = None  # what `pending` will do
    planned: Planned | None = None
    begun: Begun | None = None
    then: Callable[[], None] | None = None  # what follows the write instead of the next item
    mapped: set[int] = field(default_factory=set)  # folios that cost it no fault
    record_first: int | None = None
    finished: list[tuple[int, int]] = field(default_factory=list)  # records, not yet acknowledged
    acknowledged: int = -1  # the last write of the last record acknowledged by a sync
    last_sync: int = 0
    blocked_since: int | None = None
    written: set[int] = field(default_factory=set)  # pages, since its last successful sync call
    ends: bool = False  # G9: when it is free again, whatever comes next
    done: bool = False


class Writes:
    """The part of the guest that stores."""

    def __init__(
        self,
        spec: OracleGuest,
        programs: list[tuple[int, Program]],
        kernel: Kernel,
        host: Host,
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        self.spec, self.kernel, self.host = spec, kernel, host
        self.clock, self.outcome = clock, outcome
        self.fault_ns = host.spec.fault_ns
        self.last_cleaning = [-1] * len(host.files)
        self.vcpus: list[Vcpu] = []
        number = 0
        for device, program in programs:
            self.vcpus.append(Vcpu(len(self.vcpus), device, program, number, number))
            number += sum(isinstance(item, Write | FlushedWrite) for item in program)

    def go_on(self, vcpu: Vcpu) -> None:
        """The vCPU is free: it comes to the next thing in its program."""
        raise NotImplementedError

    def wake(self, vcpu: Vcpu, instant: int, action: Callable[[Vcpu], None]) -> None:
        self.cancel(vcpu)
        order = (VCPU, vcpu.number)
        vcpu.action = action
        vcpu.pending = self.clock.at(instant, Rank.GUEST, order, lambda: action(vcpu))

    # --- writes ---------------------------------------------------------------------------------

    def plan_write(self, vcpu: Vcpu, item: Write | FlushedWrite, due: int) -> None:
        ends_record = isinstance(item, Write) and item.ends_record
        free = self.clock.now
        plan = Planned(vcpu.next_write, item.offset, item.length, free, due, ends_record)
        vcpu.next_write += 1
        self.plan(vcpu, plan)

    def plan(self, vcpu: Vcpu, plan: Planned) -> None:
        """Rule H1: a fault for each page that is clean for this vCPU. Rule G9: after the journal
        aborted nothing begins. Reading: of a divided write then the pause does not come either."""
        faults = len(self.write_folios(vcpu, plan) - vcpu.mapped) if self.dax(vcpu.device) else 0
        begin = plan.due + self.fault_ns * faults
        aborted = self.kernel.aborted(vcpu.device)
        if aborted is not None and begin > aborted:
            vcpu.planned, vcpu.ends = None, True
            self.wake(vcpu, max(plan.free, self.clock.now), self.go_on)
            return
        vcpu.planned = plan
        self.wake(vcpu, begin, self.begin)

    def aborted(self, device: int) -> None:
        """Rule G9, at its instant. A vCPU that is in a call, or waits to make one, ends when that
        returns; one that goes on at this instant may begin a write at it."""
        for vcpu in self.vcpus:
            if vcpu.device != device or vcpu.done:
                continue
            if vcpu.planned is not None:
                self.plan(vcpu, vcpu.planned)
            elif vcpu.action != self.go_on:
                vcpu.ends = True

    def ends_here(self, vcpu: Vcpu) -> bool:
        """Rule G9, for a vCPU that is free now."""
        aborted = self.kernel.aborted(vcpu.device)
        if aborted is None:
            return False
        return vcpu.ends or self.clock.now > aborted or not self.next_begins_now(vcpu)

    def dax(self, device: int) -> bool:
        return self.spec.dax_on(self.outcome.devices[device])

    def write_pages(self, vcpu: Vcpu, plan: Planned | Write | FlushedWrite) -> list[int]:
        first = self.host.files[vcpu.device].pages[0]
        return [first + page for page in pages(plan.offset, plan.length)]

    def write_folios(self, vcpu: Vcpu, plan: Planned | Write | FlushedWrite) -> set[int]:
        return set(self.host.folios(vcpu.device, self.write_pages(vcpu, plan)))

    def begin(self, vcpu: Vcpu) -> None:
        """Reading: all pages of the write are dirty, and cost no fault, from its begin on, also
        those that a division then leaves to the rest; the pauses of the parts add up."""
        assert vcpu.planned is not None
        plan, vcpu.planned = vcpu.planned, None
        self.cancel(vcpu)
        now = self.clock.now
        touched = self.write_pages(vcpu, plan)
        vcpu.written |= set(touched)
        self.kernel.stored(vcpu.device)
        if self.dax(vcpu.device):
            self.host.touch(vcpu.device, touched)
            file, folios = self.host.files[vcpu.device], self.write_folios(vcpu, plan)
            faults = sum(len(file.folios[first]) for first in folios - vcpu.mapped)
            vcpu.mapped |= folios
            if faults:
                self.host.times_event(vcpu.device)
            self.host.make_dirty(vcpu.device, touched)
            for device in range(len(self.host.files)):
                self.start_due_writes(device)  # what begins at the same instant counts, too
            vcpu.begun = Begun(plan, now, plan.pause_ns + self.host.pause(vcpu.device, faults))
        else:
            self.kernel.cache_dirty(vcpu.device, touched)
            vcpu.begun = Begun(plan, now, 0)
        self.wake(vcpu, vcpu.begun.last_word + 1 + vcpu.begun.pause_ns, self.go_on)
        if self.last_cleaning[vcpu.device] == now:
            self.divide(vcpu)

    def tell(self, vcpu: Vcpu, plan: Planned, begin: int, length: int) -> None:
        """A store is known: the first `length` bytes of the plan, from its begin."""
        number, device = vcpu.number, vcpu.device
        self.outcome.stores.append(Store(begin, number, device, plan.write, plan.offset, length))
        address = self.outcome.device_base[device] + plan.offset
        version = (begin, number, plan.write)
        layers = ["L0", "M"] if self.dax(device) else ["L0", "L1"]
        if self.dax(device) and self.outcome.devices[device].in_file_cache:
            layers.append("L2")
        for layer in layers:
            self.outcome.layers.store(layer, address, length, version)

    def end_write(self, vcpu: Vcpu) -> None:
        """The vCPU went past its write's last word (and pause)."""
        if vcpu.begun is None:
            return
        begun = vcpu.begun
        self.landed(vcpu)
        vcpu.begun = None
        if begun.pause_ns:
            self.outcome.guest_wait_ns += self.clock.now - begun.last_word - 1

    def landed(self, vcpu: Vcpu) -> None:
        """All words of the write that has begun have landed; told once."""
        begun = vcpu.begun
        if begun is None or begun.told:
            return
        vcpu.begun = Begun(begun.plan, begun.begin, begun.pause_ns, told=True)
        self.tell(vcpu, begun.plan, begun.begin, begun.plan.length)
        if begun.pause_ns:
            start = begun.last_word + 1
            self.outcome.pauses.append(Pause(start, vcpu.number, begun.pause_ns))
        if vcpu.record_first is None:
            vcpu.record_first = begun.plan.write
        if begun.plan.ends_record:
            record = (vcpu.record_first, begun.plan.write)
            vcpu.record_first = None
            if self.spec.acknowledge == "immediate":
                self.acknowledge(vcpu, [record], begun.last_word)
            else:
                vcpu.finished.append(record)

    def acknowledge(self, vcpu: Vcpu, records: list[tuple[int, int]], instant: int) -> None:
        for first, last in records:
            self.outcome.acknowledgements.append(
                Acknowledgement(instant, vcpu.device, vcpu.number, first, last)
            )

    # --- snapshots ------------------------------------------------------------------------------

    def start_due_writes(self, device: int) -> None:
        """Brings the vCPUs of a device to now: every write with a begin up to now has begun."""
        for vcpu in self.vcpus:
            if vcpu.device != device or not self.pending_now(vcpu):
                continue
            if self.next_begins_now(vcpu):
                self.cancel(vcpu)
                self.go_on(vcpu)
            if vcpu.planned is not None and self.pending_now(vcpu):
                self.cancel(vcpu)
                self.begin(vcpu)

    def pending_now(self, vcpu: Vcpu) -> bool:
        return vcpu.pending is not None and vcpu.pending.instant == self.clock.now

    def cancel(self, vcpu: Vcpu) -> None:
        if vcpu.pending is not None:
            vcpu.pending.cancelled = True
            vcpu.pending = None

    def next_begins_now(self, vcpu: Vcpu) -> bool:
        """Whether the vCPU, about to go on, comes to a write that begins at once."""
        if vcpu.action != self.go_on or vcpu.then is not None:
            return False
        if vcpu.position == len(vcpu.program):
            return False
        item = vcpu.program[vcpu.position]
        flushes = not self.outcome.devices[vcpu.device].flushless
        ordered = self.spec.driver == "ordered" and flushes
        if isinstance(item, FlushedWrite) and item.preflush and ordered:
            return False
        if not isinstance(item, Write | FlushedWrite) or item.think_ns:
            return False
        free = self.fault_ns == 0 or not self.dax(vcpu.device)
        return free or self.write_folios(vcpu, item) <= vcpu.mapped

    def cleaned(self, device: int, cleaned: list[int]) -> None:
        """The host took a snapshot now: faults to come. Without DAX no vCPU sees it."""
        if self.dax(device):
            self.divided(device, cleaned)

    def divided(self, device: int, cleaned: list[int]) -> None:
        """Every write of the device is divided, whatever its pages, and plans made again."""
        self.last_cleaning[device] = self.clock.now
        for vcpu in self.vcpus:
            if vcpu.device == device:
                vcpu.mapped -= set(cleaned)
                self.divide(vcpu)
                if vcpu.planned is not None:
                    self.plan(vcpu, vcpu.planned)

    def divide(self, vcpu: Vcpu) -> None:
        """The words landed by now are one store, the rest is a new write."""
        begun, now = vcpu.begun, self.clock.now
        if begun is None:
            return
        if begun.last_word <= now:
            self.landed(vcpu)
            return
        plan = begun.plan
        word_count = now - begun.begin + 1
        end_of_words = (plan.offset // WORD_BYTES + word_count) * WORD_BYTES
        part = min(end_of_words - plan.offset, plan.length)
        self.tell(vcpu, plan, begun.begin, part)
        vcpu.begun = None
        rest = plan.offset + part, plan.length - part, now + 1, now + 1
        self.plan(vcpu, Planned(plan.write, *rest, plan.ends_record, begun.pause_ns))
