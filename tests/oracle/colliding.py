"""Random worlds in which two events are made to fall on one instant.

The world is run once; of two of its instants the earlier one's cause is then put off, or a setting
chosen, so that it falls on the later: a store on a flush or at a batch's end, a tick's boundary on
an event, a timer on an acknowledgement, the end of the run or a fault on anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st

from tests.oracle.inputs import (
    FlushedWrite,
    GroupSync,
    Item,
    OracleDevice,
    OracleFault,
    OracleWorld,
    Program,
    Sync,
    SyncIfDue,
    Write,
)
from tests.oracle.outcome import Outcome
from tests.oracle.world import run
from tests.oracle.worlds import worlds


def instants(outcome: Outcome) -> list[int]:
    """At which something happened, ascending, without 0."""
    found = {outcome.end_ns}
    found |= {store.begin for store in outcome.stores} | {copy.instant for copy in outcome.copies}
    found |= {batch.instant for batch in outcome.batches} | {io.completed for io in outcome.ios}
    for flush in outcome.disk_flushes:
        found |= {flush.issued, flush.ended}
    for request in outcome.flush_requests:
        found |= {request.asked, request.submitted or 0, request.acknowledged or 0}
    return sorted(instant for instant in found if 0 < instant <= outcome.end_ns)


def later(item: Item, by_ns: int) -> Item:
    match item:
        case Write() | FlushedWrite():
            return replace(item, think_ns=item.think_ns + by_ns)
        case Sync() | GroupSync():
            return replace(item, delay_ns=item.delay_ns + by_ns)
        case SyncIfDue():
            return replace(item, t_ns=item.t_ns + by_ns)
    return item


@st.composite
def put_off(draw: st.DrawFn, world: OracleWorld, by_ns: int) -> OracleWorld:
    """One item of some program comes so much later."""
    devices = list(world.devices)
    places = [
        (d, v, i)
        for d, device in enumerate(devices)
        for v, program in enumerate(device.vcpus)
        for i in range(len(program))
    ]
    if not places:
        return world
    d, v, i = draw(st.sampled_from(places))
    program: Program = devices[d].vcpus[v]
    program = (*program[:i], later(program[i], by_ns), *program[i + 1 :])
    vcpus = (*devices[d].vcpus[:v], program, *devices[d].vcpus[v + 1 :])
    devices[d] = replace(devices[d], vcpus=vcpus)
    return replace(world, devices=tuple(devices))


Change = Callable[[OracleWorld], OracleWorld]


def of_host(**changes: object) -> Change:
    return lambda world: replace(world, host=replace(world.host, **changes))  # type: ignore


def of_guest(**changes: object) -> Change:
    return lambda world: replace(world, guest=replace(world.guest, **changes))  # type: ignore


def of_disk(**changes: object) -> Change:
    return lambda world: replace(world, disk=replace(world.disk, **changes))  # type: ignore


def plugged(world: OracleWorld, at_ns: int) -> OracleWorld:
    last: OracleDevice = replace(world.devices[-1], plug_ns=at_ns)
    return replace(world, devices=(*world.devices[:-1], last))


def settings_for(at: int, since: int) -> list[Change]:
    """Each makes something happen at `at`, or `at - since` after something."""
    after = at - since
    return [
        lambda world: replace(world, duration_ns=at),
        lambda world: plugged(world, at),
        of_host(tick_ns=at),
        of_guest(tick_ns=at),
        of_host(tick_ns=after),
        of_guest(tick_ns=after),
        of_host(commit_interval_ns=after, tick_ns=0),
        of_guest(commit_interval_ns=after, tick_ns=0),
        of_host(expire_ns=after),
        of_host(writeback_ns=after, expire_ns=after, tick_ns=0, flusher_phase="idle"),
        of_host(fsync_errors=(at,)),
        of_host(write_errors=(at,)),
        of_disk(ignored_flush=OracleFault(at=(at,))),
        of_disk(corrupted=OracleFault(at=(at,))),
    ]


@st.composite
def colliding(draw: st.DrawFn) -> OracleWorld:
    world = draw(worlds(new=draw(st.booleans())))
    found = instants(run(world))
    if len(found) < 2:
        return world
    since, at = sorted(draw(st.lists(st.sampled_from(found), min_size=2, max_size=2, unique=True)))
    if draw(st.booleans()):
        return draw(put_off(world, at - since))
    return draw(st.sampled_from(settings_for(at, since)))(world)
