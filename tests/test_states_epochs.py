"""Epochs against cutting at every instant at which anything happens."""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from crashsim.engine.pages import PAGE_BYTES
from crashsim.power.per_write import broken_promises, rows_safe
from crashsim.power.safety import Safety, Stage
from crashsim.replay.image import Extents
from crashsim.replay.survivors import surviving
from crashsim.states import Epoch, HostKind, Rules, Space, Walker
from tests.against_oracle import comparable, simulate_world
from tests.oracle import (
    OracleDevice,
    OracleDisk,
    OracleGuest,
    OracleHost,
    OracleWorld,
    Sync,
    Write,
)
from tests.oracle.inputs import Item
from tests.oracle.worlds import worlds
from tests.states_slowly import Letters, Slowly

HOSTS: tuple[HostKind, ...] = ("any-host", "this-host")
MORE = os.environ.get("CRASHSIM_EXAMPLES")


def programs() -> st.SearchStrategy[tuple[Item, ...]]:
    """Stores that meet in a few sectors, and syncs among them."""
    offset = st.sampled_from((0, 0, 0, 8, 13, 500, 512, 3900))
    length = st.sampled_from((3, 8, 8, 24, 500, 512, 700, 700))
    think = st.sampled_from((0, 0, 0, 1, 30, 200))
    write = st.builds(Write, offset, length, think, st.booleans())
    sync = st.builds(Sync, st.sampled_from(("msync", "msync", "fsync")), think)
    return st.lists(st.one_of(write, write, write, sync), min_size=1, max_size=6).map(tuple)


@st.composite
def crowded_worlds(draw: st.DrawFn) -> OracleWorld:
    vcpus = draw(st.lists(programs(), min_size=2, max_size=3))
    host = OracleHost(
        fault_ns=1,
        writeback_ns=draw(st.sampled_from((0, 100, 400))),
        expire_ns=draw(st.sampled_from((1, 300))),
        fsync_errors=draw(st.sampled_from(((), (), (500,)))),
    )
    disk = OracleDisk(
        bandwidth=draw(st.sampled_from((10**10, 10**12))),
        flush_ns=draw(st.sampled_from((1, 300, 2000))),
        plp=draw(st.booleans()),
        fua=draw(st.booleans()),
    )
    guest = OracleGuest(
        driver=draw(st.sampled_from(("concurrent", "serialized"))),
        access=draw(st.sampled_from(("direct", "direct", "cached"))),
        acknowledge=draw(st.sampled_from(("immediate", "synced"))),
    )
    seed, until = draw(st.integers(0, 99)), draw(st.sampled_from((None, 3000)))
    return OracleWorld((OracleDevice(2, tuple(vcpus)),), host, disk, guest, seed, until)


def contents(
    epoch: Epoch, image: memoryview, atoms: list[int], unit: int
) -> dict[int, list[bytes]]:
    """All that each atom may hold in full, the guaranteed content first."""
    found = {atom: [bytes(image[atom : atom + unit])] for atom in atoms}
    for atom in epoch.atoms:
        for version in atom.versions[1:]:
            whole = bytearray(found[atom.offset][0])
            at = atom.start - atom.offset
            whole[at : at + len(version)] = version
            found[atom.offset].append(bytes(whole))
    return found


