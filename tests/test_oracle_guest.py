"""The oracle's guest and device against cases worked out by hand (see `tests/oracle/cases.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.oracle import (
    FlushedWrite,
    GroupSync,
    Mark,
    OracleDevice,
    OracleGuest,
    OracleWorld,
    Sync,
    SyncIfDue,
    Write,
    run,
)
from tests.oracle.cases import (
    DISK,
    HOST,
    P,
    acknowledged,
    batches,
    begins,
    disk_flushes,
    flusher,
    play,
)

SECOND = 10**9


def test_H1_only_the_first_store_to_a_clean_page_pays_a_fault() -> None:
    # free 0: fault, b 10 | free 11: no fault | free 12: another page, b 22
    outcome = play([Write(0, 8), Write(8, 8), Write(P, 8)])
    assert begins(outcome) == [10, 11, 22]
    assert outcome.end_ns == 23


def test_H1_a_page_dirtied_by_another_vcpu_still_costs_this_one_its_fault() -> None:
    outcome = play([Write(0, 8)], [Write(8, 8, 5)])
    assert begins(outcome) == [10, 15]


def test_H1_a_page_that_was_cleaned_faults_again() -> None:
    # the sync begins at 11 and returns at 2411
    outcome = play([Write(0, 8), Sync(), Write(0, 8)])
    assert begins(outcome) == [10, 2421]


def test_H1_a_write_still_to_begin_is_planned_again_when_its_page_is_cleaned() -> None:
    # vCPU 0 would begin its second write at 61 without a fault; vCPU 1 has the page cleaned at 20
    outcome = play([Write(0, 8), Write(0, 8, 50)], [Sync(delay_ns=20)])
    assert begins(outcome) == [10, 71]


def test_G10_words_land_one_each_nanosecond_and_an_unaligned_write_touches_one_more() -> None:
    # bytes 5..24 lie in words 0, 1, 2 and 3
    assert play([Write(5, 20)]).end_ns == 10 + 4


def test_G10_a_snapshot_divides_a_write_between_two_words() -> None:
    # ten words from 10 on; at 13 words 0 to 3 have landed. The rest is due at 14, begins 24.
    outcome = play([Write(0, 80)], [Sync(delay_ns=13)])
    assert [(s.begin, s.offset, s.length) for s in outcome.stores] == [(10, 0, 32), (24, 32, 48)]
    assert outcome.layers.view(13, "L3") == dict.fromkeys(range(32), 0)


def test_G10_a_write_whose_last_word_lands_at_the_snapshot_is_whole() -> None:
    outcome = play([Write(0, 32)], [Sync(delay_ns=13)])
    assert [(s.begin, s.length) for s in outcome.stores] == [(10, 32)]


def test_G10_only_the_instant_at_which_pages_are_cleaned_divides() -> None:
    # Page 0 is in flight 11..111. A hundred words land in it from 30 on. vCPU 2's fsync at 50 tags
    # it and takes nothing yet: no division. At 111 it takes it: 82 words have landed.
    programs = [Write(0, 8), Sync()], [Write(0, 800, 20)], [Sync(delay_ns=50)]
    parts = [(s.begin, s.length) for s in play(*programs).stores if s.write == 1]
    assert parts == [(30, 656), (122, 144)]


def test_G10_a_write_that_begins_after_the_snapshot_in_the_same_instant_is_divided_too() -> None:
    # Faults are free. vCPU 0's sync returns at 1000; there vCPU 1's flush is submitted and page 0,
    # dirtied by vCPU 2, is taken. vCPU 0 goes on in the same instant: one word is in the snapshot.
    programs = [Sync(), Write(0, 80)], [Sync(delay_ns=1)], [Write(P - 8, 8, 500)]
    guest = OracleGuest("serialized")
    outcome = play(*programs, host=replace(HOST, fault_ns=0), guest=guest)
    parts = [(s.begin, s.length) for s in outcome.stores if s.vcpu == 0]
    assert parts == [(1000, 8), (1001, 72)]
    assert set(outcome.layers.view(1000, "L3").values()) == {0, 1}


def test_G10_a_snapshot_of_one_device_divides_no_write_of_another() -> None:
    writer = OracleDevice(1, ((Write(0, 80),),))
    syncer = OracleDevice(1, ((Write(0, 8), Sync(delay_ns=2)),))
    outcome = run(OracleWorld((writer, syncer), HOST, DISK))
    assert batches(outcome) == [(13, "fsync", (1,))]
    assert [s.length for s in outcome.stores if s.device == 0] == [80]


def test_G4_each_call_makes_its_number_of_device_flushes() -> None:
    def count(call: str, ext4: bool) -> int:
        guest = OracleGuest(ext4=ext4)
        return len(play([Write(0, 8), Sync(call)], guest=guest).flush_requests)

    assert [count(call, True) for call in ("msync", "fdatasync", "fsync")] == [1, 1, 2]
    assert [count(call, False) for call in ("msync", "fdatasync", "fsync")] == [1, 1, 1]
    assert count("msync-async", True) == 0


def test_G4_a_fsync_with_nothing_uncommitted_makes_one_flush() -> None:
    program = [Write(0, 8), Sync("fsync"), Sync("fsync")]
    outcome = play(program, guest=OracleGuest(ext4=True))
    # 11..2411, then a clean fsync on the host: one FLUSH, to 3411; the second call one more
    assert acknowledged(outcome) == [2411, 3411, 4411]


def test_G4_msync_does_not_commit() -> None:
    program = [Write(0, 8), Sync("msync"), Sync("fsync")]
    assert len(play(program, guest=OracleGuest(ext4=True)).flush_requests) == 3


def test_G6_the_journal_commits_five_seconds_after_the_first_store_with_two_flushes() -> None:
    program = [Write(0, 8), Write(P, 8, SECOND)]
    outcome = play(program, guest=OracleGuest(ext4=True), until=20 * SECOND)
    asked = [(request.vcpu, request.asked) for request in outcome.flush_requests]
    # two pages, 200, and a commit of the host's, 2300
    assert asked == [(-1, 5 * SECOND + 10), (-1, 5 * SECOND + 2510)]
    assert outcome.batches[0].pages == (0, 1)


def test_G6_a_store_after_the_commit_starts_the_next_timer_and_fsync_stops_it() -> None:
    program = [Write(0, 8), Write(0, 8, 6 * SECOND), Sync("fsync", SECOND)]
    outcome = play(program, guest=OracleGuest(ext4=True), until=30 * SECOND)
    # commit at 5 s + 10; the store at 6 s + 11 + 10 (a fault) is committed by the call 1 s later
    assert [request.vcpu for request in outcome.flush_requests] == [-1, -1, 0, 0]
    assert outcome.flush_requests[2].asked == 7 * SECOND + 22


def test_G6_a_raw_device_has_no_journal() -> None:
    assert play([Write(0, 8)], until=20 * SECOND).flush_requests == []


def test_G7_concurrent_flushes_are_all_in_flight() -> None:
    outcome = play([Sync()], [Sync(delay_ns=1)])
    assert [request.submitted for request in outcome.flush_requests] == [0, 1]


@pytest.mark.parametrize("driver", ["serialized", "ordered"])
def test_G7_other_drivers_have_one_flush_outstanding(driver: str) -> None:
    outcome = play([Sync()], [Sync(delay_ns=1)], guest=OracleGuest(driver=driver))
    submitted = [(request.asked, request.submitted) for request in outcome.flush_requests]
    assert submitted == [(0, 0), (1, 1000)]
    assert acknowledged(outcome) == [1000, 2000]


def recorded(driver: str) -> list[tuple[int, int | None]]:
    program = [FlushedWrite(0, 8, 5, preflush=True, fua=True)]
    outcome = play(program, guest=OracleGuest(driver=driver))
    assert begins(outcome) == [1015 if driver == "ordered" else 15]
    return [(request.asked, request.acknowledged) for request in outcome.flush_requests]


def test_G7_concurrent_copies_and_then_asks_for_both_flushes_at_once() -> None:
    # Both fsyncs begin at 16; the page's I/O ends at 116. The second finds clean times and asks for
    # FLUSH at once: 116..1116. The first has its journal written at 316, and so the next FLUSH,
    # 1116..2116; its commit block ends at 2216, its last FLUSH at 3216.
    assert recorded("concurrent") == [(16, 3216), (16, 1116)]


def test_G7_serialized_copies_and_then_flushes_twice() -> None:
    assert recorded("serialized") == [(16, 2416), (2416, 3416)]


def test_G7_ordered_flushes_copies_flushes() -> None:
    # the preflush at 5 finds nothing: to 1005. The data begins at 1015, FUA flush at 1016.
    assert recorded("ordered") == [(5, 1005), (1016, 3416)]


def test_G7_ordered_a_failed_preflush_fails_the_request_before_its_data() -> None:
    host = replace(HOST, fsync_errors=(0,))
    outcome = play([FlushedWrite(0, 8), Write(8, 8)], host=host, guest=OracleGuest("ordered"))
    assert [(store.write, store.begin) for store in outcome.stores] == [(1, 1010)]


def test_G9_an_error_fails_one_call_and_its_records_are_never_acknowledged() -> None:
    program = [Write(0, 8, 0, True), Sync(), Write(8, 8, 0, True), Sync()]
    host = replace(HOST, fsync_errors=(5, 10**9))
    outcome = play(program, host=host, guest=OracleGuest(acknowledge="synced"))
    # the first sync 11..2411 fails; store at 2421; the second sync 2422..4822
    assert [request.result for request in outcome.flush_requests] == [1, 0]
    assert [(a.instant, a.first, a.last) for a in outcome.acknowledgements] == [(4822, 1, 1)]
    assert outcome.fired_errors == [(5, 2411)] and outcome.unfired_errors == [10**9]
    assert outcome.failed_syncs == 1


def test_G9_the_remaining_flushes_of_a_failed_call_are_still_made() -> None:
    host = replace(HOST, fsync_errors=(0,))
    outcome = play([Write(0, 8), Sync("fsync")], host=host, guest=OracleGuest(ext4=True))
    assert [request.result for request in outcome.flush_requests] == [1, 0]
    assert outcome.failed_syncs == 1


def test_records_are_acknowledged_when_their_last_word_landed() -> None:
    # two writes of two words: 10..11 and 12..13
    outcome = play([Write(0, 16), Write(16, 16, 0, True)])
    assert [(a.instant, a.first, a.last) for a in outcome.acknowledgements] == [(13, 0, 1)]


def test_a_mark_acknowledges_at_its_instant() -> None:
    outcome = play([Write(0, 8), Mark("one", 5)])
    assert [(a.instant, a.label) for a in outcome.acknowledgements] == [(16, "one")]


def test_a_sync_if_due_syncs_only_when_enough_time_went_by_since_the_last_returned() -> None:
    # free at 11: 11 - 0 < 100, nothing. Free at 112: sync, to 2512. Free at 2523: nothing.
    due = SyncIfDue(100)
    outcome = play([Write(0, 8), due, Write(0, 8, 100), due, Write(0, 8), due])
    assert acknowledged(outcome) == [2512]


def test_guest_wait_counts_the_time_in_sync_calls() -> None:
    assert play([Write(0, 8), Sync(delay_ns=30)]).guest_wait_ns == 2400


def test_a_group_commit_serves_all_that_joined_before_its_sync_began() -> None:
    # vCPU 0 leads from 11 on and syncs at 61; vCPU 1 joins at 31; vCPU 2 comes at 71 and waits.
    # Two pages: 200 ns, so the sync returns at 61 + 2500 = 2561; vCPU 2 leads: 2611 + 2400 = 5011.
    programs = [
        [Write(index * P, 8, think, True), GroupSync(50)] for index, think in enumerate((0, 20, 60))
    ]
    outcome = play(*programs, guest=OracleGuest(acknowledge="synced"))
    assert [r.asked for r in outcome.flush_requests] == [61, 2611]
    acks = [(a.instant, a.vcpu) for a in outcome.acknowledgements]
    assert acks == [(2561, 0), (2561, 1), (5011, 2)]
    assert outcome.guest_wait_ns == (2561 - 11) + (2561 - 31) + (5011 - 71)


def test_a_group_sync_that_ends_is_followed_by_one_for_all_that_wait() -> None:
    # vCPU 0's group sync runs 0..1000; vCPUs 1 and 2 come at 11 and 31 and share the next
    group = GroupSync()
    outcome = play([group], [Write(0, 8), group], [Write(P, 8, 20), group])
    assert [(r.vcpu, r.asked) for r in outcome.flush_requests] == [(0, 0), (1, 1000)]


def test_G2_without_dax_a_sync_copies_first_and_pays_for_the_clean_pages() -> None:
    # the store begins at 0 without a fault; the copy at 1 takes 512 + 10, the flush is asked at 523
    outcome = play([Write(0, 8), Sync()], guest=OracleGuest(access="cached"))
    assert begins(outcome) == [0]
    assert [(copy.instant, copy.page) for copy in outcome.copies] == [(1, 0)]
    assert outcome.flush_requests[0].asked == 523
    assert batches(outcome) == [(523, "fsync", (0,))]


def test_G2_without_dax_a_flush_does_not_cover_the_guests_cache() -> None:
    # vCPU 1 stores at 100, after the copies and before the flush
    outcome = play([Write(0, 8), Sync()], [Write(P, 8, 100)], guest=OracleGuest(access="cached"))
    assert outcome.layers.view(outcome.end_ns, "L5") == dict.fromkeys(range(8), 0)
    assert set(outcome.layers.view(outcome.end_ns, "L1").values()) == {0, 1}


def test_G2_the_guests_own_flusher_copies_and_then_the_hosts_ages_from_the_copy() -> None:
    # the store's age starts at 0: copied at 3000. The host's age starts there: written at 6000.
    outcome = play([Write(0, 8)], host=flusher(), guest=OracleGuest(access="cached"), until=9000)
    assert [copy.instant for copy in outcome.copies] == [3000]
    assert batches(outcome) == [(6000, "flusher", (0,))]


def test_G2_the_guests_flusher_begins_a_new_age_after_it_wrote() -> None:
    # the store at 3501 is old enough at 6501
    program = [Write(0, 8), Write(0, 8, 3500)]
    outcome = play(program, host=flusher(), guest=OracleGuest(access="cached"), until=7500)
    assert [copy.instant for copy in outcome.copies] == [3000, 7000]


def test_G2_a_store_at_the_instant_of_the_copy_is_copied() -> None:
    outcome = play([Sync(delay_ns=3)], [Write(0, 8, 3)], guest=OracleGuest(access="cached"))
    assert outcome.layers.view(3, "L2") == dict.fromkeys(range(8), 0)


def test_G2_without_dax_writing_back_divides_the_writes_of_others() -> None:
    # vCPU 1's ten words land from 0 on; the sync at 3 copies four of them
    outcome = play([Sync(delay_ns=3)], [Write(0, 80)], guest=OracleGuest(access="cached"))
    assert [(s.begin, s.length) for s in outcome.stores] == [(0, 32), (4, 48)]


def test_V1_the_sixty_fifth_fsync_waits_for_a_thread() -> None:
    # clean syncs: the first has the FLUSH 0..1000, 63 share 1000..2000, the last begins at 1000 and
    # has the one after
    outcome = play(*[[Sync()] for _ in range(65)])
    assert [request.fsync_begun for request in outcome.flush_requests] == [0] * 64 + [1000]
    assert acknowledged(outcome) == [1000] + [2000] * 63 + [3000]
    assert disk_flushes(outcome) == [(0, 1000), (1000, 2000), (2000, 3000)]


def test_a_run_with_a_duration_stops_an_unfinished_vcpu_there() -> None:
    outcome = play([Write(0, 8), Sync(), Write(0, 8)], until=100)
    assert (outcome.end_ns, begins(outcome)) == (100, [10])
    assert outcome.guest_wait_ns == 89
    assert acknowledged(outcome) == [None]


def test_writes_are_numbered_device_by_device_and_vcpu_by_vcpu() -> None:
    first = OracleDevice(1, ((Write(0, 8, 90), Write(0, 8)), (Write(8, 8),)))
    second = OracleDevice(1, ((Write(16, 8),),))
    outcome = run(OracleWorld((first, second), HOST, DISK))
    assert [(s.write, s.device, s.vcpu) for s in outcome.stores] == [
        (2, 0, 1),
        (3, 1, 2),
        (0, 0, 0),
        (1, 0, 0),
    ]
