"""A guest that nothing interferes with is simulated many syncs at a time; one by one must give the
same History."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.experiment.loader import load
from crashsim.experiment.model import Experiment
from crashsim.guest.synthetic import synthetic_programs
from crashsim.guest.syscalls import GuestKernel
from crashsim.simulate.stack import simulate

Configuration = dict[str, Any]
GUESTS = (
    {"file_system": "ext4"},
    {"file_system": "ext4"},
    {"file_system": "none", "access": "direct"},
    {"file_system": "none", "access": "cached"},
)
CLOCKS: tuple[dict[str, str], ...] = (
    {},
    {"tick": "0s"},
    {"tick": "10ms", "second_phase": "400ms"},
    {"tick": "3ms"},
)
FOLIOS: tuple[Any, ...] = (
    "4KiB",
    "4KiB",
    "64KiB",
    "auto",
    [{"size": "8KiB", "until": "20KiB"}, {"size": "2MiB", "until": "7MiB"}, {"size": "4KiB"}],
)

KINDS: tuple[Configuration, ...] = (
    {"kind": "append-log"},
    {"kind": "key-value", "slots": 40},
    {"kind": "double-buffer", "body_size": "6KiB"},
    {"kind": "write-ahead-log", "table_size": "64KiB"},
)


def sync(draw: st.DrawFn) -> Configuration:
    call = draw(st.sampled_from(["msync", "fdatasync", "fsync", "msync-async"]))
    return {"call": call, "every": f"{draw(st.integers(1, 4))} records"}


def workload(draw: st.DrawFn) -> Configuration:
    common = {
        "records": draw(st.integers(1, 60)),
        "vcpus": draw(st.sampled_from([1, 1, 1, 2])),
        "rate": draw(st.sampled_from([None, "100/s", "3000/s"])),
        "acknowledge": draw(st.sampled_from(["after-sync", "before-sync"])),
    }
    return draw(st.sampled_from(KINDS)) | {
        key: value for key, value in common.items() if value is not None
    }


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    devices = draw(st.sampled_from([1, 1, 1, 2]))
    listed = [
        {
            "name": f"pmem{i}",
            "size": "16MiB",
            "backing": {"folio": draw(st.sampled_from(FOLIOS))},
            "workload": workload(draw),
            "sync": sync(draw),
        }
        for i in range(devices)
    ]
    host: Configuration = {
        "memory": draw(st.sampled_from(["1GiB", "256KiB", "128KiB"])),
        "dirty_writeback": draw(st.sampled_from(["0s", "7ms", "5s"])),
        "dirty_expire": draw(st.sampled_from(["3ms", "30s"])),
        "fsync_errors": draw(st.sampled_from([[], ["4ms"], ["0s", "20ms"]])),
        "flusher_phase": draw(st.sampled_from(["idle", "busy", "random"])),
        "fsync_resets_age": draw(st.sampled_from([False, False, True])),
        "file_system": draw(st.sampled_from(["ext4", "xfs"])),
        **draw(st.sampled_from(CLOCKS)),
    }
    if draw(st.booleans()):
        host["early_writeback"] = {"every": "5ms", "share": "1/3"}
    return {
        "devices": listed,
        "host": host,
        "guest": {
            **draw(st.sampled_from(GUESTS)),
            "driver": draw(st.sampled_from(["concurrent", "serialized"])),
            **draw(st.sampled_from(CLOCKS)),
        },
        "disk": {"profile": draw(st.sampled_from(["plp-nvme", "consumer-nvme"]))},
    } | draw(st.sampled_from([{}, {"duration": "17ms"}, {"duration": "6s"}]))


def loaded(configuration: Configuration, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.getbasetemp() / "alone.yaml"
    path.write_text(json.dumps(configuration))
    return load(path, (), None).cases[0].experiment


@contextmanager
def counted(one_by_one: bool) -> Iterator[list[int]]:
    """How many syncs each attempt to do many at once did; `one_by_one` lets none succeed."""
    original, done = GuestKernel.sync_uncontended, [0]

    def watched(self: GuestKernel, vcpu: int, call: object, work: object) -> I64:
        if one_by_one:
            return np.empty(0, dtype=np.int64)
        ends: I64 = original(self, vcpu, call, work)  # type: ignore[arg-type]
        done.append(ends.size)
        return ends

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuestKernel, "sync_uncontended", watched)
        yield done


def both(experiment: Experiment) -> tuple[History, History, int]:
    programs = synthetic_programs(experiment)
    with counted(one_by_one=False) as done:
        many = simulate(experiment, programs)
    with counted(one_by_one=True):
        one = simulate(experiment, programs)
    return many, one, sum(done)


def assert_equal(many: History, one: History) -> None:
    assert many.info == one.info
    for name, column in one.columns().items():
        assert np.array_equal(many.columns()[name], column), name


@given(configuration=configurations())
def test_many_syncs_at_once_and_one_by_one_give_the_same_history(
    configuration: Configuration, tmp_path_factory: pytest.TempPathFactory
) -> None:
    many, one, _ = both(loaded(configuration, tmp_path_factory))
    assert_equal(many, one)


@pytest.mark.parametrize("fua", [True, False])
@pytest.mark.parametrize(
    "guest", [{"file_system": "ext4"}, {"file_system": "none", "access": "direct"}]
)
def test_a_lone_guest_that_syncs_each_record_is_done_many_at_a_time(
    fua: bool, guest: Configuration, tmp_path_factory: pytest.TempPathFactory
) -> None:
    configuration: Configuration = {
        "device": {"size": "16MiB"},
        "workload": {"kind": "key-value", "records": 3000, "slots": 500},
        "sync": {"call": "fdatasync", "every": "1 records"},
        "guest": guest,
        "disk": {"profile": "consumer-nvme", "fua": fua},
    }
    many, one, done = both(loaded(configuration, tmp_path_factory))
    assert_equal(many, one)
    assert done > 2500


def test_another_vcpu_on_the_device_forbids_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    configuration: Configuration = {
        "device": {"size": "16MiB"},
        "workload": {"kind": "append-log", "records": 50, "vcpus": 2},
        "sync": {"call": "fdatasync", "every": "1 records"},
    }
    _, _, done = both(loaded(configuration, tmp_path_factory))
    assert done == 0
