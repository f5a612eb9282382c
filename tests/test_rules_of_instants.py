"""Rules where two events fall on one instant, with numbers worked out by hand: the instant itself,
and where it says more the one before or behind it.

As in `tests/test_rules.py`: a fault costs 10 ns, a page 100 ns on the way to the disk, a FLUSH 1000
ns; a one-word write that begins at `b` has its vCPU free at b+1. A page that is dirty when an fsync
begins at `s` is in L4 at s+100, the journal at s+300; FLUSH until s+1300, the commit block until
s+1400, and a second FLUSH until s+2400.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crashsim.device.virtio_pmem import TokenBucket
from crashsim.disk.pipe import compose
from crashsim.engine.history import NEVER, History
from crashsim.engine.streams import Stream
from crashsim.experiment.backing import Backing
from crashsim.experiment.failures import HostCrash
from crashsim.experiment.profiles import DiskFaults, Fault
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, Stage, kept_stage
from crashsim.power.tell import Teller
from crashsim.replay.image import damaged
from tests import played
from tests.against_oracle import simulate_world, simulated
from tests.oracle import (
    FlushedWrite,
    Mark,
    OracleDevice,
    OracleGuest,
    OracleWorld,
    Sync,
    Write,
)
from tests.oracle.cases import DISK, HOST, P, flusher, small_memory
from tests.played import STORE_AND_SYNC, acked
from tests.test_rules import acknowledged, batches, disk_flushes, play, safe
from tests.test_rules_of_disks import THRICE


def broken(history: History) -> list[list[int]]:
    """The requests that broke their promise, and a store of each."""
    return [column.tolist() for column in Losses(history, Stage.DURABLE).broken[:2]]


# --- guest and device -----------------------------------------------------------------------------


def test_V2_a_flush_covers_a_store_whose_last_word_lands_as_it_is_submitted() -> None:
    lying = replace(DISK, ignores_flush=True)
    assert broken(play([Write(0, 8)], [Sync(delay_ns=10)], disk=lying)) == [[0], [0]]
    assert broken(play([Write(0, 8)], [Sync(delay_ns=9)], disk=lying)) == [[], []]


def test_V2_without_dax_a_flush_covers_what_is_copied_as_it_is_submitted() -> None:
    # Stored at 5; the sync at 6 copies it, and submits its flush behind the copying.
    lying = replace(DISK, ignores_flush=True)
    history = play([Write(0, 8, 5), Sync()], disk=lying, guest=OracleGuest(access="cached"))
    copied = int(history.copy_t_ns[0])
    assert copied < int(history.flush_submit_ns[0])
    assert broken(history) == [[0], [0]]


def test_V3_a_bucket_that_is_exactly_full_gains_from_then_on() -> None:
    bucket = TokenBucket(ops=2, refill_ns=100, burst=0)
    # One is gained at 50, and seen at 70: full, so that the next one comes 50 behind that.
    assert [bucket.take(t) for t in (0, 70, 110, 119, 120)] == [True, True, True, False, True]


def test_V3_a_token_that_is_gained_between_two_instants_is_there_at_the_later_one() -> None:
    bucket = TokenBucket(ops=3, refill_ns=100, burst=0)
    # One every 33 1/3: after those of the start at 34, and from there on again at 68.
    taken = [bucket.take(t) for t in (0, 0, 0, 33, 34, 67, 68)]
    assert taken == [True, True, True, False, True, False, True]


def test_V3_a_token_is_there_at_the_instant_at_which_it_is_gained() -> None:
    bucket = TokenBucket(ops=1, refill_ns=100, burst=0)
    assert [bucket.take(t) for t in (0, 99, 100)] == [True, False, True]


def test_G9_an_error_fails_the_fsync_that_returns_at_its_very_instant() -> None:
    for at, results in ((2411, [1, 0]), (2412, [0, 1])):
        history = play([Write(0, 8), Sync(), Sync()], host=replace(HOST, fsync_errors=(at,)))
        assert history.flush_result.tolist() == results


def recorded(*program: FlushedWrite | Mark) -> list[int]:
    """When each mark is covered."""
    history = play(program, guest=OracleGuest(driver="ordered"))
    return [int(t) for t in Losses(history, Stage.DURABLE).covered_ns]


def test_V2_a_recordings_mark_is_covered_by_a_flush_submitted_with_the_mark_before() -> None:
    # The flush is submitted at 7 and acknowledged at 1007.
    flush = FlushedWrite(0, 8, preflush=True)
    assert recorded(Mark("one", 7), flush, Mark("two")) == [1007, 1007]
    assert recorded(flush, Mark("one"), Mark("two", 1)) == [1000, NEVER]


# --- host page cache ------------------------------------------------------------------------------


def test_H6_the_flusher_takes_what_is_exactly_as_old_as_it_has_to_be() -> None:
    assert batches(play([Write(0, 8, 990)], host=flusher(), until=9000))[0][0] == 4000
    assert batches(play([Write(0, 8, 991)], host=flusher(), until=9000))[0][0] == 5000


def test_H6_a_guests_flusher_takes_what_is_exactly_as_old_as_it_has_to_be() -> None:
    guest = OracleGuest(access="cached")
    for think, copied in ((1000, 4000), (1001, 5000)):
        history = play([Write(0, 8, think)], host=flusher(), guest=guest, until=9000)
        assert history.copy_t_ns.tolist()[:1] == [copied]


def test_H6_a_store_that_begins_as_the_flusher_wakes_is_taken_along() -> None:
    program = [Write(0, 8), Write(P, 8, 3979)]  # begin at 10 and at 4000
    assert batches(play(program, host=flusher(), until=9000)) == [(4000, "flusher", (0, 1))]


def test_H7_neither_threshold_counts_before_it_is_exceeded() -> None:
    program = [Write(page * P, 8) for page in range(3)]
    assert batches(play(program[:2], host=small_memory(), until=9000)) == []
    # With page 3 there are 4 pages dirty or in flight, the threshold: no pause.
    program = [Write(page * P, 8) for page in range(4)]
    history = play(program, host=small_memory())
    assert (history.end_ns, history.info.throttle_ns) == (44, 0)


def test_H10_what_is_dirtied_behind_the_tagging_is_not_written_with_what_had_to_wait() -> None:
    # vCPU 1's sync at 31 tags page 0, which is under writeback until 111; page 1 is dirtied at 60.
    late = [Write(P, 8, 50)]
    history = play([Write(0, 8), Sync()], [Write(8, 8, 20), Sync()], late)
    assert batches(history) == [(11, "fsync", (0,)), (111, "fsync", (0,))]


def test_H3_a_page_is_free_again_at_the_instant_at_which_its_writeback_completes() -> None:
    # Page 0 is under writeback from 11 to 111 and dirty again; a sync at 111 need not wait for it.
    sync = [Sync(delay_ns=111)]
    history = play([Write(0, 8), Sync()], [Write(8, 8, 20)], sync)
    assert batches(history) == [(11, "fsync", (0,)), (111, "fsync", (0,))]
    before = play([Write(0, 8), Sync()], [Write(8, 8, 20)], [Sync(delay_ns=110)])
    assert batches(before) == batches(history)  # it waited an instant


def test_H3_a_page_whose_own_io_completes_now_is_free_though_the_rest_of_its_batch_is_not() -> None:
    # Pages 0 and 2 are two I/Os of the batch at 22: one completes at 122, the other at 222.
    pair = [Write(0, 8), Write(2 * P, 8), Sync()]
    first = simulated(play(pair)).ios
    (page,) = [page for _, page, _, complete in first if complete == 122]
    # Stored again at 40 and synced at 122.
    history = play(pair, [Write(page * P + 8, 8, 30), Sync(delay_ns=81)])
    assert batches(history) == [(22, "fsync", (0, 2)), (122, "fsync", (page,))]


def test_H14_an_error_fails_the_batch_that_ends_at_its_very_instant() -> None:
    for at, failed in ((111, [1]), (112, [0])):
        history = played.play(STORE_AND_SYNC, host={"write_errors": (at,)})
        assert history.batch_failed.tolist() == failed


def test_H14_a_failed_write_is_reported_by_a_sync_whose_data_is_written_as_it_ends() -> None:
    # The flusher's batch 2000..2100 fails; a sync that returns at 2100 says so, for it waited.
    host = {"write_errors": (0,), "dirty_writeback": 1000, "dirty_expire": 1000}
    history = played.play([Write(0, 8), Sync("msync", delay_ns=2050)], host=host, vmm="crosvm")
    assert acked(history) == [(2100, 1)]


def test_H13_a_commit_covers_what_was_written_as_it_began() -> None:
    # The data of the new page is written at 111, and that is when the journal begins.
    device = {"backing": Backing(extents="sparse")}
    history = played.play(STORE_AND_SYNC, device=device)
    assert history.commit_t_ns.tolist() == [111]
    assert played.safe(history) == [2411]


# --- disk -----------------------------------------------------------------------------------------


def test_D1_a_flush_covers_what_completes_as_it_is_issued() -> None:
    # Another device's FLUSH is issued when the page has completed, or an instant before.
    for at, durable in ((111, 1111), (110, 2110)):
        one = OracleDevice(4, ((Write(0, 8), Sync()),))
        other = OracleDevice(4, ((Sync(delay_ns=at),),))
        assert safe(simulate_world(OracleWorld((one, other), HOST, DISK))) == [durable]


def test_D1_a_flush_asked_for_as_one_ends_is_the_next_one() -> None:
    assert disk_flushes(play([Sync()], [Sync(delay_ns=1000)])) == [(0, 1000), (1000, 2000)]


def test_H5_more_batches_than_fit_into_one_key_are_served_one_after_the_other() -> None:
    number = np.arange(5000, dtype=np.int64)
    batch, page, one = np.repeat(number, 2), np.tile([0, 2], 5000), np.ones(10_000, dtype=np.int64)
    stream = Stream(1, "disk-order")
    served, _, _, complete = compose(batch, page, one, 1000 * number, DISK.bandwidth, stream)
    assert (served == batch).all()  # two I/Os each, one behind the other, in a drawn order
    expected = 1000 * number[:, None] + [100, 200]
    assert (np.sort(complete.reshape(-1, 2), axis=1) == expected).all()


def faulty(name: str, at: int) -> History:
    disk = {"faults": DiskFaults(**{name: Fault(at=(at,))})}
    return played.play(STORE_AND_SYNC, disk=disk)


@pytest.mark.parametrize("name", ["shorn", "corrupted"])
def test_D4_a_fault_hits_the_batch_that_ends_at_its_very_instant(name: str) -> None:
    hit = [getattr(faulty(name, at), f"io_{name}").tolist() for at in (111, 112)]
    assert hit == [[1], [0]]


def test_D4_the_flush_issued_at_the_instant_of_the_fault_is_ignored() -> None:
    ignored = [faulty("ignored_flush", at).flush_disk_ignored.tolist() for at in (311, 312)]
    assert ignored == [[1, 0], [0, 1]]


def test_D4_what_ends_as_the_disk_dies_is_not_done() -> None:
    # The data is written at 111, the first FLUSH ends at 1311.
    assert [faulty("dead", at).batch_failed.tolist() for at in (111, 112)] == [[1], [0]]
    kept = [played.safe(faulty("dead", at))[0] for at in (1311, 1312)]
    assert kept == [NEVER, 1311]
    assert [acked(faulty("dead", at)) for at in (2411, 2412)] == [[(2411, 1)], [(2411, 0)]]


def test_D4_a_dead_disk_holds_nothing_from_its_death_on() -> None:
    found = Losses(faulty("dead", 2000), Stage.DURABLE)
    assert [found.at_risk.at(t) for t in (1310, 1311, 1999, 2000)] == [8, 0, 0, 8]
    assert [found.unsaved_at(t).tolist() for t in (1311, 1999, 2000)] == [[], [], [0]]


def damaged_by_the_flusher(wakes_ns: int, *syncs: Sync) -> History:
    """Page 0 is stored to at 10, and again before the flusher writes it: that damages it."""
    first = [Write(0, 8), Sync("msync")]
    again = [Write(8, 8, wakes_ns - 500)]
    return played.play(
        first,
        again,
        syncs,
        vmm="crosvm",
        host={"dirty_writeback": wakes_ns, "dirty_expire": 1},
        disk={"faults": DiskFaults(corrupted=Fault(at=(wakes_ns + 50,)))},
        until=9000,
    )


def test_D4_a_flush_acknowledged_as_its_page_is_damaged_breaks_its_promise() -> None:
    # The second sync waits for the first one's call, and is acknowledged at 2111.
    history = damaged_by_the_flusher(2011, Sync("msync", delay_ns=500))
    assert acked(history) == [(1111, 0), (2111, 0)]
    assert broken(history) == [[1], [0]]


def test_D4_so_does_one_that_was_submitted_as_the_store_landed() -> None:
    history = damaged_by_the_flusher(1010, Sync("msync", delay_ns=10))
    assert history.flush_submit_ns.tolist() == [10, 11]
    assert acked(history)[0] == (1110, 0)
    assert 0 in broken(history)[0]


def test_D4_a_page_is_mended_at_the_instant_at_which_it_is_safe_again() -> None:
    history = played.play(
        THRICE, disk={"faults": DiskFaults(corrupted=Fault(at=(1200,)))}, vmm="crosvm"
    )
    pages = [damaged(history, Stage.DURABLE, t).tolist() for t in (1221, 1222, 3332, 3333)]
    assert pages == [[], [0], [0], []]


def test_D4_a_disk_that_dies_as_the_run_ends_has_died() -> None:
    for at, not_fired in ((100, ()), (101, (("disk.faults.dead", 101),))):
        disk = {"faults": DiskFaults(dead=Fault(at=(at,)))}
        history = played.play([Write(0, 8)], disk=disk, until=100)
        assert history.info.faults_not_fired == not_fired


# --- failures -------------------------------------------------------------------------------------


def _host_crash(in_flight_kept: bool, cache_kept: bool) -> HostCrash:
    return HostCrash(
        in_flight="kept" if in_flight_kept else "lost", disk_cache="kept" if cache_kept else "lost"
    )


def test_P4_a_host_crash_keeps_what_is_in_flight_or_only_what_was_flushed_if_so_asked() -> None:
    history = play([Write(0, 8), Sync()])
    kept = {
        (in_flight, cache): safe(
            history, kept_stage(Domain.HOST_CRASH, _host_crash(in_flight, cache))
        )
        for in_flight in (False, True)
        for cache in (False, True)
    }
    assert kept == {
        (False, True): [111],
        (True, True): [11],
        (False, False): [1311],
        (True, False): [1311],
    }


def test_P5_at_an_instant_all_that_happens_at_it_has_happened() -> None:
    found = Losses(play([Write(0, 8), Sync()]), Stage.DURABLE)
    instants = (9, 10, 1310, 1311)
    assert [found.at_risk.at(t) for t in instants] == [0, 8, 8, 0]
    assert [found.unsaved.at(t) for t in instants] == [0, 1, 1, 0]
    assert [found.unsaved_at(t).size for t in instants] == [0, 1, 1, 0]
    assert [found.recovery.at(t) for t in (10, 11, 1310, 1311)] == [0, 1, 1300, 0]


def test_D3_a_write_is_torn_from_the_instant_at_which_its_first_part_is_safe() -> None:
    # As in `tests/test_rules.py`: page 1 is in L4 at 211, page 0 at 511.
    programs = [Write(0, 8), Sync()], [Write(P - 8, 16, 20), Sync()]
    for until, torn in ((210, []), (211, [1])):
        found = Losses(play(*programs, until=until), Stage.COMPLETED)
        assert found.torn.tolist() == torn
    assert found.torn_at(1) == 211


def test_P5_a_write_is_a_hole_from_the_instant_at_which_a_later_one_is_safe() -> None:
    # Page 0 is dirty again at 30 and stays so until 511; page 1, stored at 61, is written at 211.
    programs = [Write(0, 8), Sync()], [Write(8, 8, 20)], [Write(P, 8, 51), Sync()]
    whole = Losses(play(*programs), Stage.COMPLETED)
    begin, safe_ns = whole.writes.begin_ns.tolist(), whole.writes.whole_ns.tolist()
    assert begin == [10, 30, 61] and safe_ns[2] < safe_ns[1]
    assert whole.holes.tolist() == [1] and whole.hole_at(1) == (safe_ns[2], 2)
    for until, holes in ((safe_ns[2] - 1, []), (safe_ns[2], [1])):
        assert Losses(play(*programs, until=until), Stage.COMPLETED).holes.tolist() == holes


def test_P5_of_writes_begun_at_one_instant_none_is_the_later_one_of_a_hole() -> None:
    # Three I/Os of one batch at 12, in a drawn order: complete at 112, 212 and 312.
    whole = play([Write(0, 8), Write(2 * P, 8), Write(4 * P, 8), Sync()])
    ios = sorted((complete, page) for _, page, _, complete in simulated(whole).ios)
    soon, later, last = (page * P for _, page in ios)
    programs = [Write(last, 8)], [Write(soon, 8)], [Write(later, 8, 1)], [Sync(delay_ns=12)]
    found = Losses(play(*programs), Stage.COMPLETED)
    assert found.writes.begin_ns.tolist() == [10, 10, 11]
    assert found.holes.tolist() == [0] and found.hole_at(0) == (212, 2)


def test_P5_a_record_acknowledged_before_its_sync_is_uncovered_until_it_is_safe() -> None:
    history = play([Write(0, 8, ends_record=True), Sync()])
    found = Losses(history, Stage.DURABLE)
    assert history.ack_t_ns.tolist() == [10] and found.covered_ns.tolist() == [1311]
    assert [found.uncovered.at(t) for t in (9, 10, 1310, 1311)] == [0, 1, 1, 0]


def test_P5_what_is_at_risk_at_the_end_has_its_peak_within_the_run() -> None:
    (peak,) = Teller(Losses(play([Write(0, 8)], until=1000), Stage.DURABLE)).peak()
    assert 10 <= peak.t_ns <= 1000


def test_P5_where_nothing_is_stored_nothing_is_at_risk() -> None:
    found = Losses(play([Sync()]), Stage.DURABLE)
    assert [found.at_risk.instants.size, found.at_risk.values.size] == [0, 0]
    assert found.covered_ns.size == found.uncovered.values.size == 0


def test_G9_a_flush_that_failed_promised_nothing() -> None:
    history = play([Write(0, 8), Sync()], host=replace(HOST, fsync_errors=(0,)))
    assert acknowledged(history) == [2411] and history.flush_result.tolist() == [1]
    assert broken(history) == [[], []]
