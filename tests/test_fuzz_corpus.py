"""What fuzzing has found: each is answered by a clear error, or simply works."""

from __future__ import annotations

import copy
import gzip
import shlex
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from crashsim.checkers.spec import Command, Function
from crashsim.checkers.verdict import NO_ACKS
from crashsim.engine.history import History
from crashsim.errors import CommandLineError, ExperimentError, TraceError, UsageError
from crashsim.experiment.loader import plan
from crashsim.experiment.model import Experiment
from crashsim.report.readback import from_json
from crashsim.results import to_json
from crashsim.runs.archive import load_run, write_history
from crashsim.runs.one import Run
from crashsim.simulate.inputs import make_inputs
from crashsim.simulate.stack import simulate
from crashsim.vmm.firecracker import read_json
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import Machine
from crashsim.vmm.monitors import read_text
from crashsim.vmm.spans import MOST_MISTAKES
from tests import report_explored as explorations
from tests import report_fixtures as fixtures
from tests.cli_support import command, environment
from tests.log_writer import FUA, flush, mark, write, write_log

DEVICE = "device: {size: 1MiB}\n"
LOG = "workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}\n"
PLUGGED = "monitor: [{at: 1s, do: device_del a}]\n"


def told(text: str) -> list[str]:
    """What is said of an experiment that is refused."""
    with pytest.raises(ExperimentError) as caught:
        plan(text, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "workload",
    [
        "kind: write-ahead-log, table_size: 64KiB",
        "kind: append-log, record_size: 512B",
        "kind: key-value, slots: 9, slot_size: 4KiB, value_size: 1KiB",
        "kind: double-buffer, body_size: 4KiB",
    ],
)
def test_a_vcpu_may_have_no_record_to_write(workload: str) -> None:
    case = plan(f"{DEVICE}workload: {{{workload}, records: 2, vcpus: 4}}\n", "x.yaml").cases[0]
    inputs = make_inputs(case.experiment)
    history = simulate(case.experiment, inputs.programs)
    assert [program.record_low.size for program in inputs.programs] == [1, 1, 0, 0]
    assert history.ack_t_ns.size == 2


@pytest.mark.parametrize("devices", ["x", "5", "{a: b}", "null"])
def test_devices_beside_a_monitor_are_a_list(devices: str) -> None:
    (said,) = told(f"devices: {devices}\n{PLUGGED}{LOG}")
    assert said.startswith("x.yaml:1:10: expected a list of devices, got ")


@pytest.mark.parametrize("opening", ["{a,", "[a,", "[{a: [b, ", "- ", "? ", "["])
@pytest.mark.parametrize("before", ["", f"{DEVICE}{LOG}description:\n  "])
def test_what_is_nested_without_end_is_read_no_deeper_than_an_experiment(
    before: str, opening: str
) -> None:
    (said,) = told(before + opening * (240_000 // len(opening)))
    assert said.endswith("nested more than 40 deep")
    assert int(said.split(":")[2]) < 50 * len(opening), "the column at which it was given up"


def test_what_is_explored_is_a_device_of_the_experiment() -> None:
    explored = 'explore: {device: nosuch, check: {command: "true"}}\n'
    assert told(DEVICE + LOG + explored) == ["x.yaml:3:11: expected one of pmem0, got 'nosuch'"]


def test_which_of_several_devices_is_explored_is_said() -> None:
    devices = "devices: [{name: a, size: 1MiB}, {name: b, size: 1MiB}]\n"
    explored = 'explore: {check: {command: "true"}}\n'
    assert told(devices + LOG + explored) == ["x.yaml:3:1: expected device: one of a, b"]


WRONG_XML = "<memory model='virtio-pmem'><source></source></memory>"
WRONG_PMEM = '{"id": 1}'


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_xml, f"<devices>{WRONG_XML * 1000}</devices>"),
        (read_xml, f"<devices>\u202e{WRONG_XML * 1000}</devices>"),
        (read_json, f'{{"pmem": [{", ".join([WRONG_PMEM] * 1000)}]}}'),
        (read_text, f"qemu-system-x86_64 {'-device virtio-pmem-pci,memdev=a ' * 1000}"),
        (read_text, f"cloud-hypervisor --pmem {'file=a,b=1 ' * 1000}"),
        (read_text, f"crosvm run {'--pmem path=a,b=1 ' * 1000}"),
    ],
)
def test_of_a_thousand_mistakes_the_first_are_told(
    read: Callable[[str], Machine], text: str
) -> None:
    with pytest.raises(CommandLineError) as caught:
        read(text)
    mistakes = caught.value.mistakes
    assert len(mistakes) == MOST_MISTAKES + 1
    assert "there may be more" in str(mistakes[-1])
    assert len(str(caught.value)) < 1000 * len(mistakes)


def test_a_device_has_no_thousands_of_keys() -> None:
    keys = ", ".join(f'"path_on_hos{number}": 1' for number in range(1000))
    with pytest.raises(CommandLineError, match="1000 keys: expected at most 100"):
        read_json(f'{{"pmem": [{{{keys}}}]}}')


