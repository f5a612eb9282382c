"""Ctrl-C, a kill, a reader that goes away: nothing that looks finished and is not, nothing that
lingers, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli_support import (
    PATIENCE_SECONDS,
    ROOT,
    SMALL,
    UNDRAWN,
    command,
    crashsim_after,
    environment,
    finished_runs,
    outside,
    wait_until,
)

# The second case takes minutes: nobody waits for it to end.
LONG = (
    SMALL.replace("duration: 2s", "")
    .replace("1MiB", "1GiB")
    .replace("records: 100, record_size: 256B, rate: 100/s", "record_size: 256B")
    + "sync: {call: fdatasync}\n"
    + "sweep: {product: {workload.records: [50, 3000000]}}\n"
)


AFTER_THE_FIRST_CASE = """
from pathlib import Path
from crashsim.runs import one as room
def run_cases(*arguments, really=room.run_cases):
    for one in really(*arguments):
        yield one
        Path("{}").touch()
room.run_cases = run_cases
"""


def begin(tmp_path: Path, workers: str, text: str = LONG, code: str = "") -> subprocess.Popen[str]:
    file = tmp_path / "long.yaml"
    file.write_text(text)
    words = ("run", file, "--workers", workers, "--output", tmp_path / "runs")
    return subprocess.Popen(
        crashsim_after(UNDRAWN + code, *words),
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def session_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes of its session that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == process.pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def nobody_lingers(process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while left := session_of(process):
        if time.monotonic() > end:
            for number in left:
                os.kill(number, signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Time that the session's processes have worked for."""
    ticks = 0
    for number in session_of(process):
        try:
            stat = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            continue
        ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("workers", "records", "number"),
    [
        ("1", "[50, 3000000]", signal.SIGINT),
        ("2", "[3000000, 50]", signal.SIGINT),
        ("2", "[3000000, 50]", signal.SIGTERM),
        ("1", "[50, 3000000]", signal.SIGHUP),
    ],
)
def test_an_interrupt_keeps_what_was_done_and_says_so(
    tmp_path: Path, workers: str, records: str, number: signal.Signals
) -> None:
    done = tmp_path / "done"
    text = LONG.replace("[50, 3000000]", records)
    process = begin(tmp_path, workers, text, AFTER_THE_FIRST_CASE.format(done))
    # The short case takes a fraction of a second after the imports, the other one far longer.
    wait_until(lambda: done.exists() or cpu_seconds(process) > 4, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err and "Interrupted" in err
    assert nobody_lingers(process)
    (folder,) = finished_runs(tmp_path / "runs")
    assert "interrupted" in folder.name
    document = json.loads((folder / "results.json").read_text())
    assert document["interrupted"] is True
    assert [case["name"] for case in document["cases"]] == ["records=50"]
    assert not (tmp_path / "runs" / "long" / "latest").exists()
    assert "interrupted" in out.lower()
    assert "interrupted" in (folder / "summary.md").read_text().lower()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_before_anything_was_done_keeps_nothing(tmp_path: Path, workers: str) -> None:
    text = LONG.replace("[50, 3000000]", "[3000000, 3000001]")
    process = begin(tmp_path, workers, text)
    wait_until(lambda: cpu_seconds(process) > 1, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert err.strip() == "Interrupted."
    assert nobody_lingers(process)
    assert not (tmp_path / "runs").exists()


# At the very moment: the process interrupts itself


def interrupting_itself(when: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "small.yaml"
    file.write_text(SMALL)
    return subprocess.run(
        crashsim_after(when, "run", file, "--output", folder / "r"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


AT_IMPORT = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{}":
            interrupt()
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "module",
    [
        "crashsim.cli.dispatch",
        "click",
        "crashsim.experiment.loader",
        "pydantic",
        "numpy",
        "numpy._core._multiarray_umath",
        "crashsim.simulate.stack",
        "rich.progress",
        "crashsim.replay.versions",
    ],
)
def test_an_interrupt_while_a_module_is_imported_ends_it_in_order(
    tmp_path: Path, module: str
) -> None:
    done = interrupting_itself(AT_IMPORT.format(module), tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("module", ["matplotlib", "jinja2", "crashsim.report.html"])
def test_an_interrupt_while_reports_import_their_tools_lets_them_be_finished(
    tmp_path: Path, module: str
) -> None:
    done = interrupting_itself(AT_IMPORT.format(module), tmp_path)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert finished_runs(tmp_path / "r")


WHEN_THE_FIRST_REPORT_IS_WRITTEN = """
from crashsim.report import write
def written(path, content, really=write._write):
    really(path, content)
    if path.name == "results.json":
        {}
write._write = written
"""


def test_an_interrupt_while_reports_are_written_lets_them_be_finished(tmp_path: Path) -> None:
    done = interrupting_itself(WHEN_THE_FIRST_REPORT_IS_WRITTEN.format("interrupt()"), tmp_path)
    assert done.returncode == 130, done.stderr
    folders = finished_runs(tmp_path / "r")
    assert len({folder.resolve() for folder in folders}) == 1
    assert (folders[0] / "report.html").stat().st_size


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    twice = WHEN_THE_FIRST_REPORT_IS_WRITTEN.format("interrupt(); interrupt()")
    done = interrupting_itself(twice, tmp_path)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert not finished_runs(tmp_path / "r")


def test_an_interrupt_while_the_interpreter_ends_changes_nothing(tmp_path: Path) -> None:
    at_exit = "import atexit; atexit.register(interrupt)"
    done = interrupting_itself(UNDRAWN + at_exit, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


WHEN_LATEST_APPEARS = f"""{UNDRAWN}
import pathlib
def replace(path, target, really=pathlib.Path.replace):
    really(path, target)
    interrupt()
    for _ in range({{more}}):
        threading.Timer({{after}}, interrupt).start()
pathlib.Path.replace = replace
"""


@pytest.mark.parametrize(
    ("more", "after"), [(0, 0), (1, 0), (1, 0.03), (1, 0.1), (1, 0.2), (2, 0.1)]
)
def test_interrupts_when_latest_appears_are_answered_with_130(
    tmp_path: Path, more: int, after: float
) -> None:
    done = interrupting_itself(WHEN_LATEST_APPEARS.format(more=more, after=after), tmp_path)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert (tmp_path / "r" / "small" / "latest" / "report.html").exists()


def test_an_interrupt_that_a_destructor_would_swallow_is_not_lost(tmp_path: Path) -> None:
    swallow = """
from crashsim.runs import one
class Swallows:
    def __del__(self):
        interrupt()
def run_case(*arguments, really=one.run_case):
    Swallows()
    while True:
        really(*arguments)
one.run_case = run_case
"""
    done = interrupting_itself(swallow, tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")


def test_a_kill_leaves_nothing_that_looks_finished_and_no_process(tmp_path: Path) -> None:
    process = begin(tmp_path, "2")
    wait_until(lambda: cpu_seconds(process) > 3, process)
    process.kill()
    process.wait()
    assert nobody_lingers(process)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert not finished_runs(tmp_path / "runs")


def test_a_killed_writer_leaves_only_a_hidden_folder(tmp_path: Path) -> None:
    kill = WHEN_THE_FIRST_REPORT_IS_WRITTEN.format("os.kill(os.getpid(), signal.SIGKILL)")
    runs = tmp_path / "r"
    assert interrupting_itself(kill, tmp_path).returncode == -signal.SIGKILL
    assert not finished_runs(runs)
    assert not (runs / "small" / "latest").exists()
    hidden = [path.name for path in (runs / "small").iterdir()]
    assert len(hidden) == 1 and hidden[0].startswith(".unfinished-")
    (runs / "small" / ".latest-1").symlink_to("what-was-to-be")
    assert outside("run", tmp_path / "small.yaml", "--output", runs).code == 0
    left = [path.name for path in (runs / "small").iterdir() if path.name.startswith(".")]
    assert left == [], "the next run removes it"


@pytest.mark.parametrize("expected", ["0", "1"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_goes_away_changes_no_exit_code(
    tmp_path: Path, expected: str, options: tuple[str, ...]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL + f"expect: {{broken_promises: '>= {expected}'}}\n")
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        crashsim_after(UNDRAWN, "run", file, "--output", tmp_path / "runs", *options),
        cwd=ROOT,
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == int(expected), err
    assert "Traceback" not in err and "Exception" not in err and "Error" not in err


@pytest.mark.parametrize("arguments", [("schema",), ("new",)])
def test_an_output_that_is_full_is_said_with_exit_code_2(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "Error: standard output: No space left on device\n"
