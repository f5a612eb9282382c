"""Every experiment that comes with crashsim says what it expects, and it comes true."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashsim.cli.conduct import NOT_COVERED
from crashsim.experiment.loader import load
from tests.cli_support import EXPERIMENTS, Program

FILES = sorted(EXPERIMENTS.glob("*.yaml"))


def test_there_are_experiments() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_meets_its_own_expectations(program: Program, file: Path) -> None:
    # Exploring all of the budget takes minutes; what is found is the subject of
    # test_sqlite_truth.py.
    explores = load(file).experiment.explore is not None
    little = ["--set", "explore.states=2"] if explores else []
    answer = program("run", file, *little, "--workers", "1", "--output", program.runs)
    assert answer.code == 0 or (explores and answer.code in (1, NOT_COVERED)), answer.err
    cases = program.results(file.stem)["cases"]
    assert cases and all(case["expectations"] for case in cases)
    assert all(case["cuts"] and case["writes"] for case in cases)
    judged = [e for case in cases for e in case["expectations"] if "findings" not in e["metric"]]
    assert judged and all(e["holds"] for e in judged), answer.out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_says_what_it_teaches(file: Path) -> None:
    assert file.read_text().startswith("# ")
    assert load(file).experiment.description
