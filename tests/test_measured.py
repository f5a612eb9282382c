"""The model against what was measured on live hosts and guests (`tests/cases/measured.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from crashsim.engine import units
from crashsim.engine.history import History, Reason
from crashsim.experiment.applications import (
    AppendLog,
    EveryRecords,
    KeyValue,
    SizeRange,
    Sync,
)
from crashsim.experiment.backing import Backing, Device
from crashsim.experiment.linux import Guest, Host
from crashsim.experiment.model import Experiment
from crashsim.guest.synthetic import synthetic_programs
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, kept_stage
from crashsim.simulate.stack import simulate

MEASURED: dict[str, Any] = YAML(typ="safe").load(
    (Path(__file__).parent / "cases" / "measured.yaml").read_text()
)
MIB = 1 << 20
SECOND = 10**9
P = 4096
RAW = Guest(file_system="none", access="direct")


def ns(text: str) -> int:
    return units.parse_duration(text)


def simulated(**keys: Any) -> History:
    keys.setdefault("guest", RAW)
    keys.setdefault("device", Device(size=256 * MIB, backing=Backing(folio="auto")))
    experiment = Experiment(**keys)
    history = simulate(experiment, synthetic_programs(experiment))
    history._check()
    return history


def at_random(records: int, rate: int | None) -> KeyValue:
    return KeyValue(
        records=records, slots=65536, value_size=SizeRange(min=P, max=P), slot_size=P, rate=rate
    )


def written_kib(history: History) -> int:
    return int(history.io_pages.sum()) * 4 + history.info.metadata_bytes // 1024


def test_H2_qemus_advice_makes_each_small_sync_write_two_mebibytes() -> None:
    found = MEASURED["qemu_one_page_syncs_ext4"]
    history = simulated(
        workload=at_random(found["syncs"], None),
        sync=Sync(call="fdatasync"),
        disk={"fua": False},
    )
    assert abs(written_kib(history) - found["kib"]) <= found["bound_kib"]


@pytest.mark.parametrize("found", MEASURED["one_page_fsyncs"])
def test_H2_with_the_advice_and_without(found: dict[str, Any]) -> None:
    history = simulated(
        workload=at_random(50, 50),
        sync=Sync(call="fsync"),
        host=Host(file_system=found["file_system"], thp="madvise" if found["advised"] else "none"),
        disk={"fua": False},
    )
    assert abs(written_kib(history) - found["kib"]) <= found["bound_kib"]
    assert abs(history.flush_disk_issue_ns.size - found["flushes"]) <= 2


@pytest.mark.parametrize("found", MEASURED["stores_and_fsyncs"])
def test_G4_H11_within_one_tick_of_the_last_commit_an_fsync_makes_one_flush(
    found: dict[str, Any],
) -> None:
    """The disk is as fast as the mean call was; the calls lie `gap` apart."""
    gap, whole = ns(found["gap"]), ns(found["fsync"]) - ns(found["gap"])
    share = found["two"] / 400
    history = simulated(
        workload=at_random(400, SECOND // gap if gap else None),
        sync=Sync(call="fsync"),
        host=Host(file_system=found["file_system"]),
        disk={"fua": False, "flush": int(whole / (1 + share)), "bandwidth": 10**12},
    )
    twice = history.flush_disk_issue_ns.size - 400
    assert abs(twice / 400 - share) <= found["bound"]


def lone_store(at_ns: int, phase: str, seed: int = 1, **keys: Any) -> History:
    return simulated(
        workload=AppendLog(records=1),
        device=Device(size=MIB, backing=Backing(folio="auto"), plugged=at_ns),
        host=Host(flusher_phase=phase),  # type: ignore[arg-type]
        duration=keys.pop("duration", 80 * SECOND),
        seed=seed,
        **keys,
    )


def age(history: History) -> float:
    assert history.batch_reason.tolist() == [Reason.FLUSHER]
    return float(history.batch_t_ns[0] - history.store_t_ns[0]) / SECOND


def test_H6_a_lone_store_is_written_when_it_is_31_s_old_wherever_it_falls() -> None:
    low, high = (ns(text) / SECOND for text in MEASURED["flusher"]["idle"])
    ages = [age(lone_store(4_000_000 * n, "idle")) for n in range(64)]
    assert 30.6 <= min(ages) <= low and high <= max(ages) <= 30.86


def test_H6_a_busy_flusher_writes_it_when_it_is_30_to_35_s_old() -> None:
    most = ns(MEASURED["flusher"]["busy_at_most"]) / SECOND
    busy = [age(lone_store(130_000_000 * n, "busy")) for n in range(40)]
    drawn = [age(lone_store(0, "random", seed)) for seed in range(40)]
    for ages in (busy, drawn):
        assert 30 <= min(ages) < 31 and 34 < max(ages) <= 35.13
    assert most <= 35.12


def test_H6_in_a_guest_without_dax_it_takes_twice_as_long() -> None:
    found = MEASURED["guest_flusher"]
    history = lone_store(0, "idle", guest=Guest(file_system="none"))
    bound = ns(found["bound"])
    assert abs(int(history.copy_t_ns[0]) - ns(found["copied"])) <= bound
    assert abs(int(history.batch_t_ns[0]) - ns(found["written"])) <= bound


def test_G6_an_idle_ext4_guest_commits_with_two_flushes() -> None:
    found = MEASURED["guest_commits"]
    history = lone_store(0, "idle", guest=Guest(), duration=10 * SECOND)
    assert history.flush_vcpu.tolist() == [-1] * found["flushes"]
    first = int(history.flush_asked_ns[0] - history.store_t_ns[0])
    assert ns(found["from"]) <= first <= ns(found["to"])


@pytest.mark.parametrize("found", MEASURED["host_commits"])
def test_H16_the_hosts_own_ext4_commits_and_flushes_xfs_does_not(found: dict[str, Any]) -> None:
    history = simulated(
        workload=AppendLog(records=1),
        host=Host(file_system=found["file_system"]),
        disk={"fua": False},
        duration=9 * SECOND,
    )
    issued = history.flush_disk_issue_ns
    assert issued.size == found["flushes"]
    if found["after"] is not None:
        assert np.all(np.abs(issued - ns(found["after"])) < 50_000_000)


@pytest.mark.parametrize("access", ["cached", "direct"])
def test_G2_a_raw_device_is_not_dax(access: str) -> None:
    found = MEASURED["raw_device"]
    history = simulated(
        workload=AppendLog(records=found["records"], record_size=256, rate=1000),
        guest=Guest(file_system="none", access=access),  # type: ignore[arg-type]
    )
    lost = Losses(history, kept_stage(Domain.VMM_KILL)).at_risk
    most = int(lost.values.max()) if lost.values.size else 0
    assert most // 256 == found[access]


@pytest.mark.parametrize("found", MEASURED["calls"])
def test_G4_each_call_makes_as_many_flushes_as_in_a_real_guest(found: dict[str, Any]) -> None:
    history = simulated(
        workload=AppendLog(records=1, grows=found.get("grows", False)),
        sync=Sync(call=found["call"], every=EveryRecords(1)),
        guest=Guest(file_system=found["file_system"]),
    )
    assert history.flush_vcpu.size == found["flushes"]
