"""What `make demo` runs shows a database that lives, loses and recovers, in one case."""

from __future__ import annotations

import re
from pathlib import Path

from crashsim.experiment.loader import load
from tests.cli_support import EXPERIMENTS, Program

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def test_the_demo_keeps_rows_and_loses_rows_more_often_than_it_has_no_database_yet(
    program: Program,
) -> None:
    found = re.search(r"^DEMO = (\S+)$", MAKEFILE.read_text(), flags=re.MULTILINE)
    assert found is not None
    file = EXPERIMENTS / f"{found[1]}.yaml"
    assert len(load(file).cases) == 1
    answer = program(
        "run", file, "--set", "explore.states=150", "--workers", "1", "--output", program.runs
    )
    (case,) = program.results(found[1])["cases"]
    outcomes = case["exploration"]["outcomes"]
    assert outcomes["ok"] > outcomes["not created yet"]
    assert outcomes["lost acknowledged rows"] > outcomes["not created yet"]
    assert "corrupt" not in outcomes
    assert "lost acknowledged rows" in answer.out
