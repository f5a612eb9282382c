"""Each rule of monitors, backings, faults and comparison devices, with numbers worked out by hand.

As in `tests/test_rules.py`: a fault costs 10 ns, a page 100 ns on the way to the disk, a FLUSH 1000
ns; a one-word write that begins at `b` has its vCPU free at b+1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crashsim.device.virtio_pmem import TokenBucket
from crashsim.engine.history import NEVER, History, Reason, Refusal
from crashsim.experiment.backing import Backing, RateLimiter
from crashsim.power.at_risk import at_risk
from crashsim.power.per_write import broken_promises, rows_safe
from crashsim.power.safety import Domain, Safety, Stage, kept_stage
from crashsim.vmm.monitors import MONITORS
from tests.oracle import Sync, Write
from tests.oracle.cases import P
from tests.oracle.inputs import GroupSync, Item
from tests.played import STORE_AND_SYNC, acked, flushes, play, safe

# --- guest ----------------------------------------------------------------------------------------


def test_G8_with_the_virtqueue_full_a_request_waits_for_an_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MONITORS, "qemu", replace(MONITORS["qemu"], queue=2))
    history = play([Sync()], [Sync()], [Sync()])
    assert history.flush_submit_ns.tolist() == [0, 0, 1000]
    assert history.flush_asked_ns.tolist() == [0, 0, 0]


def test_G8_queues_are_as_deep_as_the_monitors_make_them() -> None:
    depths = {name: monitor.queue for name, monitor in MONITORS.items()}
    assert depths["qemu"] == 128
    assert {depths[name] for name in depths if name != "qemu"} == {256}


# --- monitors -------------------------------------------------------------------------------------


def test_V1_qemu_commits_a_dirty_mtime_and_V3_the_callers_of_msync_do_not() -> None:
    assert acked(play(STORE_AND_SYNC)) == [(2411, 0)]  # W J F C F
    for monitor in ("crosvm", "firecracker", "firecracker-reused-result"):
        assert acked(play(STORE_AND_SYNC, vmm=monitor)) == [(1111, 0)]  # W F
    assert acked(play(STORE_AND_SYNC, vmm="cloud-hypervisor")) == [(2411, 0)]


def test_V3_the_other_monitors_serve_one_request_after_the_other() -> None:
    three = [[Sync()], [Sync(delay_ns=1)], [Sync(delay_ns=2)]]
    assert acked(play(*three)) == [(1000, 0), (2000, 0), (2000, 0)]
    assert acked(play(*three, vmm="crosvm")) == [(1000, 0), (2000, 0), (3000, 0)]


def test_V3_each_monitor_has_its_own_error_code() -> None:
    codes = {}
    for monitor in MONITORS:
        history = play([Sync()], vmm=monitor, host={"fsync_errors": (0,)})
        codes[monitor] = int(history.flush_result[0])
        assert history.info.failed_syncs == 1
    assert codes.pop("qemu") == codes.pop("cloud-hypervisor") == codes.pop("crosvm") == 1
    assert set(codes.values()) == {2**32 - 1}


def late_store(monitor: str, driver: str = "concurrent") -> History:
    """vCPU 1 stores and asks for a flush while the monitor's call for vCPU 0 is under way."""
    late = [Write(P, 8, 500), Sync()]
    return play([Sync()], late, vmm=monitor, guest={"driver": driver}, until=20_000)


def test_V3_a_reused_result_acknowledges_a_flush_that_does_not_cover_its_store() -> None:
    history = late_store("firecracker-reused-result")
    assert acked(history) == [(1000, 0), (1000, 0)]
    requests, stores = broken_promises(
        history, rows_safe(history, Safety(history, Stage.DURABLE))[1]
    )
    assert (requests.tolist(), stores.tolist()) == ([1], [0])


@pytest.mark.parametrize(
    ("monitor", "driver"),
    [
        ("firecracker", "concurrent"),
        ("firecracker-reused-result", "serialized"),
        ("qemu", "concurrent"),
    ],
)
def test_V3_one_call_for_each_request_or_a_serialized_driver_keeps_the_promise(
    monitor: str, driver: str
) -> None:
    history = late_store(monitor, driver)
    assert not broken_promises(history, rows_safe(history, Safety(history, Stage.DURABLE))[1])[
        0
    ].size


def test_V3_a_flush_that_gets_anothers_result_has_cleaned_nothing() -> None:
    late = [Write(P, 8, 500), Sync("msync"), Write(P + 8, 8)]
    history = play([Sync("msync")], late, vmm="firecracker-reused-result", until=20_000)
    assert history.store_t_ns.tolist() == [510, 1000]  # no second fault


