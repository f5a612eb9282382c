"""The wheel, as a user gets it: built from the source distribution, installed into a clean
environment, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import crashsim

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; nothing of this environment leaks into it."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        line = " ".join(str(part) for part in command)
        pytest.fail(f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


def installed(folder: Path) -> Path:
    """The `bin` folder of a clean environment that has the wheel."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    wheels = list(folder.glob("*.whl"))
    assert [wheel.name for wheel in wheels] == [f"crashsim-{crashsim.__version__}-py3-none-any.whl"]
    venv.create(folder / "env")
    commands = folder / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    pip += ["--python", str(commands / "python")]
    run(*pip, "install", "--quiet", "--no-compile", wheels[0], cwd=folder)
    run(*pip, "check", cwd=folder)
    return commands


def package_folder(commands: Path) -> Path:
    where = "import crashsim, pathlib; print(pathlib.Path(crashsim.__file__).parent)"
    folder = Path(run(commands / "python", "-c", where, cwd=commands).strip())
    assert folder.is_relative_to(commands.parent)
    return folder


def missing(package: Path) -> list[Path]:
    """What the checkout has and the package has not."""
    found = []
    for source, target in (("crashsim", package), ("experiments", package / "experiments")):
        files = [
            path.relative_to(ROOT / source)
            for path in (ROOT / source).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]
        assert files
        found += [target / file for file in files if not (target / file).is_file()]
    return found


# One test, not several: with the tests on two workers, several would install twice.
NOT_EXPLORED = ("--set", "explore=null", "--set", "sweep=null", "--set", "cases={}")


@pytest.mark.slow
def test_the_wheel_in_a_clean_environment_is_complete_and_runs_a_shipped_experiment(
    tmp_path: Path,
) -> None:
    commands = installed(tmp_path)
    package = package_folder(commands)
    assert missing(package) == []
    assert (package / "py.typed").is_file()

    experiment = package / "experiments" / "sqlite-wal-normal.yaml"
    inputs = sorted(experiment.parent.rglob("*"))
    run(commands / "crashsim", "run", experiment, *NOT_EXPLORED, cwd=tmp_path)
    assert sorted(experiment.parent.rglob("*")) == inputs
    run_folder = tmp_path / "runs" / "sqlite-wal-normal" / "latest"
    results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
    assert results["version"] == crashsim.__version__
    (case,) = results["cases"]
    assert case["acknowledged"] == 101  # 100 transactions and "ready"
    assert case["broken_promises"] == 0
    assert case["uncovered_acknowledgements"]["max"] >= 1
    assert (run_folder / "report.html").stat().st_size > 0

    # One of its own by name, from anywhere; a recording and a checker come with it.
    run(commands / "crashsim", "run", "append-log", *NOT_EXPLORED, cwd=tmp_path)
    assert (tmp_path / "runs" / "append-log" / "latest" / "results.json").is_file()
    shown = run(commands / "crashsim", "show", "sqlite-wal-normal", cwd=tmp_path)
    assert str(package / "experiments" / "recordings") in shown
    by_name = "import crashsim; print(crashsim.sweep('demo')[0].experiment.name)"
    assert run(commands / "python", "-c", by_name, cwd=tmp_path) == "demo\n"

    assert "run" in run(commands / "python", "-m", "crashsim", "--help", cwd=tmp_path)
