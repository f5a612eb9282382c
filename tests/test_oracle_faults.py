"""The oracle's write errors, disk faults, new extents and full host against cases worked out by
hand (`tests/oracle/cases.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.oracle import (
    Mark,
    OracleDevice,
    OracleDisk,
    OracleFault,
    OracleGuest,
    OracleWorld,
    Outcome,
    Sync,
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
from tests.oracle.clock import draw
from tests.oracle.loss import Steps, loss, uncovered_marks

MSYNC = replace(HOST, monitor="crosvm")
NEW = OracleDevice(8, (), extents="unwritten")
SPARSE = OracleDevice(8, (), extents="sparse")
PAGE_0 = dict.fromkeys(range(8), 0)


def results(outcome: Outcome) -> list[int | None]:
    return [request.result for request in outcome.flush_requests]


def risk(outcome: Outcome, domain: str = "power-cut") -> Steps:
    return loss(outcome, domain).at_risk


# --- write errors ---------------------------------------------------------------------------------


def test_H14_a_failed_write_is_reported_once_and_its_data_is_gone() -> None:
    # The batch ends and fails at 111, and so does the call, without journal and FLUSH. The next
    # finds the mtime dirty again: journal to 311, FLUSH, commit to 1411, FLUSH to 2411.
    host = replace(HOST, write_errors=(5,))
    outcome = play([Write(0, 8), Sync(), Sync()], host=host)
    assert (acknowledged(outcome), results(outcome)) == ([111, 2411], [1, 0])
    assert disk_flushes(outcome) == [(311, 1311), (1411, 2411)]
    assert batches(outcome) == [(11, "fsync", (0,))]
    assert (outcome.failed_batches, outcome.unfired_write_errors) == ([0], [])
    assert risk(outcome) == [(0, 0), (10, 8)]
    assert risk(outcome, "host-crash-in-flight-kept") == [(0, 0), (10, 8)]
    assert loss(outcome).broken == [1]


def test_H14_a_failed_msync_leaves_the_mtime_as_it_was() -> None:
    host = replace(MSYNC, write_errors=(5,))
    outcome = play([Write(0, 8), Sync(), Sync()], host=host)
    assert (acknowledged(outcome), disk_flushes(outcome)) == ([111, 1111], [(111, 1111)])


def test_H14_a_page_dirtied_again_carries_all_of_its_content() -> None:
    # write 1 at 121; the sync at 122 has the page in L4 at 222
    host = replace(HOST, write_errors=(5,))
    outcome = play([Write(0, 8), Sync(), Write(8, 8), Sync()], host=host)
    assert outcome.layers.view(221, "L4") == {}
    assert outcome.layers.view(222, "L4") == {**PAGE_0, **dict.fromkeys(range(8, 16), 1)}


def test_H14_a_call_that_is_past_its_data_reports_the_error_when_it_returns() -> None:
    # The call's only FLUSH is 0..1000. The flusher's batch of 500 fails at 600.
    host = replace(flusher(500, 400), write_errors=(550,))
    outcome = play([Sync(), Sync()], [Write(0, 8)], host=host)
    assert (acknowledged(outcome), results(outcome)) == ([1000, 3300], [1, 0])


def test_H14_one_batch_uses_up_all_errors_that_are_due() -> None:
    host = replace(HOST, write_errors=(5, 50, 112))
    outcome = play([Write(0, 8), Sync(), Write(8, 8)], host=host, until=5000)
    assert (outcome.failed_batches, outcome.unfired_write_errors) == ([0], [112])


# --- the disk -------------------------------------------------------------------------------------


def test_D4_an_ignored_flush_takes_its_time_and_the_next_makes_durable() -> None:
    # FLUSHes 311..1311 and 1411..2411
    disk = replace(DISK, ignored_flush=OracleFault(at=(300,)))
    outcome = play([Write(0, 8), Sync()], disk=disk)
    assert risk(outcome) == [(0, 0), (10, 8), (2411, 0)]
    assert (outcome.ignored_flushes, outcome.unfired_ignored_flushes) == ([0], [])
    # an msync has no second one
    assert loss(play([Write(0, 8), Sync()], disk=disk, host=MSYNC)).broken == []
    disk = replace(DISK, ignored_flush=OracleFault(at=(100, 111)))
    assert loss(play([Write(0, 8), Sync()], disk=disk, host=MSYNC)).broken == [0]


def test_D4_ignored_flushes_are_none_all_or_a_drawn_share() -> None:
    def ignored(numerator: int, denominator: int) -> list[int]:
        fault = OracleFault(share=(numerator, denominator))
        return play([Sync()] * 50, disk=replace(DISK, ignored_flush=fault)).ignored_flushes

    assert (ignored(0, 1), ignored(1, 1)) == ([], list(range(50)))
    assert ignored(1, 3) == [k for k in range(50) if draw(1, "ignored-flush", k) * 3 < 2**64]
    assert 5 < len(ignored(1, 3)) < 30


def shorn(fault: OracleFault) -> OracleDisk:
    return replace(DISK, shorn=fault)


def test_D4_a_shorn_io_leaves_out_its_last_page() -> None:
    # pages 0 and 1 are one I/O
    outcome = play([Write(0, 8), Write(P, 8), Sync()], disk=shorn(OracleFault(at=(0,))))
    assert (outcome.shorn_pages, outcome.unfired_shorn) == ([(0, 1)], [])
    assert outcome.layers.view(outcome.end_ns, "L5") == PAGE_0
    assert risk(outcome, "host-crash-in-flight-kept")[-1] == (22, 8)
    assert loss(outcome).broken == [0]


def test_D4_a_later_io_of_the_page_mends_it() -> None:
    program = [Write(0, 8), Sync(), Write(8, 8), Sync()]
    outcome = play(program, disk=shorn(OracleFault(at=(0,))))
    assert risk(outcome)[-1][1] == 0
    assert outcome.layers.view(outcome.end_ns, "L5")[0] == 0


def test_D4_each_io_is_shorn_by_itself() -> None:
    program = [Write(0, 8), Write(P, 8), Write(3 * P, 8), Sync()]
    outcome = play(program, disk=shorn(OracleFault(share=(1, 1))))
    assert sorted(outcome.shorn_pages) == [(0, 1), (0, 3)]
    one = play(program, disk=shorn(OracleFault(at=(50,))))
    assert one.shorn_pages == [(0, 3)]
    drawn = play(program, disk=shorn(OracleFault(share=(1, 2))))
    expected = [(0, last) for first, last in ((0, 1), (3, 3)) if draw(1, "shorn", first) < 2**63]
    assert sorted(drawn.shorn_pages) == expected


# --- new extents ----------------------------------------------------------------------------------


def test_H13_a_call_commits_new_extents_whatever_it_is() -> None:
    # L4 at 111, journal to 311, FLUSH to 1311 (data in L5), commit in L4 at 1411, FLUSH to 2411;
    # the next call has nothing new
    outcome = play([Write(0, 8), Sync(), Write(8, 8), Sync()], host=MSYNC, like=NEW)
    assert acknowledged(outcome) == [2411, 2422 + 1100]
    first = play([Write(0, 8), Sync()], host=MSYNC, like=NEW)
    assert risk(first) == [(0, 0), (10, 8), (2411, 0)]
    assert risk(first, "storage-snapshot") == [(0, 0), (10, 8), (1411, 0)]
    assert risk(first, "vmm-kill") == [(0, 0)]
    with_plp = play([Write(0, 8), Sync()], host=MSYNC, like=NEW, disk=replace(DISK, plp=True))
    assert risk(with_plp) == [(0, 0), (10, 8), (1411, 0)]


def test_H13_what_the_flusher_wrote_reads_as_zeros_until_a_call_commits_it() -> None:
    # written 1000..1100; the call at 5000 commits: journal to 5200, FLUSH, commit to 6300
    host = replace(flusher(1000, 500), monitor="crosvm")
    assert risk(play([Write(0, 8)], host=host, like=NEW, until=4000), "host-crash")[-1] == (10, 8)
    outcome = play([Write(0, 8), Sync(delay_ns=4989)], host=host, like=NEW)
    assert risk(outcome, "host-crash") == [(0, 0), (10, 8), (6300, 0)]


def test_H13_with_a_fua_disk_the_commit_is_in_the_cache_before_it_is_durable() -> None:
    disk = replace(DISK, fua=True)
    outcome = play([Write(0, 8), Sync()], host=MSYNC, like=NEW, disk=disk)
    assert risk(outcome, "host-crash") == [(0, 0), (10, 8), (1411, 0)]
    assert risk(outcome) == [(0, 0), (10, 8), (2411, 0)]
    liar = replace(disk, ignores_flush=True)
    outcome = play([Write(0, 8), Sync()], host=MSYNC, like=NEW, disk=liar)
    assert outcome.committed["L5"] == {}


def test_H13_a_call_that_finds_another_ones_commit_under_way_waits_for_it() -> None:
    # Both data are written at 111. The first commits to 2411; then the second makes its FLUSH.
    outcome = play([Write(0, 8), Sync()], [Sync(delay_ns=11)], like=NEW)
    assert acknowledged(outcome) == [2411, 3411]
    assert loss(outcome).broken == []


# --- a full host ----------------------------------------------------------------------------------


def test_V6_the_store_that_finds_the_host_full_does_not_happen_and_ends_the_run() -> None:
    # page 0 at 10 and 11, page 1 at 22
    program = [Write(0, 8), Write(8, 8), Write(P, 8), Sync()]
    host = replace(HOST, free_bytes=2 * P - 1)
    outcome = play(program, host=host, like=SPARSE)
    assert (outcome.killed_ns, outcome.end_ns, begins(outcome)) == (22, 21, [10, 11])
    assert outcome.flush_requests == []
    assert play(program, host=replace(HOST, free_bytes=2 * P), like=SPARSE).killed_ns is None
    assert play(program, host=host, like=NEW).killed_ns is None


def test_V6_without_dax_it_is_the_copy() -> None:
    program = [Write(0, 8), Write(P, 8), Sync()]
    host = replace(HOST, free_bytes=P)
    outcome = play(program, host=host, like=SPARSE, guest=OracleGuest(access="cached"))
    assert (outcome.killed_ns, outcome.end_ns, outcome.copies) == (2, 1, [])
    assert begins(outcome) == [0, 1]


@pytest.mark.parametrize("backing", ["private", "tmpfs", "ram"])
def test_V6_other_memory_takes_nothing_of_the_hosts_file_system(backing: str) -> None:
    host = replace(HOST, free_bytes=0)
    assert play([Write(0, 8)], host=host, like=replace(SPARSE, backing=backing)).end_ns == 11


def test_V6_all_sparse_files_share_what_is_free() -> None:
    devices = tuple(replace(SPARSE, vcpus=((Write(0, 8, think),),)) for think in (0, 50))
    outcome = run(OracleWorld(devices, replace(HOST, free_bytes=P), DISK))
    assert (outcome.killed_ns, begins(outcome)) == (60, [10])


# --- damaged pages --------------------------------------------------------------------------------


def corrupted(*at: int, share: tuple[int, int] = (0, 1)) -> OracleDisk:
    return replace(DISK, corrupted=OracleFault(share, at))


TWICE = [Write(0, 8), Sync(), Write(8, 8), Sync()]


def test_D4_a_damaged_page_takes_what_the_disk_held_until_a_later_io_is_kept() -> None:
    # Safe at 1011: store 10, L4 at 111, FLUSH to 1111. Store 1 at 1121, sync at 1122: damaged when
    # it completes at 1222. The third at 2232, sync at 2233, L4 at 2333, FLUSH to 3333.
    program = [*TWICE, Write(16, 8), Sync()]
    outcome = play(program, host=MSYNC, disk=corrupted(200))
    assert (outcome.damages, outcome.unfired_corrupted) == ([(1222, 0)], [])
    steps = [(0, 0), (10, 8), (1111, 0), (1121, 8), (1222, 16), (2232, 24), (3333, 0)]
    assert risk(outcome) == steps
    in_cache = [(0, 0), (10, 8), (111, 0), (1121, 8), (1222, 16), (2232, 24), (2333, 0)]
    assert risk(outcome, "host-crash") == risk(outcome, "storage-snapshot") == in_cache
    in_flight = [(0, 0), (10, 8), (11, 0), (1121, 8), (1222, 16), (2232, 24), (2233, 0)]
    assert risk(outcome, "host-crash-in-flight-kept") == in_flight
    assert risk(outcome, "vmm-kill") == [(0, 0)]


def test_D4_what_is_lost_again_counts_from_its_own_begin_and_breaks_the_promise() -> None:
    lost = loss(play([*TWICE, Write(16, 8), Sync()], host=MSYNC, disk=corrupted(200)))
    assert lost.unsaved == [(0, 0), (10, 1), (1111, 0), (1121, 1), (1222, 2), (2232, 3), (3333, 0)]
    assert lost.recovery == [
        *((0, None), (10, 10), (1111, None), (1121, 1121)),
        *((1222, 10), (3333, None)),
    ]
    assert lost.broken == [1]
    assert (lost.holes, lost.torn) == (set(), set())


def test_D4_an_acknowledged_record_can_be_uncovered_again() -> None:
    guest = OracleGuest(acknowledge="synced")
    program = [Write(0, 8, 0, True), Sync(), Write(8, 8), Sync()]
    lost = loss(play(program, host=MSYNC, disk=corrupted(200), guest=guest))
    assert lost.uncovered == [(0, 0), (1222, 1)]


def test_D4_a_page_lost_again_leaves_holes_and_tears_writes() -> None:
    # write 0 is in both pages, write 1 in page 1 alone; page 0 is damaged by write 2
    program = [Write(P - 8, 16), Write(P + 8, 8), Sync(), Write(0, 8), Sync()]
    lost = loss(play(program, host=MSYNC, disk=corrupted(500)))
    assert (lost.holes, lost.torn) == ({0}, {0})
    program = [Write(0, 8), Write(P, 8), Sync(), Write(0, 8), Sync()]
    lost = loss(play(program, host=MSYNC, disk=corrupted(500)))
    assert (lost.holes, lost.torn) == ({0}, set())


def test_D4_a_flush_that_was_issued_before_the_damage_does_not_mend_it() -> None:
    # FLUSH 111..1111; the early writeback's I/O of page 0, submitted at 1000, is damaged at 1100.
    host = replace(MSYNC, early=(1000, 1, 1))
    outcome = play([Write(0, 8), Sync()], [Write(8, 8, 500)], host=host, disk=corrupted(200))
    assert outcome.damages == [(1100, 0)]
    assert risk(outcome) == [(0, 0), (10, 8), (510, 16)]
    assert outcome.layers.view(1111, "L5") == {}


def test_D4_only_the_last_page_of_an_io_is_damaged_and_a_failed_batch_damages_nothing() -> None:
    program = [Write(0, 8), Write(P, 8), Write(3 * P, 8), Sync()]
    each = play(program, disk=corrupted(share=(1, 1)))
    assert sorted(page for _, page in each.damages) == [1, 3]
    assert [page for _, page in play(program, disk=corrupted(50)).damages] == [3]
    drawn = play(program, disk=corrupted(share=(1, 2)))
    expected = [last for first, last in ((0, 1), (3, 3)) if draw(1, "corrupted", first) < 2**63]
    assert sorted(page for _, page in drawn.damages) == expected
    failing = replace(HOST, write_errors=(50,))
    failed = play(program, disk=corrupted(50, share=(1, 1)), host=failing)
    assert (failed.damages, failed.unfired_corrupted) == ([], [])


def test_D4_a_page_that_is_shorn_and_damaged_is_damaged() -> None:
    disk = replace(corrupted(50), shorn=OracleFault(at=(50,)))
    outcome = play([Write(0, 8), Sync()], disk=disk)
    assert (outcome.shorn_pages, outcome.damages) == ([], [(111, 0)])


def test_D4_a_later_write_that_is_on_its_way_already_mends_the_page() -> None:
    # Two batches of page 0, both submitted before the first, damaged, completes.
    slow = replace(corrupted(50), bandwidth=4_096_000_000)
    direct = OracleDevice(8, (), kind="virtio-blk", cache="none")
    programs = [Write(0, 8), Sync()], [Write(8, 8, 10), Sync()]
    outcome = play(*programs, host=MSYNC, disk=slow, like=direct)
    assert batches(outcome) == [(1, "direct", (0,)), (11, "direct", (0,))]
    assert outcome.damages == [(1001, 0)]
    assert risk(outcome, "host-crash") == [(0, 8), (10, 16), (2001, 0)]
    assert risk(outcome, "host-crash-in-flight-kept") == [(0, 8), (10, 16), (11, 0)]


def test_D4_a_mark_is_uncovered_while_one_of_its_writes_is_lost_again() -> None:
    program = [Write(0, 8), Sync(), Mark("a"), Write(8, 8), Sync(), Mark("b"), Write(16, 8), Sync()]
    outcome = play(program, host=MSYNC, disk=corrupted(200))
    assert outcome.damages == [(1222, 0)]
    assert uncovered_marks(outcome) == [(0, 0), (1222, 1), (2222, 2), (3333, 0)]
    assert uncovered_marks(outcome, "host-crash")[-1] == (2333, 0)
    assert uncovered_marks(outcome, "vmm-kill") == [(0, 0)]


# --- a dead disk ----------------------------------------------------------------------------------


def dead(*at: int, share: tuple[int, int] = (0, 1)) -> OracleDisk:
    return replace(DISK, dead=OracleFault(share, at))


def test_D4_a_dead_disk_fails_every_call_and_takes_all_that_it_held() -> None:
    # The first call is good at 1111. The second batch, 1122..1222, ends at the disk's death.
    outcome = play(TWICE, host=MSYNC, disk=dead(1222))
    assert (acknowledged(outcome), results(outcome)) == ([1111, 1222], [0, 1])
    assert (outcome.died_ns, outcome.failed_batches) == (1222, [1])
    before = [(0, 0), (10, 8), (1111, 0), (1121, 8)]
    assert risk(outcome) == [*before, (1222, 16)]
    assert loss(outcome).recovery[-1] == (1222, 10)
    assert risk(outcome, "vmm-kill") == [(0, 0)]
    for domain in ("host-crash", "host-crash-in-flight-kept", "storage-snapshot"):
        assert risk(outcome, domain)[-1] == (1222, 16)


def test_D4_a_mark_is_uncovered_from_the_instant_of_the_damage_on() -> None:
    # A flush at 0 covers the mark at 1501; the next writes its page, at 2100, which never had any.
    disk = replace(DISK, corrupted=OracleFault(share=(1, 1)))
    outcome = play([Sync(), Sync(delay_ns=1000)], [Write(0, 8, 1490), Mark("a")], disk=disk)
    assert acknowledged(outcome)[0] == 1000
    assert uncovered_marks(outcome) == [(0, 0), (2100, 1)]


def test_D4_a_call_that_returns_when_the_disk_dies_fails_in_its_own_time() -> None:
    outcome = play([Write(0, 8), Sync()], host=MSYNC, disk=dead(1111))
    assert (acknowledged(outcome), results(outcome)) == ([1111], [1])
    assert risk(outcome) == [(0, 0), (10, 8)]
    outcome = play([Write(0, 8), Sync()], host=MSYNC, disk=dead(1112))
    assert (results(outcome), outcome.died_ns) == ([0], None)


def test_D4_a_dead_disk_is_none_of_what_lies_in_memory() -> None:
    for backing, result in (("private", 1), ("tmpfs", 0), ("hugetlbfs", 0)):
        like = OracleDevice(8, (), backing=backing)
        assert results(play([Write(0, 8), Sync()], disk=dead(0), like=like)) == [result]
    real = OracleDevice(8, (), kind="real-nvdimm")
    assert risk(play([Write(0, 8), Sync()], disk=dead(0), like=real)) == [(0, 0)]


def test_D4_a_disk_dies_with_the_first_batch_that_is_drawn_or_at_an_instant_before() -> None:
    program = [item for k in range(6) for item in (Write(k * P, 8), Sync())]
    first = next(k for k in range(6) if draw(1, "dead", k) * 3 < 2**64)
    ends = [1111 * k + 111 for k in range(6)]
    outcome = play(program, host=MSYNC, disk=dead(share=(1, 3)))
    assert (outcome.died_ns, outcome.failed_batches[0]) == (ends[first], first)
    before = ends[first] - 1
    assert play(program, host=MSYNC, disk=dead(before, 9999, share=(1, 3))).died_ns == before


def test_D4_nothing_is_committed_on_a_dead_disk() -> None:
    outcome = play([Write(0, 8), Sync()], host=MSYNC, like=NEW, disk=dead(1411))
    assert outcome.committed == {"L4": {}, "L5": {}}
    assert acknowledged(outcome) == [2411]


def test_D4_a_guest_that_never_gives_up_on_a_disk_that_may_die_needs_an_end() -> None:
    retry = OracleGuest(on_sync_error="retry")
    with pytest.raises(ValueError, match="never ends"):
        play([Sync()], disk=dead(5), guest=retry)
    outcome = play([Sync()], disk=dead(5), guest=retry, host=MSYNC, until=3500)
    assert acknowledged(outcome) == [1000, 2000, 3000, None]
