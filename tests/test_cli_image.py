"""`crashsim image`: the file that a cut leaves, looked at with eyes of its own."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from crashsim.power.per_write import acknowledgements_safe, rows_safe, write_safety
from crashsim.power.safety import Safety, Stage
from crashsim.runs.archive import load_run
from crashsim.runs.one import Run
from tests.cli_support import EXPERIMENTS, SMALL, SWEEP, SYNCED, Answer, Program

RECORD_BYTES = 256
TWO_DEVICES = """
duration: 1s
devices:
  - {name: log, size: 1MiB, sync: {call: fdatasync}}
  - {name: other, size: 2MiB, sync: {call: none}}
workload: {kind: append-log, records: 50, record_size: 256B, rate: 100/s}
"""


def image(program: Program, at: str, *options: str, name: str = "out.img") -> Answer:
    output = program.folder / name
    return program("image", program.latest(), "--at", at, "-o", output, *options)


def records_in(content: bytes) -> dict[int, int]:
    """Offset -> write of every record whose CRC-32 is right."""
    found = {}
    for offset in range(0, len(content), RECORD_BYTES):
        record = content[offset : offset + RECORD_BYTES]
        crc, length, write = struct.unpack_from("<IIQ", record)
        if length == RECORD_BYTES and crc == zlib.crc32(record[4:]):
            found[offset] = write
    return found


def safe_writes(saved: Run, at_ns: int) -> list[int]:
    safety = Safety(saved.history, Stage.DURABLE)
    writes = write_safety(saved.history, *rows_safe(saved.history, safety))
    return list(writes.write[writes.whole_ns <= at_ns].tolist())


@pytest.mark.parametrize("at_ms", [50, 105, 555, 999, 1999])
def test_an_image_has_exactly_the_durable_records_and_they_are_valid(
    program: Program, at_ms: int
) -> None:
    assert program.run(SYNCED).code == 0
    assert image(program, f"{at_ms}ms").code == 0
    durable = safe_writes(load_run(program.latest(), None), at_ms * 1_000_000)
    assert len(durable) == min(at_ms, 1009) // 100 * 10
    content = (program.folder / "out.img").read_bytes()
    assert records_in(content) == {write * RECORD_BYTES: write for write in durable}
    rest = content[len(durable) * RECORD_BYTES :]
    assert not rest.strip(b"\0"), "something else survived"


def test_an_image_is_as_large_as_the_device_and_sparse(program: Program) -> None:
    assert program.run(SYNCED.replace("1MiB", "8GiB")).code == 0
    assert image(program, "1s").code == 0
    status = (program.folder / "out.img").stat()
    assert status.st_size == 8 << 30
    assert 0 < status.st_blocks * 512 <= 1 << 20


def test_what_a_failure_domain_keeps_is_in_its_image(program: Program) -> None:
    assert program.run(SMALL).code == 0
    for domain, kept in (("vmm-kill", 100), ("host-crash", 0), ("power-cut", 0)):
        assert image(program, "1500ms", "--domain", domain, name=domain).code == 0
        assert len(records_in((program.folder / domain).read_bytes())) == kept


def test_survivors_range_from_none_to_all_and_a_seed_repeats(program: Program) -> None:
    # The flusher writes everything, and nobody asks the disk to empty its cache.
    text = SMALL + "host: {dirty_writeback: 100ms, dirty_expire: 200ms}\n"
    assert program.run(text).code == 0
    for survivors in ("none", "all", "1", "2"):
        assert image(program, "1900ms", "--survivors", survivors, name=survivors).code == 0
    assert image(program, "1900ms", "--survivors", "1", name="again").code == 0
    found = {name: (program.folder / name).read_bytes() for name in ("none", "all", "1", "2")}
    assert not records_in(found["none"])
    assert len(records_in(found["all"])) == 100
    assert found["1"] == (program.folder / "again").read_bytes()
    assert found["1"] != found["2"]
    for seed in ("1", "2"):
        assert records_in(found[seed]).items() <= records_in(found["all"]).items()


def test_no_file_is_ever_overwritten(program: Program) -> None:
    assert program.run(SYNCED).code == 0
    (program.folder / "out.img").write_text("mine")
    answer = image(program, "1s")
    assert answer.code == 2 and "exists already" in answer.err
    assert (program.folder / "out.img").read_text() == "mine"


def test_an_image_that_cannot_be_written_is_told(program: Program) -> None:
    assert program.run(SYNCED).code == 0
    answer = image(program, "1s", name="nowhere/out.img")
    wanted = program.folder / "nowhere" / "out.img"
    assert answer.code == 2 and f"{wanted}: cannot be" in answer.err
    answer = program("image", program.latest(), "--at", "1s", "-o", "/proc/out.img")
    assert answer.code == 2 and "/proc/out.img: cannot be" in answer.err


@pytest.mark.parametrize("at", ["2.000000001s", "1h"])
def test_an_instant_beyond_the_end_is_refused(program: Program, at: str) -> None:
    assert program.run(SYNCED).code == 0
    answer = image(program, at)
    assert answer.code == 2 and "the run ended at 2s" in answer.err
    assert not (program.folder / "out.img").exists()
    assert program("loss", program.latest(), "--at", at).code == 2


def test_several_cases_need_a_choice_and_are_listed(program: Program) -> None:
    assert program.run(SWEEP).code == 0
    for options in ((), ("--case", "nosuch")):
        answer = image(program, "1s", *options)
        assert answer.code == 2
        assert "sync=call:none" in answer.err and "sync=call:fdatasync" in answer.err
    assert image(program, "1s", "--case", "sync=call:fdatasync").code == 0
    durable = safe_writes(load_run(program.latest(), "sync=call:fdatasync"), 1_000_000_000)
    assert durable
    assert len(records_in((program.folder / "out.img").read_bytes())) == len(durable)


def test_several_devices_need_a_choice_and_are_listed(program: Program) -> None:
    assert program.run(TWO_DEVICES).code == 0
    for options in ((), ("--device", "nosuch")):
        answer = image(program, "900ms", *options)
        assert answer.code == 2 and "log" in answer.err and "other" in answer.err
    for device, size in (("log", 1 << 20), ("other", 2 << 20)):
        assert image(program, "900ms", "--device", device, name=device).code == 0
        assert (program.folder / device).stat().st_size == size
    assert records_in((program.folder / "log").read_bytes())


@pytest.fixture
def recorded(program: Program) -> Program:
    file = EXPERIMENTS / "sqlite-wal-full.yaml"
    options: list[str | Path] = ["--workers", "1", "--output", program.runs]
    for change in ("power.random=0", "explore=null", "sweep=null", "cases={}"):
        options += ["--set", change]
    assert program("run", file, *options).code == 0
    (program.runs / "small").symlink_to(program.runs / "sqlite-wal-full")
    return program


def covered_ns(saved: Run, label: str) -> int:
    history = saved.history
    safety = Safety(history, Stage.DURABLE)
    writes = write_safety(history, *rows_safe(history, safety))
    (ack,) = np.flatnonzero(history.ack_label == label)
    return int(max(acknowledgements_safe(history, writes)[ack], history.ack_t_ns[ack]))


def value_of(key: int) -> bytes:
    """What the recorded program stored under a key (see the recordings' README)."""
    return hashlib.sha256(str(key).encode()).hexdigest().encode() * (1 + key % 7)


def check_file_system(path: Path) -> None:
    if shutil.which("e2fsck") is None:
        return
    copy = path.with_name("copy.img")
    shutil.copy(path, copy)
    checked = subprocess.run(["e2fsck", "-fn", copy], capture_output=True, check=False)
    assert checked.returncode < 8, checked.stdout
    repaired = subprocess.run(["e2fsck", "-fy", copy], capture_output=True, check=False)
    assert repaired.returncode in (0, 1), repaired.stdout
    assert b"recovering journal" in repaired.stdout or repaired.returncode == 0


def test_what_sqlite_acknowledged_and_flushed_is_on_the_image(recorded: Program) -> None:
    saved = load_run(recorded.latest(), None)
    before = gzip.decompress((EXPERIMENTS / "recordings/ext4-32M.img.gz").read_bytes())
    at_ns = covered_ns(saved, "ack 50")
    assert image(recorded, f"{at_ns}ns").code == 0
    path = recorded.folder / "out.img"
    content = path.read_bytes()
    assert len(content) == len(before) and content != before
    missing = [key for key in range(51) if value_of(key) not in content]
    assert not missing
    assert value_of(50) not in before and value_of(99) not in content
    check_file_system(path)


def test_everything_that_was_written_is_on_the_last_image_with_all_survivors(
    recorded: Program,
) -> None:
    saved = load_run(recorded.latest(), None)
    assert image(recorded, f"{saved.history.end_ns - 1}ns", "--survivors", "all").code == 0
    path = recorded.folder / "out.img"
    content = path.read_bytes()
    assert not [key for key in range(100) if value_of(key) not in content]
    assert os.stat(path).st_blocks * 512 < len(content) // 2
    check_file_system(path)
    inputs = saved.inputs
    assert inputs.before[0] is not None
