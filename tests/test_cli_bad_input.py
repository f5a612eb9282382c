"""Whatever is wrong with what the user gave: a clear message, the documented exit code, no
traceback, nothing that looks like a result, and the user's files as they were."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli_support import (
    EXPERIMENTS,
    ROOT,
    SMALL,
    SWEEP,
    SYNCED,
    Program,
    command,
    digest,
    environment,
    finished_runs,
    outside,
)
from tests.log_writer import FUA, flush, mark, write, write_log

RECORDED = """
device: {size: 64KiB}
workload: {kind: recording, log: app.log, times: app.times, image: before.img}
guest: {file_system: none}
disk: {profile: consumer-nvme}
"""
ENTRIES = [write(8 * n, bytes([n]) * 4096, FUA) for n in range(4)] + [flush(), mark("ack 0")]


def recording(folder: Path) -> dict[str, Path]:
    """A sound recording, its times and its image."""
    files = {name: folder / name for name in ("app.log", "app.times", "before.img")}
    write_log(files["app.log"], ENTRIES)
    times = struct.pack(f"<{len(ENTRIES)}Q", *range(1000, 1000 + 1000 * len(ENTRIES), 1000))
    files["app.times"].write_bytes(times)
    files["before.img"].write_bytes(b"before" * 1000)
    return files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a mapping"),
        ("[", "small.yaml:1"),
        (SMALL + "dsk: {profile: hdd}\n", "disk"),
        (SMALL.replace("1MiB", "1MB"), "small.yaml:4"),
        (SMALL.replace("100/s", "100"), "small.yaml:5"),
        (SMALL + "seed: 1\nseed: 2\n", "seed"),
        (SMALL + "sweep: {product: {disk.profil: [hdd]}}\n", "profile"),
        (SMALL + "expect: {at_risk_maxx: 0}\n", "at_risk_max"),
        (SMALL + "cases: {nosuch: {expect: {holes: 0}}}\n", "nosuch"),
    ],
)
def test_a_wrong_experiment_is_told_by_place_and_runs_nothing(
    program: Program, text: str, said: str
) -> None:
    answer = program.run(text)
    assert answer.code == 2
    assert said in answer.err
    assert not program.runs.exists()


def test_every_mistake_is_told_at_once(program: Program) -> None:
    text = SMALL.replace("1MiB", "1MB").replace("100/s", "fast").replace("100,", "none,")
    answer = program.run(text)
    assert answer.code == 2
    assert len([line for line in answer.err.splitlines() if "small.yaml:" in line]) >= 3


@pytest.mark.parametrize(
    "option", ["disk.profil=hdd", "nosense", "disk.profile=tape", "=1", "a..b=1"]
)
def test_a_wrong_set_is_told(program: Program, option: str) -> None:
    answer = program.run(SYNCED, "--set", option)
    assert answer.code == 2
    assert "--set" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "missing.yaml"),
        ("run", "/"),
        ("run", "/dev/null"),
        ("run", "x.yaml", "--workers", "0"),
        ("run", "x.yaml", "--seed", "-1"),
        ("show", "missing.yaml"),
        ("nosuchcommand",),
        ("image", "missing", "--at", "1s", "-o", "x.img"),
        ("image", "missing", "--at", "now", "-o", "x.img"),
        ("image", "missing", "--at", "1s", "-o", "x.img", "--survivors", "some"),
        ("loss", "missing", "--at", "1s"),
        ("loss", "/", "--at", "1s"),
        ("loss", "/dev/null", "--at", "1s"),
        ("loss", "missing", "--at", "1"),
        ("compare", "missing", "/"),
        ("compare", "/dev/null", "/dev/null"),
    ],
)
def test_a_wrong_argument_is_exit_code_2(program: Program, arguments: tuple[str, ...]) -> None:
    answer = program(*arguments)
    assert answer.code == 2
    assert answer.err and not answer.out


def cut_log(files: dict[str, Path]) -> None:
    files["app.log"].write_bytes(files["app.log"].read_bytes()[:7000])


def corrupt_log(files: dict[str, Path]) -> None:
    content = bytearray(files["app.log"].read_bytes())
    content[512 + 16 : 512 + 24] = b"\xff" * 8
    files["app.log"].write_bytes(content)


def beyond_the_device(files: dict[str, Path]) -> None:
    write_log(files["app.log"], [write(1000, bytes(4096)), *ENTRIES[1:]])


def short_times(files: dict[str, Path]) -> None:
    files["app.times"].write_bytes(files["app.times"].read_bytes()[:-8])


def large_image(files: dict[str, Path]) -> None:
    files["before.img"].write_bytes(bytes(70_000))


def no_log(files: dict[str, Path]) -> None:
    files["app.log"].unlink()


def folder_for_log(files: dict[str, Path]) -> None:
    files["app.log"].unlink()
    files["app.log"].mkdir()


def cut_gzip(files: dict[str, Path]) -> None:
    whole = (EXPERIMENTS / "recordings" / "sqlite-wal-off.log.gz").read_bytes()
    files["app.log"].write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_log, "app.log: byte"),
        (corrupt_log, "app.log: byte 512: entry 0 of 6 has unknown flags"),
        (beyond_the_device, "which has 65536"),
        (short_times, "app.times: byte 40: expected 8 bytes"),
        (large_image, "before.img"),
        (no_log, "no such file"),
        (folder_for_log, "app.log"),
        (cut_gzip, "the gzip file is cut short"),
    ],
)
def test_a_bad_recording_is_told_by_its_place_and_left_as_it_is(
    program: Program, damage: Callable[[dict[str, Path]], None], said: str
) -> None:
    files = recording(program.folder)
    damage(files)
    before = {path: digest(path) for path in files.values() if path.is_file()}
    answer = program.run(RECORDED)
    assert answer.code == 2
    assert said in answer.err
    assert not finished_runs(program.runs)
    assert {path: digest(path) for path in before} == before


def test_a_stale_entry_count_is_noticed_and_all_entries_are_read(program: Program) -> None:
    files = recording(program.folder)
    write_log(files["app.log"], ENTRIES, stated=2)
    answer = program.run(RECORDED)
    assert answer.code == 0
    assert "the log states 2 entries and has 6: all are read" in answer.out
    assert program.results()["cases"][0]["writes"] == 4


def test_a_log_without_times_gets_a_stated_clock(program: Program) -> None:
    recording(program.folder)
    answer = program.run(RECORDED.replace(" times: app.times,", ""))
    assert answer.code == 0
    assert "taken to arrive 100000 ns apart" in answer.out


def test_inputs_that_cannot_be_written_are_enough(program: Program) -> None:
    files = recording(program.folder)
    before = {}
    for path in files.values():
        path.chmod(0o444)
        before[path] = (digest(path), path.stat().st_mtime_ns)
    assert program.run(RECORDED, "--paranoid").code == 0
    image = program.folder / "out.img"
    assert program("image", program.latest(), "--at", "4us", "-o", image).code == 0
    assert {p: (digest(p), p.stat().st_mtime_ns) for p in files.values()} == before


def test_no_input_is_ever_opened_for_writing(program: Program) -> None:
    """As root no permission protects a file: the opening itself is looked at."""
    files = {str(path) for path in recording(program.folder).values()}
    opened: list[tuple[str, object]] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]) in files:
            opened.append((str(arguments[0]), arguments[2]))

    sys.addaudithook(watch)
    try:
        assert program.run(RECORDED).code == 0
    finally:
        watching = False
    assert {path for path, _ in opened} == files
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    assert all(isinstance(flags, int) and not flags & writing for _, flags in opened)


def test_an_image_is_refused_when_the_recording_has_changed(program: Program) -> None:
    files = recording(program.folder)
    assert program.run(RECORDED).code == 0
    files["before.img"].write_bytes(b"something else")
    image = program.folder / "out.img"
    answer = program("image", program.latest(), "--at", "4us", "-o", image)
    assert answer.code == 2
    assert "has changed since the run was made" in answer.err
    assert not image.exists()


@pytest.mark.parametrize("text", [SYNCED, SWEEP])
@pytest.mark.parametrize("place", ["a file", "below a file", "/proc"])
def test_an_output_folder_that_cannot_be_written_is_told(
    program: Program, text: str, place: str
) -> None:
    file = program.write("a file in the way", "file")
    output = {"a file": file, "below a file": file / "below", "/proc": Path("/proc")}[place]
    answer = program("run", program.write(text), "--output", output, "--workers", "1")
    assert answer.code == 2
    assert "cannot be written" in answer.err and str(output) in answer.err
    assert file.read_text() == "a file in the way"


def files_of_at_most(size_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


@pytest.mark.parametrize("size_bytes", [0, 2_000, 20_000, 100_000])
def test_a_full_disk_is_told_and_leaves_nothing_that_looks_finished(
    tmp_path: Path, size_bytes: int
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    runs = tmp_path / "runs"
    done = subprocess.run(
        command("run", file, "--workers", "1", "--output", runs),
        cwd=ROOT,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=files_of_at_most(size_bytes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not finished_runs(runs)
    assert not (runs / "small" / "latest").is_symlink()


def test_a_crash_of_crashsim_itself_is_exit_code_3_without_a_traceback(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr("crashsim.runs.one.measure", broken)
    answer = program.run(SYNCED)
    assert answer.code == 3
    assert "a wheel came off" in answer.err and "fault of crashsim" in answer.err


def test_help_and_version_need_nothing() -> None:
    assert outside("--version").out.startswith("crashsim")
    answer = outside("run", "--help")
    assert answer.code == 0 and "--paranoid" in answer.out
