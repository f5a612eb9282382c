"""The guest's vCPUs going through their programs, and the operations between their writes.

A vCPU is always in one of these states: waiting for an event of its own (`pending`), with a write
planned or begun, or blocked until a flush or a group's sync calls it back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.oracle.clock import Clock
from tests.oracle.device import Done, Flushes
from tests.oracle.host import Host
from tests.oracle.inputs import (
    FlushedWrite,
    GroupSync,
    Item,
    Mark,
    OracleGuest,
    Program,
    Sync,
    SyncIfDue,
    Write,
)
from tests.oracle.kernel import Kernel
from tests.oracle.outcome import Acknowledgement, Outcome
from tests.oracle.writes import Vcpu, Writes


@dataclass(eq=False, slots=True)
class Group:
    leader: Vcpu
    call: str
    members: list[tuple[Vcpu, GroupSync]]
    began: bool = False


class Guest(Writes):
    def __init__(
        self,
        spec: OracleGuest,
        programs: list[tuple[int, Program]],
        kernel: Kernel,
        host: Host,
        flushes: Flushes,
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        super().__init__(spec, programs, kernel, host, clock, outcome)
        self.flushes = flushes
        self.groups: list[Group | None] = [None] * len(host.files)
        self.group_waits: list[list[tuple[Vcpu, GroupSync]]] = [[] for _ in host.files]
        for vcpu in self.vcpus:
            self.wake(vcpu, outcome.devices[vcpu.device].plug_ns, self.go_on)  # rule V7
        if not self.vcpus and clock.end is None:
            clock.end = 0

    # --- going through the program --------------------------------------------------------------

    def go_on(self, vcpu: Vcpu) -> None:
        """The vCPU is free."""
        vcpu.pending = None
        self.end_write(vcpu)
        if vcpu.then is not None:
            then, vcpu.then = vcpu.then, None
            then()
        elif vcpu.position == len(vcpu.program) or self.ends_here(vcpu):
            vcpu.done = True
            if self.clock.end is None and all(other.done for other in self.vcpus):
                self.clock.end = self.clock.now
        else:
            vcpu.position += 1
            self.start_item(vcpu, vcpu.program[vcpu.position - 1])

    def start_item(self, vcpu: Vcpu, item: Item) -> None:
        match item:
            case Write():
                self.plan_write(vcpu, item, self.clock.now + item.think_ns)
            case FlushedWrite():
                self.flushed_write(vcpu, item)
            case Sync():
                self.after(vcpu, item.delay_ns, lambda: self.sync(vcpu, item))
            case SyncIfDue() if self.clock.now - vcpu.last_sync >= item.t_ns:
                self.sync(vcpu, item)
            case SyncIfDue():
                self.go_on(vcpu)
            case GroupSync():
                self.group_sync(vcpu, item)
            case Mark():
                self.after(vcpu, item.delay_ns, lambda: self.mark(vcpu, item.label))

    def after(self, vcpu: Vcpu, delay_ns: int, action: Callable[[], None]) -> None:
        """Reading: a delay of 0 is no wait, so the operation happens in the same event."""
        if delay_ns == 0:
            action()
            return

        def resume(vcpu: Vcpu) -> None:
            vcpu.pending = None
            action()

        self.wake(vcpu, self.clock.now + delay_ns, resume)

    def mark(self, vcpu: Vcpu, label: str) -> None:
        self.outcome.acknowledgements.append(
            Acknowledgement(self.clock.now, vcpu.device, vcpu.number, label=label)
        )
        self.go_on(vcpu)

    # --- operations -----------------------------------------------------------------------------

    def block(self, vcpu: Vcpu) -> None:
        if vcpu.blocked_since is None:
            vcpu.blocked_since = self.clock.now

    def release(self, vcpu: Vcpu) -> None:
        if vcpu.blocked_since is not None:
            self.outcome.guest_wait_ns += self.clock.now - vcpu.blocked_since
            vcpu.blocked_since = None
        self.wake(vcpu, self.clock.now, self.go_on)

    def sync(self, vcpu: Vcpu, item: Sync | SyncIfDue) -> None:
        self.block(vcpu)
        whole = not item.written and item.call != "sync_file_range"

        def then(success: bool) -> None:
            self.returned(vcpu, success, lambda: self.sync(vcpu, item))

        self.call_sync([vcpu], vcpu, item.call, None if whole else vcpu.written, then)

    def call_sync(
        self, served: list[Vcpu], caller: Vcpu, call: str, of: set[int] | None, then: Done
    ) -> None:
        """One sync that serves some vCPUs, `of` some pages or all. Reading: it acknowledges the
        records of those vCPUs only."""
        covered = [(vcpu, vcpu.finished) for vcpu in served]
        for vcpu in served:
            vcpu.finished = []

        def done(success: bool) -> None:
            for vcpu, records in covered:
                vcpu.last_sync = self.clock.now
                if success:
                    self.acknowledge(vcpu, records, self.clock.now)
                    vcpu.written = set()
                elif self.spec.on_sync_error == "retry":
                    vcpu.finished = records
            self.outcome.failed_syncs += len(served) * (not success)
            then(success)

        number = caller.device
        device = self.outcome.devices[number]
        synchronous = call in ("msync", "fdatasync", "fsync")
        if call == "msync-async" or self.spec.devdax_on(device):
            done(not synchronous)
            return
        commits = self.kernel.commits(number, call)
        if commits:
            self.kernel.commit(number)
        count = 2 if commits else self.kernel.flush_count(call)
        flush = partial(self.kernel.flush, number, caller.number, count, commits, done)
        if device.kind == "virtio-blk" and device.cache == "writethrough":
            through = partial(self.host.call, number, "fdatasync", done)
            self.written_back(caller, of, through, partial(done, True))
            return
        if device.flushless:
            flush = partial(done, True)
        self.written_back(caller, of, flush, flush)

    def written_back(
        self,
        caller: Vcpu,
        of: set[int] | None,
        flush: Callable[[], None],
        nothing: Callable[[], None],
    ) -> None:
        """The guest's own pages first; `nothing` if there were none. Reading: the host call of
        `writethrough` begins when they are copied."""

        def resume(vcpu: Vcpu) -> None:
            vcpu.pending = None
            flush()

        copying_ns = self.kernel.write_back(
            caller.device, of, lambda: self.wake(caller, self.clock.now, resume)
        )
        if copying_ns is not None:
            self.after(caller, copying_ns, flush if copying_ns else nothing)

    def returned(self, vcpu: Vcpu, success: bool, again: Callable[[], None]) -> None:
        """A sync call returned to this vCPU; what it does if that failed. Reading: a panic stops
        the vCPUs of the call at once, the others with the instant."""
        reaction = "give-up" if success else self.spec.on_sync_error
        if reaction != "panic" and self.kernel.aborted(vcpu.device) is not None:
            reaction = "give-up"
        if reaction == "panic":
            self.clock.end = self.clock.now
        elif reaction == "retry":

            def resume(vcpu: Vcpu) -> None:
                vcpu.pending = None
                if self.kernel.aborted(vcpu.device) is None:
                    again()
                else:
                    self.release(vcpu)

            self.wake(vcpu, self.clock.now, resume)
        else:
            if reaction == "rewrite":
                self.rewind(vcpu)
            self.release(vcpu)

    def acknowledge(self, vcpu: Vcpu, records: list[tuple[int, int]], instant: int) -> None:
        super().acknowledge(vcpu, records, instant)
        if records:
            vcpu.acknowledged = records[-1][1]

    def rewind(self, vcpu: Vcpu) -> None:
        """Back to the first write behind the last acknowledged record. Reading: operations between
        the two are not done again, and if that write is still to come the vCPU just goes on."""
        number = vcpu.first_write
        for position, item in enumerate(vcpu.program[: vcpu.position]):
            if isinstance(item, Write | FlushedWrite):
                if number > vcpu.acknowledged:
                    vcpu.position, vcpu.next_write = position, number
                    vcpu.record_first = None
                    return
                number += 1

    def group_sync(self, vcpu: Vcpu, item: GroupSync) -> None:
        self.block(vcpu)
        group = self.groups[vcpu.device]
        if group is None:
            self.lead(vcpu, item, [(vcpu, item)])
        elif group.began:
            self.group_waits[vcpu.device].append((vcpu, item))
        else:
            group.members.append((vcpu, item))

    def lead(self, vcpu: Vcpu, item: GroupSync, members: list[tuple[Vcpu, GroupSync]]) -> None:
        group = Group(vcpu, item.call, members)
        self.groups[vcpu.device] = group
        self.after(vcpu, item.delay_ns, lambda: self.begin_group(group))

    def begin_group(self, group: Group) -> None:
        group.began = True
        device = group.leader.device

        def then(success: bool) -> None:
            self.groups[device] = None
            waiting, self.group_waits[device] = self.group_waits[device], []
            if waiting:
                self.lead(*waiting[0], waiting)
            for vcpu, item in group.members:
                self.returned(vcpu, success, partial(self.group_sync, vcpu, item))

        served = [vcpu for vcpu, _ in group.members]
        self.call_sync(served, group.leader, group.call, None, then)

    # --- recorded writes ------------------------------------------------------------------------

    def flushed_write(self, vcpu: Vcpu, item: FlushedWrite) -> None:
        """Rule G7: the order of data, preflush and FUA flush is the driver's."""
        driver, device, number = self.spec.driver, vcpu.device, vcpu.number
        due = self.clock.now + item.think_ns
        flushless = self.outcome.devices[device].flushless
        if driver == "ordered" and item.preflush and not flushless:
            self.after(vcpu, item.think_ns, lambda: self.preflush(vcpu, item))
            return
        count = 0 if flushless else int(item.preflush) + int(item.fua)
        flush = self.flushes.together if driver == "concurrent" else self.flushes.one_after_another
        if count:
            vcpu.then = partial(self.flush_recorded, vcpu, partial(flush, device, number, count))
        self.plan_write(vcpu, item, due)

    def preflush(self, vcpu: Vcpu, item: FlushedWrite) -> None:
        """`ordered`: a failed preflush fails the request before its data is copied (G7)."""
        self.block(vcpu)

        def done(success: bool) -> None:
            if not success:
                self.outcome.failed_syncs += 1
                vcpu.next_write += 1
            else:
                vcpu.then = lambda: self.copy_recorded(vcpu, item)
            self.release(vcpu)

        self.flushes.ask(vcpu.device, vcpu.number, done)

    def copy_recorded(self, vcpu: Vcpu, item: FlushedWrite) -> None:
        if item.fua:
            ask = partial(self.flushes.ask, vcpu.device, vcpu.number)
            vcpu.then = partial(self.flush_recorded, vcpu, ask)
        self.plan_write(vcpu, item, self.clock.now)

    def flush_recorded(self, vcpu: Vcpu, flush: Callable[[Done], None]) -> None:
        """Reading: a recorded flush is no sync call, so `on_sync_error` does not look at it."""
        self.block(vcpu)

        def done(success: bool) -> None:
            self.outcome.failed_syncs += not success
            self.release(vcpu)

        flush(done)

    # --- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """The run is over: a store in progress counts whole, a wait up to here."""
        end = self.clock.now
        for vcpu in self.vcpus:
            begun = vcpu.begun
            if begun is not None:
                self.landed(vcpu)
                if begun.pause_ns:
                    self.outcome.guest_wait_ns += max(0, end - begun.last_word - 1)
            if vcpu.blocked_since is not None:
                self.outcome.guest_wait_ns += end - vcpu.blocked_since
