"""The oracle's page cache and disk against cases worked out by hand (`tests/oracle/cases.py`)."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle import OracleDevice, OracleWorld, Sync, Write, run
from tests.oracle.cases import (
    DISK,
    HOST,
    P,
    acknowledged,
    batches,
    disk_flushes,
    flusher,
    play,
    small_memory,
)
from tests.oracle.clock import draw, mix
from tests.oracle.disk import merge
from tests.oracle.loss import loss
from tests.oracle.outcome import Outcome


def completions(outcome: Outcome) -> list[tuple[int, int, int]]:
    return [(io.first_page, io.pages, io.completed) for io in outcome.ios]


def test_H6_the_age_is_the_inodes_so_a_page_dirtied_just_now_is_written_too() -> None:
    # dirtied at 10 and 3999; over 3000 old for the first time at the wake-up at 4000
    outcome = play([Write(0, 8), Write(P, 8, 3978)], host=flusher(), until=9000)
    assert batches(outcome) == [(4000, "flusher", (0, 1))]


def test_H6_a_store_at_the_instant_of_the_wake_up_is_in_the_snapshot() -> None:
    outcome = play([Write(0, 8), Write(P, 8, 3979)], host=flusher(), until=9000)
    assert batches(outcome) == [(4000, "flusher", (0, 1))]


def test_H6_an_fsync_does_not_reset_the_age() -> None:
    # dirty from 10, cleaned by the fsync 11..2411; page 1 is dirtied at 2421
    outcome = play([Write(0, 8), Sync(), Write(P, 8)], host=flusher(), until=9000)
    assert batches(outcome) == [(11, "fsync", (0,)), (4000, "flusher", (1,))]


def test_H6_a_wake_up_without_a_dirty_page_ends_the_age() -> None:
    # the wake-up at 4000 finds the age expired and nothing dirty; page 1 at 4111: 7111, so at 8000
    outcome = play([Write(0, 8), Sync(), Write(P, 8, 1690)], host=flusher(), until=9000)
    assert batches(outcome) == [(11, "fsync", (0,)), (8000, "flusher", (1,))]


def test_H6_a_page_left_dirty_under_writeback_keeps_the_age() -> None:
    # A page takes 5000 ns. Page 0 is in flight from 3990 on and dirtied again at 3999: the wake-up
    # at 4000 cannot take it and keeps the age; the one at 9000 can (the I/O ended at 8990).
    disk = replace(DISK, bandwidth=P * 10**9 // 5000)
    programs = [Write(0, 8), Sync(delay_ns=3979)], [Write(0, 8, 3989)]
    outcome = play(*programs, host=flusher(), disk=disk, until=9500)
    assert batches(outcome) == [(3990, "fsync", (0,)), (9000, "flusher", (0,))]


def test_H6_interval_zero_switches_the_flusher_off() -> None:
    assert play([Write(0, 8)], until=10**12).batches == []


def test_H9_the_flusher_leaves_its_data_in_the_disks_cache() -> None:
    outcome = play([Write(0, 8)], host=flusher(), until=9000)
    assert outcome.layers.view(4100, "L4") == dict.fromkeys(range(8), 0)
    assert outcome.layers.view(9000, "L5") == {}
    assert outcome.disk_flushes == []


def test_H10_a_store_after_the_tagging_is_not_covered() -> None:
    outcome = play([Write(0, 8), Sync()], [Write(P, 8, 40)])
    assert batches(outcome) == [(11, "fsync", (0,))]
    assert set(outcome.layers.view(outcome.end_ns, "L5").values()) == {0}


def test_H10_a_tagged_page_under_writeback_is_taken_when_the_writes_in_flight_completed() -> None:
    # Page 0 is in flight 11..111 for vCPU 0 and dirtied again at 30; vCPU 1's fsync at 31 waits to
    # 111. There the first fsync's journal takes the pipe to 311, then the page, to 411. Second
    # journal to 611. FLUSH 311..1311 (first), 1311..2311 (second), 2311..3311 (first, commit at
    # 1411), 3311..4311 (second, commit at 2411).
    outcome = play([Write(0, 8), Sync()], [Write(8, 8, 20), Sync()])
    assert batches(outcome) == [(11, "fsync", (0,)), (111, "fsync", (0,))]
    assert completions(outcome) == [(0, 1, 111), (0, 1, 411)]
    assert acknowledged(outcome) == [3311, 4311]


def test_H10_a_tagged_page_that_another_writeback_took_meanwhile_is_waited_for() -> None:
    # Pages 0 and 2 are in flight for vCPU 0, 22..122 and 122..222 in this seed's order. Page 0 is
    # dirtied again at 60 and tagged by vCPU 1 at 81 and vCPU 2 at 90, who wait for 222. Early
    # writeback takes it at 150: on the pipe 222..322. vCPU 2's fsync has clean times and needs only
    # one FLUSH; issued at 222 it would not cover the page, so it waits: 322..1322.
    host = replace(HOST, early=(150, 1, 1))
    programs = (
        [Write(0, 8), Write(2 * P, 8), Sync()],
        [Write(8, 8, 50), Sync(delay_ns=20)],
        [Sync(delay_ns=90)],
    )
    outcome = play(*programs, host=host)
    assert batches(outcome) == [(22, "fsync", (0, 2)), (150, "early", (0,))]
    assert completions(outcome) == [(0, 1, 122), (2, 1, 222), (0, 1, 322)]
    assert disk_flushes(outcome)[0] == (322, 1322)
    assert acknowledged(outcome)[2] == 1322
    assert loss(outcome).broken == []


def test_H11_overwrite_with_clean_times_is_one_write_and_one_flush() -> None:
    # second call: nothing dirty at all
    outcome = play([Write(0, 8), Sync(), Sync()])
    assert disk_flushes(outcome) == [(311, 1311), (1411, 2411), (2411, 3411)]
    assert outcome.journal_bytes == 8192 + 4096


def test_H11_with_a_fua_disk_the_commit_and_its_flush_are_one_write() -> None:
    outcome = play([Write(0, 8), Sync()], disk=replace(DISK, fua=True))
    assert disk_flushes(outcome) == [(311, 1311)]
    assert acknowledged(outcome) == [2411]


def test_H5_neighbours_are_merged_and_long_runs_cut_every_256_pages() -> None:
    assert merge([3, 0, 1]) == [[0, 1], [3]]
    assert [(run[0], len(run)) for run in merge(list(range(5, 305)))] == [(5, 256), (261, 44)]


def test_H5_the_ios_of_a_batch_complete_in_drawn_order_one_after_another() -> None:
    # batch 0 at 33 + 11: pages 0, 1 and 3; 300 ns together
    outcome = play([Write(0, 8), Write(P, 8), Write(3 * P, 8), Sync()])
    (instant, _, pages) = batches(outcome)[0]
    assert (instant, pages) == (33, (0, 1, 3))
    if draw(1, "disk-order", 0) < draw(1, "disk-order", 3):
        assert completions(outcome) == [(0, 2, 233), (3, 1, 333)]
    else:
        assert completions(outcome) == [(3, 1, 133), (0, 2, 333)]


def test_draws_are_those_of_splitmix64() -> None:
    # the published first outputs for the seed 1234567
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix((1234567 + n * gamma) % 2**64) for n in (1, 2)]
    assert outputs == [6457827717110365317, 3203168211198807973]
    assert draw(1, "a", 0) != draw(1, "b", 0) != draw(2, "b", 0)


def test_H7_background_writeback_starts_when_a_store_exceeds_the_threshold() -> None:
    # begins 10, 21, 32: the third dirty page is one more than 2
    outcome = play([Write(page * P, 8) for page in range(3)], host=small_memory(), until=9000)
    assert batches(outcome) == [(32, "background", (0, 1, 2))]


def test_H7_background_writeback_takes_the_stores_of_that_very_instant_too() -> None:
    # vCPU 0 exceeds the threshold at 32; vCPU 1's store begins at 32 as well
    program = [Write(page * P, 8) for page in range(3)]
    outcome = play(program, [Write(3 * P, 8, 22)], host=small_memory(), until=9000)
    assert batches(outcome) == [(32, "background", (0, 1, 2, 3))]


def test_H7_background_writeback_goes_on_until_the_dirty_pages_are_not_above_it() -> None:
    # 0..2 are in flight 32..332; meanwhile 3, 4 and (from 265) 5 are dirty: 3 > 2 at 332
    outcome = play([Write(page * P, 8) for page in range(6)], host=small_memory(), until=9000)
    expected = [(32, "background", (0, 1, 2)), (332, "background", (3, 4, 5))]
    assert batches(outcome) == expected


def test_H7_background_writeback_takes_1024_pages_and_resumes_behind_them() -> None:
    # the limit of 1028 is exceeded by page 1028: 0..1023 go. Five remain; 1029 pages dirtied again
    # exceed it once more, and the writer goes on at 1024; the rest is not above the limit.
    host = replace(HOST, memory_bytes=10280 * P, background_ratio=10, dirty_ratio=90)
    again = [Write(page * P, 1, 10**6 if page == 0 else 0) for page in range(1024)]
    program = [Write(page * P, 1) for page in range(1029)] + again
    outcome = play(program, host=host, pages=1029)
    assert outcome.batches[0].pages == tuple(range(1024))
    assert outcome.batches[1].pages == tuple(range(1024, 1029))


def test_H7_a_writer_is_slowed_half_way_and_held_200_ms_at_the_limit() -> None:
    # page 4 at 54: 5 pages dirty or in flight, above 4: one page's time, 100 ns, times (6-4)/(6-5).
    # page 5 begins 255 + 10 and finds 6.
    outcome = play([Write(page * P, 8) for page in range(6)], host=small_memory())
    pauses = [(pause.instant, pause.pause_ns) for pause in outcome.pauses]
    assert pauses == [(55, 200), (266, 200_000_000)]
    assert outcome.end_ns == 266 + 200_000_000
    assert outcome.guest_wait_ns == 200_000_200


def test_H7_background_writeback_takes_one_file_at_a_time() -> None:
    # device 0: pages 0 and 1 at 10 and 21; device 1: pages 8, 9, 10 at 40, 51, 62. Above 2 at 40.
    # The second turn, at 240, finds three dirty.
    first = OracleDevice(8, ((Write(0, 8), Write(P, 8)),))
    second = OracleDevice(8, ((Write(0, 8, 30), Write(P, 8), Write(2 * P, 8)),))
    world = OracleWorld((first, second), small_memory(), DISK, duration_ns=9000)
    expected = [(40, "background", (0, 1)), (240, "background", (8, 9, 10))]
    assert batches(run(world)) == expected


def test_H7_background_writeback_looks_again_when_all_dirty_pages_were_under_writeback() -> None:
    # 0..2 are in flight 32..332 for the background writer, 3..5 332..632 for the fsync at 100, and
    # dirty again from 130 on: nothing to take at 332, but at 632 there is.
    host = replace(HOST, memory_bytes=20 * P, background_ratio=10, dirty_ratio=90)
    writer = [Write(page * P, 8) for page in range(6)]
    again = [Write(page * P, 8, 120 if page == 3 else 0) for page in range(3, 6)]
    outcome = play(writer, [Sync(delay_ns=100)], again, host=host, until=700)
    assert batches(outcome) == [
        (32, "background", (0, 1, 2)),
        (100, "fsync", (3, 4, 5)),
        (632, "background", (3, 4, 5)),
    ]


def test_H7_the_pauses_of_a_divided_write_add_up() -> None:
    # The write of ten words at 54 owes 200 ns. A sync at 56 divides it after three words; the rest
    # faults, begins at 67, finds page 4 dirty and in flight, 6 in all, and owes 200 ms more.
    program = [*(Write(page * P, 8) for page in range(4)), Write(4 * P, 80)]
    outcome = play(program, [Sync(delay_ns=56)], host=small_memory(), until=600)
    assert [(s.begin, s.length) for s in outcome.stores if s.write == 4] == [(54, 24), (67, 56)]
    assert [(pause.instant, pause.pause_ns) for pause in outcome.pauses] == [(74, 200_000_200)]


def test_H8_early_writeback_takes_all_none_or_a_drawn_share() -> None:
    def taken(numerator: int, denominator: int) -> int:
        host = replace(HOST, early=(10_000, numerator, denominator))
        program = [Write(page * P, 1) for page in range(400)]
        outcome = play(program, host=host, pages=400, until=10_001)
        return sum(len(batch.pages) for batch in outcome.batches)

    assert (taken(0, 1), taken(1, 1)) == (0, 400)
    assert 160 < taken(1, 2) < 240


def test_D1_flushes_that_arrive_while_one_is_in_flight_share_the_next() -> None:
    outcome = play([Sync()], [Sync(delay_ns=1)], [Sync(delay_ns=999)], [Sync(delay_ns=1000)])
    assert disk_flushes(outcome) == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert acknowledged(outcome) == [1000, 2000, 2000, 3000]


def test_D1_a_flush_covers_only_what_completed_before_it_was_issued() -> None:
    # FLUSH 0..1000 for vCPU 1; the page completes at 111, and is on the media with the next, 2000
    outcome = play([Write(0, 8), Sync()], [Sync()])
    assert outcome.layers.view(111, "L4") != {}
    assert outcome.layers.view(1999, "L5") == {}
    assert outcome.layers.view(2000, "L5") == dict.fromkeys(range(8), 0)


def test_D4_a_disk_that_ignores_flush_takes_its_time_and_keeps_nothing() -> None:
    outcome = play([Write(0, 8), Sync()], disk=replace(DISK, ignores_flush=True))
    assert acknowledged(outcome) == [2411]
    assert outcome.layers.view(outcome.end_ns, "L5") == {}


def test_G5_a_flush_persists_the_stores_of_everyone_on_the_device() -> None:
    outcome = play([Write(0, 8), Sync(delay_ns=50)], [Write(3 * P, 8)])
    assert batches(outcome) == [(61, "fsync", (0, 3))]


def test_V7_devices_share_the_disk_but_not_their_flushes() -> None:
    # both fsyncs begin at 11: batch 0 in the pipe 11..111, batch 1 111..211
    device = OracleDevice(4, ((Write(P, 8), Sync()),))
    outcome = run(OracleWorld((device, device), HOST, DISK))
    assert [(b.device, b.pages) for b in outcome.batches] == [(0, (1,)), (1, (5,))]
    assert completions(outcome) == [(1, 1, 111), (5, 1, 211)]
