"""A run, asked from Python: once simulated, then anything."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import crashsim
from crashsim.errors import ExperimentError, OutputError, UsageError
from crashsim.simulate import stack
from tests import tidy

F64 = npt.NDArray[np.float64]
LOG = {
    "device": {"size": "1MiB"},
    "guest": {"file_system": "none", "access": "direct"},
    "workload": {
        "kind": "append-log",
        "record_size": "256B",
        "records": 40,
        "rate": "1000/s",
        "acknowledge": "before-sync",
    },
    "sync": {"call": "fdatasync", "every": "4 records"},
}
CHECK = '''
def all_there(image, acks):
    """Every acknowledged record has bytes."""
    for low, high in acks.records:
        if not any(image[low * 256 : high * 256]):
            return False
'''


@pytest.fixture(scope="module")
def log() -> crashsim.Run:
    return crashsim.run(LOG)


def test_a_run_is_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []

    def counted(*arguments: object) -> object:
        times.append(1)
        return really(*arguments)  # type: ignore[arg-type]

    really = stack.simulate
    monkeypatch.setattr("crashsim.runs.one.simulate", counted)
    run = crashsim.run(LOG)
    assert "not simulated" in repr(run) and not times
    assert run.figures.at_risk_bytes.max == run.loss().max
    run.why(at="5ms")
    run.explore(crashsim.Command("true"), states=5)
    assert times == [1]


def test_answers_are_those_of_the_figures(log: crashsim.Run) -> None:
    figures = log.figures
    for domain, known in figures.domains.items():
        curve = log.loss(domain)
        found = (curve.max, curve.quantile(0.5), curve.quantile(0.99))
        assert found == (known.max, known.p50, known.p99)
    point = log.recovery_point
    assert (point.max, point.quantile(0.99)) == (
        figures.recovery_point_ns.max,
        figures.recovery_point_ns.p99,
    )
    assert log.acknowledged == figures.acknowledged == 40


def drawn(curve: crashsim.Curve) -> tuple[F64, F64]:
    line = curve.plot().lines[0]
    return np.asarray(line.get_xdata(), np.float64), np.asarray(line.get_ydata(), np.float64)


def test_a_picture_shows_no_value_that_the_curve_has_not(log: crashsim.Run) -> None:
    x, y = drawn(log.loss())
    assert ((np.diff(x) == 0) | (np.diff(y) == 0)).all(), "steps have no slope"
    assert (x[0], y[0], x[-1]) == (0, 0, log.end_ns / 1e9)
    x, y = drawn(log.recovery_point)  # an age grows by a second each second, or is 0
    slope = (np.diff(x) > 0) & (np.diff(y) != 0)
    assert slope.any() and np.allclose(np.diff(y)[slope], np.diff(x)[slope])


def test_an_image_is_what_the_loss_says(log: crashsim.Run) -> None:
    for t in (0, 3_900_000, "7.5ms", log.end_ns):
        lost = log.loss().at(t)
        with log.image(at=t) as kept, log.image(at=t, domain="program-kill") as stored:
            assert sum(a != b for a, b in zip(kept.data, stored.data, strict=True)) <= lost
            assert stored.stored - kept.stored == lost
            path = kept.path
            assert path.stat().st_size == len(kept.data) == 1 << 20
        assert not path.exists()


def test_an_image_that_is_kept_takes_no_other_files_place(
    log: crashsim.Run, tmp_path: Path
) -> None:
    path = tmp_path / "kept.img"
    assert log.write_image(path, at="7.5ms") > 0
    with log.image(at="7.5ms") as image:
        assert path.read_bytes() == image.data
    with pytest.raises(OutputError, match=r"kept\.img: exists already"):
        log.write_image(path, at=0)
    with pytest.raises(OutputError, match=r"/none/kept\.img: "):
        log.write_image(tmp_path / "none" / "kept.img", at=0)
    assert [*tmp_path.iterdir()] == [path]


def test_a_run_travels_with_its_history(log: crashsim.Run) -> None:
    assert log.figures
    again = pickle.loads(pickle.dumps(log))
    assert "not simulated" not in repr(again)
    assert again.figures == log.figures
    assert again.loss("vmm-kill").max == log.loss("vmm-kill").max
    assert len(pickle.dumps(crashsim.run(LOG))) < 20_000, "what was not asked for does not travel"


def test_a_sweep_gives_a_run_for_each_case() -> None:
    swept = LOG | {"sweep": {"product": {"sync.call": ["msync-async", "fdatasync"]}}}
    cases = crashsim.sweep(swept)
    assert [one.figures.flushes > 0 for one in cases] == [False, True]
    with pytest.raises(UsageError, match=r"crashsim\.sweep\(\)"):
        crashsim.run(swept)
    assert [one.name for one in crashsim.sweep(cases[0].experiment)] == ["experiment"]


def test_what_cannot_be_answered_is_said(log: crashsim.Run) -> None:
    with pytest.raises(UsageError, match="the run ended at"):
        log.why(at="1h")
    with pytest.raises(UsageError, match="power-cut"):
        log.loss("earthquake")
    with pytest.raises(UsageError, match="pmem0"), log.image(at=0, device="pmem7"):
        pass
    with pytest.raises(ExperimentError, match="workload"):
        crashsim.run({"device": {"size": "1MiB"}})


def test_a_run_is_explored_and_its_findings_are_told_and_kept(
    log: crashsim.Run, tmp_path: Path
) -> None:
    (tmp_path / "checks.py").write_text(CHECK)
    check = crashsim.Function("checks.py:all_there", folder=tmp_path)
    found = log.explore(check, states=200)
    assert found.findings and found.checked == found.exploration.checked > 0
    one = found.findings[0]
    assert "was lost" in one.story and "fdatasync" not in one.outcome
    saved = one.save(tmp_path / "one.crashsim-finding")
    assert saved.exists()
    with pytest.raises(OutputError, match="exists already"):
        one.save(saved)
    two = log.explore(check, states=200, workers=2)
    assert two.exploration == found.exploration


LEFT_AS_IT_WAS = """
import ctypes, os, resource, signal, subprocess, crashsim