MS = 1_000_000


def limited(items: list[Item], vmm: str = "firecracker", **limit: int) -> History:
    """Syncs of a clean file: each takes one FLUSH of 1000 ns."""
    device = {"rate_limiter": RateLimiter(**limit)}
    return play(items, device=device, vmm=vmm, synced=False)


def test_V3_a_rate_limiter_stops_the_queue_for_100_ms_however_soon_a_token_comes() -> None:
    found = limited([Sync("msync")] * 4, ops=2, refill=4 * MS)
    # Two tokens, the third request finds none although the next one would come at 2 ms.
    assert found.flush_begin_ns.tolist() == [0, 1000, 100 * MS + 2000, 100 * MS + 3000]
    assert found.flush_submit_ns.tolist()[:3] == [0, 1000, 2000]
    plenty = limited([Sync("msync")] * 4, ops=4, refill=4 * MS)
    assert acked(plenty) == [(1000 * n, 0) for n in range(1, 5)]


def test_V3_a_burst_is_used_first_and_once() -> None:
    found = limited([Sync("msync")] * 9, ops=1, refill=1, burst=5)
    assert found.flush_begin_ns.tolist() == [1000 * n for n in range(9)]
    found = limited([Sync("msync")] * 8, ops=1, refill=10**9, burst=5)
    began = found.flush_begin_ns.tolist()
    assert began[:6] == [1000 * n for n in range(6)]
    # The seventh is tried again each 100 ms, until a second after the last token there is one.
    assert began[6] == 6000 + 1000 * MS and began[7] == 7000 + 2000 * MS


def test_V3_tokens_come_back_evenly_and_no_more_than_the_bucket_holds() -> None:
    bucket = TokenBucket(3, 30, 0)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(109), bucket.take(110), bucket.take(111)] == [False, True, False]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("vmm", ["firecracker", "firecracker-reused-result"])
def test_V3_with_tokens_enough_a_run_is_the_one_without_a_limiter(vmm: str) -> None:
    one = [item for n in range(20) for item in (Write(n * 700 % P, 8, 90, True), Sync("msync"))]
    two = [item for n in range(15) for item in (Write(P, 8, 250, True), Sync("msync", 40))]
    alone, both = (one,), (one, two)
    for programs in (alone, both):
        free = play(*programs, vmm=vmm)
        ample = {"rate_limiter": RateLimiter(ops=1000, refill=1)}
        limited = play(*programs, vmm=vmm, device=ample)
        assert free.flush_ack_ns.size >= 20, "nothing to compare"
        for name, column in free.columns().items():
            assert np.array_equal(column, limited.columns()[name]), name


def test_V3_a_request_without_a_token_is_not_given_a_reused_result() -> None:
    reused = "firecracker-reused-result"
    programs = ([Sync("msync")], [Sync("msync", 100)], [Sync("msync", 200)])
    device = {"rate_limiter": RateLimiter(ops=2, refill=10**9)}
    found = play(*programs, device=device, vmm=reused, synced=False)
    assert found.flush_begin_ns.tolist()[:2] == [0, NEVER]  # the second gets the first one's result
    assert found.flush_ack_ns.tolist()[:2] == [1000, 1000]
    begin = 1000 + 500 * MS  # stopped five times for 100 ms: half of the refill time for a token
    assert found.flush_begin_ns[2] == begin and found.flush_ack_ns[2] == begin + 1000


# --- backings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["private", "tmpfs", "hugetlbfs"])
def test_V4_flushes_succeed_and_nothing_persists(kind: str) -> None:
    history = play(STORE_AND_SYNC, device={"backing": Backing(kind=kind)})  # type: ignore[arg-type]
    assert history.flush_result.tolist() == [0]
    assert history.ack_t_ns.size == 1
    assert safe(history) == safe(history, Domain.HOST_CRASH) == [NEVER]
    assert safe(history, Domain.GUEST_CRASH) == [10]
    assert safe(history, Domain.VMM_KILL) == ([NEVER] if kind == "private" else [10])


def test_V5_without_a_file_every_flush_fails() -> None:
    history = play([*STORE_AND_SYNC, Sync()], device={"backing": Backing(kind="ram")})
    assert acked(history) == [(11, 1), (11, 1)]
    assert safe(history, Domain.VMM_KILL) == [NEVER]


