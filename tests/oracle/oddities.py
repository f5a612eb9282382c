"""The rarer half of a random world: other monitors, memory, devices and reactions, and faults.

Each is drawn for a small share of worlds, so that most of them stand alone and some meet.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.oracle.inputs import (
    CACHES,
    MONITORS,
    ON_SYNC_ERROR,
    PAGE_BYTES,
    THP,
    FlushedWrite,
    Folio,
    Mark,
    OracleDevice,
    OracleDisk,
    OracleFault,
    OracleGuest,
    OracleHost,
    OracleLimiter,
    OracleWorld,
    Program,
    Sync,
    Write,
)


def seldom(draw: st.DrawFn, one_in: int = 4) -> bool:
    return draw(st.sampled_from((False,) * (one_in - 1) + (True,)))


def instants(slow: bool, most: int = 2) -> st.SearchStrategy[tuple[int, ...]]:
    unit = 10**6 if slow else 1
    at = st.one_of([st.integers(0, last * unit) for last in (0, 1500, 20_000)])
    return st.lists(at, min_size=1, max_size=most).map(lambda many: tuple(sorted(many)))


@st.composite
def faults(draw: st.DrawFn, slow: bool) -> OracleFault:
    share = draw(st.sampled_from(((0, 1), (1, 1), (1, 3))))
    return OracleFault(share, draw(st.one_of(st.just(()), instants(slow))))


@st.composite
def deaths(draw: st.DrawFn, slow: bool) -> OracleFault:
    """At an instant, by chance, or whichever comes first."""
    share = draw(st.sampled_from(((0, 1), (1, 20), (1, 4))))
    return OracleFault(
        share, draw(instants(slow, 1)) if share[0] == 0 or draw(st.booleans()) else ()
    )


@st.composite
def limiters(draw: st.DrawFn, slow: bool) -> OracleLimiter:
    """Buckets that are empty soon, whose tokens come before, with and after the end of a stop, and
    at instants that are rounded."""
    refill = (1000, 10**8, 7 * 10**8 + 1) if slow else (100, 1001, 3 * 10**8, 10**8 - 1)
    return OracleLimiter(
        ops=draw(st.sampled_from((1, 1, 2, 3))),
        refill_ns=draw(st.sampled_from(refill)),
        burst=draw(st.sampled_from((0, 0, 0, 1, 2))),
    )


@st.composite
def limited(draw: st.DrawFn, device: OracleDevice, slow: bool) -> OracleDevice:
    """With some flushes more, so that tokens run out."""
    if device.kind != "virtio-pmem":
        return device
    more = tuple(program + (Sync(),) * 2 for program in device.vcpus)
    return replace(device, rate_limiter=draw(limiters(slow)), vcpus=more)


def awake(host: OracleHost) -> bool:
    """Whether its passes go on for ever."""
    return host.early is not None or (host.flusher_phase != "idle" and host.writeback_ns > 0)


@st.composite
def folios(draw: st.DrawFn, pages: int) -> Folio:
    """One size, two, or what a monitor makes of it; a device's size is no multiple of many."""
    sizes = st.sampled_from((1, 2, 4, 8)).map(lambda pages: pages * PAGE_BYTES)
    if seldom(draw):
        return "auto"
    if pages > 1 and draw(st.booleans()):
        until = draw(st.integers(1, pages - 1)) * PAGE_BYTES
        return ((draw(sizes), until), (draw(sizes), pages * PAGE_BYTES))
    return draw(sizes)


@st.composite
def odd_devices(draw: st.DrawFn, device: OracleDevice, dax: bool, slow: bool) -> OracleDevice:
    recorded = any(isinstance(item, FlushedWrite | Mark) for one in device.vcpus for item in one)
    if seldom(draw):
        device = replace(device, backing=draw(st.sampled_from(("private", "tmpfs", "ram"))))
    elif seldom(draw, 2):
        kinds = ["nvdimm"] + ["real-nvdimm"] * dax + ["virtio-blk"] * 6 * (not recorded)
        kind, cache = draw(st.sampled_from(kinds)), draw(st.sampled_from(CACHES))
        device = replace(device, kind=kind, cache=cache)
    if seldom(draw):
        device = replace(device, extents=draw(st.sampled_from(("unwritten", "sparse"))))
    if seldom(draw, 2):
        device = replace(device, folio=draw(folios(device.pages)))
    if seldom(draw, 8):
        device = replace(device, prealloc=True)
    if seldom(draw, 8):
        device = replace(device, discard_data=True)
    if seldom(draw, 8):
        device = replace(device, plug_ns=draw(st.integers(1, 2 * 10**9 if slow else 2000)))
    return device


