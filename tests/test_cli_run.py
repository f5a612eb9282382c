"""`crashsim run`: what it writes, prints and answers."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from crashsim.experiment.loader import Case, load
from crashsim.power.cuts import durability_events
from crashsim.replay import comparison
from crashsim.results import SCHEMA_VERSION, to_json
from crashsim.runs import one
from crashsim.runs.archive import load_run, new_folder
from crashsim.runs.measure import measure
from crashsim.runs.one import Run
from tests import report_fixtures as fixtures
from tests.cli_support import (
    SMALL,
    SWEEP,
    SYNCED,
    Program,
    environment,
    finished_runs,
    outside,
)

SPREADS = ("at_risk_bytes", "recovery_point_ns", "uncovered_acknowledgements")
COUNTS = (
    "acknowledged",
    "broken_promises",
    "holes",
    "torn",
    "flushes",
    "bytes_written",
    "guest_wait_ns",
)


def spread_and_counts(case: dict[str, Any]) -> None:
    assert isinstance(case["name"], str)
    for name in SPREADS:
        assert set(case[name]) >= {"max", "p50", "p99"}
        assert all(type(value) is int for value in case[name].values())
    for name in COUNTS:
        assert type(case[name]) is int
    steps = case["loss"]
    assert len(steps["instants"]) == len(steps["values"]) > 0
    assert all(type(value) is int for value in steps["instants"] + steps["values"])
    assert steps["instants"] == sorted(set(steps["instants"]))


def test_a_run_leaves_a_folder_named_by_time_and_seed_with_every_report(
    drawn: None, program: Program
) -> None:
    answer = program.run(SWEEP, "--seed", "7")
    assert answer.code == 0
    latest = program.latest()
    assert latest.is_symlink() and latest.resolve().parent == program.runs / "small"
    stamp, seed = latest.resolve().name.split("-")
    assert len(stamp) == len("20260102T030405") and seed == "7"
    names = {path.name for path in latest.iterdir()}
    assert names == {
        "results.json",
        "history.npz",
        "report.html",
        "summary.md",
        "junit.xml",
        "plots",
    }
    kinds = {path.suffix for path in (latest / "plots").iterdir()}
    assert kinds == {".png", ".svg"}
    assert all(path.stat().st_size for path in latest.rglob("*") if path.is_file())
    left = [path for path in program.runs.rglob(".*") if path != latest]
    assert not left, "something unfinished was left behind"
    assert f"Report: {latest.resolve() / 'report.html'}" in answer.out


def test_results_have_every_field_that_is_promised(program: Program) -> None:
    assert program.run(SWEEP).code == 0
    document = program.results()
    assert document["schema"] == SCHEMA_VERSION
    assert document["seed"] == 1 and document["interrupted"] is False
    assert len(document["cases"]) == 2
    for case in document["cases"]:
        spread_and_counts(case)
    read = fixtures.read(program.latest() / "results.json")
    assert json.loads(json.dumps(to_json(read))) == document


def test_unsynced_writes_are_at_risk_and_synced_ones_are_not(program: Program) -> None:
    assert program.run(SWEEP).code == 0
    unsynced, synced = program.results()["cases"]
    assert unsynced["at_risk_bytes"]["max"] == unsynced["bytes_stored"] == 100 * 256
    assert unsynced["uncovered_acknowledgements"]["max"] == unsynced["acknowledged"] == 100
    assert unsynced["flushes"] == unsynced["guest_wait_ns"] == unsynced["bytes_written"] == 0
    assert synced["at_risk_bytes"]["max"] == 256
    assert synced["uncovered_acknowledgements"]["max"] == 0
    assert synced["flushes"] == synced["acknowledged"] == 100
    assert synced["guest_wait_ns"] > 0 and synced["bytes_written"] > 0


def test_a_history_that_is_loaded_again_gives_the_same_figures(program: Program) -> None:
    assert program.run(SWEEP).code == 0
    plan = load(program.folder / "small.yaml")
    for case, was in zip(plan.cases, program.results()["cases"], strict=True):
        saved = load_run(program.latest(), case.name)
        again = measure(case, saved.history, saved.inputs, False)
        assert json.loads(json.dumps(asdict(again))) == was | {"added": {}}


def test_json_on_standard_output_is_the_file_and_nothing_else(program: Program) -> None:
    answer = program.run(SWEEP, "--json")
    assert answer.code == 0
    assert answer.out.encode() == (program.latest() / "results.json").read_bytes()


def test_another_seed_gives_other_results_and_the_same_seed_the_same(program: Program) -> None:
    text = SYNCED.replace("append-log", "key-value").replace(
        "record_size: 256B", "slots: 50, value_size: 256B"
    )
    outputs = [program.run(text, "--json", "--seed", seed).out for seed in ("1", "1", "2")]
    first, again, other = (json.loads(output)["cases"][0] for output in outputs)
    assert first == again
    assert first["loss"] != other["loss"]
    assert other["seed"] == 2


def test_set_changes_one_value(program: Program) -> None:
    assert program.run(SYNCED, "--set", "sync.every=50 records").code == 0
    assert program.results()["cases"][0]["flushes"] == 2


def test_without_plots_there_are_all_reports_but_pictures(program: Program, drawn: None) -> None:
    assert program.run(SYNCED, "--no-plots").code == 0
    run = program.latest()
    assert not (run / "plots").exists()
    assert "<svg" not in (run / "report.html").read_text(encoding="utf-8")
    assert {"history.npz", "junit.xml", "report.html", "results.json", "summary.md"} == {
        path.name for path in run.iterdir()
    }


def test_paranoid_compares_at_every_durability_event(program: Program) -> None:
    assert program.run(SYNCED, "--paranoid").code == 0
    found = program.results()["cases"][0]["cuts"]
    history = load_run(program.latest(), None).history
    events = durability_events(history)
    events = events[events <= history.end_ns]
    assert events.size == 10, "one for each sync"
    assert {cut["t_ns"] for cut in found} >= set(events.tolist())
    assert all(cut["lost_bytes"] == cut["compared_bytes"] for cut in found)
    assert program.run(SYNCED).code == 0
    assert len(program.results()["cases"][0]["cuts"]) < len(found)


def test_a_run_is_never_without_a_cut(program: Program) -> None:
    assert program.run(SYNCED.replace("random: 2", "random: 0")).code == 0
    assert len(program.results()["cases"][0]["cuts"]) == 1


def test_an_expectation_that_fails_is_exit_code_1_and_told_with_the_command(
    program: Program,
) -> None:
    answer = program.run(SMALL + "expect: {at_risk_max: <= 1KiB, broken_promises: 0}\n")
    assert answer.code == 1
    assert "at_risk_max" in answer.out and "25 KiB" in answer.out
    file = program.folder / "small.yaml"
    assert f"Again: crashsim run {file} --workers 1 --output {program.runs}\n" in answer.out
    verdicts = {e["metric"]: e["holds"] for e in program.results()["cases"][0]["expectations"]}
    assert verdicts == {"at_risk_max": False, "broken_promises": True}


def test_an_expected_loss_that_no_longer_happens_is_exit_code_1(program: Program) -> None:
    assert program.run(SYNCED + "expect: {broken_promises: '>= 1'}\n").code == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_configured_error_that_never_fires_is_exit_code_1_and_said(
    program: Program, options: tuple[str, ...]
) -> None:
    answer = program.run(SYNCED + "host: {fsync_errors: [1500ms]}\n", *options)
    assert answer.code == 1
    assert "never fired" in (answer.err if options else answer.out + answer.err)


def test_a_configured_error_that_fires_is_a_failed_sync(program: Program) -> None:
    assert program.run(SYNCED + "host: {fsync_errors: [500ms]}\n").code == 0
    case = program.results()["cases"][0]
    assert case["failed_syncs"] == 1
    assert case["acknowledged"] == 90, "a sync that failed acknowledges nothing"


def test_a_guest_that_writes_nothing_is_exit_code_5(program: Program) -> None:
    answer = program.run(SYNCED.replace("duration: 2s", "duration: 1ms"))
    assert answer.code == 5
    assert "wrote nothing" in answer.err
    assert not finished_runs(program.runs)


def test_results_do_not_depend_on_workers_or_on_hashing(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    contents = []
    for number, (workers, hashing) in enumerate([("1", "1"), ("2", "2")]):
        runs = tmp_path / str(number)
        arguments = ("run", file, "--workers", workers, "--output", runs)
        assert outside(*arguments, PYTHONHASHSEED=hashing).code == 0
        contents.append(
            [
                (runs / "small/latest" / name).read_bytes()
                for name in ("results.json", "history.npz")
            ]
        )
    assert contents[0] == contents[1]


def test_comparing_only_what_differs_finds_what_comparing_everything_finds(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SYNCED.replace("append-log", "key-value").replace(
        "record_size: 256B", "slots: 20, value_size: {min: 8B, max: 5KiB}"
    )
    assert program.run(text, "--paranoid").code == 0
    found = program.results()["cases"][0]["cuts"]
    assert any(cut["differing_bytes"] for cut in found)
    monkeypatch.setattr(comparison, "_apart", lambda one, other: (one, other))
    assert program.run(text, "--paranoid").code == 0
    assert program.results()["cases"][0]["cuts"] == found


def test_two_runs_at_once_take_different_names(tmp_path: Path) -> None:
    with (
        new_folder(tmp_path, "x", 1) as (first, first_final),
        new_folder(tmp_path, "x", 1) as (second, second_final),
    ):
        assert first != second and first_final != second_final
        assert first.is_dir(), "what goes on is no remnant"
    assert first_final.is_dir() and second_final.is_dir()


def test_latest_is_never_written_over_when_it_is_something_else(program: Program) -> None:
    latest = program.runs / "small" / "latest"
    for make in (latest.mkdir, latest.touch):
        latest.parent.mkdir(parents=True, exist_ok=True)
        make()
        answer = program.run(SMALL)
        assert answer.code == 2
        assert f"{latest}: expected a symbolic link that points to the latest run" in answer.err
        assert os.listdir(latest.parent) == ["latest"]
        latest.rmdir() if latest.is_dir() else latest.unlink()
    assert program.run(SMALL).code == 0


def test_latest_may_point_to_nothing(program: Program) -> None:
    latest = program.runs / "small" / "latest"
    latest.parent.mkdir(parents=True)
    latest.symlink_to("a-run-that-was-removed")
    assert program.run(SMALL).code == 0
    assert (latest / "results.json").exists()


@pytest.mark.parametrize("always", [False, True])
def test_a_case_whose_process_is_killed_is_tried_once_more_then_named(
    program: Program, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    run_case, tried = one.run_case, program.folder / "tried"

    def deadly(case: Case, paranoid: bool) -> Run:
        if "fdatasync" in case.name and (always or not tried.exists()):
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return run_case(case, paranoid)

    monkeypatch.setattr(one, "run_case", deadly)
    answer = program.run(SWEEP, "--workers", "2")
    assert tried.exists()
    if not always:
        assert answer.code == 0
        assert [case["name"] for case in program.results()["cases"]] == [
            "sync=call:none",
            "sync=call:fdatasync",
        ]
        return
    assert answer.code == 3
    assert "sync=call:fdatasync: the process that worked on it was killed by signal 9" in answer.err
    (folder,) = finished_runs(program.runs)
    document = json.loads((folder / "results.json").read_text())
    assert [case["name"] for case in document["cases"]] == ["sync=call:none"]
    assert folder.name.endswith("-interrupted") and document["interrupted"]


def test_two_runs_within_a_second_have_a_folder_each(program: Program) -> None:
    for _ in range(3):
        assert program.run(SYNCED).code == 0
    folders = {path.resolve() for path in finished_runs(program.runs)}
    assert len(folders) == 3


def test_a_workflow_gets_annotations_at_the_line_and_a_summary(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    text = SMALL + "expect:\n  at_risk_max: <= 1KiB\n"
    answer = program.run(text)
    assert answer.code == 1
    line = text.splitlines().index("  at_risk_max: <= 1KiB") + 1
    file = program.folder / "small.yaml"
    annotations = [row for row in answer.out.splitlines() if row.startswith("::error ")]
    assert len(annotations) == 1
    assert f"file={file},line={line}," in annotations[0]
    assert "at_risk_max" in summary.read_text() or "25 KiB" in summary.read_text()
    answer = program.run(text, "--json")
    json.loads(answer.out)
    assert "::error " in answer.err


def test_a_pipe_gets_no_colours_and_no_progress(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SYNCED)
    answer = outside("run", file, "--output", tmp_path / "runs", **environment())
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert answer.err == ""