def process():
    reaper = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(reaper), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    return {
        "folder": os.getcwd(),
        "what is in it": sorted(os.listdir(".")),
        "handlers": [signal.getsignal(n) for n in sorted(signal.valid_signals())],
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "subreaper": reaper.value,
        "namespaces": {os.readlink(f"/proc/self/ns/{one}") for one in os.listdir("/proc/self/ns")},
        "limits": [resource.getrlimit(n) for n in range(16)],
        "umask": open("/proc/self/status").read().partition("Umask:")[2][:6],
        "group": (os.getpgid(0), os.getsid(0)),
        "environment": dict(os.environ),
        "children": open(f"/proc/self/task/{os.getpid()}/children").read().split(),
    }

done = subprocess.Popen(["true"])
alive = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # ends with us
before = process()
run = crashsim.run({LOG!r})
run.figures, run.loss(), run.why(at="5ms")
with run.image(at="5ms"):
    pass
for check in (lambda image, acks: None, "checks.py:all_there", crashsim.Command("true {image}")):
    run.explore(check, states=20)
    run.explore(check, states=200, workers=2)
for what, now in process().items():
    assert now == before[what], (what, before[what], now)
assert alive.poll() is None and os.waitpid(done.pid, 0) == (done.pid, 0)
"""


def test_the_callers_process_is_left_as_it_was(tmp_path: Path) -> None:
    """No handler, no folder, no output; no subreaper, no namespace of its own; nobody else's child
    is waited for or ended, and none of ours is left."""
    (tmp_path / "checks.py").write_text(CHECK)
    done = subprocess.run(
        [sys.executable, "-B", "-c", LEFT_AS_IT_WAS.replace("{LOG!r}", repr(LOG))],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(crashsim.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_type_checker_and_an_importer_see_the_same_names() -> None:
    tree = ast.parse(Path(crashsim.__file__).read_text(encoding="utf-8"))
    seen = {name for _, name in tidy.imports(tree) if name.startswith("crashsim.")}
    mine = {f"{getattr(crashsim, name).__module__}.{name}" for name in crashsim.__all__}
    assert seen == mine


def test_every_public_name_is_there_and_documented() -> None:
    for name in crashsim.__all__:
        assert getattr(crashsim, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = crashsim.nothing_like_it


@pytest.mark.parametrize(("sector", "torn"), [("512B", True), ("4KiB", False)])
def test_a_disk_that_never_tears_4_kib_is_not_explored_with_torn_sectors(
    tmp_path: Path, sector: str, torn: bool
) -> None:
    (tmp_path / "checks.py").write_text(
        "def whole(image, acks):\n"
        "    ends = [bool(any(image[at : at + 8])) for at in range(0, 4096, 512)]\n"
        "    return ends in ([True] * 8, [False] * 8)\n"
    )
    record = LOG["workload"] | {"record_size": "4KiB", "records": 1}  # type: ignore[operator]
    run = crashsim.run(LOG | {"workload": record, "disk": {"sector": sector}})
    check = crashsim.Function("checks.py:whole", folder=tmp_path)
    assert bool(run.explore(check, states=300).findings) is torn


def test_what_is_acknowledged_after_the_end_is_not_counted(log: crashsim.Run) -> None:
    info = replace(log.history.info, end_ns=log.end_ns // 2)
    half = crashsim.Run(log.case, history=replace(log.history, info=info), inputs=log.inputs)
    assert half.acknowledged == half.figures.acknowledged < log.acknowledged


CLIENTS = [
    path
    for room in ("cli", "report", "advise")
    for path in sorted((Path(crashsim.__file__).parent / room).rglob("*.py"))
]


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_clients_of_a_run_use_its_public_names(path: Path) -> None:
    """A report is made of results alone; the others ask a Run by names that everybody has."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken = [name for _, name in tidy.imports(tree) if name.startswith("crashsim.runs.")]
    assert not any(part.startswith("_") for name in taken for part in name.split("."))
    assert path.parent.name != "report" or not taken
    inside = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert inside == []
