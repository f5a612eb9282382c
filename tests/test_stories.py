"""What each shipped experiment is there to show, asserted on its results."""

from __future__ import annotations

from functools import cache

from crashsim.experiment.loader import load
from crashsim.results import CaseResult
from crashsim.runs.one import run_case
from tests.cli_support import EXPERIMENTS


@cache
def cases(experiment: str) -> dict[str, CaseResult]:
    plan = load(EXPERIMENTS / f"{experiment}.yaml")
    return {case.name: run_case(case).figures for case in plan.cases}


def at_risk(case: CaseResult, domain: str) -> int:
    return case.uncovered_by_domain[domain].max


def test_V4_every_flush_succeeds_and_every_record_is_lost() -> None:
    found = cases("lost-although-synced")
    honest, *others = found.values()
    assert (
        at_risk(honest, "power-cut") == at_risk(honest, "vmm-kill") == honest.broken_promises == 0
    )
    assert len(others) == 4
    for case in others:
        assert case.failed_syncs == 0
        assert case.flushes == case.acknowledged == case.broken_promises == 1000
        assert at_risk(case, "power-cut") == 1000
        own = "private" in case.name
        assert at_risk(case, "vmm-kill") == (1000 if own else 0)
        assert case.notices and "(V4" in case.notices[0]


def test_V3_the_litmus_finds_a_broken_promise_in_exactly_one_case() -> None:
    found = cases("firecracker-litmus")
    broken = [name for name, case in found.items() if case.broken_promises]
    assert broken == ["vmm=firecracker-reused-result,driver=concurrent"]
    assert [name for name, case in found.items() if case.schedules] == broken


def test_V3_the_litmus_shows_the_schedule_that_breaks_the_promise() -> None:
    case = cases("firecracker-litmus")["vmm=firecracker-reused-result,driver=concurrent"]
    (schedule,) = case.schedules
    spans = {lane: [s for s in schedule.spans if s.lane == lane] for lane in ("flush", "call")}
    (store,) = [span for span in schedule.spans if span.lane == "store"]
    (call,) = spans["call"]
    first, second = spans["flush"]
    # The call began for the first request; the store and its own request came while it ran.
    assert call.begin_ns == first.begin_ns < store.begin_ns < second.begin_ns < call.end_ns
    assert schedule.acknowledged_ns == first.end_ns == second.end_ns == call.end_ns
    assert schedule.durable_ns == store.end_ns > schedule.acknowledged_ns


def test_V3_monitors_differ_in_price_and_one_of_them_in_its_promises() -> None:
    found = {name.partition("=")[2]: case for name, case in cases("monitors").items()}
    assert [name for name, case in found.items() if at_risk(case, "power-cut")] == [
        "firecracker-reused-result"
    ]
    wait = {name: case.guest_wait_ns for name, case in found.items()}
    # msync with its one FLUSH; fsync with two, one after the other; folios of 2 MiB, though FLUSHes
    # are shared.
    assert wait["crosvm"] == wait["firecracker"] < wait["cloud-hypervisor"] < wait["qemu"]
    written = {name: case.bytes_written for name, case in found.items()}
    assert written["qemu"] > 100 * max(written["cloud-hypervisor"], written["crosvm"])


def test_H14_calling_fsync_again_acknowledges_what_is_gone() -> None:
    found = {name.partition("=")[2]: case for name, case in cases("fsyncgate").items()}
    assert all(case.failed_syncs == 1 for case in found.values())
    lost = {name: at_risk(case, "power-cut") for name, case in found.items()}
    assert lost == {"give-up": 0, "retry": 10, "panic": 0, "rewrite": 0}
    assert found["retry"].acknowledged == found["rewrite"].acknowledged == 1000
    assert found["give-up"].acknowledged == 990
    assert found["retry"].uncovered_acknowledgements.p50 == 10  # for good: not one later sync helps
    (schedule,) = found["retry"].schedules
    assert [s.text for s in schedule.spans if s.lane == "flush"] == ["vCPU 0, failed", "vCPU 0"]
    assert found["panic"].end_ns < found["retry"].end_ns


def test_V6_a_full_host_kills_the_monitor_and_no_flush_reports_it() -> None:
    found = cases("full-host")
    full = found["extents=sparse"]
    assert full.failed_syncs == full.broken_promises == 0
    assert full.end_ns < found["extents=written"].end_ns
    assert full.acknowledged == full.flushes == 512 < found["extents=written"].acknowledged
    assert "SIGBUS" in full.notices[0]


