"""One run of the oracle: the parts wired together, from time 0 to the end."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.cache import HostFull
from tests.oracle.clock import Clock
from tests.oracle.device import Flushes
from tests.oracle.disk import Disk
from tests.oracle.guest import Guest
from tests.oracle.host import Host
from tests.oracle.inputs import (
    PAGE_BYTES,
    FlushedWrite,
    OracleWorld,
    Write,
    check,
    first_pages,
    resolved,
)
from tests.oracle.kernel import Kernel
from tests.oracle.layers import Layers
from tests.oracle.outcome import FlushRequest, Outcome, WriteInput


def run(world: OracleWorld) -> Outcome:
    """Everything that happens in this world. ValueError if the model does not describe it.

    Rule V6: a run that finds the host full at T is the run that ends at T - 1."""
    world = resolved(world)
    check(world)
    try:
        return run_until_full(world)
    except HostFull as full:
        outcome = run_until_full(replace(world, duration_ns=full.instant - 1))
        outcome.killed_ns = full.instant
        return outcome


def run_until_full(world: OracleWorld) -> Outcome:
    bases = [first * PAGE_BYTES for first in first_pages(world.devices)]
    outcome = Outcome(
        list_writes(world, bases),
        Layers(),
        world.disk.plp,
        world.devices,
        device_base=bases,
    )
    clock = Clock(world.duration_ns)
    disk = Disk(world.disk, world.host.write_errors, world.seed, clock, outcome)
    host = Host(world.host, world.seed, clock, disk, outcome)
    flushes = Flushes(world.guest.driver, clock, host, outcome)
    kernel = Kernel(world.guest, world.seed, host, flushes, clock, outcome)
    programs = [(d, program) for d, device in enumerate(world.devices) for program in device.vcpus]
    guest = Guest(world.guest, programs, kernel, host, flushes, clock, outcome)
    host.guest = guest
    kernel.vcpus = guest

    def end_of_instant() -> None:
        kernel.end_of_instant()
        host.end_of_instant()

    outcome.end_ns = clock.run(end_of_instant)
    clock.now = outcome.end_ns
    guest.finish()
    outcome.unfired_errors = host.errors
    tidy(outcome)
    return outcome


def list_writes(world: OracleWorld, bases: list[int]) -> list[WriteInput]:
    writes: list[WriteInput] = []
    vcpu = 0
    for number, device in enumerate(world.devices):
        for program in device.vcpus:
            for item in program:
                if isinstance(item, Write | FlushedWrite):
                    address = bases[number] + item.offset
                    writes.append(WriteInput(len(writes), number, vcpu, address, item.length))
            vcpu += 1
    return writes


def tidy(outcome: Outcome) -> None:
    """The lists in their documented order; what an instant beyond the end would say is left out."""
    end = outcome.end_ns
    outcome.stores.sort(key=lambda store: (store.begin, store.vcpu))
    outcome.acknowledgements = sorted(
        (ack for ack in outcome.acknowledgements if ack.instant <= end),
        key=lambda ack: (ack.instant, ack.vcpu),
    )
    outcome.pauses = sorted(
        (pause for pause in outcome.pauses if pause.instant <= end),
        key=lambda pause: (pause.instant, pause.vcpu),
    )
    outcome.ios.sort(key=lambda io: (io.completed, io.first_page))
    outcome.flush_requests.sort(key=asked)


def asked(request: FlushRequest) -> tuple[int, int]:
    return request.asked, request.device
