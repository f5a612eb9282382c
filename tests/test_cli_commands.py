"""The other commands: loss, compare, new, show and schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from crashsim.engine.units import exact_instant, format_bytes
from tests.cli_support import EXPERIMENTS, SMALL, SWEEP, SYNCED, Program


def test_loss_tells_in_words_what_the_results_say_in_numbers(program: Program) -> None:
    assert program.run(SMALL, "--set", "power.domains=[power-cut,vmm-kill]").code == 0
    cuts = program.results()["cases"][0]["cuts"]
    assert {cut["domain"] for cut in cuts} == {"power-cut", "vmm-kill"}
    for cut in cuts:
        at, domain = cut["t_ns"], cut["domain"]
        answer = program("loss", program.latest(), "--at", f"{at}ns", "--domain", domain)
        assert answer.code == 0
        first, told, acknowledged, *_ = answer.out.splitlines()
        assert first == f"{domain} at {exact_instant(at)}:"
        if cut["lost_bytes"]:
            assert format_bytes(cut["lost_bytes"]) in told
            assert f" {cut['unsaved_writes']} write" in told
        else:
            assert "nothing is lost" in told
        assert f" {cut['uncovered_acknowledgements']} would be lost" in acknowledged


def test_loss_names_writes_with_time_offset_and_layer(program: Program) -> None:
    assert program.run(SMALL).code == 0
    answer = program("loss", program.latest(), "--at", "1500ms")
    assert "write 0 (256 B at offset 0, made at 10.0024ms) was in the host's page" in answer.out
    assert "... and 90 more." in answer.out


def test_loss_asks_which_case(program: Program) -> None:
    assert program.run(SWEEP).code == 0
    answer = program("loss", program.latest(), "--at", "1s")
    assert answer.code == 2 and "sync=call:none" in answer.err
    answer = program("loss", program.latest(), "--at", "995ms", "--case", "sync=call:fdatasync")
    assert answer.code == 0 and "nothing is lost" in answer.out


@pytest.fixture
def runs(program: Program) -> dict[str, Path]:
    """Of one experiment, one run that syncs more than the other."""
    found = {}
    for name, every in (("better", 10), ("worse", 50)):
        assert program.run(SMALL + f"sync: {{call: fdatasync, every: {every} records}}\n").code == 0
        found[name] = program.latest().resolve()
    return found


def test_a_run_compared_with_itself_is_no_regression(
    program: Program, runs: dict[str, Path]
) -> None:
    assert program("compare", runs["worse"], runs["worse"]).code == 0
    file = runs["worse"] / "results.json"
    assert program("compare", file, runs["worse"]).code == 0


def test_a_worse_run_is_exit_code_1_unless_tolerated(
    program: Program, runs: dict[str, Path]
) -> None:
    answer = program("compare", runs["better"], runs["worse"])
    assert answer.code == 1
    assert "at_risk" in answer.out
    metrics = [
        f"{quantity}_{part}"
        for quantity in ("at_risk", "recovery_point")
        for part in ("max", "p50", "p99")
    ]
    options = [word for metric in metrics for word in ("--tolerance", f"{metric}=100000%")]
    assert program("compare", runs["better"], runs["worse"], *options).code == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 99}', "\0\1\2"])
def test_corrupt_results_are_refused(program: Program, runs: dict[str, Path], content: str) -> None:
    corrupt = program.write(content, "corrupt.json")
    for pair in ((corrupt, runs["worse"]), (runs["worse"], corrupt)):
        answer = program("compare", *pair)
        assert answer.code == 2
        assert "corrupt.json" in answer.err or "results: " in answer.err


def test_a_cut_history_is_refused(program: Program, runs: dict[str, Path]) -> None:
    path = runs["worse"] / "history.npz"
    path.write_bytes(path.read_bytes()[:5000])
    answer = program("loss", runs["worse"], "--at", "1s")
    assert answer.code == 2 and "not a History that can be read" in answer.err


def test_what_new_writes_runs_as_it_is_expected_to(program: Program) -> None:
    file = program.folder / "my.yaml"
    answer = program("new", file)
    assert answer.code == 0 and f"crashsim run {file}" in answer.out
    assert program("new").out == file.read_text()
    assert program("run", file, "--workers", "1", "--output", program.runs).code == 0
    assert program.results("my")["experiment"] == "my"


def test_new_overwrites_nothing(program: Program) -> None:
    file = program.write("mine")
    answer = program("new", file)
    assert answer.code == 2 and "exists already" in answer.err
    assert file.read_text() == "mine"
    assert program("new", program.folder / "nowhere" / "my.yaml").code == 2


def test_show_tells_where_each_value_came_from(program: Program) -> None:
    file = program.write(SYNCED)
    answer = program("show", file, "--set", "disk.profile=hdd", "--seed", "9")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert any("profile: hdd" in line and "--set disk.profile" in line for line in lines)
    assert any("seed: 9" in line and "--seed" in line for line in lines)
    assert any("dirty_expire: 30s" in line and "default" in line for line in lines)
    assert any("rate: 100/s" in line and "small.yaml:5" in line for line in lines)


def test_the_schema_is_one_that_editors_take_and_the_experiments_satisfy(
    program: Program,
) -> None:
    answer = program("schema")
    assert answer.code == 0
    schema = json.loads(answer.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    files = sorted(EXPERIMENTS.glob("*.yaml"))
    assert files
    for file in files:
        jsonschema.Draft202012Validator(schema).validate(
            YAML(typ="safe", pure=True).load(file.read_text())
        )


def test_annotations_of_a_comparison_go_to_the_step_summary(
    program: Program, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = program.folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert program("compare", runs["better"], runs["worse"]).code == 1
    assert "at_risk" in summary.read_text()
