"""The oracle's monitors, queues, kinds of memory and reactions to a failed sync, against cases
worked out by hand (`tests/oracle/cases.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.oracle import GroupSync, OracleDevice, OracleGuest, OracleHost, Sync, Write, run
from tests.oracle.cases import (
    DISK,
    HOST,
    P,
    acknowledged,
    batches,
    begins,
    disk_flushes,
    play,
    small_memory,
)
from tests.oracle.inputs import OracleWorld, check
from tests.oracle.loss import COPIES_AND_QUITS, loss
from tests.oracle.outcome import Outcome

MINUS_ONE = 4294967295
SYNCED = OracleGuest(acknowledge="synced")


def monitor(name: str) -> OracleHost:
    return replace(HOST, monitor=name)


def memory(backing: str) -> OracleDevice:
    return OracleDevice(8, (), backing=backing)


def results(outcome: Outcome) -> list[int | None]:
    return [request.result for request in outcome.flush_requests]


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        # Both fsyncs begin at 11. The second finds clean times: FLUSH 111..1111. The first has its
        # journal at 311, FLUSH 1111..2111, commit to 2211, FLUSH 2211..3211.
        ("qemu", [(11, 3211, 0), (11, 1111, 1)]),
        # the second waits for the only thread
        ("cloud-hypervisor", [(11, 2411, 1), (2411, 3411, 0)]),
        # msync: no journal
        ("crosvm", [(11, 1111, 1), (1111, 2111, 0)]),
        ("firecracker", [(11, 1111, MINUS_ONE), (1111, 2111, 0)]),
        ("firecracker-reused-result", [(11, 1111, MINUS_ONE), (None, 1111, MINUS_ONE)]),
    ],
)
def test_V3_each_monitor_has_its_call_threads_and_error_code(
    name: str, calls: list[tuple[int | None, int, int]]
) -> None:
    host = replace(monitor(name), fsync_errors=(0,))
    outcome = play([Write(0, 8), Sync()], [Sync(delay_ns=11)], host=host)
    answers = [(r.fsync_begun, r.acknowledged, r.result) for r in outcome.flush_requests]
    assert answers == calls


def test_V3_a_reused_result_acknowledges_a_flush_that_covers_nothing_of_its_stores() -> None:
    # vCPU 1 stores at 100 and asks at 101, while the msync of 11..1111 runs
    def broken(name: str, driver: str) -> list[int]:
        programs = [Write(0, 8), Sync()], [Write(P, 8, 90), Sync()]
        return loss(play(*programs, host=monitor(name), guest=OracleGuest(driver))).broken

    assert broken("firecracker-reused-result", "concurrent") == [1]
    assert broken("firecracker-reused-result", "serialized") == []
    assert broken("firecracker", "concurrent") == []


def test_V3_what_comes_behind_a_reused_result_has_a_call_of_its_own() -> None:
    # the second call of vCPU 0 is asked for at 1111, when the first two are acknowledged
    programs = [Write(0, 8), Sync(), Sync()], [Sync(delay_ns=50)]
    outcome = play(*programs, host=monitor("firecracker-reused-result"))
    assert [r.fsync_begun for r in outcome.flush_requests] == [11, None, 1111]
    assert acknowledged(outcome) == [1111, 1111, 2111]


def test_H12_a_host_msync_writes_no_journal() -> None:
    outcome = play([Write(0, 8), Sync("fsync")], host=monitor("crosvm"))
    assert disk_flushes(outcome) == [(111, 1111)]
    assert outcome.journal_bytes == 0


def test_G8_a_full_queue_makes_a_request_wait_for_an_acknowledgement() -> None:
    def submitted(queue: int) -> list[tuple[int | None, int | None]]:
        host = replace(HOST, queue=queue)
        outcome = play([Sync()], [Sync(delay_ns=1)], [Sync(delay_ns=2)], host=host)
        return [(r.submitted, r.acknowledged) for r in outcome.flush_requests]

    assert submitted(1) == [(0, 1000), (1000, 2000), (2000, 3000)]
    # the FLUSH 1000..2000 is issued before the third goes onto the queue
    assert submitted(2) == [(0, 1000), (1, 2000), (1000, 3000)]
    assert submitted(3) == [(0, 1000), (1, 2000), (2, 2000)]


def test_V4_private_memory_succeeds_and_keeps_nothing() -> None:
    outcome = play([Write(0, 8), Sync()], like=memory("private"))
    assert disk_flushes(outcome) == [(11, 1011)]
    assert (results(outcome), batches(outcome)) == ([0], [])
    assert loss(outcome, "guest-crash").at_risk == [(0, 0)]
    assert loss(outcome, "vmm-kill").at_risk == [(0, 0), (10, 8)]
    assert loss(outcome).broken == [0]


@pytest.mark.parametrize("backing", ["tmpfs", "hugetlbfs"])
def test_H15_a_call_on_a_tmpfs_returns_at_once_and_keeps_nothing(backing: str) -> None:
    outcome = play([Write(0, 8), Sync()], like=memory(backing))
    assert (acknowledged(outcome), results(outcome)) == ([11], [0])
    assert (disk_flushes(outcome), batches(outcome)) == ([], [])
    assert loss(outcome, "vmm-kill").at_risk == [(0, 0)]
    assert loss(outcome, "host-crash").at_risk == [(0, 0), (10, 8)]
    assert loss(outcome).broken == [0]


def test_V5_a_flush_of_memory_without_a_file_fails_at_once() -> None:
    outcome = play([Write(0, 8), Sync()], like=memory("ram"), host=monitor("firecracker"))
    assert (acknowledged(outcome), results(outcome)) == ([11], [MINUS_ONE])
    assert outcome.failed_syncs == 1
    assert loss(outcome, "guest-crash").at_risk == [(0, 0)]
    assert loss(outcome, "vmm-kill").at_risk == [(0, 0), (10, 8)]


@pytest.mark.parametrize("backing", ["private", "tmpfs", "ram"])
def test_V4_the_fault_of_memory_that_nothing_cleans_is_paid_once(backing: str) -> None:
    program = [Write(0, 8), Sync(), Write(0, 8)]
    first, second = begins(play(program, like=memory(backing)))
    assert (first, second) == (10, 1011 if backing == "private" else 11)


def test_V4_without_dax_the_first_copy_to_private_memory_pays_the_only_fault() -> None:
    program = [Write(0, 8), Sync(), Write(0, 8), Sync()]
    outcome = play(program, like=memory("private"), guest=OracleGuest(access="cached"))
    # copies at 1 (512 + 10) and, behind the FLUSH 523..1523 and a store, at 1524 (512)
    assert [r.asked for r in outcome.flush_requests] == [523, 1524 + 512]


def test_V4_only_pages_of_a_file_count_for_the_thresholds() -> None:
    program = [Write(page * P, 8) for page in range(6)]
    outcome = play(program, host=small_memory(), like=memory("private"))
    assert (batches(outcome), outcome.pauses) == ([], [])


def test_H7_a_writer_to_private_memory_is_not_slowed() -> None:
    # five pages of the file are dirty or in flight from 54 on; the private store begins at 60
    writer = OracleDevice(8, (tuple(Write(page * P, 8) for page in range(5)),))
    other = replace(memory("private"), vcpus=((Write(0, 8, 50),),))
    outcome = run(OracleWorld((writer, other), small_memory(), DISK))
    assert [(pause.instant, pause.vcpu) for pause in outcome.pauses] == [(55, 0)]


def test_H14_retry_makes_the_same_call_again_until_it_succeeds() -> None:
    # 11..2411 fails; again at 2411, with nothing dirty: FLUSH to 3411
    guest = replace(SYNCED, on_sync_error="retry")
    host = replace(HOST, fsync_errors=(5,))
    outcome = play([Write(0, 8, 0, True), Sync()], guest=guest, host=host)
    assert acknowledged(outcome) == [2411, 3411]
    assert [(a.instant, a.first) for a in outcome.acknowledgements] == [(3411, 0)]
    assert (outcome.failed_syncs, outcome.guest_wait_ns) == (1, 3400)


def test_H14_retry_of_a_group_sync_joins_the_next_group() -> None:
    # vCPU 1 waits from 31 on and leads the next at 2411, to 4811; vCPU 0 joins the one behind it
    guest = replace(SYNCED, on_sync_error="retry")
    host = replace(HOST, fsync_errors=(5,))
    programs = [[Write(i * P, 8, 20 * i, True), GroupSync()] for i in range(2)]
    outcome = play(*programs, guest=guest, host=host)
    assert [(r.vcpu, r.asked) for r in outcome.flush_requests] == [(0, 11), (1, 2411), (0, 4811)]
    assert [(a.instant, a.vcpu) for a in outcome.acknowledgements] == [(4811, 1), (5811, 0)]
    assert outcome.guest_wait_ns == (5811 - 11) + (4811 - 31)


def test_H14_panic_ends_the_run() -> None:
    guest = OracleGuest(on_sync_error="panic")
    host = replace(HOST, fsync_errors=(5,))
    programs = [Write(0, 8), Sync(), Write(0, 8)], [Write(P, 8, 5000)]
    outcome = play(*programs, guest=guest, host=host, until=10_000)
    assert (outcome.end_ns, begins(outcome)) == (2411, [10])


def test_H14_rewrite_goes_back_behind_the_last_acknowledged_record() -> None:
    # Record 0 is acknowledged at 2411. Writes 1 and 2 at 2421 and 2422, the sync from 2423 fails at
    # 4823. Again at 4833 (a fault) and 4834, sync 4835..7235.
    guest = replace(SYNCED, on_sync_error="rewrite")
    host = replace(HOST, fsync_errors=(3000,))
    program = [Write(0, 8, 0, True), Sync(), Write(8, 8, 0, True), Write(16, 8, 0, True), Sync()]
    outcome = play(program, guest=guest, host=host)
    stores = [(store.begin, store.write) for store in outcome.stores]
    assert stores == [(10, 0), (2421, 1), (2422, 2), (4833, 1), (4834, 2)]
    assert [(a.instant, a.first) for a in outcome.acknowledgements] == [
        (2411, 0),
        (7235, 1),
        (7235, 2),
    ]
    # a write that is stored twice is safe when both are: FLUSH 5135..6135
    steps = [(0, 0), (10, 1), (1311, 0), (2421, 1), (2422, 2), (6135, 0)]
    assert loss(outcome).unsaved == steps


def test_H14_rewrite_begins_its_records_anew() -> None:
    # write 1 ends no record; done again, record 0 is still write 0 alone
    guest = replace(SYNCED, on_sync_error="rewrite")
    host = replace(HOST, fsync_errors=(0,))
    outcome = play([Write(0, 8, 0, True), Write(8, 8), Sync()], guest=guest, host=host)
    assert [(a.first, a.last) for a in outcome.acknowledgements] == [(0, 0)]


def test_H14_rewrite_with_nothing_behind_the_last_acknowledged_record_goes_on() -> None:
    guest = replace(SYNCED, on_sync_error="rewrite")
    host = replace(HOST, fsync_errors=(3000,))
    program = [Write(0, 8, 0, True), Sync(), Sync(), Sync(), Write(8, 8, 0, True)]
    outcome = play(program, guest=guest, host=host)
    assert results(outcome) == [0, 1, 0]
    assert begins(outcome) == [10, 4421]


def test_what_would_go_on_for_ever_is_refused() -> None:
    for reaction in ("retry", "rewrite"):
        guest = replace(SYNCED, on_sync_error=reaction)
        with pytest.raises(ValueError, match="for ever"):
            check(OracleWorld((memory("ram"),), guest=guest))


def test_P6_quitting_and_copying_see_the_hosts_cache_a_storage_snapshot_the_disks() -> None:
    # L2 at 10, L4 at 111
    outcome = play([Write(0, 8), Sync()])
    lost = {domain: loss(outcome, domain).at_risk for domain in COPIES_AND_QUITS}
    assert lost == {
        "vmm-quit": [(0, 0)],
        "live-copy": [(0, 0)],
        "migration": [(0, 0), (10, 8)],
        "storage-snapshot": [(0, 0), (10, 8), (111, 0)],
    }


def test_V5_discard_data_keeps_nothing_when_the_monitor_quits() -> None:
    outcome = play([Write(0, 8), Sync()], like=OracleDevice(8, (), discard_data=True))
    assert loss(outcome, "vmm-quit").at_risk == [(0, 0), (10, 8)]
    assert loss(outcome, "vmm-kill").at_risk == [(0, 0)]


def test_V7_a_device_that_is_plugged_later_has_its_vcpus_begin_there() -> None:
    assert begins(play([Write(0, 8)], like=OracleDevice(8, (), plug_ns=500))) == [510]