def test_V5_discard_data_takes_even_what_was_durable_when_the_monitor_quits() -> None:
    history = play(STORE_AND_SYNC, device={"backing": Backing(discard_data=True)})
    assert safe(history) == [1311]
    assert (safe(history, Domain.VMM_KILL), safe(history, Domain.VMM_QUIT)) == ([10], [NEVER])
    assert safe(play(STORE_AND_SYNC), Domain.VMM_QUIT) == [10]


def test_V5_prealloc_makes_every_page_dirty_before_the_first_store() -> None:
    history = play([Sync()], device={"backing": Backing(prealloc=True)})
    assert history.io_pages.tolist() == [8]
    assert play([Sync()]).io_pages.size == 0


def test_V6_the_first_store_to_a_hole_without_a_free_block_kills_the_monitor() -> None:
    items = [Write(0, 8), Write(8, 8), Write(P, 8), Write(2 * P, 8), Write(3 * P, 8)]
    sparse = {"backing": Backing(extents="sparse")}
    history = play(items, device=sparse, host={"free": 2 * P}, until=9000)
    # Begins: 10, 11, 22, and the third page at 33
    assert history.info.sigbus == Refusal(t_ns=33, page=2, device="pmem0")
    assert (history.end_ns, history.store_t_ns.tolist()) == (32, [10, 11, 22])
    assert not history.flush_result.size
    enough = play(items, device=sparse, host={"free": 4 * P}, until=9000)
    assert enough.info.sigbus is None
    assert play(items, host={"free": 2 * P}, until=9000).info.sigbus is None


def test_V7_a_plugged_devices_vcpus_begin_when_it_is_there() -> None:
    assert play([Write(0, 8)], device={"plugged": 700}).store_t_ns.tolist() == [710]


def test_V8_a_migration_carries_neither_the_contents_nor_the_queue() -> None:
    assert safe(play(STORE_AND_SYNC), Domain.MIGRATION) == [NEVER]


def test_V9_an_emulated_nvdimm_has_no_flush_path() -> None:
    history = play(STORE_AND_SYNC, device={"type": "nvdimm"})
    assert history.flush_device.size == 0
    assert history.ack_t_ns.tolist() == [11]
    assert (safe(history), safe(history, Domain.VMM_KILL)) == ([NEVER], [10])


def test_V9_a_real_nvdimm_persists_without_a_sync() -> None:
    history = play([Write(0, 8)], device={"type": "real-nvdimm"})
    assert [safe(history, domain) for domain in (Domain.HOST_CRASH, Domain.POWER_CUT)] == [
        [10],
        [10],
    ]


@pytest.mark.parametrize(
    ("cache", "flush_requests", "returned", "durable"),
    [
        # Into L1 at 0; copied at 1, 512 + 10 ns; then the fsync: 523 + 2400
        ("writeback", 1, 2923, 1823),
        ("unsafe", 1, 523, NEVER),
        ("writethrough", 0, 1623, 1623),  # an fdatasync of the host: W F
        ("none", 1, 1101, 1101),  # one batch 1..101, and a FLUSH
    ],
)
def test_V9_virtio_blk_in_its_cache_modes(
    cache: str, flush_requests: int, returned: int, durable: int
) -> None:
    history = play(STORE_AND_SYNC, device={"type": "virtio-blk", "cache": cache})
    assert history.flush_device.size == flush_requests
    assert history.ack_t_ns.tolist() == [returned]
    assert safe(history) == [durable]
    if cache == "none":
        assert history.batch_reason.tolist() == [Reason.DIRECT]


# --- the host -------------------------------------------------------------------------------------


def test_H2_the_dirty_unit_is_the_folio() -> None:
    items = [Write(0, 8), Write(P, 8), Write(3 * P, 8), Sync()]
    small = play(items)
    assert (small.store_t_ns.tolist(), small.io_pages.tolist()) == ([10, 21, 32], [2, 1])
    large = play(items, device={"backing": Backing(folio=2 * P)})
    # One fault for pages 0 and 1; both folios are written whole: 4 pages in one I/O
    assert (large.store_t_ns.tolist(), large.io_pages.tolist()) == ([10, 11, 22], [4])


def test_H12_a_call_of_msync_leaves_the_mtime_alone() -> None:
    twice = [*STORE_AND_SYNC, Sync()]
    assert acked(play(twice, vmm="crosvm")) == [(1111, 0), (2111, 0)]
    assert acked(play(twice)) == [(2411, 0), (3411, 0)]


