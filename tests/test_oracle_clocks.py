"""The oracle's clocks, flushers and the host's own commits against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle import OracleDevice, OracleGuest, Sync, Write
from tests.oracle.cases import DISK, HOST, P, acknowledged, batches, disk_flushes, flusher, play
from tests.oracle.clock import draw
from tests.oracle.loss import loss
from tests.oracle.ticks import Ticks, Times, wheel

MS, SECOND = 10**6, 10**9
LINUX = Ticks(4 * MS, 250 * MS)
UNWRITTEN = OracleDevice(8, (), extents="unwritten")


# --- timers ---------------------------------------------------------------------------------------


def test_a_wheel_rounds_up_to_the_granularity_of_its_level() -> None:
    assert [wheel(0, e) for e in (0, 10, 62, 63, 503, 504)] == [1, 11, 63, 64, 504, 512]
    assert wheel(7, 69) == 70 and wheel(7, 70) == 72


def test_a_timer_of_5_s_takes_5_004_to_5_256_s() -> None:
    assert LINUX.timer(0, 5 * SECOND) == 5120 * MS
    assert LINUX.timer(5120 * MS, 5 * SECOND) == 10240 * MS
    assert LINUX.timer(116 * MS, 5 * SECOND) == 116 * MS + 5004 * MS
    assert LINUX.timer(120 * MS, 5 * SECOND) == 120 * MS + 5256 * MS
    assert LINUX.timer(4 * MS - 1, 5 * SECOND) == 5120 * MS
    assert Ticks(0, 0).timer(3, 5) == 8


def test_a_commit_timer_rounds_up_to_a_whole_second_first() -> None:
    assert LINUX.commit_timer(0, 5 * SECOND) == 5376 * MS
    # 5 s is a whole second of this clock: the next is meant
    assert Ticks(4 * MS, 0).commit_timer(0, 5 * SECOND) == 6144 * MS
    assert Ticks(4 * MS, 1).commit_timer(0, 5 * SECOND) == 5120 * MS  # 1251 ticks
    assert Ticks(0, 7).commit_timer(3, 5) == 8


# --- time stamps ----------------------------------------------------------------------------------


def test_what_falls_into_the_tick_of_the_last_event_before_a_commit_sets_no_flag() -> None:
    times = Times(Ticks(100, 0))
    assert times.event(10) and not times.event(50) and times.since == 10
    assert times.clear(60) == 10
    assert not times.event(99) and not times.dirty
    assert times.event(100) and times.since == 100
    assert times.clear(100) == 100
    assert not times.event(100) and not times.event(199)
    assert times.event(199, always=True)


def test_the_last_event_before_a_commit_counts_though_it_set_nothing() -> None:
    times = Times(Ticks(100, 0))
    times.event(10)
    times.event(110)
    times.clear(120)
    assert not times.event(130) and times.event(200)


def test_times_that_were_read_before_any_event_are_dirty_with_the_first() -> None:
    times = Times(Ticks(100, 0))
    assert times.clear(10) is None
    assert times.event(20)


def test_without_a_tick_each_event_makes_the_times_dirty() -> None:
    times = Times(Ticks(0, 0))
    times.event(10)
    times.clear(10)
    assert times.event(10)


def test_a_flag_that_a_failed_call_sets_again_is_dirty_since_the_same_event() -> None:
    times = Times(Ticks(0, 0))
    times.event(10)
    since = times.clear(20)
    assert since == 10
    times.event(30)
    times.set_again(since)
    assert times.since == 10


def test_H11_a_second_fsync_within_a_tick_makes_one_flush() -> None:
    program = [Write(0, 8), Sync(), Write(0, 8), Sync()]
    assert acknowledged(play(program)) == [2411, 4822]
    # free at 2422, in L4 at 2522, one FLUSH
    assert acknowledged(play(program, host=replace(HOST, tick_ns=10_000))) == [2411, 3522]
    # the tick of 2421, the second fault, is another one than that of 10
    assert acknowledged(play(program, host=replace(HOST, tick_ns=2421))) == [2411, 4822]
    assert acknowledged(play(program, host=replace(HOST, tick_ns=2422))) == [2411, 3522]


def test_H11_a_copy_into_a_page_that_is_dirty_is_no_event() -> None:
    # Copies at 1 and 524. The host commits at 301, and not again, for the page is dirty still.
    host, guest = replace(HOST, commit_interval_ns=300), OracleGuest(access="cached")
    program = [Write(0, 8), Sync("sync"), Write(0, 8), Sync("sync")]
    outcome = play(program, host=host, guest=guest, until=5000)
    assert [copy.instant for copy in outcome.copies] == [1, 524]
    assert disk_flushes(outcome) == [(501, 1501), (1601, 2601)]


def test_G4_a_second_fsync_within_a_tick_of_the_guest_does_not_commit() -> None:
    program = [Write(0, 8), Sync("fsync"), Write(0, 8), Sync("fsync")]
    for tick, flushes in ((0, 4), (10_000, 3), (3421, 4), (3422, 3)):
        # 11..2411..3411, the second store begins at 3421
        outcome = play(program, guest=OracleGuest(ext4=True, tick_ns=tick))
        assert (tick, len(outcome.flush_requests)) == (tick, flushes)


def test_G6_a_store_that_leaves_the_times_clean_starts_no_timer() -> None:
    guest = OracleGuest(ext4=True, tick_ns=10_000, commit_interval_ns=SECOND)
    program = [Write(0, 8), Sync("fsync"), Write(0, 8)]
    assert len(play(program, guest=guest, until=10 * SECOND).flush_requests) == 2


# --- the flusher ----------------------------------------------------------------------------------


def test_H6_on_an_idle_disk_the_wake_ups_begin_with_the_first_store() -> None:
    host = replace(flusher(), flusher_phase="idle")
    # 10, 1010, 2010, 3010: the age is reached exactly. None after that, until 9010.
    outcome = play([Write(0, 8), Write(P, 8, 8989)], host=host, until=20_000)
    assert batches(outcome) == [(3010, "flusher", (0,)), (12_010, "flusher", (1,))]


def test_H6_a_wake_up_that_is_set_is_not_set_again() -> None:
    # the age of vCPU 0's page ends at 111, with its fsync; that of the store at 500 finds 1010 set
    host = replace(flusher(), flusher_phase="idle", fsync_resets_age=True)
    programs = [Write(0, 8), Sync(delay_ns=1)], [Write(P, 8, 490)]
    assert batches(play(*programs, host=host, until=9000))[1:] == [(4010, "flusher", (1,))]


def test_H6_a_random_phase_is_drawn() -> None:
    host = replace(flusher(), flusher_phase="random")
    first = 1 + draw(1, "flusher-phase", 0) % 1000
    at = next(w for w in range(first, 9000, 1000) if w >= 3010)
    assert batches(play([Write(0, 8)], host=host, until=9000)) == [(at, "flusher", (0,))]
    host = replace(host, tick_ns=7)
    first = -(-first // 7) * 7
    # 1 us is 143 ticks: rounded up to multiples of 8, first from an odd place
    wakes = [first]
    while wakes[-1] < 3010:
        wakes.append(((wakes[-1] // 7 + 143) // 8 + 1) * 8 * 7)
    assert batches(play([Write(0, 8)], host=host, until=9000))[0][0] == wakes[-1]


def test_H6_a_lone_store_is_written_when_it_is_30_7_s_old_at_4_ms_a_tick() -> None:
    for phase in ("idle", "busy"):
        host = replace(flusher(5 * SECOND, 30 * SECOND), flusher_phase=phase, tick_ns=4 * MS)
        outcome = play([Write(0, 8)], host=host, until=40 * SECOND)
        assert batches(outcome) == [(30_720 * MS, "flusher", (0,))]
    # busy, it may have to wait for another 5.12 s
    outcome = play([Write(0, 8, 721 * MS)], host=host, until=40 * SECOND)
    assert batches(outcome) == [(35_840 * MS, "flusher", (0,))]


def test_G2_the_guests_flusher_has_the_guests_tick_and_a_draw_of_its_own() -> None:
    host = replace(flusher(), flusher_phase="idle", tick_ns=0)
    guest = OracleGuest(access="cached", tick_ns=1000)
    # age from 0; 1 tick: wakes at 2000, 4000. In the host it is aged from there.
    outcome = play([Write(0, 8)], host=host, guest=guest, until=9000)
    assert [copy.instant for copy in outcome.copies] == [4000]
    assert batches(outcome) == [(7000, "flusher", (0,))]
    host = replace(host, flusher_phase="random")
    outcome = play([Write(0, 8)], host=host, guest=replace(guest, tick_ns=0), until=9000)
    first = 1 + draw(1, "flusher-phase", 1) % 1000
    assert [copy.instant for copy in outcome.copies] == [first + 3000]


def test_H6_an_fsync_that_leaves_nothing_dirty_ends_the_age_where_it_is_so() -> None:
    # the first age ends at 111; the second store begins at 2421
    host = replace(flusher(), flusher_phase="idle")
    program = [Write(0, 8), Sync(), Write(P, 8)]
    outcome = play(program, host=host, until=9000)
    assert batches(outcome)[1:] == [(3010, "flusher", (1,))]
    host = replace(host, fsync_resets_age=True)
    assert batches(play(program, host=host, until=9000))[1:] == [(5421, "flusher", (1,))]


def test_H6_an_fsync_that_reports_an_error_ends_no_age() -> None:
    host = replace(flusher(), flusher_phase="idle", fsync_resets_age=True, write_errors=(0,))
    # the call fails at 111; the next store begins at 121
    outcome = play([Write(0, 8), Sync(), Write(P, 8)], host=host, until=9000)
    assert batches(outcome)[1:] == [(3010, "flusher", (1,))]


# --- the host's own commits -----------------------------------------------------------------------


def test_H16_ext4_commits_by_itself_and_xfs_does_not() -> None:
    host = replace(HOST, commit_interval_ns=5000)
    # dirty at 10: journal 5010..5210, FLUSH, commit block to 6310, FLUSH
    outcome = play([Write(0, 8)], host=host, until=9000)
    assert disk_flushes(outcome) == [(5210, 6210), (6310, 7310)]
    assert (outcome.journal_bytes, outcome.batches, outcome.flush_requests) == (12_288, [], [])
    outcome = play([Write(0, 8)], host=host, disk=replace(DISK, fua=True), until=9000)
    assert disk_flushes(outcome) == [(5210, 6210)]
    outcome = play([Write(0, 8)], host=replace(host, file_system="xfs"), until=9000)
    assert disk_flushes(outcome) == []


def test_H16_at_4_ms_a_tick_it_does_so_at_5_376_s() -> None:
    host = replace(HOST, commit_interval_ns=5 * SECOND, tick_ns=4 * MS, second_phase_ns=250 * MS)
    outcome = play([Write(0, 8)], host=host, until=6 * SECOND)
    assert disk_flushes(outcome)[0][0] == 5376 * MS + 200


def test_H16_a_call_that_committed_leaves_it_nothing_to_do() -> None:
    host = replace(HOST, commit_interval_ns=5000)
    outcome = play([Write(0, 8), Sync()], host=host, until=9000)
    assert len(disk_flushes(outcome)) == 2
    # a host msync leaves the times alone: FLUSH 111..1111, and the host commits at 5010
    outcome = play([Write(0, 8), Sync()], host=replace(host, monitor="crosvm"), until=9000)
    assert disk_flushes(outcome) == [(111, 1111), (5210, 6210), (6310, 7310)]


def test_H16_a_flag_that_became_dirty_again_waits_for_its_own_timer() -> None:
    host = replace(HOST, commit_interval_ns=5000)
    # the second fault is at 2421; nothing at 5010
    outcome = play([Write(0, 8), Sync(), Write(0, 8)], host=host, until=9900)
    assert disk_flushes(outcome)[2:] == [(7621, 8621), (8721, 9721)]


def test_H16_its_first_flush_makes_durable_what_the_flusher_left_in_the_cache() -> None:
    host = replace(flusher(1000, 900), commit_interval_ns=5000)
    outcome = play([Write(0, 8)], host=host, until=9000)
    assert batches(outcome) == [(1000, "flusher", (0,))]
    assert loss(outcome).at_risk == [(0, 0), (10, 8), (6210, 0)]


def test_H16_it_covers_new_extents_and_a_call_with_nothing_to_commit_waits_for_it() -> None:
    host = replace(flusher(1000, 900), commit_interval_ns=5000, monitor="crosvm")
    outcome = play([Write(0, 8), Sync(delay_ns=5989)], host=host, like=UNWRITTEN, until=9000)
    assert outcome.committed == {"L4": {0: 6310}, "L5": {0: 7310}}
    assert acknowledged(outcome) == [8310]


def test_H16_it_reports_no_error_and_is_struck_by_none() -> None:
    host = replace(HOST, commit_interval_ns=5000, fsync_errors=(0,))
    outcome = play([Write(0, 8)], host=host, until=9000)
    assert (outcome.fired_errors, outcome.unfired_errors) == ([], [0])
