"""From an experiment to findings on disk and back, moved to another place."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from crashsim.checkers.spec import Command, Function, Rule, Spec, from_json
from crashsim.errors import UsageError
from crashsim.experiment.loader import load
from crashsim.experiment.model import Experiment
from crashsim.explore.budget import Budget
from crashsim.explore.saved import replay
from crashsim.explore.survey import explore
from crashsim.runs.revisit import open_finding, read_finding
from crashsim.runs.session import Session
from crashsim.states import Rules
from tests.explore_support import open_target

RECORDINGS = Path(__file__).parents[1] / "experiments" / "recordings"
TORN = """
def check(image, acks):
    first, second = any(image[1024:1536]), any(image[1536:2048])
    if first and bytes(image[1536:2048]) != SECOND:
        return False
SECOND = {second!r}
"""


def log(*lines: str, folder: Path) -> Experiment:
    text = ["device: {size: 1MiB}", "guest: {file_system: none}", *lines]
    path = folder / "log.yaml"
    path.write_text("\n".join(text))
    return load(path).cases[0].experiment


def opened(folder: Path, sync: str, spec: Spec) -> Session:
    workload = "workload: {kind: append-log, records: 12, record_size: 1KiB}"
    return open_target(log(workload, f"sync: {{{sync}}}", folder=folder), spec, Rules())


def test_a_log_synced_after_each_record_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    one = opened(tmp_path, "call: fdatasync", Rule("acknowledged"))
    found = explore(one.target, Budget(500), 1)
    told = found.result
    assert told.exit_code == 0 and told.checked == told.images and told.checked > 12


def test_a_log_that_is_acknowledged_unsynced_loses_records_and_the_finding_replays_elsewhere(
    tmp_path: Path,
) -> None:
    one = opened(tmp_path, "call: none", Rule("acknowledged"))
    found = explore(one.target, Budget(500), 1, workers=2)
    assert found.result.exit_code == 1
    finding = found.findings[0]
    assert finding.ack >= 0
    one.keep(finding, tmp_path / "lost.crashsim-finding")
    moved = tmp_path / "elsewhere" / "lost.crashsim-finding"
    moved.parent.mkdir()
    shutil.move(tmp_path / "lost.crashsim-finding", moved)
    assert again(moved)


def again(path: Path) -> bool:
    """Whether a saved finding fails as it did."""
    file = read_finding(path)
    return replay(file.saved, open_finding(file).target).as_saved


def recorded(folder: Path) -> Experiment:
    for name in ("sqlite-delete-off.log.gz", "sqlite-delete-off.times", "ext4-32M.img.gz"):
        shutil.copy(RECORDINGS / name, folder / name)
    path = folder / "recorded.yaml"
    path.write_text(
        "device: {size: 32MiB}\n"
        "guest: {file_system: none}\n"
        "workload: {kind: recording, log: sqlite-delete-off.log.gz,"
        " times: sqlite-delete-off.times, image: ext4-32M.img.gz}\n"
    )
    return load(path).cases[0].experiment


def test_a_finding_moves_with_its_recording_and_its_checker(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    experiment = recorded(first)
    plain = open_target(experiment, Command("true"), Rules())
    newest = plain.target.space.epoch(0).atoms[-1]
    (first / "check.py").write_text(TORN.format(second=newest.versions[-1]))
    spec = Function("check.py:check", folder=str(first))
    one = open_target(experiment, spec, Rules())
    found = explore(one.target, Budget(100), 1)
    one.keep(found.findings[0], first / "torn.crashsim-finding")
    text = (first / "torn.crashsim-finding").read_text()
    document = json.loads(text)
    pinned = {"sqlite-delete-off.log.gz", "sqlite-delete-off.times", "ext4-32M.img.gz"}
    assert str(tmp_path) not in text and document["files"].keys() == pinned
    second = tmp_path / "second"
    first.rename(second)
    assert again(second / "torn.crashsim-finding")
    old = second / "old.crashsim-finding"  # from before the times were pinned
    del document["files"]["sqlite-delete-off.times"]
    old.write_text(json.dumps(document))
    assert again(old)
    times = second / "sqlite-delete-off.times"
    instants = times.read_bytes()
    last = int.from_bytes(instants[-8:], "little") + 1
    times.write_bytes(instants[:-8] + last.to_bytes(8, "little"))
    with pytest.raises(UsageError, match=r"\.times: has changed"):
        again(second / "torn.crashsim-finding")
    (second / "ext4-32M.img.gz").write_bytes(gzip.compress(b"another disk"))
    with pytest.raises(UsageError, match=r"\.img\.gz: has changed"):
        again(old)


def test_an_exploration_is_identified_by_all_that_it_depends_on(tmp_path: Path) -> None:
    spec = Rule("acknowledged")
    one = opened(tmp_path, "call: none", spec)
    same = opened(tmp_path, "call: none", spec)
    assert one.identity == same.identity
    others = [
        opened(tmp_path, "call: fdatasync", spec),
        opened(tmp_path, "call: none", Rule("prefix")),
        open_target(one.run.experiment, spec, Rules("this-host")),
    ]
    assert len({one.identity, *(other.identity for other in others)}) == 4


@pytest.mark.parametrize("given", [{}, {"command": "true", "rule": "prefix"}])
def test_there_is_exactly_one_checker(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="one checker"):
        from_json(given)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    one = opened(tmp_path, "call: none", Rule("prefix"))
    with pytest.raises(UsageError, match="expected one of pmem0, got pmem7"):
        open_target(one.run.experiment, one.spec, Rules(), "pmem7")


def test_a_saved_finding_whose_experiment_makes_no_sense_is_refused(tmp_path: Path) -> None:
    one = opened(tmp_path, "call: none", Rule("acknowledged"))
    finding = explore(one.target, Budget(100), 1).findings[0]
    path = tmp_path / "f.crashsim-finding"
    one.keep(finding, path)
    document = json.loads(path.read_text())
    wrong: list[dict[str, object]] = [{"experiment": {"device": {"size": 5}}}, {"checker": {}}]
    for change in wrong:
        path.write_text(json.dumps(document | change))
        with pytest.raises(UsageError, match=r"f\.crashsim-finding: "):
            again(path)
