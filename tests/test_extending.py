"""What can be added from outside of the package, each by itself (docs/extending.md)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import crashsim
from crashsim.disk.faults import DISK_FAULTS
from crashsim.engine.injector import Effects, Injector
from crashsim.errors import ExperimentError
from crashsim.experiment.model import disk_faults_changed
from crashsim.experiment.schema import json_schema
from crashsim.experiment.sync_calls import CALLS, SyncCall

EXPERIMENT = {
    "device": {"name": "pmem0", "size": "1MiB"},
    "workload": {"kind": "append-log", "records": 5},
}


def test_a_sync_call_is_one_entry_of_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = {**EXPERIMENT, "sync": {"call": "syncfs"}}
    with pytest.raises(ExperimentError, match=r"expected one of none, .*, got 'syncfs'"):
        crashsim.run(experiment)
    monkeypatch.setitem(CALLS, "syncfs", SyncCall(flushes="journal"))
    for file_system, flushes in (("ext4", 5), ("none", 0)):
        guest = {"file_system": file_system, "access": "direct" if file_system == "none" else "dax"}
        run = crashsim.run(experiment | {"guest": guest})
        assert (run.history.flush_vcpu >= 0).sum() == flushes
        assert run.acknowledged == 5
    assert "syncfs" in json_schema()["$defs"]["Sync"]["properties"]["call"]["enum"]


class LazyFirmware(Injector):
    """Answers FLUSH without doing it while it is busy with itself: a second from each instant."""

    description = "A second in which FLUSHes do nothing."

    def mark(self, effects: Effects) -> None:
        for t in self.at:
            in_it = (effects.flush_issue_ns >= t) & (effects.flush_issue_ns < t + 10**9)
            effects.flush_ignored |= in_it
            if not in_it.any():
                self.in_vain.append(t)


@pytest.fixture
def lazy_firmware() -> Iterator[None]:
    DISK_FAULTS["lazy_firmware"] = LazyFirmware
    disk_faults_changed()
    yield
    del DISK_FAULTS["lazy_firmware"]
    disk_faults_changed()


def test_a_fault_of_the_disk_is_one_class_in_their_table(lazy_firmware: None) -> None:
    experiment = {**EXPERIMENT, "sync": {"call": "fdatasync"}}
    honest = crashsim.run(experiment)
    lying = crashsim.run(experiment | {"disk": {"faults": {"lazy_firmware": {"at": ["0s", "9s"]}}}})
    assert honest.figures.broken_promises == 0 < lying.figures.broken_promises
    assert lying.history.flush_disk_ignored.all()
    assert "disk.faults.lazy_firmware at 9s never fired" in " ".join(lying.figures.notices)
    schema = json_schema()["$defs"]["DiskFaults"]["properties"]
    assert schema["lazy_firmware"]["description"] == LazyFirmware.description


def test_without_it_its_key_is_unknown() -> None:
    with pytest.raises(ExperimentError, match="unknown key 'lazy_firmware'"):
        crashsim.run({**EXPERIMENT, "disk": {"faults": {"lazy_firmware": {"at": ["0s"]}}}})