def test_no_program_is_started_with_a_word_of_a_million_letters() -> None:
    with pytest.raises(CommandLineError, match="longer than 128 KiB: no command line"):
        read_text("qemu-system-x86_64 -object " + "x" * 1_000_000)


LARGEST_S = (1 << 62) / 1e9
NUMBERS = '''
def check(image, acks):
    """Accept everything."""
'''


@pytest.mark.parametrize("time_limit_s", [(1 << 31) / 1e3, (1 << 32) / 1e3 + 1, LARGEST_S])
def test_a_checkers_time_limit_may_be_longer_than_poll_can_wait(
    tmp_path_factory: pytest.TempPathFactory, time_limit_s: float
) -> None:
    folder = tmp_path_factory.mktemp("checker")
    (folder / "accepts.py").write_text(NUMBERS)
    function = Function("accepts.py:check", time_limit=time_limit_s, folder=folder).checker()
    for checker in (Command("true", time_limit=time_limit_s).checker(), function):
        try:
            assert checker.check(memoryview(bytes(4096)), NO_ACKS).kind == "ok"
        finally:
            checker.close()


RECORDED = "workload: {kind: recording, log: app.log, times: app.times}\n"
ENTRIES = [write(8 * n, bytes([n]) * 4096, FUA) for n in range(4)] + [flush(), mark("ack 0")]
DAY_NS = 86_400 * 10**9


def recording(folder: Path, times_ns: list[int]) -> Experiment:
    """An experiment of a small recording."""
    write_log(folder / "app.log", ENTRIES)
    (folder / "app.times").write_bytes(struct.pack(f"<{len(times_ns)}Q", *times_ns))
    return plan(DEVICE + RECORDED, str(folder / "x.yaml")).cases[0].experiment


@pytest.mark.parametrize("late_ns", [101 * DAY_NS, 1 << 62, (1 << 63) - 1])
def test_no_entry_of_a_recording_comes_after_a_hundred_days(tmp_path: Path, late_ns: int) -> None:
    experiment = recording(tmp_path, [1, 2, 3, 4, late_ns, late_ns])
    with pytest.raises(TraceError, match=r"entry 4 comes .* s after the recording began") as caught:
        make_inputs(experiment)
    assert (caught.value.file, caught.value.offset) == (str(tmp_path / "app.times"), 4 * 8)


def test_what_lasts_longer_than_a_run_may_is_told_at_its_place(tmp_path: Path) -> None:
    recording(tmp_path, [1, 2, 3, 4, 5, 6])
    text = DEVICE + RECORDED.replace("times: app.times", "clock: 10000h")
    with pytest.raises(ExperimentError, match=":2:50: expected at most 2400h, got '10000h'"):
        plan(text, str(tmp_path / "x.yaml"))
    text = DEVICE + RECORDED.replace("times: app.times", "clock: 2400h")
    with pytest.raises(TraceError, match=r"entry 2 comes .* give a shorter clock"):
        make_inputs(plan(text, str(tmp_path / "x.yaml")).cases[0].experiment)
    for key in ("duration: 2401h", "sync: {call: fsync, group: true, delay: 2401h}"):
        (said,) = told(f"{DEVICE}{LOG}{key}\n")
        assert said.endswith("expected at most 2400h, got '2401h'")


def test_a_guest_that_is_not_done_after_a_hundred_days_is_given_up() -> None:
    slow = "sync: {call: fsync}\ndisk: {flush: 2400h}\n"
    case = plan(DEVICE + LOG + slow, "x.yaml").cases[0]
    with pytest.raises(UsageError, match="the guest is not done after 8,640,000 s of its time"):
        simulate(case.experiment, make_inputs(case.experiment).programs)


def test_a_fault_takes_a_second_at_most() -> None:
    (said,) = told(f"{DEVICE}{LOG}host: {{fault: 2s}}\n")
    assert said == "x.yaml:3:8: expected at most 1s, got 2s"


@pytest.mark.parametrize("key", ["log", "image"])
def test_a_gzip_file_unpacks_to_half_a_gigabyte_at_most(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crashsim.traces.source.MOST_UNPACKED_BYTES", 4 << 20)
    recording(tmp_path, [1, 2, 3, 4, 5, 6])
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(64 << 20)))
    with_bomb = "log: app.log, image: bomb.gz" if key == "image" else "log: bomb.gz"
    text = DEVICE + RECORDED.replace("log: app.log", with_bomb).replace(", times: app.times", "")
    experiment = plan(text, str(tmp_path / "x.yaml")).cases[0].experiment
    said = "unpacks to more than 4 MiB: unpack it with gunzip"
    with pytest.raises(TraceError, match=said) as caught:
        make_inputs(experiment)
    assert caught.value.file == str(bomb)
    assert caught.value.offset <= 6 << 20, "where it was given up"