@pytest.mark.parametrize("extents", ["unwritten", "sparse"])
def test_H13_a_new_extent_reads_zeros_until_the_metadata_is_committed(extents: str) -> None:
    backing = {"backing": Backing(extents=extents)}  # type: ignore[arg-type]
    # msync commits, too: data 111, journal 311, FLUSH 1311, commit 1411, FLUSH 2411
    history = play([*STORE_AND_SYNC, Write(8, 8), Sync()], device=backing, vmm="crosvm")
    assert safe(history)[0] == 2411
    assert safe(history, Domain.HOST_CRASH)[0] == 1411
    # The second write dirties at 2421, W F: nothing is new any more
    assert acked(history) == [(2411, 0), (3522, 0)]
    assert safe(play(STORE_AND_SYNC)) == [1311]  # an old extent is there with the first FLUSH


def test_H13_what_the_flusher_wrote_of_a_new_extent_waits_for_a_commit() -> None:
    host = {"dirty_writeback": 1000, "dirty_expire": 1000}
    device = {"backing": Backing(extents="sparse")}
    late = [Write(0, 8), Sync(delay_ns=5000)]
    history = play(late, device=device, host=host, vmm="crosvm")
    # Written 2000..2100; the sync at 5011: J 5211, F 6211, C 6311, F 7311
    assert safe(history, Domain.HOST_CRASH) == [6311]
    assert safe(history) == [7311]


def test_H14_a_failed_write_is_reported_once_and_never_repeated() -> None:
    history = play(
        [*STORE_AND_SYNC, Sync(), Write(8, 8, 5000), Sync()], host={"write_errors": (50,)}
    )
    # EIO when the data is not written, without journal and FLUSH; then success
    assert acked(history)[:2] == [(111, 1), (2411, 0)]  # J F C F, and no data
    assert history.batch_failed.tolist() == [1, 0]
    # The page is clean: only the later store takes both to the disk
    assert safe(history)[0] == safe(history)[1] > 8000


def test_H14_an_error_of_the_flusher_is_the_next_syncs() -> None:
    host = {"write_errors": (0,), "dirty_writeback": 1000, "dirty_expire": 1000}
    history = play([Write(0, 8), Sync(delay_ns=5000), Sync()], host=host)
    assert [result for _, result in acked(history)] == [1, 0]
    assert safe(history) == [NEVER]


def test_H14_a_write_error_that_never_came_is_said() -> None:
    history = play(STORE_AND_SYNC, host={"write_errors": (5_000,)})
    assert history.info.faults_not_fired == (("host.write_errors", 5000),)


@pytest.mark.parametrize(
    ("reaction", "acknowledged", "durable"),
    [("give-up", [], NEVER), ("retry", [2411], NEVER), ("rewrite", [2522], 1422)],
)
def test_G9_after_an_error_a_program_gives_up_calls_again_or_writes_again(
    reaction: str, acknowledged: list[int], durable: int
) -> None:
    history = play(
        STORE_AND_SYNC,
        guest={"on_sync_error": reaction},
        host={"write_errors": (0,)},
        until=9000,
    )
    assert history.info.failed_syncs == 1
    assert history.ack_t_ns.tolist() == acknowledged
    assert safe(history)[0] == durable


def test_G9_a_guest_that_panics_stops_at_once() -> None:
    history = play(
        [*STORE_AND_SYNC, Write(P, 8)],
        guest={"on_sync_error": "panic"},
        host={"write_errors": (0,)},
        until=9000,
    )
    assert (history.end_ns, history.store_t_ns.tolist()) == (111, [10])
    assert history.info.panicked_ns == 111


def test_G9_a_failed_group_sync_is_joined_again() -> None:
    group = [Write(0, 8, ends_record=True), GroupSync()]
    history = play(group, guest={"on_sync_error": "retry"}, host={"fsync_errors": (0,)})
    assert [result for _, result in acked(history)] == [1, 0]
    assert history.ack_t_ns.size == 1


def test_H15_a_sync_of_a_file_in_memory_does_nothing() -> None:
    history = play(STORE_AND_SYNC, device={"backing": Backing(kind="tmpfs")})
    assert (acked(history), flushes(history)) == ([(11, 0)], [])


# --- failures -------------------------------------------------------------------------------------


def test_P6_a_live_copy_sees_the_hosts_pages_and_a_storage_snapshot_the_disk() -> None:
    history = play([*STORE_AND_SYNC, Write(P, 8)], until=5000)
    assert safe(history, Domain.LIVE_COPY) == history.store_t_ns.tolist()
    assert safe(history, Domain.STORAGE_SNAPSHOT) == [111, NEVER]
    lost = at_risk(history, Safety(history, kept_stage(Domain.LIVE_COPY)))
    assert not np.any(lost.values)
