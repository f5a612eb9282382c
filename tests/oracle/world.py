"""One run of the oracle: the parts wired together, from time 0 to the end."""

from __future__ import annotations

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
)
from tests.oracle.kernel import Kernel
from tests.oracle.layers import Layers
from tests.oracle.outcome import FlushRequest, Outcome, WriteInput


def run(world: OracleWorld) -> Outcome:
    """Everything that happens in this world. ValueError if the model does not describe it."""
    check(world)
    bases = [0]
    for device in world.devices:
        bases.append(bases[-1] + device.pages * PAGE_BYTES)
    outcome = Outcome(list_writes(world, bases), Layers(), world.disk.plp, device_base=bases[:-1])
    clock = Clock(world.duration_ns)
    disk = Disk(world.disk, world.seed, clock, outcome)
    sizes = [device.pages for device in world.devices]
    host = Host(world.host, world.seed, sizes, clock, disk, outcome)
    flushes = Flushes(world.guest.driver, len(sizes), clock, host, outcome)
    kernel = Kernel(world.guest, host, flushes, clock, outcome)
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
