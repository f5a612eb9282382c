"""The oracle's folios, preallocated files and devices to compare with, against cases worked out by
hand (`tests/oracle/cases.py`), and its random worlds with all of the newer rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from tests.oracle import (
    FlushedWrite,
    OracleDevice,
    OracleGuest,
    OracleHost,
    OracleLimiter,
    OracleWorld,
    Outcome,
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
    small_memory,
)
from tests.oracle.clock import draw
from tests.oracle.device import Bucket
from tests.oracle.inputs import Item, check
from tests.oracle.loss import COPIES_AND_QUITS, DOMAINS, loss
from tests.oracle.worlds import worlds

SYNCED = OracleGuest(acknowledge="synced")
PROGRAM: list[Item] = [Write(0, 8, 0, True), Sync()]


def folios(pages: int) -> OracleDevice:
    return OracleDevice(8, (), folio=pages * P)


def device(kind: str, cache: str = "writeback") -> OracleDevice:
    return OracleDevice(8, (), kind=kind, cache=cache)


# --- folios ---------------------------------------------------------------------------------------


def test_H2_one_fault_dirties_the_whole_folio_and_one_snapshot_cleans_it() -> None:
    # page 1 costs no fault, page 2 does; the sync at 23 cleans both folios, the last store faults
    program = [Write(0, 8), Write(P, 8), Write(2 * P, 8), Sync(), Write(P, 8)]
    outcome = play(program, like=folios(2))
    assert begins(outcome)[:3] == [10, 11, 22]
    assert batches(outcome) == [(23, "fsync", (0, 1, 2, 3))]
    assert begins(outcome)[3] == (acknowledged(outcome)[0] or 0) + 10


def test_H2_a_folio_is_under_writeback_until_the_last_of_its_pages_completed() -> None:
    # 512 pages are two I/Os of 25,600 ns each, from 11 on; dirtied again at 30 and tagged at 40
    host = replace(HOST, monitor="crosvm", queue=2)
    big = folios(512)
    programs = [Write(0, 8), Sync()], [Write(8, 8, 20), Write(300 * P, 8)]
    outcome = play(*programs, [Sync(delay_ns=40)], pages=512, host=host, like=big)
    assert [io.completed for io in outcome.ios[:2]] == [25_611, 51_211]
    qemu = play(*programs, [Sync(delay_ns=40)], pages=512, like=big)
    assert [batch.instant for batch in qemu.batches] == [11, 51_211]


def test_H2_the_thresholds_count_pages_of_4_KiB() -> None:
    # background above 2 pages, throttling above 4: a folio of 4 exceeds only the first
    outcome = play([Write(0, 8)], host=small_memory(), like=folios(4), until=9000)
    assert batches(outcome) == [(10, "background", (0, 1, 2, 3))]
    assert outcome.pauses == []
    # Background above 4, throttling above 8, limit 12. Folios of 2 from 10 on, 11 ns apart: the
    # fifth makes 10: two pages, 200 ns, times (12 - 8) / (12 - 10).
    host = replace(HOST, memory_bytes=20 * P, background_ratio=20, dirty_ratio=60)
    program = [Write(page * P, 8) for page in range(0, 10, 2)]
    outcome = play(program, pages=10, host=host, like=folios(2))
    assert [(pause.instant, pause.pause_ns) for pause in outcome.pauses] == [(55, 400)]


def test_H2_background_writeback_takes_1024_pages_of_whole_folios() -> None:
    # 1028 dirty pages are the threshold: the 258th folio of 4 exceeds it
    host = replace(HOST, memory_bytes=10280 * P, background_ratio=10, dirty_ratio=90)
    program = [Write(page * P, 1) for page in range(0, 1032, 4)]
    outcome = play(program, host=host, pages=1032, like=folios(4))
    assert outcome.batches[0].pages == tuple(range(1024))


def test_H2_the_early_draw_of_a_folio_is_that_of_its_first_page() -> None:
    host = replace(HOST, early=(10_000, 1, 2))
    program = [Write(page * P, 1) for page in range(0, 100, 4)]
    outcome = play(program, host=host, pages=100, like=folios(4), until=10_001)
    firsts = [p for p in range(0, 100, 4) if draw(1, "early-writeback", 2**32 + p) < 2**63]
    assert outcome.batches[0].pages == tuple(p + i for p in firsts for i in range(4))


def test_H2_without_dax_pages_are_copied_and_folios_found_clean() -> None:
    # two copies of pages of one folio: 2 * 512 + 10
    program = [Write(0, 8), Write(P, 8), Sync()]
    outcome = play(program, like=folios(2), guest=OracleGuest(access="cached"))
    assert [copy.page for copy in outcome.copies] == [0, 1]
    assert outcome.flush_requests[0].asked == 2 + 1034


def test_H2_a_folio_is_a_power_of_two_up_to_2_mib() -> None:
    for size in (3 * P, 1024 * P, P // 2):
        with pytest.raises(ValueError, match="folios"):
            check(OracleWorld((OracleDevice(8, (), folio=size),)))


# --- prealloc -------------------------------------------------------------------------------------


def test_V5_prealloc_leaves_every_page_dirty_from_the_start() -> None:
    like = OracleDevice(4, (), prealloc=True)
    outcome = play([], pages=4, like=like, host=flusher(), until=4500)
    assert batches(outcome) == [(3000, "flusher", (0, 1, 2, 3))]
    # four pages to 400, journal to 600, FLUSH, commit to 1700, FLUSH
    outcome = play([Sync()], pages=4, like=like)
    assert acknowledged(outcome) == [2700]
    assert begins(play([Write(0, 8)], pages=4, like=like)) == [10]


# --- devices to compare with ----------------------------------------------------------------------


def test_V9_an_emulated_nvdimm_has_no_flush_path() -> None:
    outcome = play(PROGRAM, like=device("nvdimm"), guest=replace(SYNCED, ext4=True))
    assert (outcome.flush_requests, outcome.batches, outcome.end_ns) == ([], [], 11)
    assert [ack.instant for ack in outcome.acknowledgements] == [11]
    assert loss(outcome).uncovered == [(0, 0), (11, 1)]
    assert loss(outcome, "vmm-kill").at_risk == [(0, 0)]
    flushed = play(PROGRAM, like=device("nvdimm"), host=flusher(), until=9000)
    assert batches(flushed) == [(4000, "flusher", (0,))]


def test_V9_the_guests_journal_does_not_flush_an_emulated_nvdimm_either() -> None:
    guest = OracleGuest(ext4=True)
    outcome = play([Write(0, 8)], like=device("nvdimm"), guest=guest, until=6 * 10**9)
    assert outcome.flush_requests == []


def test_V9_a_recorded_flush_of_an_emulated_nvdimm_is_left_out_too() -> None:
    for driver in ("concurrent", "serialized", "ordered"):
        program = [FlushedWrite(0, 8, 5, preflush=True, fua=True), Write(8, 8)]
        outcome = play(program, like=device("nvdimm"), guest=OracleGuest(driver))
        assert (begins(outcome), outcome.flush_requests) == ([15, 16], [])


def test_V9_a_real_nvdimm_keeps_every_store_in_every_failure_but_a_migration() -> None:
    outcome = play(PROGRAM, like=device("real-nvdimm"), host=flusher(), until=9000)
    assert (outcome.flush_requests, outcome.batches) == ([], [])
    for domain in DOMAINS + COPIES_AND_QUITS:
        lost = [(0, 0), (10, 8)] if domain == "migration" else [(0, 0)]
        assert loss(outcome, domain).at_risk == lost


def test_V9_virtio_blk_with_writeback_is_a_guest_without_dax() -> None:
    block = play(PROGRAM, like=device("virtio-blk"))
    pmem = play(PROGRAM, guest=OracleGuest(access="cached"))
    assert block.flush_requests == pmem.flush_requests
    assert batches(block) == batches(pmem) == [(523, "fsync", (0,))]


def test_V9_virtio_blk_unsafe_answers_a_flush_without_the_host() -> None:
    outcome = play(PROGRAM, like=device("virtio-blk", "unsafe"))
    request = outcome.flush_requests[0]
    assert (request.asked, request.fsync_begun, request.acknowledged) == (523, None, 523)
    assert (disk_flushes(outcome), loss(outcome).broken) == ([], [0])


def test_V9_virtio_blk_writethrough_follows_each_writeback_with_a_host_fdatasync() -> None:
    # copied 1..523; L4 at 623, FLUSH to 1623; no journal
    outcome = play(PROGRAM, like=device("virtio-blk", "writethrough"), guest=SYNCED)
    assert (outcome.flush_requests, disk_flushes(outcome)) == ([], [(623, 1623)])
    assert [ack.instant for ack in outcome.acknowledgements] == [1623]
    # the guest's flusher at 3000
    like = device("virtio-blk", "writethrough")
    outcome = play([Write(0, 8)], like=like, host=flusher(), until=9000)
    assert batches(outcome) == [(3000, "fsync", (0,))]
    assert disk_flushes(outcome) == [(3100, 4100)]


def test_V9_a_failed_host_fdatasync_fails_the_sync_of_writethrough() -> None:
    host = replace(HOST, fsync_errors=(0,))
    like = device("virtio-blk", "writethrough")
    outcome = play(PROGRAM, like=like, host=host, guest=SYNCED)
    assert (outcome.failed_syncs, outcome.acknowledgements) == (1, [])


def test_V9_virtio_blk_without_cache_writes_past_the_hosts_pages() -> None:
    # copied and submitted at 1, in L4 at 101; then the flush: nothing dirty, FLUSH 101..1101
    outcome = play(PROGRAM, like=device("virtio-blk", "none"))
    assert batches(outcome) == [(1, "direct", (0,))]
    assert outcome.flush_requests[0].asked == 101
    assert disk_flushes(outcome) == [(101, 1101)]
    assert outcome.layers.view(outcome.end_ns, "L2") == {}
    assert loss(outcome, "vmm-kill").at_risk == [(0, 8), (1, 0)]
    assert loss(outcome).broken == []


# --- rate limiters --------------------------------------------------------------------------------


def limited(ops: int, refill_ns: int, burst: int = 0) -> OracleDevice:
    return OracleDevice(8, (), rate_limiter=OracleLimiter(ops, refill_ns, burst))


FIRECRACKER = replace(HOST, monitor="firecracker")
REUSES = replace(HOST, monitor="firecracker-reused-result")


def test_V3_a_queue_without_tokens_stops_for_100_ms_at_a_time() -> None:
    # One of the burst at 0, two of the bucket at 1000 (full, so it counts from there) and 2000. The
    # next token is there at 500,001,000: the fifth stop, begun at 3000, ends behind it.
    outcome = play([Sync()] * 5, host=FIRECRACKER, like=limited(2, 10**9, 1))
    begun = [request.fsync_begun for request in outcome.flush_requests]
    assert begun == [0, 1000, 2000, 500_003_000, 1_000_004_000]
    assert acknowledged(outcome)[-1] == 1_000_005_000


def test_V3_a_token_that_comes_earlier_does_not_end_the_stop() -> None:
    outcome = play([Sync()] * 2, host=FIRECRACKER, like=limited(1, 2000))
    assert acknowledged(outcome) == [1000, 100_002_000]


def test_V3_tokens_come_at_whole_nanoseconds_and_no_more_than_the_bucket_holds() -> None:
    bucket = Bucket(OracleLimiter(3, 10))
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [t for t in (3, 4, 9, 10, 12, 15) if bucket.take(t)] == [4, 9, 12]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


def test_V3_a_request_without_a_token_is_given_no_reused_result() -> None:
    # All but the first wait at 1000, when its call returns: one takes a token, the next finds none.
    # A token comes every 100 ms, so it makes its own call behind the stop; so does the last.
    programs = [[Sync(delay_ns=delay)] for delay in (0, 10, 20, 30)]
    outcome = play(*programs, host=REUSES, like=limited(2, 200_000_000))
    begun = [request.fsync_begun for request in outcome.flush_requests]
    assert begun == [0, None, 100_001_000, 200_002_000]
    assert acknowledged(outcome) == [1000, 1000, 100_002_000, 200_003_000]


@pytest.mark.parametrize("host", [FIRECRACKER, REUSES])
def test_V3_with_tokens_enough_a_limiter_changes_nothing(host: OracleHost) -> None:
    programs = [[Write(0, 8), Sync(), Sync(delay_ns=delay)] for delay in (0, 10, 500)]
    ample, plain = (play(*programs, host=host, like=like) for like in (limited(9, 1), DEVICE))
    assert ample.flush_requests == plain.flush_requests
    assert batches(ample) == batches(plain)


def test_V3_only_firecrackers_pmem_devices_have_a_limiter() -> None:
    with pytest.raises(ValueError, match="rate limiter"):
        play([Sync()], like=limited(1, 1))
    with pytest.raises(ValueError, match="rate limiter"):
        play([Sync()], host=FIRECRACKER, like=replace(limited(1, 1), kind="virtio-blk"))


# --- random worlds --------------------------------------------------------------------------------

SMALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def honest(world: OracleWorld) -> OracleWorld:
    """The same world without anything that may lie."""
    devices = tuple(
        replace(one, backing="file", kind="virtio-pmem", extents="written") for one in world.devices
    )
    name = world.host.monitor
    name = "firecracker" if name == "firecracker-reused-result" else name
    host = replace(world.host, monitor=name, write_errors=())
    return replace(world, devices=devices, host=host, disk=DISK)


@SMALL
@given(worlds(new=True))
def test_an_honest_stack_of_any_shape_breaks_no_promise(world: OracleWorld) -> None:
    assert loss(run(honest(world))).broken == []


@SMALL
@given(worlds(new=True))
def test_what_is_kept_by_a_power_cut_is_kept_by_every_failure_of_less(world: OracleWorld) -> None:
    outcome = run(world)
    kept = [loss(outcome, domain).at_risk for domain in ("program-kill", "host-crash", "power-cut")]
    peaks = [max((value for _, value in steps), default=0) for steps in kept]
    assert peaks[0] == 0 and peaks[1] <= peaks[2]


def stopped(world: OracleWorld, outcome: Outcome) -> bool:
    """A request found no token and waited for the queue to go on."""
    return any(
        world.devices[request.device].rate_limiter is not None
        and (request.fsync_begun or 0) - (request.submitted or 0) >= 10**8
        for request in outcome.flush_requests
    )


def facts(world: OracleWorld, outcome: Outcome) -> dict[str, object]:
    reaction = world.guest.on_sync_error
    requests = outcome.flush_requests
    return {
        "killed": outcome.killed_ns is not None,
        "failed batch": outcome.failed_batches,
        "ignored": outcome.ignored_flushes,
        "shorn": outcome.shorn_pages,
        "damaged": outcome.damages,
        "died": outcome.died_ns is not None,
        "stopped": stopped(world, outcome),
        "committed": outcome.committed["L5"],
        "queue full": [r for r in requests if (r.submitted or 0) > r.asked],
        "no call": [r for r in requests if r.acknowledged is not None and r.fsync_begun is None],
        "direct": [batch for batch in outcome.batches if batch.reason == "direct"],
        reaction: outcome.failed_syncs,
        "minus one": [r for r in requests if r.result == 2**32 - 1],
        "folio": [one for one in world.devices if one.folio != P],
        "parts": [one for one in world.devices if isinstance(one.folio, tuple)],
        "2 MiB": [one for one in outcome.devices if one.folio == 512 * P],
        "aborted": outcome.aborts,
        "guest journal": outcome.guest_journal_bytes,
        "xfs": outcome.journal_bytes % 4096,
        "devdax": world.guest.access == "devdax" and outcome.failed_syncs,
        f"flusher {world.host.flusher_phase}": any(b.reason == "flusher" for b in outcome.batches),
        "own commit": outcome.own_commits,
    }


def test_the_random_worlds_reach_the_newer_rules() -> None:
    reached: Counter[str] = Counter()
    expected = {"killed", "failed batch", "ignored", "shorn", "committed", "queue full", "no call"}
    expected |= {"direct", "minus one", "folio", "give-up", "retry", "rewrite", "panic"}
    expected |= {"damaged", "died", "stopped", "parts", "2 MiB", "aborted", "guest journal", "xfs"}
    expected |= {"devdax", "flusher idle", "flusher busy", "flusher random", "own commit"}

    @settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @given(worlds(new=True))
    def look(world: OracleWorld) -> None:
        if expected <= set(reached):
            return
        outcome = run(world)
        reached.update(name for name, fact in facts(world, outcome).items() if fact)

    look()
    assert expected <= set(reached), expected - set(reached)
