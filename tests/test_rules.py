"""Each rule of the simulated stack, on the simulator itself, with numbers worked out by hand.

A fault costs 10 ns, a page 100 ns on the way to the disk, a FLUSH 1000 ns (see
`tests/oracle/cases.py`). A page that is dirty when an fsync begins at `s` is in L4 at s+100, the
journal at s+300; FLUSH until s+1300 (L5), the commit block until s+1400, and a second FLUSH until
s+2400, when the fsync returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from crashsim.engine.history import NEVER, History
from crashsim.engine.streams import Stream
from crashsim.power.per_write import broken_promises, rows_safe
from crashsim.power.safety import Domain, Safety, Stage, kept_stage
from tests.against_oracle import Facts, simulate_world, simulated
from tests.oracle import (
    FlushedWrite,
    OracleDevice,
    OracleDisk,
    OracleGuest,
    OracleHost,
    OracleWorld,
    Sync,
    Write,
)
from tests.oracle.cases import DISK, HOST, P, flusher, small_memory
from tests.oracle.inputs import Item

SECOND = 10**9


def play(
    *programs: Sequence[Item],
    pages: int = 8,
    host: OracleHost = HOST,
    disk: OracleDisk = DISK,
    guest: OracleGuest | None = None,
    until: int | None = None,
) -> History:
    device = OracleDevice(pages, tuple(tuple(program) for program in programs))
    world = OracleWorld((device,), host, disk, guest or OracleGuest(), 1, until)
    return simulate_world(world)


def begins(history: History) -> list[int]:
    return [int(t) for t in history.store_t_ns]


def batches(history: History) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(t, reason, pages) for t, reason, _, pages in simulated(history).batches]


def acknowledged(history: History) -> list[int]:
    return [int(t) for t in history.flush_ack_ns]


def disk_flushes(history: History) -> list[tuple[int, int]]:
    return simulated(history).disk_flushes


def safe(history: History, stage: Stage = Stage.DURABLE) -> list[int]:
    return [int(t) for t in rows_safe(history, Safety(history, stage))[1]]


# --- guest ----------------------------------------------------------------------------------------


def test_G1_a_flush_has_no_range_and_covers_the_whole_device() -> None:
    history = play([Write(0, 8), Write(7 * P, 8), Sync()])
    assert batches(history) == [(22, "fsync", (0, 7))]


def test_G2_with_dax_a_store_is_in_the_hosts_page_at_once() -> None:
    assert safe(play([Write(0, 8)]), Stage.IN_HOST) == [10]


def test_G2_without_dax_a_flush_does_not_cover_the_guests_own_cache() -> None:
    # vCPU 1's sync at 0 finds nothing in L1; the store at 5 stays there until vCPU 0's sync at 6.
    history = play([Write(0, 8, 5), Sync()], [Sync()], guest=OracleGuest(access="cached"))
    assert simulated(history).copies == [(6, 0)]
    assert safe(history, Stage.IN_HOST) == [6]
    # copied in 512 + 10 ns, then the fsync at 528 and its first FLUSH from 828 wait for none
    assert batches(history) == [(528, "fsync", (0,))]


def test_G2_without_dax_a_store_still_in_the_guests_cache_breaks_no_promise() -> None:
    # The store at 8 falls into the copying of the sync at 7, whose flush is submitted at 529.
    programs = [Write(0, 8, 6), Sync()], [Write(P, 8, 8)]
    history = play(*programs, guest=OracleGuest(access="cached"))
    assert simulated(history).copies == [(7, 0)]
    assert (
        broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])[0].size == 0
    )


def test_G3_nothing_but_a_flush_makes_a_store_durable() -> None:
    assert safe(play([Write(0, 8)], until=9000)) == [NEVER]


def test_G4_each_call_makes_its_number_of_device_flushes() -> None:
    def count(call: str, ext4: bool) -> int:
        guest = OracleGuest(ext4=ext4)
        return len(acknowledged(play([Write(0, 8), Sync(call)], guest=guest)))

    assert [count(call, True) for call in ("msync", "fdatasync", "fsync")] == [1, 1, 2]
    assert [count(call, False) for call in ("msync", "fdatasync", "fsync")] == [1, 1, 1]
    assert count("msync-async", True) == 0


def test_G5_a_flush_persists_the_stores_of_everyone_on_the_device() -> None:
    history = play([Write(0, 8), Sync(delay_ns=50)], [Write(3 * P, 8)])
    assert batches(history) == [(61, "fsync", (0, 3))]
    assert safe(history)[0] == safe(history)[1] < NEVER


def test_G6_the_journal_commits_five_seconds_after_the_first_store_with_two_flushes() -> None:
    program = [Write(0, 8), Write(P, 8, SECOND)]
    history = play(program, guest=OracleGuest(ext4=True), until=20 * SECOND)
    assert history.flush_vcpu.tolist() == [-1, -1]
    first, second = history.flush_asked_ns.tolist()
    assert first == 5 * SECOND + 10
    assert second == history.flush_ack_ns[0]


def test_G6_a_raw_device_has_no_journal() -> None:
    assert acknowledged(play([Write(0, 8)], until=20 * SECOND)) == []


def recorded(driver: str) -> tuple[list[int], list[tuple[int, int]]]:
    program = [FlushedWrite(0, 8, 5, preflush=True, fua=True)]
    history = play(program, guest=OracleGuest(driver=driver))
    asked = history.flush_asked_ns.tolist()
    return begins(history), list(zip(asked, acknowledged(history), strict=True))


def test_G7_each_driver_generation_has_its_order_of_data_and_flushes() -> None:
    assert recorded("concurrent") == ([15], [(16, 3216), (16, 1116)])
    assert recorded("serialized") == ([15], [(16, 2416), (2416, 3416)])
    assert recorded("ordered") == ([1015], [(5, 1005), (1016, 3416)])


@pytest.mark.parametrize("driver", ["serialized", "ordered"])
def test_G7_other_drivers_have_one_flush_outstanding(driver: str) -> None:
    history = play([Sync()], [Sync(delay_ns=1)], guest=OracleGuest(driver=driver))
    assert history.flush_submit_ns.tolist() == [0, 1000]
    assert play([Sync()], [Sync(delay_ns=1)]).flush_submit_ns.tolist() == [0, 1]


def test_G7_ordered_a_failed_preflush_fails_the_request_before_its_data() -> None:
    host = replace(HOST, fsync_errors=(0,))
    program = [FlushedWrite(0, 8, fua=True), Write(8, 8)]
    history = play(program, host=host, guest=OracleGuest("ordered"))
    assert (history.store_write.tolist(), begins(history)) == ([1], [1010])
    assert acknowledged(history) == [1000]


def test_G9_an_error_fails_one_call_and_its_records_are_never_acknowledged() -> None:
    program = [Write(0, 8, 0, True), Sync(), Write(8, 8, 0, True), Sync()]
    host = replace(HOST, fsync_errors=(5, SECOND))
    history = play(program, host=host, guest=OracleGuest(acknowledge="synced"))
    facts = simulated(history)
    assert history.flush_result.tolist() == [1, 0]
    assert facts.acknowledgements == [(4822, 0, 1, 2, "")]
    assert (facts.failed_syncs, facts.errors_left) == (1, [SECOND])


def test_G10_a_snapshot_divides_a_write_between_two_words() -> None:
    # ten words from 10 on; at 13 words 0 to 3 have landed. The rest is due at 14, begins 24.
    facts = simulated(play([Write(0, 80)], [Sync(delay_ns=13)]))
    assert facts.stores == [(10, 0, 0, 32), (24, 0, 32, 48)]


# --- virtual machine monitor ----------------------------------------------------------------------


def test_V1_64_flushes_are_served_at_once_and_the_next_waits_its_turn() -> None:
    history = play(*[[Sync()]] * 65)
    assert history.flush_begin_ns.tolist() == [0] * 64 + [1000]


def test_V2_what_landed_before_a_flush_was_submitted_is_durable_when_it_is_acknowledged() -> None:
    history = play([Write(0, 8), Sync()])
    assert safe(history)[0] == 1311 <= acknowledged(history)[0]
    assert (
        broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])[0].size == 0
    )


def test_V2_a_disk_that_ignores_flush_breaks_the_promise() -> None:
    history = play([Write(0, 8), Sync()], disk=replace(DISK, ignores_flush=True))
    request, store = broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])
    assert (request.tolist(), store.tolist()) == ([0], [0])


def test_V7_devices_share_the_disk_but_not_their_flushes() -> None:
    # both fsyncs begin at 11: batch 0 in the pipe 11..111, batch 1 111..211
    device = OracleDevice(4, ((Write(P, 8), Sync()),))
    facts = simulated(simulate_world(OracleWorld((device, device), HOST, DISK)))
    assert facts.ios == [(0, 1, 1, 111), (1, 5, 1, 211)]


# --- host page cache ------------------------------------------------------------------------------


def test_H1_only_the_first_store_to_a_clean_page_pays_a_fault() -> None:
    assert begins(play([Write(0, 8), Write(8, 8), Write(P, 8)])) == [10, 11, 22]


def test_H3_a_page_stored_to_again_after_its_writeback_needs_another() -> None:
    # the sync begins at 11 and returns at 2411; the page faults again
    history = play([Write(0, 8), Sync(), Write(0, 8), Sync()])
    assert begins(history) == [10, 2421]
    assert batches(history) == [(11, "fsync", (0,)), (2422, "fsync", (0,))]


def test_H5_neighbours_are_one_io_and_the_ios_complete_in_drawn_order() -> None:
    facts = simulated(play([Write(3 * P, 8), Write(P, 8), Write(0, 8), Sync()]))
    order = Stream(1, "disk-order")
    if order.draw(0) >> 32 < order.draw(3) >> 32:
        assert facts.ios == [(0, 0, 2, 233), (0, 3, 1, 333)]
    else:
        assert facts.ios == [(0, 0, 2, 333), (0, 3, 1, 133)]


def test_H5_a_run_longer_than_256_pages_is_cut() -> None:
    facts: Facts = simulated(play([Write(0, 300 * P), Sync()], pages=300))
    assert [(first, pages) for _, first, pages, _ in facts.ios] == [(0, 256), (256, 44)]


def test_H6_the_age_is_the_inodes_so_a_page_dirtied_just_now_is_written_too() -> None:
    history = play([Write(0, 8), Write(P, 8, 3978)], host=flusher(), until=9000)
    assert batches(history) == [(4000, "flusher", (0, 1))]


def test_H6_an_fsync_does_not_reset_the_age() -> None:
    history = play([Write(0, 8), Sync(), Write(P, 8)], host=flusher(), until=9000)
    assert batches(history) == [(11, "fsync", (0,)), (4000, "flusher", (1,))]


def test_H6_interval_zero_switches_the_flusher_off() -> None:
    assert batches(play([Write(0, 8)], until=10**12)) == []


def test_H7_background_writeback_starts_when_a_store_exceeds_the_threshold() -> None:
    history = play([Write(page * P, 8) for page in range(3)], host=small_memory(), until=9000)
    assert batches(history) == [(32, "background", (0, 1, 2))]


def test_H7_a_writer_is_slowed_half_way_and_held_200_ms_at_the_limit() -> None:
    # page 4 at 54: 5 pages dirty or in flight, above 4: one page's time, 100 ns, times (6-4)/(6-5).
    # page 5 begins 255 + 10 and finds 6.
    history = play([Write(page * P, 8) for page in range(6)], host=small_memory())
    assert begins(history)[-2:] == [54, 265]
    assert history.end_ns == 266 + 200_000_000
    assert history.info.throttle_ns == 200_000_200


def test_H8_early_writeback_takes_all_none_or_a_drawn_share() -> None:
    def taken(numerator: int, denominator: int) -> int:
        host = replace(HOST, early=(10_000, numerator, denominator))
        program = [Write(page * P, 1) for page in range(400)]
        history = play(program, host=host, pages=400, until=10_001)
        return sum(len(pages) for _, _, pages in batches(history))

    assert taken(1, 1) == 400
    assert 160 < taken(1, 2) < 240


def test_H9_the_flusher_leaves_its_data_in_the_disks_cache() -> None:
    history = play([Write(0, 8)], host=flusher(), until=9000)
    assert safe(history, Stage.COMPLETED) == [4100]
    assert safe(history) == [NEVER]
    assert disk_flushes(history) == []


def test_H10_a_store_after_the_tagging_is_not_covered() -> None:
    history = play([Write(0, 8), Sync()], [Write(8, 8, 40)])
    assert batches(history) == [(11, "fsync", (0,))]
    assert safe(history) == [1311, NEVER]


def test_H10_a_tagged_page_under_writeback_is_taken_when_the_writes_in_flight_completed() -> None:
    history = play([Write(0, 8), Sync()], [Write(8, 8, 20), Sync()])
    assert batches(history) == [(11, "fsync", (0,)), (111, "fsync", (0,))]
    assert acknowledged(history) == [3311, 4311]


def test_H11_dirty_times_cost_a_journal_and_a_second_flush_clean_ones_one_flush() -> None:
    history = play([Write(0, 8), Sync(), Sync()])
    assert disk_flushes(history) == [(311, 1311), (1411, 2411), (2411, 3411)]
    assert history.info.metadata_bytes == 8192 + 4096


def test_H11_with_a_fua_disk_the_commit_and_its_flush_are_one_write() -> None:
    history = play([Write(0, 8), Sync()], disk=replace(DISK, fua=True))
    assert disk_flushes(history) == [(311, 1311)]
    assert acknowledged(history) == [2411]


def test_H12_msync_async_does_nothing_and_takes_no_time() -> None:
    history = play([Write(0, 8), Sync("msync-async"), Write(8, 8)])
    assert begins(history) == [10, 11]
    assert batches(history) == []


# --- disk -----------------------------------------------------------------------------------------


def test_D1_flushes_that_arrive_while_one_is_in_flight_share_the_next() -> None:
    history = play([Sync()], [Sync(delay_ns=1)], [Sync(delay_ns=999)], [Sync(delay_ns=1000)])
    assert disk_flushes(history) == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert acknowledged(history) == [1000, 2000, 2000, 3000]


def test_D1_a_flush_covers_only_what_completed_before_it_was_issued() -> None:
    # FLUSH 0..1000 for vCPU 1; the page completes at 111, and is on the media with the next, 2000
    assert safe(play([Write(0, 8), Sync()], [Sync()])) == [2000]


def test_D2_what_no_flush_covered_may_be_lost_or_kept() -> None:
    history = play([Write(0, 8)], host=flusher(), until=9000)
    assert (safe(history, Stage.SUBMITTED), safe(history)) == ([4000], [NEVER])


def test_D3_a_store_across_two_pages_can_be_safe_in_part() -> None:
    # Page 0 is in flight 11..111 when the fsync of vCPU 1 takes page 1: 111..211. Page 0 is tagged
    # and taken at 111, behind the first fsync's journal (211..411): 411..511.
    history = play([Write(0, 8), Sync()], [Write(P - 8, 16, 20), Sync()])
    first, last = rows_safe(history, Safety(history, Stage.COMPLETED))
    assert [(int(first[1]), int(last[1]))] == [(211, 511)]


def test_D5_the_pipe_serves_one_batch_after_the_other_at_its_bandwidth() -> None:
    slow = replace(DISK, bandwidth=P * SECOND // 5000)
    facts = simulated(play([Write(0, 8), Sync()], [Write(P, 8, 20), Sync()], disk=slow))
    assert facts.ios == [(0, 0, 1, 5011), (1, 1, 1, 10_011)]


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def layered() -> History:
    """Without DAX: stored at 5, copied at 1000, submitted 2000, completed 2100, never flushed."""
    host = replace(HOST, writeback_ns=1000, expire_ns=900)
    return play([Write(0, 8, 5)], host=host, guest=OracleGuest(access="cached"), until=9000)


def test_P1_a_killed_program_loses_nothing_it_stored(layered: History) -> None:
    assert safe(layered, kept_stage(Domain.PROGRAM_KILL)) == [5]


def test_P2_a_guest_crash_keeps_what_is_in_the_hosts_cache(layered: History) -> None:
    assert safe(layered, kept_stage(Domain.GUEST_CRASH)) == [1000]


def test_P3_a_killed_monitor_keeps_what_is_in_the_hosts_cache(layered: History) -> None:
    assert safe(layered, kept_stage(Domain.VMM_KILL)) == [1000]


def test_P4_a_host_crash_keeps_what_the_disk_completed(layered: History) -> None:
    assert safe(layered, kept_stage(Domain.HOST_CRASH)) == [2100]


def test_P5_a_power_cut_keeps_what_a_flush_covered(layered: History) -> None:
    assert safe(layered, kept_stage(Domain.POWER_CUT)) == [NEVER]
    plp = play([Write(0, 8), Sync()], disk=replace(DISK, plp=True))
    assert safe(plp, kept_stage(Domain.POWER_CUT)) == [111]
    assert safe(play([Write(0, 8), Sync()]), kept_stage(Domain.POWER_CUT)) == [1311]
