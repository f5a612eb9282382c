"""The oracle's guest journal, the ways to the device, calls and ranges, XFS and the price, against
cases worked out by hand.

With one page dirty a host fsync that begins at `s` ends at `s + 2400`; four pages of the guest's
journal before it take 400 more.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.oracle import (
    GroupSync,
    OracleDevice,
    OracleDisk,
    OracleFault,
    OracleGuest,
    OracleWorld,
    Sync,
    Write,
    run,
)
from tests.oracle.cases import (
    DEVICE,
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
from tests.oracle.inputs import auto_folio, check, first_pages, folios_of
from tests.oracle.loss import loss

EXT4 = OracleGuest(ext4=True)
CACHED = OracleGuest(access="cached")
PROGRAM = [Write(0, 8), Sync("fsync")]
GROWS = replace(DEVICE, grows=True)
FAILS = replace(HOST, fsync_errors=(0,))  # the first call, at 2411 in what follows


# --- calls ----------------------------------------------------------------------------------------


def test_G4_sync_flushes_ext4_once_and_a_raw_device_never() -> None:
    def flushes(call: str, guest: OracleGuest) -> int:
        return len(play([Write(0, 8), Sync(call), Sync(call)], guest=guest).flush_requests)

    assert [flushes("sync", guest) for guest in (EXT4, OracleGuest(), CACHED)] == [2, 0, 0]
    assert [flushes("sync_file_range", guest) for guest in (EXT4, CACHED)] == [0, 0]


def test_G4_sync_does_not_commit() -> None:
    program = [Write(0, 8), Sync("sync"), Sync("fsync")]
    assert len(play(program, guest=EXT4).flush_requests) == 3


def test_G4_without_dax_sync_copies_and_returns_when_that_is_done() -> None:
    outcome = play([Write(0, 8), Sync("sync"), Write(0, 8)], guest=CACHED)
    assert ([copy.instant for copy in outcome.copies], begins(outcome)) == ([1], [0, 523])


def test_G4_fdatasync_and_msync_commit_a_growing_file() -> None:
    for call in ("fdatasync", "msync"):
        program = [Write(0, 8), Sync(call), Sync(call)]
        assert len(play(program, guest=EXT4, like=GROWS).flush_requests) == 3
        assert len(play(program, guest=EXT4).flush_requests) == 2
        assert len(play(program, like=GROWS).flush_requests) == 2


def test_G4_each_store_to_a_growing_file_makes_the_times_dirty_whatever_its_tick() -> None:
    guest = replace(EXT4, tick_ns=10**9)
    program = [Write(0, 8), Sync("fdatasync"), Write(8, 8), Sync("fdatasync")]
    assert len(play(program, guest=guest, like=GROWS).flush_requests) == 4


def test_a_call_with_a_range_copies_what_its_vcpu_wrote_since_it_last_succeeded() -> None:
    first = [Write(0, 8), Sync("fsync", written=True), Write(P, 8), Sync("fsync", written=True)]
    outcome = play(first, [Write(2 * P, 8)], guest=CACHED)
    assert [copy.page for copy in outcome.copies] == [0, 1]
    whole = [replace(item, written=False) if isinstance(item, Sync) else item for item in first]
    outcome = play(whole, [Write(2 * P, 8)], guest=CACHED)
    assert [copy.page for copy in outcome.copies] == [0, 2, 1]


def test_a_page_of_the_range_that_another_vcpu_wrote_to_is_copied_again() -> None:
    # vCPU 0's call fails; the page is its own still, and dirty again when it calls at 10 us
    first = [Write(0, 8), Sync("fsync", written=True), Sync("fsync", 7000, written=True)]
    outcome = play(first, [Write(8, 8, 4000)], host=FAILS, guest=CACHED)
    assert [copy.page for copy in outcome.copies] == [0, 0]
    outcome = play(first, [Write(8, 8, 4000)], guest=CACHED)
    assert [copy.page for copy in outcome.copies] == [0]


def test_sync_file_range_copies_its_range_without_a_flush() -> None:
    program = [Write(0, 8), Sync("sync_file_range"), Write(0, 8)]
    outcome = play(program, [Write(P, 8)], guest=CACHED)
    assert [(copy.instant, copy.page) for copy in outcome.copies] == [(1, 0)]
    assert (outcome.flush_requests, begins(outcome)) == ([], [0, 0, 523])


def test_a_range_does_not_go_with_a_group_commit() -> None:
    with pytest.raises(ValueError, match="group"):
        play([Write(0, 8), GroupSync(call="sync_file_range")])


# --- ways to the device ---------------------------------------------------------------------------


def test_G2_a_character_device_has_no_fsync() -> None:
    guest = OracleGuest(access="devdax", acknowledge="synced")
    for call in ("msync", "fdatasync", "fsync"):
        outcome = play([Write(0, 8, 0, True), Sync(call), Write(0, 8)], guest=guest)
        assert (outcome.flush_requests, begins(outcome)) == ([], [10, 11])
        assert (outcome.failed_syncs, outcome.acknowledgements) == (1, [])
    for call in ("msync-async", "sync", "sync_file_range"):
        outcome = play([Write(0, 8, 0, True), Sync(call)], guest=guest)
        assert (outcome.failed_syncs, len(outcome.acknowledgements)) == (0, 1)


def test_G2_o_direct_is_like_a_store_with_or_without_a_file_system() -> None:
    for ext4 in (True, False):
        outcome = play(PROGRAM, guest=OracleGuest(access="direct", ext4=ext4))
        assert (begins(outcome), outcome.copies) == ([10], [])


def test_G2_what_no_guest_can_have_is_refused() -> None:
    for guest, why in (
        (OracleGuest(access="dax"), "DAX needs ext4"),
        (OracleGuest(access="devdax", ext4=True), "no file system"),
        (OracleGuest(access="devdax", on_sync_error="retry"), "for ever"),
        (OracleGuest(access="mapped"), "unknown"),
    ):
        with pytest.raises(ValueError, match=why):
            play(PROGRAM, guest=guest)


# --- the guest's journal --------------------------------------------------------------------------


def test_G6_a_commit_writes_its_pages_before_the_data() -> None:
    # block 11..411, data 511, journal 711, FLUSH, commit block 1811, FLUSH 2811
    outcome = play(PROGRAM, guest=replace(EXT4, journal_pages=4))
    assert [io.completed for io in outcome.ios] == [511]
    # the commit is of the instant of the call's host fsync: the mtime is clean for the second
    assert acknowledged(outcome) == [2811, 3811]
    assert outcome.guest_journal_bytes == 4 * P
    assert outcome.written_bytes == P + 8192 + 4096 + 4 * P
    assert outcome.stored_bytes == 8


def test_G6_a_folio_of_the_file_is_written_for_it_at_least() -> None:
    like = replace(DEVICE, folio=((P, 4 * P), (4 * P, 8 * P)))
    for pages, written in ((1, 4), (4, 4), (5, 8)):
        guest = replace(EXT4, journal_pages=pages)
        assert play(PROGRAM, like=like, guest=guest).guest_journal_bytes == written * P


def test_G6_pages_of_several_commits_are_written_by_the_first_call_after_them() -> None:
    # Firecracker takes one flush at a time: those of vCPU 1 and 2 wait, and their commits' pages
    # are in the file when the host is called for vCPU 0's second flush.
    programs = [Sync("msync")], [Write(0, 8), Sync("fsync")], [Write(P, 8, 90), Sync("fsync")]
    guest, host = replace(EXT4, journal_pages=1), replace(HOST, monitor="firecracker")
    outcome = play(*programs, guest=guest, host=host)
    # FLUSH 0..1000; then two pages to 1200, two of data to 1400, FLUSH to 2400
    assert acknowledged(outcome)[:2] == [1000, 2400]
    assert outcome.guest_journal_bytes == 2 * P


def test_G6_nobody_writes_them_where_the_host_is_not_called() -> None:
    guest = replace(EXT4, journal_pages=4)
    host = replace(flusher(1000, 900), commit_interval_ns=5000)
    outcome = play(
        PROGRAM, like=replace(DEVICE, kind="nvdimm"), guest=guest, host=host, until=20_000
    )
    assert (outcome.guest_journal_bytes, len(outcome.batches)) == (0, 1)


def test_G6_a_guests_commit_is_an_event_of_the_files_mtime() -> None:
    # The host commits at 1010 what the store at 10 made dirty; the guest's commit at 3000 makes it
    # dirty again though no page becomes so.
    guest = replace(EXT4, journal_pages=1)
    host = replace(HOST, commit_interval_ns=1000)
    program = [Write(0, 8), Sync("fsync", 2989)]
    like = replace(DEVICE, kind="nvdimm")
    outcome = play(program, like=like, guest=guest, host=host, until=9000)
    assert [issued for issued, _ in disk_flushes(outcome)] == [1210, 2310, 4200, 5300]
    guest = replace(guest, journal_pages=0)
    outcome = play(program, like=like, guest=guest, host=host, until=9000)
    assert [issued for issued, _ in disk_flushes(outcome)] == [1210, 2310]


def test_G6_they_are_struck_by_no_fault_and_touch_nothing_but_a_file() -> None:
    guest = replace(EXT4, journal_pages=4)
    disk = replace(DISK, shorn=OracleFault((1, 1)))
    assert play(PROGRAM, guest=guest, disk=disk).shorn_pages == [(0, 0)]
    like = replace(DEVICE, backing="tmpfs")
    assert play(PROGRAM, guest=guest, like=like).guest_journal_bytes == 0


def test_H10_a_call_waits_for_the_guests_journal_but_not_to_take_what_was_under_writeback() -> None:
    # Page 0 is written 0..10 us (slowly) when the call begins at 3011 and the page is dirty again.
    slow = OracleDisk(bandwidth=P * 10**5, flush_ns=1000)  # 10 us a page
    host = replace(flusher(3000, 2900), flusher_phase="busy")
    program = [Write(0, 8), Write(0, 8, 2990), Sync("fsync")]
    guest = replace(EXT4, journal_pages=1)
    outcome = play(program, guest=guest, host=host, disk=slow)
    # flusher 3000..13000, the guest's block to 23000; the second batch at 13000, not at 23000
    assert batches(outcome)[:2] == [(3000, "flusher", (0,)), (13_000, "fsync", (0,))]


# --- an aborted journal ---------------------------------------------------------------------------


def test_G9_the_program_ends_with_the_call_that_failed() -> None:
    outcome = play([*PROGRAM, Write(8, 8)], host=FAILS, guest=EXT4)
    assert outcome.aborts == [(2411, 0)]
    # the second flush is made; the store is not
    assert [request.result for request in outcome.flush_requests] == [1, 0]
    assert (begins(outcome), outcome.end_ns) == ([10], 3411)


def test_G9_a_store_that_begins_at_the_abort_happens_and_none_after_it() -> None:
    programs = PROGRAM, [Write(P, 80, 2401)], [Write(2 * P, 8, 2402)]
    outcome = play(*programs, host=FAILS, guest=EXT4)
    assert begins(outcome) == [10, 2411]


def test_G9_a_vcpu_that_waits_for_its_write_does_not_go_on_to_the_one_behind() -> None:
    guest = replace(EXT4, access="cached")  # where that would begin at the abort itself
    outcome = play(PROGRAM, [Write(P, 8, 4000), Write(P, 8)], host=FAILS, guest=guest)
    assert outcome.aborts == [(2923, 0)]
    assert begins(outcome) == [0]


def test_G9_what_a_snapshot_leaves_of_a_write_is_not_stored() -> None:
    # The commit's second flush takes the pages at 2411, amid the write of 2406..3405: six words.
    # The fsync behind it is not called.
    programs = PROGRAM, [Write(P, 8000, 2386), Sync("fsync")]
    outcome = play(*programs, host=FAILS, guest=EXT4)
    assert [store.length for store in outcome.stores] == [8, 48]
    assert (len(outcome.flush_requests), outcome.failed_syncs) == (2, 1)


def test_G9_a_write_lands_whole_and_ends_its_program() -> None:
    # The host does not look at a guest without DAX: 2406..3405.
    guest = replace(EXT4, access="cached")
    programs = [*PROGRAM, Write(8, 8)], [Write(P, 8000, 2906), Sync("fsync")]
    outcome = play(*programs, host=FAILS, guest=guest)
    # copied 1..523, the first flush to 2923
    assert outcome.aborts == [(2923, 0)]
    assert [(store.begin, store.length) for store in outcome.stores] == [(0, 8), (2906, 8000)]
    assert (len(outcome.flush_requests), outcome.failed_syncs) == (2, 1)


def test_G9_a_vcpu_that_waits_to_call_calls_in_vain() -> None:
    programs = PROGRAM, [Sync("msync", 3000), Write(P, 8)]
    outcome = play(*programs, host=FAILS, guest=EXT4)
    assert (outcome.failed_syncs, len(outcome.flush_requests)) == (2, 2)
    assert begins(outcome) == [10]


def test_G9_the_second_flush_of_another_commit_is_not_made() -> None:
    # vCPU 1's commit at 1000 has its first flush acknowledged at 3211, after the abort at 2411.
    programs = PROGRAM, [Write(P, 8, 980), Sync("fsync", 9)]
    outcome = play(*programs, host=FAILS, guest=EXT4)
    of_second = [request for request in outcome.flush_requests if request.vcpu == 1]
    assert [(request.asked, request.result) for request in of_second] == [(1000, 0)]
    assert outcome.failed_syncs == 2


def test_G9_retry_and_rewrite_end_there_and_panic_still_panics() -> None:
    for reaction in ("give-up", "retry", "rewrite"):
        guest = replace(EXT4, on_sync_error=reaction, acknowledge="synced")
        outcome = play([Write(0, 8, 0, True), Sync("fsync")], host=FAILS, guest=guest)
        assert (len(outcome.flush_requests), outcome.end_ns) == (2, 3411)
        assert outcome.acknowledgements == []
    guest = replace(EXT4, on_sync_error="panic")
    programs = [*PROGRAM, Write(8, 8)], [Write(P, 8, 10**6)]
    assert play(*programs, host=FAILS, guest=guest).end_ns == 3411


def test_G9_a_call_that_does_not_commit_aborts_nothing() -> None:
    for call in ("msync", "fdatasync", "sync"):
        outcome = play([Write(0, 8), Sync(call), Write(0, 8)], host=FAILS, guest=EXT4)
        assert (outcome.aborts, outcome.failed_syncs) == ([], 1)
        assert begins(outcome) == [10, 2421]
    outcome = play([*PROGRAM, Write(0, 8)], host=FAILS)
    assert outcome.aborts == []


def test_G9_the_kernels_own_commit_aborts_it_too_and_it_commits_no_more() -> None:
    guest = replace(EXT4, commit_interval_ns=1000)
    # first flush 1010..3410
    outcome = play([Write(0, 8), Write(8, 8, 2000)], host=FAILS, guest=guest, until=20_000)
    assert outcome.aborts == [(3410, 0)]
    assert [request.asked for request in outcome.flush_requests] == [1010, 3021, 3410]
    assert [request.vcpu for request in outcome.flush_requests] == [-1, -1, -1]


def test_G9_another_device_goes_on() -> None:
    one = OracleDevice(2, ((*PROGRAM, Write(8, 8)),))
    other = OracleDevice(2, ((Write(0, 8, 5000),),))
    outcome = run(OracleWorld((one, other), FAILS, DISK, EXT4, 1))
    assert begins(outcome) == [10, 5010]


def test_G9_the_guests_page_cache_is_written_back_no_more() -> None:
    guest = replace(EXT4, access="cached")
    host = replace(FAILS, writeback_ns=1000, expire_ns=3000, fsync_errors=(0,))
    programs = PROGRAM, [Write(P, 8, 1500)], [Sync("fsync", 5000)]
    outcome = play(*programs, host=host, guest=guest, until=50_000)
    assert [copy.page for copy in outcome.copies] == [0]
    assert loss(outcome, "guest-crash").at_risk[-1][1] == 8
    program = [Sync("sync_file_range", 5000)]
    outcome = play(PROGRAM, [Write(P, 8, 1500), *program], host=host, guest=guest)
    assert ([copy.page for copy in outcome.copies], outcome.failed_syncs) == ([0], 1)


# --- XFS ------------------------------------------------------------------------------------------


def test_H11_xfs_flushes_before_its_journal() -> None:
    host = replace(HOST, file_system="xfs")
    # data 111, FLUSH 1111, 1 KiB to 1136, FLUSH 2136
    outcome = play([Write(0, 8), Sync()], host=host)
    assert disk_flushes(outcome) == [(111, 1111), (1136, 2136)]
    assert (acknowledged(outcome), outcome.journal_bytes) == ([2136], 1024)
    outcome = play([Write(0, 8), Sync()], host=host, disk=replace(DISK, fua=True))
    assert (disk_flushes(outcome), acknowledged(outcome)) == ([(111, 1111)], [2136])


def test_H13_on_xfs_a_new_extent_is_there_with_its_journal() -> None:
    host = replace(HOST, file_system="xfs", monitor="crosvm")
    like = replace(DEVICE, extents="unwritten")
    outcome = play([Write(0, 8), Sync()], host=host, like=like)
    assert outcome.committed == {"L4": {0: 1136}, "L5": {0: 2136}}


# --- folios ---------------------------------------------------------------------------------------


def test_H2_folios_lie_at_multiples_of_their_size_and_end_with_their_part() -> None:
    def folios(pages: int, *parts: tuple[int, int]) -> list[tuple[int, int]]:
        folio = tuple((size * P, until * P) for size, until in parts)
        device = OracleDevice(pages, (), folio=folio)
        check(OracleWorld((device,)))
        return [(one.start, len(one)) for one in folios_of(device)]

    assert folios(6, (8, 6)) == [(0, 4), (4, 2)]
    assert folios(8, (4, 8)) == [(0, 4), (4, 4)]
    assert folios(13, (2, 3), (8, 13)) == [(0, 2), (2, 1), (3, 1), (4, 4), (8, 4), (12, 1)]


def test_H2_parts_that_do_not_fit_are_refused() -> None:
    for parts in (((P, 4 * P),), ((P, 4 * P), (P, 4 * P), (P, 8 * P)), ((P, 100), (P, 8 * P))):
        with pytest.raises(ValueError, match="part"):
            play(PROGRAM, like=replace(DEVICE, folio=parts))


def test_H2_a_device_begins_at_a_multiple_of_its_largest_folio() -> None:
    devices = (OracleDevice(3, ()), OracleDevice(5, (), folio=((P, P), (4 * P, 5 * P))))
    assert first_pages(devices) == [0, 4]


def test_H2_auto_is_large_where_the_memory_is_advised_and_the_host_can() -> None:
    def auto(kind: str = "virtio-pmem", backing: str = "file", **host: str) -> int:
        device = OracleDevice(8, (), kind=kind, backing=backing, folio="auto")
        world = OracleWorld((device,), replace(HOST, **host))  # type: ignore[arg-type]
        return auto_folio(world, device) // P

    assert [auto(), auto("nvdimm"), auto("virtio-blk"), auto("real-nvdimm")] == [512, 512, 1, 1]
    assert [auto(backing=one) for one in ("private", "tmpfs", "ram")] == [1, 1, 1]
    assert [auto(thp=one) for one in ("always", "madvise", "never", "none")] == [512, 512, 512, 1]
    assert [auto(kernel=one) for one in ("6.15", "6.16", "6.9", "7.0")] == [1, 512, 1, 512]
    assert [auto(kernel=one, file_system="xfs") for one in ("5.17", "5.18")] == [1, 512]
    assert auto(monitor="crosvm") == 1


def test_H7_background_writeback_takes_as_many_folios_as_have_1024_pages() -> None:
    # page 0 and two folios of 512 pages: with the second they would be 1025
    like = OracleDevice(8, (), folio=((P, 512 * P), (512 * P, 1536 * P)))
    host = replace(HOST, memory_bytes=10_000 * P, background_ratio=10, dirty_ratio=90)
    program = [Write(512 * P, 8), Write(1024 * P, 8), Write(0, 8)]
    outcome = play(program, like=like, pages=1536, host=host, until=10**6)
    taken = [(batch.reason, batch.pages[0], len(batch.pages)) for batch in outcome.batches]
    assert taken == [("background", 512, 1024)]
