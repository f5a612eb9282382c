"""The benchmark with a stand-in for crashsim: its table, its comparisons, its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import crashsim_side, harness, measure, users
from benchmarks.simpy_model import SimpyOutcome

FAKE = "tests.bench_side"
OUTCOME = SimpyOutcome([5, 9], [8, 0], 1, 4096, 10, 3, 4, 0)
FIGURES = {
    "flushes": 1,
    "bytes_written": 4096,
    "end_ns": 10,
    "guest_wait_ns": 3,
    "recovery_point_max_ns": 4,
    "broken_promises": 0,
}


def test_a_quick_run_prints_a_table_and_writes_every_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "bench.json"
    assert command.main(["--quick", "--json", str(target)], side=FAKE) == 0
    output = capsys.readouterr().out
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["problems"] == []
    assert document["compared_steps"] > 0
    assert document["cpu"] in output and document["numpy"] in output
    for row in document["rows"]:
        assert f"| {row['name']} |" in output
        assert len(row["values"]) == harness.QUICK.repeats
        assert 0 < row["min"] <= row["median"] <= row["max"]
    aims = [row["aim"] for row in document["rows"] if row["aim"]]
    assert aims == [
        "at least 3, aim 10",
        "at most 2,048",
        "at most 11",
        "at least 50,000",
        "at least 30",
        "at least 80",
        "under 10",
    ]


def test_a_simulator_that_disagrees_with_simpy_fails_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rows in ("_user_rows", "_stack_rows", "_synced_rows", "_image_rows", "_explore_rows"):
        monkeypatch.setattr(harness, rows, lambda *_: None)
    assert command.main(["--quick"], side="tests.bench_side_wrong") == 1
    captured = capsys.readouterr()
    assert "| what |" in captured.out
    assert "loss values" in captured.err


def test_a_measurement_that_breaks_off_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["--quick"], side="tests.no_such_side") == 3
    errors = capsys.readouterr().err
    assert "no_such_side" in errors
    assert "Traceback" not in errors


def test_an_unwritable_file_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "run", lambda *_args, **_names: report_of())
    assert command.main(["--json", str(tmp_path / "missing" / "x.json")], side=FAKE) == 2
    captured = capsys.readouterr()
    assert "missing" in captured.err
    assert "| what |" in captured.out  # the measurements are not lost


def report_of() -> harness.Report:
    return harness.Report("2026-01-01", "a processor", "3.11", "2.0", compared_steps=1)


def test_equal_results_have_no_differences() -> None:
    instants, values = np.array([5, 9]), np.array([8, 0])
    assert measure.differences(OUTCOME, instants, values, FIGURES) == []


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_figure_is_compared(name: str) -> None:
    figures = FIGURES | {name: FIGURES[name] + 1}
    found = measure.differences(OUTCOME, np.array([5, 9]), np.array([8, 0]), figures)
    assert [line.partition(":")[0] for line in found] == [name]


@pytest.mark.parametrize(
    ("instants", "values", "words"),
    [
        ([5, 8], [8, 0], "first difference at 1: [8] against [9]"),
        ([5], [8], "1 against 2 in SimPy, first difference at 1: [] against"),
        ([5, 9, 11], [8, 0, 1], "3 against 2 in SimPy, first difference at 2"),
        ([5, 9], [7, 0], "loss values: 2 against 2 in SimPy, first difference at 0: [7]"),
    ],
)
def test_a_different_step_is_told_by_its_place(
    instants: list[int], values: list[int], words: str
) -> None:
    found = measure.differences(OUTCOME, np.array(instants), np.array(values), FIGURES)
    assert words in "\n".join(found)


def test_crashsim_and_the_simpy_model_agree_about_what_is_measured() -> None:
    found = measure.equality(crashsim_side, stores=100, span_bytes=64 * 4096)
    assert found["different"] == [] and found["steps"] > 0


def test_comparing_nothing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(_side: str, name: str, _options: dict[str, int]) -> harness.Answer:
        if name in ("versus", "equality"):
            return {"crashsim_s": 1, "simpy_s": 1, "plain_s": 1, "steps": 0, "different": []}
        sizes = {"pages": 1, "rebuild_s": 1, "size_bytes": 0}
        steps = {"generate_s": 1, "simulate_s": 1, "loss_s": 1, "peak_bytes": 1}
        explored = {
            "seconds": 1,
            "cpu_s": 1,
            "explored": 1,
            "spawned": 1,
            "share": 1,
            "checked": 0,
        }
        recorded = {"atoms": 0, "log_bytes": 1}
        return {**sizes, **steps, **explored, **recorded, "steps": 0, "flushes": 0}

    monkeypatch.setattr(harness, "measure", empty)
    problems = harness.run(replace(harness.QUICK, device_bytes=0)).problems
    assert problems == [
        "a measurement had no states by a Python function",
        "a measurement had no states by /bin/true",
        "a measurement had no steps of the loss",
        "a measurement had no flushes",
        "a measurement had no checked states",
        "a measurement had no atoms",
        "nothing was compared with SimPy",
    ]


def test_a_plain_loop_counts_each_byte_once_until_the_sync() -> None:
    offset, length = [0, 4, 4096, 0, 8], [8, 8, 4, 8, 2]
    assert users.plain(offset, length, 4) == [8, 12, 16, 16, 0, 2]


def test_sizes_are_told_in_the_largest_unit_that_divides_them() -> None:
    assert [harness.binary(size) for size in (1 << 30, 1 << 40, 3 << 20, 1000)] == [
        "1 GiB",
        "1 TiB",
        "3 MiB",
        "1,000 B",
    ]
