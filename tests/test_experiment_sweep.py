"""Sweeps: one document, many cases, each with a readable name."""

from __future__ import annotations

import pytest

from crashsim.errors import ExperimentError
from crashsim.experiment.loader import Plan, plan

BASE = """\
device: {size: 64MiB}
workload: {kind: append-log, records: 10}
"""


def swept(text: str, *overrides: str) -> Plan:
    return plan(BASE + text, "x.yaml", overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        swept(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def names(found: Plan) -> list[str]:
    return [case.name for case in found.cases]


def test_a_product_is_every_value_with_every_other() -> None:
    found = swept(
        "sweep: {product: {sync.call: [none, fsync], disk.profile: [hdd, sata-ssd, plp-nvme]}}\n"
    )
    assert names(found) == [
        "call=none,profile=hdd",
        "call=none,profile=sata-ssd",
        "call=none,profile=plp-nvme",
        "call=fsync,profile=hdd",
        "call=fsync,profile=sata-ssd",
        "call=fsync,profile=plp-nvme",
    ]
    last = found.cases[-1]
    assert (last.experiment.sync.call, last.experiment.disk.flush) == ("fsync", 30_000)
    assert last.parameters == {"sync.call": "fsync", "disk.profile": "plp-nvme"}


def test_a_zip_is_the_values_side_by_side() -> None:
    found = swept("sweep: {zip: {seed: [1, 2], host.fault: [1us, 2us]}}\n")
    assert names(found) == ["seed=1,fault=1us", "seed=2,fault=2us"]


def test_a_zip_beside_a_product_is_one_more_factor() -> None:
    found = swept(
        "sweep: {product: {disk.plp: [true, false]}, zip: {seed: [1, 2], host.fault: [1us, 2us]}}\n"
    )
    assert names(found) == [
        "plp=true,seed=1,fault=1us",
        "plp=true,seed=2,fault=2us",
        "plp=false,seed=1,fault=1us",
        "plp=false,seed=2,fault=2us",
    ]


def test_a_value_may_be_a_whole_block_that_replaces_what_is_there() -> None:
    found = swept(
        "sync: {call: msync, every: 5 records}\n"
        "sweep: {product: {sync: [{call: none}, {call: fdatasync, every: 10 records}]}}\n"
    )
    assert names(found) == ["sync=call:none", "sync=call:fdatasync+every:10 records"]
    assert [case.experiment.sync.every_records for case in found.cases] == [None, 10]


def test_a_key_is_named_as_shortly_as_tells_it_apart() -> None:
    found = swept("sweep: {product: {device.size: [1MiB], workload.record_size: [1KiB]}}\n")
    assert names(found) == ["size=1MiB,record_size=1KiB"]
    text = (
        "devices: [{name: a, size: 1MiB}, {name: b, size: 1MiB}]\n"
        "workload: {kind: append-log, records: 10}\n"
        "sweep: {product: {devices.0.size: [1MiB], devices.1.size: [2MiB]}}\n"
    )
    assert names(plan(text, "x.yaml")) == ["0.size=1MiB,1.size=2MiB"]


def test_a_sweep_may_complete_an_experiment() -> None:
    text = "device: {size: 1MiB}\nsweep: {product: {workload: [{kind: fill}]}}\n"
    found = plan(text, "x.yaml")
    assert names(found) == ["workload=kind:fill"]
    assert found.experiment == found.cases[0].experiment


def test_a_case_has_no_sweep_of_its_own() -> None:
    found = swept("sweep: {product: {seed: [1, 2]}}\n")
    assert found.experiment.sweep is not None
    assert [case.experiment.sweep for case in found.cases] == [None, None]
    assert [case.experiment.seed for case in found.cases] == [1, 2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sweep: {}", "x.yaml:3:1: expected product or zip, with the values of some keys"),
        ("sweep: {product: {}}", "x.yaml:3:18: expected at least one value, got a mapping"),
        ("sweep: {product: {seed: []}}", "x.yaml:3:25: expected at least one value, got a list"),
        ("sweep: {product: {seed: 5}}", "x.yaml:3:25: expected a list, got 5"),
        ("sweep: {product: {seed: [1, 2, 1]}}", "x.yaml:3:32: two cases are called 'seed=1'"),
        ("sweep: {prodct: {seed: [1]}}", "x.yaml:3:9: unknown key 'prodct'; did you mean"),
        ("sweep: {product: {sedd: [1]}}", "x.yaml:3:19: unknown key 'sedd'; did you mean 'seed'"),
        ("sweep: {product: {seed.x: [1]}, zip: {seed: [1]}}", "set the same thing"),
        ("sweep: {product: {sync: [{call: none}], sync.call: [none]}}", "set the same thing"),
        ("sweep: {product: {name: [a, b]}}", "x.yaml:3:19: name cannot be swept"),
        ("sweep: {product: {expect.holes: [1]}}", "x.yaml:3:19: expect cannot be swept"),
        ("sweep: {product: {workload.records.x: [1]}}", "'x' leads into 10, which has no keys"),
        (
            "sweep: {zip: {seed: [1, 2], host.fault: [1us]}}",
            "x.yaml:3:29: host.fault has 1 values, seed has 2: zip needs as many of each",
        ),
        (
            f"sweep: {{product: {{seed: {list(range(200))}, disk.sector: {list(range(51))}}}}}",
            "x.yaml:3:1: 10200 cases are too many: at most 10000",
        ),
    ],
)
def test_a_wrong_sweep_is_told_at_its_place(text: str, problem: str) -> None:
    found = problems(text + "\n")
    assert any(problem in line for line in found), found


def test_a_mistake_in_some_cases_says_in_which() -> None:
    assert problems("sweep: {product: {sync.call: [none, fsnc], seed: [1, 2]}}\n") == [
        "x.yaml:3:37: expected one of none, msync-async, msync, fdatasync, fsync, sync, "
        "sync_file_range, got 'fsnc'; "
        "did you mean 'fsync'? (in case 'call=fsnc,seed=1' and 1 more)"
    ]


def test_a_contradiction_in_one_case_says_in_which() -> None:
    text = "sync: {every: 5 records}\nsweep: {product: {sync.call: [none, fsync]}}\n"
    assert problems(text) == [
        "x.yaml:3:8: call is none, so there is nothing to do every time (in case 'call=none')"
    ]


def test_a_mistake_in_all_cases_is_told_once() -> None:
    assert problems("seed: x\nsweep: {product: {disk.profile: [hdd, sata-ssd]}}\n") == [
        "x.yaml:3:7: expected a whole number, got 'x'"
    ]


def test_a_value_that_the_sweep_replaces_is_checked_all_the_same() -> None:
    assert problems("sync: {call: fsnc}\nsweep: {product: {sync.call: [none]}}\n") == [
        "x.yaml:3:14: expected one of none, msync-async, msync, fdatasync, fsync, sync, "
        "sync_file_range, got 'fsnc'; "
        "did you mean 'fsync'?"
    ]


def test_set_cannot_change_what_the_sweep_sets() -> None:
    text = "sweep: {product: {disk.profile: [hdd, sata-ssd]}}\n"
    for override in ("disk.profile=plp-nvme", "disk={profile: plp-nvme}"):
        [problem] = problems(text, override)
        assert "the sweep sets disk.profile; --set sweep=null runs without the sweep" in problem
    assert names(swept(text, "disk.profile=plp-nvme", "sweep=null")) == ["x"]


def test_a_cases_expectations_are_laid_over_the_experiments() -> None:
    found = swept(
        "sweep: {product: {sync.call: [none, fsync, msync]}}\n"
        "expect: {broken_promises: 0, holes: 0}\n"
        "cases:\n"
        "  'call=*sync': {expect: {uncovered_acknowledgements: 0, holes: 1}}\n"
        "  'call=msync': {expect: {holes: null}}\n"
    )
    none, fsync, msync = (case.experiment.expect.conditions() for case in found.cases)
    assert {name: str(c) for name, c in none.items()} == {
        "broken_promises": "== 0",
        "holes": "== 0",
    }
    assert str(fsync["holes"]) == "== 1"
    assert set(fsync) == {"broken_promises", "holes", "uncovered_acknowledgements"}
    assert set(msync) == {"broken_promises", "uncovered_acknowledgements"}


def test_a_pattern_that_matches_no_case_is_a_mistake() -> None:
    text = "sweep: {product: {seed: [1, 2]}}\ncases: {'seed=3': {expect: {holes: 0}}}\n"
    assert problems(text) == [
        "x.yaml:4:9: no case matches 'seed=3'; the cases are 'seed=1', 'seed=2'"
    ]


def test_a_wrong_expectation_of_a_case_is_told_once() -> None:
    text = "sweep: {product: {seed: [1, 2]}}\ncases: {'*': {expect: {holse: 0}}}\n"
    assert problems(text) == ["x.yaml:4:24: unknown key 'holse'; did you mean 'holes'?"]


def test_a_case_name_with_brackets_matches_itself() -> None:
    found = swept(
        "sweep: {product: {power.domains: [[power-cut], [vmm-kill, power-cut]]}}\n"
        "cases: {'domains=vmm-kill+power-cut': {expect: {holes: 0}}}\n"
    )
    assert names(found) == ["domains=power-cut", "domains=vmm-kill+power-cut"]
    assert [len(case.experiment.expect.conditions()) for case in found.cases] == [0, 1]


def test_a_value_of_null_is_left_out_of_a_name_that_says_something_else() -> None:
    text = "sweep: {zip: {device.type: [nvdimm, virtio-blk], device.cache: [null, none]}}\n"
    assert names(swept(text)) == ["type=nvdimm", "type=virtio-blk,cache=none"]
    alone = "sweep: {product: {host.free: [null, 1MiB]}}\n"
    assert names(swept(alone)) == ["free=null", "free=1MiB"]
