"""What disks get wrong, and pages that change while they are written, worked out by hand (Rules D4,
H4).

As in `tests/test_rules.py`: a fault costs 10 ns, a page 100 ns on the way to the disk, a FLUSH 1000
ns; a one-word write that begins at `b` has its vCPU free at b+1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crashsim.engine.history import NEVER
from crashsim.experiment.profiles import DiskFaults, Fault
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.power.tell import Teller
from crashsim.replay.image import certain, damaged
from crashsim.replay.survivors import surviving
from tests.oracle import Sync, Write
from tests.oracle.cases import P
from tests.played import STORE_AND_SYNC, Changes, acked, flushes, play, safe


def faulty(**faults: Fault) -> Changes:
    return {"faults": DiskFaults(**faults)}


def test_D4_an_ignored_flush_makes_nothing_durable_and_the_next_one_does() -> None:
    disk = faulty(ignored_flush=Fault(at=(0,)))
    history = play([*STORE_AND_SYNC, Sync()], disk=disk)
    assert flushes(history) == [311, 1411, 2411]
    assert history.flush_disk_ignored.tolist() == [1, 0, 0]
    assert safe(history) == [2411]


def test_D4_ignored_flushes_come_never_always_and_as_often_as_configured() -> None:
    many = [item for i in range(200) for item in (Write(0, 8), Sync())]
    for share, low, high in (((0, 1), 0, 0), ((1, 1), 400, 400), ((1, 4), 70, 130)):
        history = play(many, disk=faulty(ignored_flush=Fault(share=share)))
        assert low <= int(history.flush_disk_ignored.sum()) <= high


def test_D4_a_shorn_write_leaves_its_last_page_behind_until_it_is_written_again() -> None:
    both = [Write(0, 8), Write(P, 8), Sync()]
    history = play(both, disk=faulty(shorn=Fault(at=(0,))))
    assert history.io_shorn.tolist() == [1]
    assert safe(history)[1] == NEVER > safe(history)[0]
    again = play([*both, Write(P + 8, 8), Sync()], disk=faulty(shorn=Fault(at=(0,))))
    assert safe(again)[1] == safe(again)[2] < NEVER


def test_D4_shorn_writes_come_never_always_and_as_often_as_configured() -> None:
    many = [item for i in range(200) for item in (Write(0, 8), Sync())]
    for share, low, high in (((0, 1), 0, 0), ((1, 1), 200, 200), ((1, 4), 30, 70)):
        history = play(many, disk=faulty(shorn=Fault(share=share)))
        assert low <= int(history.io_shorn.sum()) <= high


def test_D4_a_fault_that_never_fired_is_said() -> None:
    history = play([Write(0, 8)], disk=faulty(shorn=Fault(share=(1, 2))), until=100)
    assert history.info.faults_not_fired == (("disk.faults.shorn", 100),)


# Page 0 is written at 11, safe at 1111; stored again at 1121 (its second batch from 1122 to 1222,
# which is damaged), and once more at 2232 (from 2233 to 2333, safe at 3333).
THRICE = [item for i in range(3) for item in (Write(8 * i, 8, ends_record=True), Sync("msync"))]


def test_D4_a_damaged_page_takes_what_it_held_before_until_it_is_written_again() -> None:
    history = play(THRICE, disk=faulty(corrupted=Fault(at=(1200,))), vmm="crosvm")
    assert history.store_t_ns.tolist() == [10, 1121, 2232]
    assert history.io_complete_ns.tolist() == [111, 1222, 2333]
    found = Losses(history, Stage.DURABLE)
    # The first store is safe from 1111 to the damage at 1222, then with the others from 3333 on.
    assert [found.at_risk.at(t) for t in (1110, 1111, 1121, 1221)] == [8, 0, 8, 8]
    assert [found.at_risk.at(t) for t in (1222, 2231, 2232, 3332, 3333)] == [16, 16, 24, 24, 0]
    assert [found.unsaved.at(t) for t in (1221, 1222, 3332)] == [1, 2, 3]
    assert [found.recovery.at(t) for t in (1221, 1222, 3332)] == [100, 1212, 3322]
    assert [found.uncovered.at(t) for t in (1221, 1222, 2222, 3332, 3333)] == [0, 1, 2, 2, 0]
    # The second flush was acknowledged at 2222 although the page was lost.
    assert [column.tolist() for column in found.broken] == [[1], [1], [3333]]
    assert "damaged" in Teller(found).where(0, 2000)


def test_D4_a_damaged_page_reads_as_nothing_that_anybody_stored() -> None:
    history = play(THRICE[:4], disk=faulty(corrupted=Fault(at=(1200,))), vmm="crosvm")
    assert certain(history, Stage.DURABLE, 1221).write.tolist() == [0]
    assert certain(history, Stage.DURABLE, 1222).write.tolist() == []
    assert damaged(history, Stage.DURABLE, 1221).tolist() == []
    assert damaged(history, Stage.DURABLE, 1222).tolist() == [0]
    assert damaged(history, Stage.IN_HOST, 1222).tolist() == []
    assert surviving(history, Stage.DURABLE, 1222, "7").write.tolist() == []


def test_D4_a_shorn_write_leaves_what_was_there_and_a_damaged_one_does_not() -> None:
    for name, lost in (("shorn", 8), ("corrupted", 16)):
        history = play(THRICE[:4], disk=faulty(**{name: Fault(at=(1200,))}), vmm="crosvm")
        assert Losses(history, Stage.DURABLE).at_risk.at(2221) == lost


def test_D4_a_dead_disk_fails_every_sync_and_takes_all_that_it_held() -> None:
    program = [
        item for i in range(4) for item in (Write(i * P, 8, ends_record=True), Sync("msync"))
    ]
    history = play(program, disk=faulty(dead=Fault(at=(1300,))), vmm="crosvm")
    assert acked(history)[:2] == [(1111, 0), (2222, 1)]
    assert {result for _, result in acked(history)[1:]} == {1}
    found = Losses(history, Stage.DURABLE)
    assert [found.at_risk.at(t) for t in (1121, 1299, 1300, history.end_ns - 1)] == [8, 8, 16, 32]
    assert [found.uncovered.at(t) for t in (1299, 1300, history.end_ns - 1)] == [0, 1, 1]
    assert found.recovery.at(1300) == 1290
    assert not found.broken[0].size  # it was durable when it was promised
    assert "dead" in Teller(found).where(0, 1300)
    assert not Losses(history, Stage.IN_FILE).at_risk.values.any()  # the host still has it


def test_D4_a_disk_dies_never_at_once_or_by_chance() -> None:
    many = [item for i in range(200) for item in (Write(i % 8 * P, 8), Sync())]
    assert play(many, disk=faulty(dead=Fault(share=(0, 1)))).info.dead_ns == NEVER
    history = play(many, disk=faulty(dead=Fault(share=(1, 1))))
    assert history.info.dead_ns == 111 and history.batch_failed.all()
    died = [
        int(play(many, disk=faulty(dead=Fault(share=(1, 50))), seed=seed).batch_failed.argmax())
        for seed in range(40)
    ]
    assert 25 < np.mean(died) < 75  # of 1/50: the first of about 50


def test_D4_damaged_pages_come_never_always_and_as_often_as_configured() -> None:
    many = [item for i in range(200) for item in (Write(0, 8), Sync())]
    for share, low, high in (((0, 1), 0, 0), ((1, 1), 200, 200), ((1, 4), 30, 70)):
        history = play(many, disk=faulty(corrupted=Fault(share=share)))
        assert low <= int(history.io_corrupted.sum()) <= high


def test_D4_a_death_that_never_came_is_said() -> None:
    history = play([Write(0, 8)], disk=faulty(dead=Fault(at=(500,))), until=100)
    assert history.info.faults_not_fired == (("disk.faults.dead", 500),)
    assert history.info.faults_configured == 1


# --- pages that change while they are written -----------------------------------------------------


def test_H4_a_store_that_races_with_the_io_may_be_on_the_disk_in_part() -> None:
    # The page's snapshot is of 11, it reaches the disk at 111; the second vCPU stores 64 words from
    # 50 on, of which those that land by then may have been taken along.
    one, other = [Write(512, 8), Sync("msync")], [Write(0, 512, 40)]
    history = play(one, other, vmm="crosvm", synced=False)
    flushed = int(history.flush_ack_ns[0])
    sure = certain(history, Stage.DURABLE, flushed)
    assert sure.write.tolist() == [0]
    mixed = [surviving(history, Stage.DURABLE, flushed, str(seed)) for seed in range(8)]
    assert all(set(extents.write.tolist()) == {0, 1} for extents in mixed)
    assert len({tuple(extents.offset.tolist()) for extents in mixed}) == 8
    for extents in mixed:
        racing = extents.write == 1
        assert not (extents.offset[racing] % 8).any() and not (extents.end[racing] % 8).any()
    stable = replace(history, info=replace(history.info, stable_writes=True))
    assert surviving(stable, Stage.DURABLE, flushed, "1").write.tolist() == [0]


def test_H4_only_words_that_had_landed_when_the_io_was_complete_are_taken_along() -> None:
    one, other = [Write(512, 8), Sync("msync")], [Write(0, 512, 80)]
    history = play(one, other, vmm="crosvm", synced=False)
    begin, complete = int(history.store_t_ns[1]), int(history.io_complete_ns[0])
    last_word = complete - begin
    assert 0 < last_word < 63
    flushed = int(history.flush_ack_ns[0])
    taken: set[int] = set()
    for seed in range(40):
        extents = surviving(history, Stage.DURABLE, flushed, str(seed))
        taken.update(extents.offset[extents.write == 1].tolist())
    assert taken and max(taken) <= 8 * last_word
