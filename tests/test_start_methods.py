"""However workers are started, and wherever a function was written, exploring comes to the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import crashsim
from crashsim.errors import UsageError
from tests.checkers_support import caller
from tests.test_checkers_files import has_e2fsprogs

ROOT = Path(__file__).parents[1]
EXPERIMENT = """
device: {size: 64KiB}
guest: {file_system: none}
workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}
sync: {call: none}
"""

# A user's own script, or what a notebook runs: its functions cannot be imported by anybody.
SCRIPT = """
import json, multiprocessing, sys
import crashsim

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    run = crashsim.run("experiment.yaml")
    most = 3
    found = run.explore(
        lambda image, acks: f"{sum(map(any, (image[:512], image[512:1024])))} of {most}"
        if image[0] or not image[512] else False,
        states=40, workers=int(sys.argv[2]),
    )
    print(json.dumps([found.checked, found.outcomes, [one.story for one in found.findings]]))
"""


def test_every_start_method_and_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    (tmp_path / "script.py").write_text(SCRIPT)
    told = {
        (method, workers): explored(tmp_path, method, workers)
        for method in ("fork", "spawn", "forkserver")
        for workers in (1, 2)
    }
    first = told["fork", 1]
    assert all(one == first for one in told.values()), told
    checked, outcomes, stories = json.loads(first)
    assert checked == 40 and len(stories) == 1
    assert set(outcomes) > {"0 of 3", "1 of 3", "2 of 3"}


def explored(folder: Path, method: str, workers: int) -> str:
    words = [sys.executable, "script.py", method, str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_who_explores_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    run = crashsim.run(tmp_path / "experiment.yaml")
    before = caller()
    for check in (lambda image, acks: None, crashsim.Command("/bin/true")):
        assert run.explore(check, states=10, workers=1).checked == 10
        assert run.explore(check, states=10, workers=2).checked == 10
    assert caller() == before
    assert multiprocessing.get_start_method(allow_none=True) is None


def named(image: memoryview, acks: object) -> str:
    return "by its name"


def test_a_function_that_can_be_found_is_kept_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    run = crashsim.run(tmp_path / "experiment.yaml")
    found = run.explore(lambda image, acks: bool(image[0]), states=5)
    by_value = found.findings[0].save(tmp_path / "a.crashsim-finding")
    assert json.loads(by_value.read_text())["checker"]["function"] == (
        "tests.test_start_methods:test_a_function_that_can_be_found_is_kept_by_its_name"
        ".<locals>.<lambda>"
    )
    assert run.explore(named, states=5).outcomes == {"by its name": 5}


def test_a_function_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be sent to a process of its own"):
        crashsim.run(tmp_path / "experiment.yaml").explore(lambda image, acks: lock.locked())


@has_e2fsprogs
def test_a_function_of_files_that_crashes_is_one_finding() -> None:
    """And the states after it are checked."""
    run = crashsim.sweep(ROOT / "experiments" / "sqlite-wal-full.yaml")[0]

    def check(folder: Path, acks: object) -> str | None:
        import ctypes

        database = folder / "app.db"
        if database.exists() and not database.stat().st_size:
            ctypes.string_at(0)
        return f"{len(list(folder.iterdir()))} files"

    found = run.explore(crashsim.Files(check), states=60, workers=2)
    assert found.checked == 60 and found.outcomes["died: SIGSEGV"] == 1
    assert [(one.outcome, one.states) for one in found.findings] == [("died: SIGSEGV", 1)]
    assert found.outcomes["4 files"] > 50