def test_V5_without_a_file_no_record_is_acknowledged_by_a_program_that_heeds_errors() -> None:
    found = cases("memory-backend-ram")
    assert found["kind=ram,acknowledge=after-sync"].acknowledged == 0
    assert at_risk(found["kind=ram,acknowledge=before-sync"], "vmm-kill") == 1000


def test_V5_discard_data_loses_by_quitting_and_by_nothing_else() -> None:
    case = cases("discard-data")["discard_data=true"]
    lost = {domain: spread.max for domain, spread in case.uncovered_by_domain.items()}
    assert lost.pop("vmm-quit") == 1000
    assert set(lost.values()) == {0}


def test_V9_only_an_emulated_nvdimm_and_unsafe_lose_what_was_synced() -> None:
    lost = {name: at_risk(case, "power-cut") for name, case in cases("compare-devices").items()}
    assert {name for name, records in lost.items() if records} == {
        "type=nvdimm",
        "type=virtio-blk,cache=unsafe",
    }
    assert len(lost) == 7


def test_H13_new_extents_wait_for_a_commit_even_on_a_disk_that_keeps_its_cache() -> None:
    found = cases("new-extents")
    never = [found[f"extents={kind},sync=call:none"] for kind in ("unwritten", "sparse")]
    assert all(case.recovery_point_ns.max > 35_000_000_000 for case in never)
    assert found["extents=written,sync=call:none"].recovery_point_ns.max < 31_000_000_000


def test_H2_huge_pages_cost_whoever_syncs_often_under_qemu_on_a_recent_host() -> None:
    found = cases("huge-pages")
    each = {name: case for name, case in found.items() if "every" not in name}
    costly = {name for name, case in each.items() if case.bytes_written > 900 << 20}
    assert costly == {
        f"sync=call:fdatasync,vmm=qemu,{host}"
        for host in (
            "file_system=ext4,kernel=6.18,thp=madvise",
            "file_system=xfs,kernel=6.18,thp=madvise",
            "file_system=ext4,kernel=6.18,thp=never",
        )
    }
    spared = [case for name, case in each.items() if name not in costly]
    assert max(case.bytes_written for case in spared) < 10 << 20
    least = min(found[name].guest_wait_ns for name in costly)
    assert 2 * least > 3 * max(case.guest_wait_ns for case in spared)


def test_H2_larger_folios_write_more_and_lose_no_less() -> None:
    small, medium, large = cases("folios").values()
    assert small.bytes_written < medium.bytes_written < large.bytes_written
    assert small.at_risk_bytes.max == medium.at_risk_bytes.max == large.at_risk_bytes.max


def test_P6_V8_a_copy_is_as_good_as_the_layer_that_it_reads() -> None:
    for name, case in cases("copies-and-migration").items():
        assert (case.domains["live-copy"].max == 0) == (name == "access=dax")
        assert case.domains["storage-snapshot"].max > 0
        assert case.uncovered_by_domain["storage-snapshot"].max == 0
        assert case.uncovered_by_domain["migration"].max == case.acknowledged


def test_G7_one_flush_at_a_time_costs_parallel_syncs_their_sharing() -> None:
    found = cases("drivers")
    for driver in ("serialized", "ordered"):
        alone, many = (found[f"driver={driver},vcpus={n}"].guest_wait_ns for n in (1, 8))
        assert alone == found["driver=concurrent,vcpus=1"].guest_wait_ns
        assert many > 2 * found["driver=concurrent,vcpus=8"].guest_wait_ns


def test_H8_early_writeback_loses_less_and_leaves_holes() -> None:
    never, some, every = cases("early-writeback").values()
    assert never.holes == 0 < some.holes
    assert every.recovery_point_ns.max < some.recovery_point_ns.max < never.recovery_point_ns.max


def test_H7_little_memory_makes_writers_wait_for_the_disk() -> None:
    plenty, little, least = cases("throttled").values()
    assert plenty.guest_wait_ns == 0 < little.guest_wait_ns < least.guest_wait_ns
    assert not plenty.syncs


def test_G6_only_a_file_systems_commit_helps_a_guest_that_idles() -> None:
    found = cases("idle-guest")
    for profile in ("plp-nvme", "consumer-nvme"):
        assert found[f"guest=file_system:ext4,profile={profile}"].flushes == 2
        assert found[f"guest=file_system:none+access:direct,profile={profile}"].flushes == 0
    assert (
        found["guest=file_system:none+access:direct,profile=consumer-nvme"].at_risk_bytes.p99
        == 250 << 10
    )
