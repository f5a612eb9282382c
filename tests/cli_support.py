"""The program as a user meets it: run in this process for speed, in another one where streams,
signals or exit codes are the subject."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crashsim.cli import dispatch

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 600.0  # on the busiest machine only what never comes takes so long
EXPERIMENTS = ROOT / "experiments"

SMALL = """
description: A small log
duration: 2s
device: {size: 1MiB}
workload: {kind: append-log, records: 100, record_size: 256B, rate: 100/s}
guest: {file_system: none, access: direct}
disk: {profile: consumer-nvme}
power: {random: 2}
"""
SYNCED = SMALL + "sync: {call: fdatasync, every: 10 records}\n"
SWEEP = SMALL + "sweep: {product: {sync: [{call: none}, {call: fdatasync}]}}\n"


@dataclass(frozen=True)
class Answer:
    """What the program answered."""

    code: int
    out: str
    err: str


class Program:
    """crashsim in this process, its runs below one folder."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Answer:
        self._capture.readouterr()
        try:
            code: object = dispatch.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        said = self._capture.readouterr()
        assert "Traceback" not in said.err
        assert isinstance(code, int)
        return Answer(code, said.out, said.err)

    def write(self, text: str, name: str = "small.yaml") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, text: str, *options: str, name: str = "small.yaml") -> Answer:
        """`crashsim run` of an experiment's text, in one process."""
        file = self.write(text, name)
        return self("run", file, "--workers", "1", "--output", self.runs, *options)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def latest(self, name: str = "small") -> Path:
        return self.runs / name / "latest"

    def results(self, name: str = "small") -> dict[str, Any]:
        document = json.loads((self.latest(name) / "results.json").read_bytes())
        assert isinstance(document, dict)
        return document


def environment(**changes: str) -> dict[str, str]:
    dropped = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, **changes}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "crashsim", *map(str, arguments)]


# Plots take most of a small run's time; `draw` is of `crashsim.report.write`.
UNDRAWN = """
from crashsim.report import write
write.draw = lambda results: ()
"""


def crashsim_after(code: str, *arguments: str | Path) -> list[str]:
    """`python -m crashsim` after some code of our own."""
    code = f"""
import os, runpy, signal, sys, threading
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
{code}
sys.argv = ["crashsim", *sys.argv[1:]]
runpy.run_module("crashsim", run_name="__main__", alter_sys=True)
"""
    return [sys.executable, "-c", code, *map(str, arguments)]


def outside(*arguments: str | Path, **changes: str) -> Answer:
    """crashsim in a process of its own, its runs without their plots."""
    run = arguments[0] == "run"
    done = subprocess.run(
        crashsim_after(UNDRAWN, *arguments) if run else command(*arguments),
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until something happened that the process does before it ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def finished_runs(runs: Path) -> list[Path]:
    """Folders below `runs` that a reader would take for results."""
    return [path.parent for path in runs.rglob("results.json") if not hidden(path, runs)]


def hidden(path: Path, base: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(base).parts)
