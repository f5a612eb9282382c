"""A compiled loop gives what the same loop gives as plain Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from crashsim.engine.compiled import compiled
from crashsim.experiment.profiles import DiskFaults
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.replay.versions import TwoFiles
from tests.oracle import OracleWorld
from tests.oracle.worlds import worlds
from tests.test_lost_again import disk_faults, faulty

ROOT = Path(__file__).parent.parent
PROGRAM = "import json, tests.test_compiled as t; print(json.dumps(t.answers()))"


def answers() -> list[list[int]]:
    """What compiled code says of random worlds with random faults."""
    found: list[list[int]] = []

    @given(world=worlds(), faults=disk_faults())
    @settings(
        max_examples=12,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    def look(world: OracleWorld, faults: DiskFaults) -> None:
        history = faulty(world, faults)
        for keep in ("host", "submitted", "completed", "durable"):
            with tempfile.TemporaryDirectory() as folder:
                files = TwoFiles(history, keep, Path(folder))
                cuts = [t for t in history.batch_t_ns.tolist() if t <= history.end_ns]
                found.append([files.advance(t) for t in [*cuts, history.end_ns]])
                files.close()
        for stage in (Stage.SUBMITTED, Stage.DURABLE):
            steps = Losses(history, stage).at_risk
            found.append([*steps.instants.tolist(), *steps.values.tolist()])

    look()
    return found


@pytest.mark.slow
def test_compiled_loops_give_what_they_give_uncompiled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    plain = json.loads(done.stdout)
    assert plain == answers()
    assert any(any(bytes_lost) for bytes_lost in plain)


def test_without_a_folder_to_keep_it_in_a_loop_is_compiled_all_the_same() -> None:
    source = "def twice(number):\n    return 2 * number\n"
    space: dict[str, object] = {}
    exec(compile(source, "<nowhere>", "exec"), space)  # a function whose source no file holds
    twice = compiled(space["twice"])  # type: ignore[type-var]
    assert twice(21) == 42  # type: ignore[operator]


def test_what_an_older_version_of_a_module_left_is_compiled_anew(tmp_path: Path) -> None:
    source = (
        "from typing import NamedTuple\n"
        "from crashsim.engine.compiled import compiled\n"
        "class {name}(NamedTuple):\n    number: int\n"
        "@compiled\ndef twice(pair):\n    return 2 * pair.number\n"
        "print(twice({name}(21)))\n"
    )
    for name in ("Old", "Another"):
        (tmp_path / "module.py").write_text(source.format(name=name), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", "import module"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("42\n", "")


def test_a_change_of_another_module_is_compiled_in(tmp_path: Path) -> None:
    begin = (
        "import pathlib\n"
        "from crashsim.engine import compiled as room\n"
        "room._stamp = room.stamp_of(pathlib.Path())\n"
        "import module\n"
    )
    source = (
        "from crashsim.engine.compiled import compiled\n"
        "from other import NUMBER\n"
        "@compiled\ndef twice():\n    return 2 * NUMBER\n"
        "print(twice())\n"
    )
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    for number in (21, 4):
        (tmp_path / "other.py").write_text(f"NUMBER = {number}\n", encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", begin],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == (f"{2 * number}\n", "")
