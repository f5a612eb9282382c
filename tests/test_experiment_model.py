"""The models: defaults, profiles, contradictions, one form for one and several devices."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from crashsim.engine import units
from crashsim.experiment.applications import (
    AppendLog,
    DoubleBuffer,
    EveryRecords,
    EveryTime,
    Fill,
    KeyValue,
    Recording,
    SizeRange,
    Sync,
    WriteAheadLog,
)
from crashsim.experiment.backing import Device, RateLimiter
from crashsim.experiment.block import Block
from crashsim.experiment.failures import Power
from crashsim.experiment.linux import EarlyWriteback, Guest, Host
from crashsim.experiment.model import Experiment
from crashsim.experiment.profiles import PROFILES, Disk
from crashsim.experiment.schema import blocks

MIB = 1 << 20


def experiment(**changes: Any) -> Experiment:
    values = {"device": Device(size=64 * MIB), "workload": AppendLog(records=10), **changes}
    return Experiment(**values)


def test_python_code_gives_plain_integers() -> None:
    assert Host(dirty_expire=30_000_000_000).dirty_expire == 30_000_000_000
    assert Device(size=8192).size == 8192
    assert Disk(flush=5, bandwidth=10**9).bandwidth == 10**9
    assert EarlyWriteback(every=5, share=(1, 8)).share == (1, 8)


def test_python_code_may_write_units() -> None:
    assert Host(dirty_expire="30s") == Host(dirty_expire=30_000_000_000)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_a_linux_host() -> None:
    host = Host()
    assert (host.dirty_writeback, host.dirty_expire) == (5 * 10**9, 30 * 10**9)
    assert (host.dirty_background_ratio, host.dirty_ratio) == (10, 20)
    assert host.fault == 2400
    assert host.memory == 16 << 30


@pytest.mark.parametrize(
    ("profile", "flush_ns", "plp", "fua", "ignores_flush"),
    [
        ("plp-nvme", 30_000, True, True, False),
        ("consumer-nvme", 1_000_000, False, True, False),
        ("sata-ssd", 3_000_000, False, False, False),
        ("hdd", 10_000_000, False, False, False),
        ("ignores-flush", 1_000_000, False, True, True),
    ],
)
def test_rule_d5_a_profile_fills_in_the_disk(
    profile: Any, flush_ns: int, plp: bool, fua: bool, ignores_flush: bool
) -> None:
    disk = Disk(profile=profile)
    assert (disk.flush, disk.plp, disk.fua) == (flush_ns, plp, fua)
    assert disk.ignores_flush is ignores_flush
    assert disk.bandwidth == 1_200_000_000
    assert (disk.sector, disk.atom) == (512, 512)


def test_a_profile_gives_way_to_what_is_said() -> None:
    disk = Disk(profile="hdd", flush=7, plp=True)
    assert (disk.flush, disk.plp, disk.fua) == (7, True, False)


def test_the_defaults_of_a_disk_are_its_default_profile() -> None:
    fields = Disk.model_fields
    profile = PROFILES[fields["profile"].default]
    assert fields["flush"].default == units.parse_duration(str(profile["flush"]))
    assert fields["bandwidth"].default == units.parse_byte_rate(str(profile["bandwidth"]))
    for name in ("plp", "fua", "ignores_flush"):
        assert fields[name].default == profile[name]


def test_rule_d3_the_power_fail_atom_is_the_sector_unless_said() -> None:
    assert Disk(sector=4096).atom == 4096
    assert Disk(sector=512, atom=4096).atom == 4096


def test_a_sync_without_every_is_after_each_record() -> None:
    assert Sync(call="fsync").every_records == 1
    assert Sync(call="fsync").every_ns is None
    assert Sync().every_records is None


def test_every_is_a_number_of_records_or_a_time() -> None:
    by_count = Sync(call="msync", every="100 records")  # type: ignore[arg-type]
    by_time = Sync(call="msync", every="1s")  # type: ignore[arg-type]
    assert (by_count.every, by_count.every_records) == (EveryRecords(100), 100)
    assert (by_time.every, by_time.every_ns) == (EveryTime(10**9), 10**9)
    assert by_time.every_records is None


@pytest.mark.parametrize("every", ["0 records", "0s", "100", 100, "records", "1.5 records", True])
def test_an_every_that_is_neither_says_what_was_expected(every: Any) -> None:
    with pytest.raises(ValidationError, match="expected a number of records such as 100 records"):
        Sync(call="fsync", every=every)


def test_one_size_is_a_range_of_itself() -> None:
    workload = KeyValue(records=1, slots=1, value_size="1KiB")  # type: ignore[arg-type]
    assert workload.value_size == SizeRange(min=1024, max=1024)


def test_a_slot_is_the_largest_value_rounded_up_to_8() -> None:
    assert KeyValue(records=1, slots=1, value_size=SizeRange(min=1, max=13)).slot_bytes == 16
    assert KeyValue(records=1, slots=1, slot_size=5000).slot_bytes == 5000


def test_theta_is_a_number_of_64ths() -> None:
    assert KeyValue(records=1, slots=1).theta_64ths == 63
    workload = KeyValue.model_validate(
        {"kind": "key-value", "records": 1, "slots": 1, "distribution": "zipf", "theta": "1.5"}
    )
    assert workload.theta_64ths == 96


def test_one_device_and_several_look_alike() -> None:
    log, sync = AppendLog(records=10), Sync(call="fsync")
    first, second = Device(size=MIB), Device(name="b", size=MIB, workload=Fill(), sync=sync)
    assert experiment(device=first).resolved_devices() == ((first, log, Sync()),)
    both = experiment(device=None, devices=(first, second))
    assert both.resolved_devices() == ((first, log, Sync()), (second, second.workload, sync))


def test_an_experiment_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        experiment().seed = 5


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"device": None}, "missing key 'device'"),
    ({"devices": (Device(size=MIB),)}, "there is a device already"),
    ({"workload": None}, "missing key 'workload'"),
    ({"device": Device(size=MIB, sync=Sync())}, "sync of the only device belongs top-level"),
    (
        {"device": Device(size=MIB, workload=Fill())},
        "workload of the only device belongs top-level",
    ),
    ({"device": None, "devices": (Device(size=MIB),) * 2}, "another device is called pmem0"),
    (
        {"device": None, "devices": (Device(size=MIB, workload=Fill()),)},
        "has a workload of its own",
    ),
    ({"duration": 5, "power": Power(at=(3, 6))}, "a cut at 6ns is after the end"),
    ({"workload": KeyValue(records=1, slots=10**6)}, "the workload needs at least"),
    ({"workload": Fill(size=65 * MIB)}, "the workload needs at least 65MiB, pmem0 has 64MiB"),
    ({"workload": DoubleBuffer(records=1, body_size=32 * MIB)}, "the workload needs at least"),
    ({"workload": WriteAheadLog(records=1, table_size=64 * MIB)}, "the workload needs at least"),
    ({"workload": AppendLog(records=9, record_size=MIB, vcpus=65)}, "the workload needs at least"),
    (
        {"device": Device(size=MIB, rate_limiter=RateLimiter(ops=1, refill=1))},
        "only firecracker limits flushes, qemu does not",
    ),
    (
        {"device": Device(size=MIB, type="real-nvdimm"), "guest": Guest(file_system="none")},
        "a real NVDIMM is not modelled below the guest's page cache",
    ),
    ({"workload": Recording(log="x"), "sync": Sync()}, "sync does not apply to a recording"),
    ({"workload": Recording(log="x"), "guest": Guest(access="cached")}, "cached does not"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_an_experiment_that_contradicts_itself_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        experiment(**changes)


def test_a_devices_entry_that_is_a_recording_has_no_sync() -> None:
    recorded = Device(size=MIB, workload=Recording(log="x"), sync=Sync())
    with pytest.raises(ValidationError, match="sync does not apply to a recording"):
        experiment(device=None, devices=(recorded, Device(name="b", size=MIB)))


PARTS: list[tuple[type[Any], dict[str, Any], str]] = [
    (Sync, {"every": EveryTime(5)}, "call is none"),
    (Sync, {"group": True}, "a group commit needs a call that waits"),
    (Sync, {"call": "msync-async", "group": True}, "a group commit needs a call that waits"),
    (Sync, {"call": "fsync", "group": True, "every": EveryRecords(5)}, "every does not apply"),
    (Sync, {"call": "fsync", "delay": 5}, "delay applies to group commits only"),
    (KeyValue, {"records": 1, "slots": 1, "slot_size": 8}, "a slot is smaller"),
    (KeyValue, {"records": 1, "slots": 1, "theta": "1"}, "theta applies to distribution: zipf"),
    (SizeRange, {"min": 2, "max": 1}, "min is larger than max"),
    (WriteAheadLog, {"records": 1, "table_size": 5000}, "expected a multiple of page_size"),
    (
        Recording,
        {"log": "x", "times": "y", "clock": 5},
        "clock applies to recordings without times",
    ),
    (Fill, {"size": 1 << 40, "write_size": 1}, "more than 1000000000 writes"),
    (Host, {"dirty_background_ratio": 20}, "must be below dirty_ratio"),
    (Host, {"dirty_ratio": 10}, "must be below dirty_ratio"),
    (Power, {"domains": ("power-cut", "power-cut")}, "power-cut is listed twice"),
    (Power, {"domains": ()}, "at least 1 item"),
    (Disk, {"sector": 1000}, "expected 512B, 1KiB, 2KiB or 4KiB, got 1000B"),
    (Disk, {"sector": 4096, "atom": 512}, "expected a multiple of the sector"),
    (Device, {"size": 5000}, "expected a multiple of 4KiB up to 16TiB"),
    (Device, {"size": (16 << 40) + 4096}, "expected a multiple of 4KiB up to 16TiB"),
    (Device, {"size": 0}, "expected more than 0"),
    (
        Device,
        {"size": MIB, "type": "nvdimm", "rate_limiter": RateLimiter(ops=1, refill=1)},
        "a nvdimm has no flush requests to limit",
    ),
    (RateLimiter, {"ops": 0, "refill": 1}, "greater than or equal to 1"),
    (RateLimiter, {"ops": 1, "refill": 0}, "expected more than 0"),
    (RateLimiter, {"ops": 1, "refill": 1, "burst": -1}, "greater than or equal to 0"),
    (Device, {"size": MIB, "name": "Pmem 0"}, "should match pattern"),
    (AppendLog, {"records": 0}, "greater than or equal to 1"),
    (AppendLog, {"records": 1, "vcpus": 129}, "less than or equal to 128"),
    (AppendLog, {"records": True}, "valid integer"),
    (EarlyWriteback, {"every": 0, "share": "1/8"}, "expected more than 0"),
    (EarlyWriteback, {"every": 5, "share": "9/8"}, "expected a ratio such as 1/8"),
]


@pytest.mark.parametrize(("part", "values", "message"), PARTS)
def test_a_block_that_contradicts_itself_is_refused(
    part: type[Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        part(**values)


def test_every_key_is_described() -> None:
    for block in blocks(Block):
        for key, field in block.model_fields.items():
            assert field.description, f"{block.__name__}.{key}"
