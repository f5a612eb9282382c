"""Small random worlds for Hypothesis: few pages, few writes, and times short enough to collide.

`worlds()` mixes two scales: nanoseconds to milliseconds, where flusher, background writeback and
fsyncs run into each other, and seconds, where journals commit on whole seconds. Ticks are of the
same order as what happens, and often those of host and guest are the same, so that timers fire at
instants that meet. A fault always costs at least 1 ns: with free faults a vCPU can store at the
very instant of a snapshot after it, where only the order of events says whether the page is dirty.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.oracle.inputs import (
    CALLS,
    DRIVERS,
    FILE_SYSTEMS,
    FLUSHER_PHASES,
    PAGE_BYTES,
    FlushedWrite,
    GroupSync,
    Item,
    Mark,
    OracleDevice,
    OracleDisk,
    OracleGuest,
    OracleHost,
    OracleWorld,
    Program,
    Sync,
    SyncIfDue,
    Write,
)
from tests.oracle.oddities import awake, oddities

SECOND = 10**9
FAST_NS = (0, 0, 1, 5, 40, 300, 1000, 2500)
SLOW_NS = (0, 0, 7, 10**6, 4 * 10**8, SECOND, 3 * SECOND)
INSIDE = (0, 0, 1, 7, 8, 13, 64, 4080, 4088, 4093, 4095)
LENGTHS = (1, 3, 8, 8, 9, 16, 16, 40, 120, 700)


def durations(slow: bool) -> st.SearchStrategy[int]:
    return st.sampled_from(SLOW_NS if slow else FAST_NS)


@st.composite
def places(draw: st.DrawFn, device_pages: int) -> tuple[int, int]:
    """(offset, length) inside the device, often across a page's end."""
    offset = draw(st.integers(0, device_pages - 1)) * PAGE_BYTES + draw(st.sampled_from(INSIDE))
    length = draw(st.sampled_from(LENGTHS))
    return offset, min(length, device_pages * PAGE_BYTES - offset)


@st.composite
def writes(draw: st.DrawFn, device_pages: int, slow: bool) -> Write:
    offset, length = draw(places(device_pages))
    return Write(offset, length, draw(durations(slow)), draw(st.booleans()))


@st.composite
def flushed_writes(draw: st.DrawFn, device_pages: int, slow: bool) -> FlushedWrite:
    offset, length = draw(places(device_pages))
    think = draw(durations(slow))
    return FlushedWrite(offset, length, think, draw(st.booleans()), draw(st.booleans()))


def syncs(slow: bool) -> st.SearchStrategy[Item]:
    calls = st.sampled_from(CALLS)
    of_groups = st.sampled_from([call for call in CALLS if call != "sync_file_range"])
    return st.one_of(
        st.builds(Sync, calls, durations(slow), st.booleans()),
        st.builds(SyncIfDue, durations(slow), calls, st.booleans()),
        st.builds(GroupSync, durations(slow), of_groups),
    )


def programs(device_pages: int, slow: bool, recorded: bool) -> st.SearchStrategy[Program]:
    stores = writes(device_pages, slow)
    if recorded:
        marks = st.builds(Mark, st.sampled_from("abc"), durations(slow))
        plain = stores.map(lambda write: Write(write.offset, write.length, write.think_ns))
        items = st.one_of(plain, flushed_writes(device_pages, slow), marks, syncs(slow))
    else:
        items = st.one_of(stores, stores, syncs(slow))
    return st.lists(items, max_size=9).map(tuple)


def ticks(slow: bool) -> st.SearchStrategy[int]:
    return st.sampled_from((0, 4_000_000, 10**8, 7 * 10**8) if slow else (0, 0, 1, 64, 1000))


def second_phases() -> st.SearchStrategy[int]:
    return st.sampled_from((0, 1, 250_000_000, 999_999_999))


