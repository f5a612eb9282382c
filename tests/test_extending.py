"""What can be added from outside of the package, each by itself (docs/extending.md)."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import crashsim
from crashsim.disk.faults import DISK_FAULTS
from crashsim.engine.injector import Effects, Injector
from crashsim.errors import CommandLineError, ExperimentError
from crashsim.experiment.loader import plan
from crashsim.experiment.model import disk_faults_changed
from crashsim.experiment.profiles import PROFILES
from crashsim.experiment.schema import json_schema
from crashsim.experiment.show import show
from crashsim.experiment.sync_calls import CALLS, SyncCall
from crashsim.traces.block_log import FUA, Trace
from crashsim.traces.formats import FORMATS
from crashsim.vmm.examine import examine_words
from crashsim.vmm.machine import FILE, Backend, Machine, Monitor, PmemDevice
from crashsim.vmm.monitors import MONITORS

ROOT = Path(__file__).parents[1]
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


# Disk profiles, monitors, formats of recordings


def test_a_disk_profile_is_one_entry_of_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = EXPERIMENT | {"disk": {"profile": "tape"}, "sync": {"call": "fsync"}}
    with pytest.raises(ExperimentError, match=r"expected one of plp-nvme, .*, got 'tape'"):
        crashsim.run(experiment)
    monkeypatch.setitem(PROFILES, "tape", PROFILES["hdd"] | {"flush": "2s"})
    run = crashsim.run(experiment)
    assert run.experiment.disk.flush == 2 * 10**9 and not run.experiment.disk.fua
    assert run.end_ns > 5 * 2 * 10**9  # five records, a FLUSH each
    disk = json_schema()["$defs"]["Disk"]["properties"]["profile"]
    assert "tape" in disk["enum"]
    plans = plan("device: {size: 1MiB}\nworkload: {kind: fill}\ndisk: {profile: tape}", "x.yaml")
    assert re.search(r"flush: 2s +# profile tape", show(plans))


BHYVE = Monitor(
    name="bhyve",
    title="bhyve",
    datasync=True,
    threads=1,
    queue=8,
    error=5,
    programs="bhyve",
    file_option="-s",
    read=lambda words, begin, look, read: Machine(
        (PmemDevice("disk0", Backend(words[-1], FILE, 1 << 20, words[-1], share=True)),)
    ),
)


def test_a_monitor_is_one_entry_of_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = EXPERIMENT | {"sync": {"call": "fsync"}, "vmm": "bhyve"}
    failing = experiment | {"host": {"fsync_errors": ["0s"]}}
    with pytest.raises(ExperimentError, match=r"expected one of qemu, .*, got 'bhyve'"):
        crashsim.run(experiment)
    with pytest.raises(CommandLineError, match="none of QEMU, cloud-hypervisor, crosvm and Fire"):
        examine_words(["bhyve", "a.img"], Path("/"))
    monkeypatch.setitem(MONITORS, "bhyve", BHYVE)
    assert crashsim.run(failing).history.flush_result.max() == 5
    assert examine_words(["bhyve", "a.img"], Path("/")).machine.devices[0].name == "disk0"
    text = "device: {bhyve: bhyve a.img, name: x}\nworkload: {kind: fill}"
    (device,) = (device for device, _, _ in plan(text, "x").experiment.resolved_devices())
    assert (device.name, device.size) == ("x", 1 << 20)
    schema = json_schema()
    assert "bhyve" in schema["properties"]["vmm"]["enum"]
    assert schema["$defs"]["Device"]["properties"]["bhyve"]["description"].startswith("bhyve's")


def _lines(log: Path, times: Path | None, clock_ns: int) -> Trace:
    """`OFFSET TEXT` a line, each text filled up to 512 bytes, each with FUA."""
    rows = [line.split(" ", 1) for line in log.read_text().splitlines()]
    payload = b"".join(text.encode().ljust(512, b".") for _, text in rows)
    number = np.arange(len(rows), dtype=np.int64)
    return Trace(
        file=str(log),
        header_bytes=0,
        t_ns=number * clock_ns,
        offset_bytes=np.array([int(offset) for offset, _ in rows], dtype=np.int64),
        length_bytes=np.full(len(rows), 512, dtype=np.int64),
        flags=np.full(len(rows), FUA, dtype=np.int64),
        payload_at=number * 512,
        label=np.full(len(rows), -1, dtype=np.int64),
        labels=(),
        payload=memoryview(payload),
        notices=(),
    )


def test_a_format_of_recordings_is_one_entry_of_their_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    log.write_text("0 first\n4096 second\n")
    recording = {"kind": "recording", "format": "lines", "log": str(log)}
    experiment = EXPERIMENT | {"workload": recording}
    with pytest.raises(ExperimentError, match="expected dm-log-writes, got 'lines'"):
        crashsim.run(experiment)
    monkeypatch.setitem(FORMATS, "lines", _lines)
    run = crashsim.run(experiment)
    with run.image(at=run.end_ns) as image:
        assert bytes(image.data[:6]) == b"first." and bytes(image.data[4096:4103]) == b"second."
    assert "lines" in json_schema()["$defs"]["Recording"]["properties"]["format"]["enum"]


# The page


def test_the_blocks_of_the_page_run_one_after_another(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 7
    program = tmp_path / "mine.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    said = done.stdout.splitlines()
    assert "largest_flush <= 4KiB holds" in said and "broken_promises == 0 fails" in said
    assert "faults_not_fired == 0 holds" in said


def test_the_tables_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| [\w ]+ \| `([A-Z_]+)` \| `([\w/.]+)`[^|]*\| `([\w/.]+)` \|$", page, re.M
    )
    assert len(rows) == 6
    for table, module, test in rows:
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert isinstance(getattr(importlib.import_module(name), table), dict)
        assert (ROOT / test).exists()