@given(
    st.one_of(crowded_worlds(), crowded_worlds(), worlds()),
    st.sampled_from((8, 512, 512, 4096)),
    st.sampled_from((1, 2, 250)),
    st.sampled_from(HOSTS),
)
@settings(
    max_examples=int(MORE or 150),
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_the_epochs_hold_the_states_of_every_instant_and_no_others(
    drawn: OracleWorld, unit: int, letters: int, host: HostKind
) -> None:
    history = simulate_world(comparable(drawn))
    content = Letters(letters)
    for device in range(len(history.devices)):
        before = (bytes(range(1, 200)) * 50)[: history.devices[device].pages * PAGE_BYTES]
        space = Space(history, content, memoryview(before), device, Rules(host, unit))
        space._check()
        slowly = Slowly(history, content, before, device, unit)
        possible = slowly.this_host if host == "this-host" else slowly.any_host
        epochs = list(space.epochs())
        walker = Walker(space)
        image = walker.view
        event(f"epochs: {min(len(epochs), 4)}")
        event(f"raced: {bool(space._raced.size)}")
        event(f"without DAX: {not history.info.dax}")
        event(f"divided: {len(set(history.store_write.tolist())) < history.store_write.size}")
        for epoch in epochs:
            walker.enter(epoch)
            sets = contents(epoch, image, slowly.atoms, unit)
            cut = possible(epoch.cut_ns)
            assert {atom: held[0] for atom, held in sets.items()} == {
                atom: held[0] for atom, held in cut.items()
            }
            for atom, held in sets.items():
                assert len(held) == len(set(held))
                assert set(held) == set(cut[atom])
            assert epoch.acks == slowly.acks(epoch.cut_ns)
            for t in slowly.instants():
                if epoch.first_ns <= t <= epoch.cut_ns:
                    assert slowly.acks(t) <= epoch.acks
                    for atom, held in possible(t).items():
                        assert held[0] == sets[atom][0]
                        assert set(held) <= set(sets[atom])


def image_of(extents: Extents, content: Letters, size_bytes: int) -> bytearray:
    image = bytearray(size_bytes)
    columns = (extents.offset, extents.write, extents.start, extents.end)
    for offset, write, start, end in zip(*(c.tolist() for c in columns), strict=True):
        image[offset : offset + end - start] = content.of(write, start, end)
    return image


@given(crowded_worlds())
@settings(max_examples=int(MORE or 60), derandomize=MORE is None, database=None, deadline=None)
def test_what_a_replay_leaves_is_a_state_of_this_host_and_each_of_those_one_of_any_host(
    drawn: OracleWorld,
) -> None:
    history = simulate_world(comparable(drawn))
    history = replace(history, info=replace(history.info, stable_writes=True))
    # this host's states are those of whole snapshots
    content = Letters(250)
    spaces = [Space(history, content, None, 0, Rules(host)) for host in HOSTS]
    size_bytes = spaces[0].size_bytes
    broken = broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])
    walkers = [Walker(space) for space in spaces]
    images = [walker.view for walker in walkers]
    sectors = list(range(0, size_bytes, 512))
    for epoch in spaces[1].epochs():
        cut = epoch.cut_ns
        walkers[1].enter(epoch)
        this_host = contents(epoch, images[1], sectors, 512)
        for survivors in ("none", "all", "1", "2", "3", "4"):
            left = image_of(surviving(history, Stage.DURABLE, cut, survivors), content, size_bytes)
            found = [left[sector : sector + 512] for sector in sectors]
            assert all(held in this_host[at] for held, at in zip(found, sectors, strict=True))
            if survivors == "none":
                assert left == images[1]
        if not broken[0].size:
            wider = next(e for e in spaces[0].epochs() if e.first_ns <= cut <= e.cut_ns)
            walkers[0].enter(wider)
            any_host = contents(wider, images[0], sectors, 512)
            assert all(set(this_host[at]) <= set(any_host[at]) for at in sectors)


@given(crowded_worlds())
@settings(max_examples=int(MORE or 60), derandomize=MORE is None, database=None, deadline=None)
def test_H4_what_a_replay_leaves_of_pages_that_change_under_io_is_a_state_of_words_of_any_host(
    drawn: OracleWorld,
) -> None:
    history = simulate_world(comparable(drawn))
    if broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])[0].size:
        return  # any host keeps them
    content = Letters(250)
    space = Space(history, content, None, 0, Rules("any-host", 8))
    walker, words = Walker(space), list(range(0, space.size_bytes, 8))
    image = walker.view
    for epoch in space.epochs():
        walker.enter(epoch)
        held = contents(epoch, image, words, 8)
        for seed in ("1", "2", "3"):
            extents = surviving(history, Stage.DURABLE, epoch.cut_ns, seed)
            left = image_of(extents, content, space.size_bytes)
            assert all(bytes(left[at : at + 8]) in held[at] for at in words)