def same(one: History, other: History) -> bool:
    columns, others = one.columns(), other.columns()
    return columns.keys() == others.keys() and all(
        np.array_equal(column, others[name]) for name, column in columns.items()
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("kept")
    run = Run(plan(DEVICE + LOG, "x.yaml").cases[0])
    write_history(folder, [run])
    return folder


def test_a_damaged_history_is_refused_or_unharmed(kept: Path, tmp_path: Path) -> None:
    content, whole = (kept / "history.npz").read_bytes(), load_run(kept).history
    path = tmp_path / "history.npz"
    refused = 0
    for seed in range(400):
        path.write_bytes(damaged(content, Random(seed)))
        try:
            found = load_run(path)
        except UsageError:
            refused += 1
        else:
            assert same(found.history, whole), f"seed {seed}"
    assert refused > 200


def damaged(content: bytes, random: Random) -> bytes:
    """Cut short, a byte changed (mostly in the archive's directory), or a stretch replaced."""
    way, at = random.randrange(4), random.randrange(len(content))
    if way == 0:
        return content[:at]
    if way == 1:
        at = max(0, len(content) - 1 - random.randrange(4000))
    length = 1 if way < 3 else random.randrange(20)
    return content[:at] + random.randbytes(length) + content[at + length :]


def test_columns_that_do_not_fit_each_other_are_no_history(kept: Path) -> None:
    columns = load_run(kept).history.columns()
    for name, column in columns.items():
        if name == "head":
            continue
        for wrong in (column[:-1] if column.size else np.zeros(1, np.int64), column[:, None]):
            if wrong.shape != column.shape:
                with pytest.raises(ValueError, match=r"rows, others have|is no column"):
                    History.from_columns(columns | {name: wrong})
        with pytest.raises(ValueError, match=f"{name} is no column"):
            History.from_columns(columns | {name: np.zeros(column.size)})


def test_a_history_that_is_packed_is_not_unpacked(kept: Path, tmp_path: Path) -> None:
    with np.load(kept / "history.npz") as archive:
        np.savez_compressed(tmp_path / "history.npz", **dict(archive))
    with pytest.raises(UsageError, match="it is compressed"):
        load_run(tmp_path)


PRINTING = [
    ("--help",),
    ("--version",),
    ("run", "--help"),
    ("new",),
    ("doctor", "--json", "--", "qemu-system-x86_64"),
]


def answered(arguments: tuple[str, ...], streams: str) -> subprocess.CompletedProcess[str]:
    """crashsim as a shell runs it with these redirections."""
    words = shlex.join(command(*arguments))
    return subprocess.run(
        ["sh", "-c", f"exec {words} {streams}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_closed_or_full_standard_output_is_said(arguments: tuple[str, ...]) -> None:
    closed = answered(arguments, ">&-")
    assert closed.returncode == 2
    assert closed.stderr.startswith("Error: standard output is closed")
    full = answered(arguments, ">/dev/full")
    assert full.returncode == 2
    assert full.stderr == "Error: standard output: No space left on device\n"


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_without_standard_error_a_command_does_the_same(streams: str) -> None:
    usual, mute = answered(("new",), ""), answered(("new",), streams)
    assert (mute.returncode, mute.stdout) == (0, usual.stdout)
    assert answered(("nosuch",), streams).returncode in (
        2,
        120,
    )  # 120: Python could not tell either


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What a checker prints must not end up in one of our files."""
    told = answered(("new", str(tmp_path / "x.yaml")), "2>&-")
    assert told.returncode == 0
    checked = 'explore: {states: 3, check: {command: "echo printed >&2"}}\n'
    file = tmp_path / "y.yaml"
    file.write_text(DEVICE + LOG + checked)
    runs = tmp_path / "runs"
    done = answered(("run", str(file), "--workers", "1", "--output", str(runs)), "2>&-")
    assert done.returncode in (0, 4)
    for path in runs.rglob("*"):
        assert not path.is_file() or not path.read_bytes().startswith(b"printed")


@pytest.mark.parametrize("key", ["checked", "findings"])
@pytest.mark.parametrize("wrong", [None, "x", {}])
def test_results_whose_exploration_lacks_a_key_are_refused(key: str, wrong: object) -> None:
    document = to_json(fixtures.results(explorations.bad()))
    exploration = document["cases"][0]["exploration"]
    assert from_json(copy.deepcopy(document), "x").cases[0].exploration is not None
    exploration[key] = wrong
    with pytest.raises(UsageError, match=f"exploration.{key}: "):
        from_json(document, "x")
    del exploration[key]
    with pytest.raises(UsageError, match=f"exploration.{key}: "):
        from_json(document, "x")


def test_figures_that_are_no_figures_are_refused() -> None:
    document = to_json(fixtures.results(fixtures.case()))
    document["cases"][0]["flushes"] = 10**400
    with pytest.raises(UsageError, match="flushes is out of range"):
        from_json(document, "x")
