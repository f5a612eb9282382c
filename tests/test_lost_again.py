"""What a disk loses again (Rule D4): intervals against the bulk calculation and two real files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashsim.engine.history import NEVER, History
from crashsim.engine.streams import I64
from crashsim.experiment.profiles import DiskFaults, Fault
from crashsim.power import per_write
from crashsim.power.at_risk import at_risk
from crashsim.power.losses import Losses
from crashsim.power.media_loss import LostAgain, UnsafeAgain, joined
from crashsim.power.safety import Safety, Stage
from crashsim.replay.versions import TwoFiles
from crashsim.simulate.stack import simulate
from tests import against_oracle
from tests.against_oracle import comparable, simulate_world
from tests.oracle import OracleWorld
from tests.oracle.worlds import worlds

KEPT = {
    "submitted": Stage.SUBMITTED,
    "completed": Stage.COMPLETED,
    "durable": Stage.DURABLE,
}
WORLDS = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
NOTHING: I64 = np.empty(0, dtype=np.int64)


def disk_faults() -> st.SearchStrategy[DiskFaults]:
    damage = st.builds(
        Fault,
        share=st.sampled_from(((0, 1), (1, 3), (1, 1))),
        at=st.sampled_from(((), (), (200,))),
    )
    death = st.builds(
        Fault,
        share=st.sampled_from(((0, 1), (0, 1), (1, 8))),
        at=st.sampled_from(((), (), (700,), (2500,))),
    )
    return st.builds(DiskFaults, corrupted=damage, dead=death)


def of_no_page() -> LostAgain:
    """A loss that takes nothing, and comes after everything."""
    return LostAgain(*(np.array([column]) for column in (NEVER - 1, 0, 0, NEVER)))


def faulty(world: OracleWorld, faults: DiskFaults) -> History:
    world = comparable(world)
    plain = against_oracle.with_its_guest(world)
    disk = plain.disk.model_copy(update={"faults": faults})
    return simulate(plain.model_copy(update={"disk": disk}), against_oracle.programs(world))


@pytest.mark.parametrize("keep", KEPT)
@given(world=worlds(), faults=disk_faults())
@WORLDS
def test_D4_bytes_at_risk_are_what_two_files_differ_in_while_disks_damage_pages_and_die(
    keep: str, world: OracleWorld, faults: DiskFaults
) -> None:
    history = faulty(world, faults)
    risk = Losses(history, KEPT[keep]).at_risk
    columns = [history.store_t_ns, history.copy_t_ns, history.batch_t_ns, risk.instants]
    columns += [history.io_complete_ns, history.flush_disk_end_ns]
    columns += [np.array([history.info.dead_ns])]
    instants = np.unique(np.concatenate(columns))
    with tempfile.TemporaryDirectory() as folder:
        files = TwoFiles(history, keep, Path(folder))
        for instant in instants[instants <= history.end_ns].tolist():
            assert files.advance(instant) == risk.at(instant), instant
        files.close()


@given(world=worlds())
@WORLDS
def test_where_nothing_is_lost_again_intervals_say_what_the_bulk_calculation_says(
    world: OracleWorld,
) -> None:
    history = simulate_world(comparable(world))
    safety = Safety(history, Stage.DURABLE)
    first, last = per_write.rows_safe(history, safety)
    writes = per_write.write_safety(history, first, last)
    found = UnsafeAgain(history, safety, LostAgain(NOTHING, NOTHING, NOTHING, NOTHING), writes)
    end = history.end_ns
    if history.store_t_ns.size:
        assert_same(at_risk(history, safety, of_no_page()), at_risk(history, safety))
    assert_same(found.unsaved(), per_write.unsaved(writes))
    covered = per_write.acknowledgements_safe(history, writes)
    assert_same(found.uncovered(covered), per_write.uncovered(history, covered))
    plain, other = per_write.recovery_point(writes), found.recovery_point()
    for t in np.unique(np.concatenate([writes.begin_ns, plain.end, other.end])).tolist():
        for instant in (t - 1, t, t + 1):
            assert plain.at(instant) == other.at(instant)
    assert found.holes(end).tolist() == per_write.holes(writes, end).tolist()
    assert found.torn(end).tolist() == per_write.torn(writes, end).tolist()
    assert not found.broken_promises()[0].size
    for t in writes.begin_ns.tolist():
        slowly = np.flatnonzero((writes.begin_ns <= t) & (writes.whole_ns > t))
        assert found.unsaved_at(t).tolist() == slowly.tolist()


def assert_same(one: tuple[I64, I64], other: tuple[I64, I64]) -> None:
    assert [column.tolist() for column in one] == [column.tolist() for column in other]


def test_intervals_are_joined_where_they_touch_and_for_each_key_alone() -> None:
    key = np.array([1, 0, 0, 0, 1, 2])
    start = np.array([5, 0, 4, 9, 6, 3])
    end = np.array([7, 4, 6, NEVER, 8, 3])
    found = joined(key, start, end)
    rows = zip(*(column.tolist() for column in found), strict=True)
    assert list(rows) == [(0, 0, 6), (0, 9, NEVER), (1, 5, 8)]
    assert joined(NOTHING, NOTHING, NOTHING).key.size == 0
