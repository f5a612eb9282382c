"""The calculated loss against two real files, and rebuilt images against the oracle's layers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashsim.engine.history import History
from crashsim.power.at_risk import at_risk
from crashsim.power.safety import Safety, Stage
from crashsim.replay.image import Extents, certain
from crashsim.replay.survivors import surviving
from crashsim.replay.versions import TwoFiles
from tests.against_oracle import comparable, simulate_world
from tests.oracle import OracleDevice, OracleDisk, OracleHost, OracleWorld, Sync, Write, run
from tests.oracle.worlds import worlds

FILES = {
    "host": Stage.IN_HOST,
    "submitted": Stage.SUBMITTED,
    "completed": Stage.COMPLETED,
    "durable": Stage.DURABLE,
}
FEWER_WORLDS = settings(
    max_examples=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def disagreements(history: History, keep: str) -> list[tuple[int, int, int]]:
    """(instant, calculated, compared) wherever the two differ, at every instant of change."""
    risk = at_risk(history, Safety(history, FILES[keep]))
    columns = [history.store_t_ns, history.copy_t_ns, history.batch_t_ns]
    columns += [history.io_complete_ns, history.flush_disk_end_ns, risk.instants]
    instants = np.unique(np.concatenate(columns))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = TwoFiles(history, keep, Path(folder))
        for instant in instants[instants <= history.end_ns].tolist():
            compared = files.advance(instant)
            if compared != risk.at(instant):
                found.append((instant, risk.at(instant), compared))
        files.close()
    return found


@pytest.mark.parametrize("keep", FILES)
@given(world=worlds())
@FEWER_WORLDS
def test_the_calculated_loss_is_what_two_files_differ_in_at_every_instant_of_change(
    keep: str, world: OracleWorld
) -> None:
    assert disagreements(simulate_world(comparable(world)), keep) == []


def shown(extents: Extents) -> dict[int, int]:
    """Address -> the write whose byte an image shows."""
    view: dict[int, int] = {}
    columns = (extents.offset, extents.write, extents.start, extents.end)
    for offset, write, start, end in zip(*(c.tolist() for c in columns), strict=True):
        assert not view.keys() & set(range(offset, offset + end - start)), "extents overlap"
        view.update(dict.fromkeys(range(offset, offset + end - start), write))
    return view


@given(drawn=worlds(), data=st.data())
@FEWER_WORLDS
def test_a_rebuilt_image_shows_the_writes_that_the_oracles_layer_holds(
    drawn: OracleWorld, data: st.DataObject
) -> None:
    world = comparable(drawn)
    outcome, history = run(world), simulate_world(world)
    layers = {Stage.STORED: "L0", Stage.IN_HOST: "L2", Stage.SUBMITTED: "L3"}
    layers |= {Stage.COMPLETED: "L4", Stage.DURABLE: "L4" if world.disk.plp else "L5"}
    times = {0, outcome.end_ns, *(change.instant for change in outcome.layers.changes)}
    inside = sorted(instant for instant in times if instant <= outcome.end_ns)
    cut = data.draw(st.sampled_from(inside))
    for stage, layer in layers.items():
        assert shown(certain(history, stage, cut, whole=True)) == outcome.layers.view(cut, layer)


def versions(history: History, cut: int) -> dict[int, set[int | None]]:
    """For each byte what the rules let a power cut leave: the certain version, and every later one
    that was submitted by then."""
    certain_view = shown(certain(history, Stage.DURABLE, cut))
    allowed: dict[int, set[int | None]] = {}
    for instant in [-1, *history.batch_t_ns[history.batch_t_ns <= cut].tolist()]:
        sent = {} if instant < 0 else shown(certain(history, Stage.SUBMITTED, instant))
        for byte in shown(certain(history, Stage.SUBMITTED, cut)):
            allowed.setdefault(byte, {certain_view.get(byte)})
            if _not_older(history, sent.get(byte), certain_view.get(byte)):
                allowed[byte].add(sent.get(byte))
    return allowed


def _not_older(history: History, write: int | None, certain_write: int | None) -> bool:
    if certain_write is None or write is None:
        return certain_write is None
    first: dict[int, int] = {
        w: i for i, w in reversed(list(enumerate(history.store_write.tolist())))
    }
    return first[write] >= first[certain_write]


@given(drawn=worlds(), seed=st.integers(0, 2**32), share=st.integers(0, 100))
@FEWER_WORLDS
def test_D2_a_seeded_image_shows_only_versions_that_the_rules_allow(
    drawn: OracleWorld, seed: int, share: int
) -> None:
    history = simulate_world(comparable(drawn))
    cut = history.end_ns * share // 100
    allowed = versions(history, cut)
    view = shown(surviving(history, Stage.DURABLE, cut, str(seed)))
    for byte in allowed.keys() | view.keys():
        assert view.get(byte) in allowed.get(byte, {None}), byte


@given(drawn=worlds(), share=st.integers(0, 100))
@FEWER_WORLDS
def test_none_and_all_are_the_two_ends_of_what_may_survive(drawn: OracleWorld, share: int) -> None:
    history = simulate_world(comparable(drawn))
    cut = history.end_ns * share // 100
    none = shown(surviving(history, Stage.DURABLE, cut, "none"))
    everything = shown(surviving(history, Stage.DURABLE, cut, "all"))
    assert none == shown(certain(history, Stage.DURABLE, cut))
    assert everything == shown(certain(history, Stage.SUBMITTED, cut))


def test_D3_a_page_in_flight_tears_at_sectors_and_never_inside_one() -> None:
    page = OracleDevice(1, ((Write(0, 4096), Sync("msync"), Write(0, 4096), Sync("msync")),))
    disk = OracleDisk(bandwidth=40_960_000_000, flush_ns=1000)
    history = simulate_world(OracleWorld((page,), OracleHost(fault_ns=10, writeback_ns=0), disk))
    cut = int(history.batch_t_ns[1]) + 50
    sectors = set()
    for seed in range(40):
        view = shown(surviving(history, Stage.DURABLE, cut, str(seed)))
        for sector in range(8):
            inside = {view.get(byte) for byte in range(sector * 512, sector * 512 + 512)}
            assert len(inside) == 1
        sectors.add(tuple(view.get(sector * 512) for sector in range(8)))
    assert (0,) * 8 in sectors and (1,) * 8 in sectors, "a page can be lost, and kept"
    assert any(len(set(page)) == 2 for page in sectors), "and torn"
