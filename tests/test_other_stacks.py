"""Monitors, backings, folios, faults and reactions in any combination: the calculated loss is what
two files differ in, in every failure domain."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashsim.engine.history import History
from crashsim.experiment.loader import load
from crashsim.experiment.model import Experiment
from crashsim.guest.synthetic import synthetic_programs
from crashsim.power.at_risk import at_risk
from crashsim.power.safety import Safety, Stage
from crashsim.replay.comparison import KEEP
from crashsim.replay.versions import TwoFiles
from crashsim.simulate.stack import simulate

Configuration = dict[str, Any]
GUESTS = (
    {"file_system": "ext4"},
    {"file_system": "ext4"},
    {"file_system": "ext4", "access": "cached"},
    {"file_system": "none"},
)
FOLIOS: tuple[Any, ...] = (
    "4KiB",
    "64KiB",
    "auto",
    [{"size": "8KiB", "until": "20KiB"}, {"size": "512KiB", "until": "900KiB"}, {"size": "4KiB"}],
)

KINDS: tuple[Configuration, ...] = (
    {"kind": "append-log", "record_size": "3000B"},
    {"kind": "key-value", "slots": 12, "slot_size": "3KiB"},
    {"kind": "double-buffer", "body_size": "6KiB"},
    {"kind": "write-ahead-log", "table_size": "64KiB"},
)


def backing(draw: st.DrawFn) -> Configuration:
    kind = draw(st.sampled_from(["file", "file", "file", "private", "tmpfs", "ram"]))
    if kind != "file":
        return {"kind": kind}
    return {
        "kind": kind,
        "extents": draw(st.sampled_from(["written", "unwritten", "sparse"])),
        "folio": draw(st.sampled_from(FOLIOS)),
        "prealloc": draw(st.sampled_from([False, False, True])),
        "discard_data": draw(st.sampled_from([False, False, True])),
    }


def device(draw: st.DrawFn, number: int) -> Configuration:
    found: Configuration = {"name": f"pmem{number}", "size": "1MiB"}
    found["type"] = draw(
        st.sampled_from(["virtio-pmem"] * 4 + ["nvdimm", "real-nvdimm", "virtio-blk"])
    )
    if found["type"] == "virtio-blk":
        found["cache"] = draw(st.sampled_from(["none", "writeback", "writethrough", "unsafe"]))
    if found["type"] in ("virtio-pmem", "nvdimm"):
        found["backing"] = backing(draw)
    workload = draw(st.sampled_from(KINDS)) | {
        "records": draw(st.integers(1, 25)),
        "vcpus": draw(st.sampled_from([1, 1, 2])),
        "rate": draw(st.sampled_from(["900/s", "20000/s"])),
    }
    call = draw(st.sampled_from(["msync", "fdatasync", "fsync"]))
    sync = {"call": call, "every": f"{draw(st.integers(1, 4))} records"}
    return found | {"workload": workload, "sync": sync}


def fault(draw: st.DrawFn) -> Configuration:
    return draw(st.sampled_from([{}, {}, {"share": "1/3"}, {"at": ["4ms"]}, {"share": "1/1"}]))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    return {
        "vmm": draw(
            st.sampled_from(
                ["qemu", "cloud-hypervisor", "crosvm", "firecracker", "firecracker-reused-result"]
            )
        ),
        "devices": [device(draw, i) for i in range(draw(st.sampled_from([1, 1, 2])))],
        "duration": "90ms",
        "host": {
            "memory": draw(st.sampled_from(["1GiB", "1MiB", "256KiB"])),
            "file_system": draw(st.sampled_from(["ext4", "xfs"])),
            "commit_interval": draw(st.sampled_from(["5s", "3ms"])),
            "tick": draw(st.sampled_from(["4ms", "0s"])),
            "dirty_writeback": draw(st.sampled_from(["0s", "7ms", "5s"])),
            "dirty_expire": draw(st.sampled_from(["3ms", "30s"])),
            "fsync_errors": draw(st.sampled_from([[], ["4ms"]])),
            "write_errors": draw(st.sampled_from([[], ["4ms"], ["0s", "9ms", "9500us"]])),
            **draw(st.sampled_from([{}, {}, {"free": "40KiB"}])),
        },
        "guest": {
            **draw(st.sampled_from(GUESTS)),
            "driver": draw(st.sampled_from(["concurrent", "serialized"])),
            "on_sync_error": draw(st.sampled_from(["give-up", "retry", "panic", "rewrite"])),
        },
        "disk": {
            "profile": draw(st.sampled_from(["plp-nvme", "consumer-nvme", "sata-ssd"])),
            "faults": {"ignored_flush": fault(draw), "shorn": fault(draw)},
        },
    }


def loaded(configuration: Configuration, folder: Path) -> Experiment:
    path = folder / "other.yaml"
    path.write_text(json.dumps(configuration))
    return load(path, (), None).cases[0].experiment


def forever_failing(configuration: Configuration) -> bool:
    """A program that calls again until it succeeds never ends on memory without a file."""
    kinds = [device.get("backing", {}).get("kind") for device in configuration["devices"]]
    return "ram" in kinds and configuration["guest"]["on_sync_error"] in ("retry", "rewrite")


def disagreements(history: History, stage: Stage) -> list[tuple[int, int, int]]:
    """(instant, calculated, compared) wherever the two differ, at every instant of change."""
    risk = at_risk(history, Safety(history, stage))
    columns = [history.store_t_ns, history.copy_t_ns, history.batch_t_ns, risk.instants]
    columns += [history.io_complete_ns, history.flush_disk_end_ns, history.commit_complete_ns]
    instants = np.unique(np.concatenate(columns))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = TwoFiles(history, KEEP[stage], Path(folder))
        for instant in instants[instants <= history.end_ns].tolist():
            compared = files.advance(instant)
            if compared != risk.at(instant):
                found.append((instant, risk.at(instant), compared))
        files.close()
    return found


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(configuration=configurations(), stage=st.sampled_from(sorted(KEEP)))
def test_the_calculated_loss_is_what_two_files_differ_in(
    configuration: Configuration, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if forever_failing(configuration):
        configuration["guest"]["on_sync_error"] = "give-up"
    if any(device["type"] == "real-nvdimm" for device in configuration["devices"]):
        configuration["guest"] |= {"file_system": "ext4", "access": "dax"}  # not below L1
    experiment = loaded(configuration, tmp_path_factory.getbasetemp())
    history = simulate(experiment, synthetic_programs(experiment))
    history._check()
    assert disagreements(history, stage) == []
