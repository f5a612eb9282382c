"""Any file in place of a recording, a run, results or a finding is taken or refused by an error
that is the user's; nothing else happens, and not for long."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashsim.errors import CrashsimError, StaleFinding, TraceError, UsageError
from crashsim.experiment.loader import plan
from crashsim.explore.saved import SUFFIX, locate
from crashsim.report.compare import compare
from crashsim.report.readback import read_document
from crashsim.results import to_json
from crashsim.runs.archive import HISTORY_FILE, load_run, write_history
from crashsim.runs.one import Run
from crashsim.runs.revisit import open_finding, read_finding
from crashsim.simulate.inputs import make_inputs
from crashsim.simulate.stack import simulate
from tests import report_explored as explorations
from tests import report_fixtures as fixtures
from tests.log_writer import FUA, discard, flush, mark, write, write_log

RELAXED = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
RECORDED = """\
device: {size: 64KiB}
workload: {kind: recording, log: app.log, times: app.times, image: before.img}
guest: {file_system: none}
"""
WORDS = st.one_of(
    st.sampled_from([0, 1, 7, 8, 9, 16, 511, 512, 1 << 31, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
).map(lambda number: struct.pack("<Q", number))
JUNK = st.one_of(st.binary(max_size=12), WORDS)
NUMBERS = st.one_of(
    st.integers(), st.sampled_from([0, -1, 1 << 31, 1 << 62, 1 << 63, 10**30, 10**400])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with one to three stretches replaced, anywhere or at whole words, or cut."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        if draw(st.booleans()):
            at -= at % 8
        until = draw(st.one_of(st.just(at + 8), st.integers(at, at + 20), st.just(len(content))))
        content = content[:at] + draw(JUNK) + content[until:]
    return content


def ways(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    if not isinstance(tree, dict | list):
        return [way]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [way, *(below for key, value in items for below in ways(value, (*way, key)))]


@st.composite
def changed(draw: st.DrawFn, document: Any, kept: tuple[str, ...] = ()) -> Any:
    """The document with one to three values replaced or gone, but for those under `kept`."""
    tree = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        possible = [way for way in ways(tree) if way and way[0] not in kept]
        *before, last = draw(st.sampled_from(possible or [("x",)]))
        block = tree
        for step in before:
            block = block[step]
        if draw(st.booleans()) and (isinstance(block, list) or last in block):
            del block[last]
        else:
            block[last] = draw(VALUES)
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, a run of it and a finding."""
    folder = tmp_path_factory.mktemp("sound")
    entries = [write(8 * n, bytes([n]) * 4096, FUA) for n in range(4)]
    entries += [flush(), mark("ack 0"), discard(0, 8), write(1, bytes(512))]
    write_log(folder / "app.log", entries)
    times = struct.pack(f"<{len(entries)}Q", *range(1000, 1000 + 1000 * len(entries), 1000))
    (folder / "app.times").write_bytes(times)
    (folder / "before.img").write_bytes(b"before" * 1000)
    (folder / "x.yaml").write_text(RECORDED)
    write_history(folder, [Run(plan(RECORDED, str(folder / "x.yaml")).cases[0])])
    return folder


def run_or_refuse(folder: Path, files: dict[str, bytes]) -> None:
    """Simulate the recording with some of its files being others."""
    names = {name: f"fuzzed-{name}" for name in files}
    text = RECORDED
    for name, content in files.items():
        (folder / names[name]).write_bytes(content)
        text = text.replace(name, names[name])
    experiment = plan(text, str(folder / "x.yaml")).cases[0].experiment
    with contextlib.suppress(TraceError, UsageError):
        inputs = make_inputs(experiment)
        history = simulate(experiment, inputs.programs)
        assert history.end_ns >= 0


@RELAXED
@given(st.data())
def test_any_log_is_simulated_or_refused(folder: Path, data: st.DataObject) -> None:
    content = data.draw(damaged((folder / "app.log").read_bytes()))
    run_or_refuse(folder, {"app.log": content})
    run_or_refuse(folder, {"app.log": gzip.compress(content, 1)})


@RELAXED
@given(st.data())
def test_any_times_are_simulated_or_refused(folder: Path, data: st.DataObject) -> None:
    run_or_refuse(folder, {"app.times": data.draw(damaged((folder / "app.times").read_bytes()))})


@RELAXED
@given(st.data(), st.sampled_from(["app.log", "app.times", "before.img"]))
def test_any_gzip_file_is_unpacked_or_refused(folder: Path, data: st.DataObject, name: str) -> None:
    packed = gzip.compress((folder / name).read_bytes(), mtime=0)
    run_or_refuse(folder, {name: data.draw(damaged(packed))})


@RELAXED
@given(st.data())
def test_any_history_is_unharmed_or_refused(
    folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / HISTORY_FILE
    path.write_bytes(data.draw(damaged((folder / HISTORY_FILE).read_bytes())))
    with contextlib.suppress(UsageError):
        columns, sound = load_run(path).history.columns(), load_run(folder).history.columns()
        assert all(np.array_equal(column, sound[name]) for name, column in columns.items())


RESULTS = to_json(fixtures.results(explorations.bad(), fixtures.lying_disk()))


@RELAXED
@given(changed(RESULTS))
def test_any_results_are_compared_or_refused(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(CrashsimError):
        read = read_document(path)
        for pair in ((RESULTS, read), (read, RESULTS)):
            found = compare(*pair, {})
            said = [found.headline(), *found.notices]
            said += [" ".join(c.texts()) for c in found.changes]
            assert all(said)


@pytest.fixture(scope="module")
def finding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved finding."""
    folder = tmp_path_factory.mktemp("finding")
    text = (
        "device: {size: 64KiB}\n"
        "workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}\n"
        "explore: {states: 30, check: {rule: acknowledged}}\n"
    )
    (folder / "x.yaml").write_text(text)
    from crashsim.cli.dispatch import main

    with contextlib.suppress(SystemExit):
        main(["run", str(folder / "x.yaml"), "--workers", "1", "--output", str(folder / "runs")])
    return next((folder / "runs").rglob(f"*{SUFFIX}"))


@RELAXED
@given(st.data())
def test_any_finding_is_read_or_refused(finding: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(json.dumps(data.draw(changed(json.loads(finding.read_bytes())))))
    with contextlib.suppress(UsageError):
        read_finding(path)


def test_a_finding_whose_checkers_folder_is_no_path_is_refused(
    finding: Path, tmp_path: Path
) -> None:
    document = json.loads(finding.read_bytes())
    document["checker"]["folder"] = 3
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"checker\.folder: expected a path"):
        read_finding(path)


@RELAXED
@given(st.data())
def test_any_state_of_a_finding_is_found_or_refused(
    finding: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / f"x{SUFFIX}"
    sound = json.loads(finding.read_bytes())
    unharmed = ("experiment", "files", "checker")  # another experiment may take its time
    path.write_text(json.dumps(data.draw(changed(sound, unharmed))))
    with contextlib.suppress(UsageError, StaleFinding):
        file = read_finding(path)
        opened = open_finding(replace(file, experiment=read_finding(finding).experiment))
        locate(opened.target.space, file.saved)
