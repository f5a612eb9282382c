"""Every experiment that comes with crashsim says what it expects, and it comes true."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashsim.experiment.loader import load
from tests.cli_support import EXPERIMENTS, Program

FILES = sorted(EXPERIMENTS.glob("*.yaml"))


def test_there_are_experiments() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_meets_its_own_expectations(program: Program, file: Path) -> None:
    answer = program("run", file, "--workers", "1", "--output", program.runs)
    assert answer.code == 0, answer.out + answer.err
    cases = program.results(file.stem)["cases"]
    assert cases and all(case["expectations"] for case in cases)
    assert all(case["cuts"] and case["writes"] for case in cases)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_says_what_it_teaches(file: Path) -> None:
    assert file.read_text().startswith("# ")
    assert load(file).experiment.description