@st.composite
def odd_hosts(draw: st.DrawFn, host: OracleHost, slow: bool) -> OracleHost:
    if seldom(draw, 2):
        host = replace(host, monitor=draw(st.sampled_from(list(MONITORS))))
    if seldom(draw):
        host = replace(host, queue=draw(st.integers(1, 3)))
    if seldom(draw):
        host = replace(host, write_errors=draw(instants(slow)))
    if seldom(draw):
        host = replace(host, kernel=draw(st.sampled_from(("5.17", "5.18", "6.15", "6.16"))))
    if seldom(draw, 6):
        host = replace(host, thp=draw(st.sampled_from(THP)))
    return host


@st.composite
def odd_disks(draw: st.DrawFn, disk: OracleDisk, slow: bool) -> OracleDisk:
    if seldom(draw):
        disk = replace(disk, ignored_flush=draw(faults(slow)))
    if seldom(draw):
        disk = replace(disk, shorn=draw(faults(slow)))
    if seldom(draw):
        disk = replace(disk, corrupted=draw(faults(slow)))
    if seldom(draw, 6):
        disk = replace(disk, dead=draw(deaths(slow)))
    return disk


def whole_records(program: Program) -> Program:
    """Each write a record, so that "behind the last record" and "behind the last successful sync"
    are one place."""
    return tuple(
        replace(item, ends_record=True) if isinstance(item, Write) else item for item in program
    )


@st.composite
def oddities(draw: st.DrawFn, world: OracleWorld, slow: bool) -> OracleWorld:
    """The same world with some of the rarer things in it."""
    guest: OracleGuest = world.guest
    to_memory = guest.access != "cached"
    devices = [draw(odd_devices(device, to_memory, slow)) for device in world.devices]
    recorded = any(
        isinstance(item, FlushedWrite | Mark)
        for device in devices
        for program in device.vcpus
        for item in program
    )
    host = draw(odd_hosts(world.host, slow))
    if seldom(draw, 2) and not recorded and guest.access != "devdax":
        guest = replace(guest, on_sync_error=draw(st.sampled_from(ON_SYNC_ERROR[1:])))
        host = replace(host, fsync_errors=draw(instants(slow)))
    if guest.on_sync_error == "rewrite":
        guest = replace(guest, acknowledge="synced")
        devices = [
            replace(device, vcpus=tuple(whole_records(program) for program in device.vcpus))
            for device in devices
        ]
    if guest.on_sync_error in ("retry", "rewrite"):
        devices = [
            replace(device, backing="file" if device.backing == "ram" else device.backing)
            for device in devices
        ]
    if seldom(draw, 5):
        host = replace(host, free_bytes=draw(st.integers(0, 2 * PAGE_BYTES)))
        devices = [replace(device, extents="sparse") for device in devices]
    disk, duration = draw(odd_disks(world.disk, slow)), world.duration_ns
    if MONITORS[host.monitor].limits_rate and not seldom(draw):
        devices = [draw(limited(device, slow)) for device in devices]
        if not awake(host) and draw(st.booleans()):
            duration = None  # a stop is longer than most runs
    if disk.may_die and guest.on_sync_error in ("retry", "rewrite"):
        # Such a guest asks a dead disk until the end: an instant, so that the end is soon after.
        at = draw(instants(slow, 1))
        disk = replace(disk, dead=OracleFault(at=at), flush_ns=max(disk.flush_ns, 100))
        duration = min(at[0] + 2000, duration or at[0] + 2000)
    return replace(
        world,
        devices=tuple(devices),
        host=host,
        disk=disk,
        guest=guest,
        duration_ns=duration,
    )
