"""Experiments drawn from all options: devices, backings, drivers, monitors, disks, faults,
workloads. Small ones, whose stores, syncs and writebacks meet."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from crashsim.errors import ExperimentError
from crashsim.experiment.loader import plan
from crashsim.experiment.model import Experiment

Tree = dict[str, Any]
INSTANTS = ("0s", "1us", "200us", "3ms", "40ms", "500ms")
FLUSHING = ("firecracker", "firecracker-reused-result")


def maybe(block: Tree) -> st.SearchStrategy[Tree]:
    """Some of the keys of a block, each with one of its values."""
    return st.fixed_dictionaries(
        {},
        optional={
            key: one if isinstance(one, st.SearchStrategy) else st.sampled_from(one)
            for key, one in block.items()
        },
    )


def some_instants() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(INSTANTS), min_size=1, max_size=2, unique=True)


def faults() -> st.SearchStrategy[Tree]:
    at = st.lists(st.sampled_from(INSTANTS), min_size=1, max_size=1)
    return st.one_of(maybe({"share": ["1/3"]}), maybe({"at": at}))


@st.composite
def workloads(draw: st.DrawFn) -> Tree:
    kind = draw(st.sampled_from(("key-value", "append-log", "double-buffer", "write-ahead-log")))
    made: Tree = {"kind": kind, "records": draw(st.integers(3, 12))}
    sizes = st.sampled_from(("8B", "100B", "512B", "700B", "4KiB", "5000B"))
    if kind == "key-value":
        least, most = sorted(draw(st.tuples(*[st.sampled_from((1, 64, 500, 513, 4096))] * 2)))
        made |= {
            "slots": draw(st.integers(1, 6)),
            "value_size": {"min": f"{least}B", "max": f"{most}B"},
        }
        made |= draw(maybe({"distribution": ["zipf"], "slot_size": ["4KiB"]}))
    elif kind == "double-buffer":
        made |= {"body_size": draw(sizes)} | draw(maybe({"header_size": ["8B", "512B"]}))
    else:
        made |= {"record_size": draw(sizes)}
    if kind == "write-ahead-log":
        made |= {"table_size": "8KiB", "checkpoint_every": draw(st.integers(1, 3))}
    return made | draw(
        maybe(
            {
                "vcpus": [2, 3],
                "rate": ["10/s", "1000/s", "100000/s"],
                "acknowledge": ["before-sync"],
            }
        )
    )


@st.composite
def syncs(draw: st.DrawFn) -> Tree:
    call = draw(st.sampled_from(("fsync", "fdatasync", "msync", "fsync", "msync-async", "none")))
    if call == "none":
        return {"call": call}
    more: Tree = {"every": ["1 record", "3 records", "1ms"]}
    if call != "msync-async" and draw(st.booleans()):
        more = {"group": [True]}
    return {"call": call} | draw(maybe(more))


@st.composite
def devices(draw: st.DrawFn, name: str) -> Tree:
    kinds = ("virtio-pmem", "virtio-pmem", "virtio-pmem", "nvdimm", "real-nvdimm", "virtio-blk")
    made: Tree = {"name": name, "type": draw(st.sampled_from(kinds)), "size": "64KiB"}
    if made["type"] == "virtio-blk":
        made |= draw(maybe({"cache": ["none", "writeback", "writethrough", "unsafe"]}))
    if made["type"] in ("virtio-pmem", "nvdimm"):
        kind = draw(
            st.sampled_from(("file", "file", "file", "private", "tmpfs", "hugetlbfs", "ram"))
        )
        made["backing"] = {"kind": kind} | draw(maybe({"discard_data": [True]}))
        if kind == "file":
            made["backing"] |= draw(
                maybe(
                    {
                        "extents": ["unwritten", "sparse"],
                        "prealloc": [True],
                        "folio": ["4KiB", "16KiB", "64KiB"],
                    }
                )
            )
    return made | draw(maybe({"plugged": ["1ms"]}))


HOSTS = {
    "dirty_writeback": ["0s", "200us", "5ms"],
    "dirty_expire": ["0s", "100us", "5ms"],
    "fault": ["0s", "2400ns"],
    "early_writeback": [{"every": "100us", "share": "1/2"}, {"every": "3ms", "share": "1/1"}],
    "fsync_errors": some_instants(),
    "write_errors": some_instants(),
}
DISKS = {
    "profile": ["plp-nvme", "consumer-nvme", "sata-ssd", "hdd", "ignores-flush"],
    "flush": ["0s", "10us", "1ms"],
    "bandwidth": ["1MB/s", "1.2GB/s"],
    "plp": [True, False],
    "fua": [True, False],
    "stable_writes": [True, False],
}
GUESTS = {
    "driver": ["concurrent", "serialized", "ordered"],
    "access": ["dax", "cached", "direct", "devdax"],
    "file_system": ["ext4", "none"],
    "on_sync_error": ["give-up", "retry", "panic", "rewrite"],
}
VMMS = ("qemu", "cloud-hypervisor", "crosvm", *FLUSHING)


@st.composite
def experiments(draw: st.DrawFn, host: str) -> Experiment:
    """A valid one whose states can be explored for that host."""
    names = ("a", "b")[: draw(st.sampled_from((1, 1, 2)))]
    faulty = (
        ("ignored_flush", "shorn")
        if host == "this-host"
        else ("ignored_flush", "shorn", "corrupted", "dead")
    )
    tree: Tree = {
        "seed": draw(st.integers(0, 99)),
        "devices": [draw(devices(name)) for name in names],
        "workload": draw(workloads()),
        "sync": draw(syncs()),
        "vmm": draw(st.sampled_from(VMMS)),
        "guest": draw(maybe(GUESTS)),
        "host": draw(maybe(HOSTS)),
        "disk": draw(maybe(DISKS)) | {"faults": draw(maybe({name: faults() for name in faulty}))},
        "duration": draw(st.sampled_from(("1ms", "100ms", "2s", "2s"))),
    }
    try:
        (case,) = plan(json.dumps(tree), "drawn.yaml", []).cases
    except ExperimentError:  # what does not go together
        tree["guest"].pop("on_sync_error", None)
        tree["guest"].pop("access", None)
        tree["guest"].pop("file_system", None)
        tree["workload"].pop("vcpus", None)
        for device in tree["devices"]:
            device.pop("backing", None)
            device.pop("cache", None)
        (case,) = plan(json.dumps(tree), "drawn.yaml", []).cases
    return case.experiment