def commit_intervals(slow: bool) -> st.SearchStrategy[int]:
    return st.sampled_from((0, 1, 4 * 10**8, 5 * SECOND) if slow else (0, 300, 1000, 2500))


@st.composite
def hosts(draw: st.DrawFn, slow: bool) -> OracleHost:
    unit = SECOND if slow else 1000
    background = draw(st.integers(5, 50))
    errors = draw(st.lists(st.integers(0, 20 * unit), max_size=2))
    return OracleHost(
        fault_ns=draw(st.sampled_from((1, 10, 100))),
        memory_bytes=draw(st.sampled_from((10, 20, 1000))) * PAGE_BYTES,
        background_ratio=background,
        dirty_ratio=draw(st.integers(background, 90)),
        writeback_ns=draw(st.sampled_from((0, 1, 1, 5))) * unit,
        expire_ns=draw(st.sampled_from((1, unit // 2, unit, 3 * unit, 30 * unit))),
        early=draw(st.sampled_from((None, None, (unit, 1, 2), (700 * unit // 1000, 1, 5)))),
        fsync_errors=tuple(sorted(errors)),
        tick_ns=draw(ticks(slow)),
        second_phase_ns=draw(second_phases()),
        commit_interval_ns=draw(commit_intervals(slow)),
        flusher_phase=draw(st.sampled_from(FLUSHER_PHASES)),
        file_system=draw(st.sampled_from(FILE_SYSTEMS)),
        fsync_resets_age=draw(st.booleans()),
    )


@st.composite
def guests(draw: st.DrawFn, slow: bool, recorded: bool, tick_of_host_ns: int) -> OracleGuest:
    ext4 = draw(st.booleans()) and not recorded
    to_memory = ("dax", "direct") if ext4 else ("direct", "direct", "devdax")
    accesses = to_memory[:1] if recorded else (*to_memory * 2, "cached", "cached")
    return OracleGuest(
        driver=draw(st.sampled_from(DRIVERS)),
        access=draw(st.sampled_from(accesses)),
        ext4=ext4,
        acknowledge=draw(st.sampled_from(("immediate", "synced"))),
        tick_ns=draw(st.one_of(st.just(tick_of_host_ns), ticks(slow))),
        second_phase_ns=draw(second_phases()),
        commit_interval_ns=draw(commit_intervals(slow)),
        journal_pages=draw(st.sampled_from((0, 1, 4))),
    )


def disks() -> st.SearchStrategy[OracleDisk]:
    return st.builds(
        OracleDisk,
        bandwidth=st.sampled_from((10**9, 10**10, 40_960_000_000, 10**12)),
        flush_ns=st.sampled_from((1, 100, 1000, 20_000)),
        plp=st.booleans(),
        fua=st.booleans(),
        ignores_flush=st.sampled_from((False, False, False, True)),
    )


@st.composite
def worlds(draw: st.DrawFn, new: bool = False) -> OracleWorld:
    """With `new` also what people really run and what fails there (`tests/oracle/oddities.py`)."""
    slow = draw(st.booleans())
    recorded = draw(st.sampled_from((False, False, True)))
    devices = []
    for _ in range(draw(st.integers(1, 2))):
        device_pages = draw(st.integers(1, 6))
        vcpus = draw(st.lists(programs(device_pages, slow, recorded), min_size=1, max_size=3))
        devices.append(OracleDevice(device_pages, tuple(vcpus), grows=draw(st.booleans())))
    host = draw(hosts(slow))
    duration = draw(st.sampled_from((None, None, 30, 4000, 60_000)))
    if duration is None and awake(host):
        duration = 100_000  # a throttled run of seconds would see millions of passes
    if slow and duration is not None:
        duration *= 10**6
    guest = draw(guests(slow, recorded, host.tick_ns))
    world = OracleWorld(
        tuple(devices), host, draw(disks()), guest, draw(st.integers(0, 2**64 - 1)), duration
    )
    return draw(oddities(world, slow)) if new else world
