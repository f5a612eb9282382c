"""What can be added from outside of the package, each by itself (docs/extending.md)."""

from __future__ import annotations

import pytest

import crashsim
from crashsim.errors import ExperimentError
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
