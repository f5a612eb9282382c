"""The one table of figures: what is derived from it, and one that is added from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crashsim.experiment.expect import Expect
from crashsim.report.compare import parse_tolerances
from crashsim.report.grids import COLUMNS
from crashsim.results import FIGURES, Domain, Figure, add_figure
from tests import report_fixtures as fixtures

ROOT = Path(__file__).parent.parent
FROM_OUTSIDE = """
from io import StringIO
EXAMPLE

import crashsim
from crashsim.experiment.schema import json_schema
from crashsim.report.compare import compare
from crashsim.report.html import html_report
from crashsim.report.markdown import comparison_summary, summary
from crashsim.report.readback import from_json
from crashsim.report.terminal import print_results
from crashsim.results import Results, to_json

run = crashsim.run({
    "device": {"size": "1MiB"},
    "workload": {"kind": "append-log", "records": 20},
    "sync": {"call": "fdatasync"},
    "expect": {"disk_flushes": ">= 1000"},
})
count = run.history.flush_disk_issue_ns.size
assert count and run.figures.added == {"disk_flushes": count}
(judged,) = run.figures.expectations
assert (judged.metric, judged.actual, judged.holds) == ("disk_flushes", count, False)
results = Results("mine", "", crashsim.__version__, 1, [run.figures])
out = StringIO()
print_results(results, out)
for text in (out.getvalue(), summary(results), html_report(results, [], "crashsim run")):
    assert "disk flushes" in text or "flushes</th>" in text, text
    assert "1000, but it was" in text.replace("&gt;", ">").replace(chr(92), ""), text
document = to_json(results)
assert from_json(document, "mine") == results
more = to_json(results)
more["cases"][0]["added"]["disk_flushes"] += 1
(change,) = compare(document, more, {}).changes
assert (change.metric, change.judgement) == ("disk_flushes", "worse")
assert "disk_flushes" in comparison_summary(compare(document, more, {}))
told = json_schema()["$defs"]["Expect"]["properties"]["disk_flushes"]
assert told["description"] == "FLUSHes that the disk was sent."
print("added")
"""


def test_a_figure_added_from_outside_is_expected_compared_and_printed(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    example = text.partition("as the others are:\n")[2].replace("\n    ", "\n")
    script = tmp_path / "mine.py"
    script.write_text(FROM_OUTSIDE.replace("EXAMPLE", example), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.endswith("added\n"), done.stderr


def test_results_with_a_figure_that_nobody_added_here_are_refused() -> None:
    from crashsim.errors import UsageError
    from crashsim.report.readback import from_json
    from crashsim.results import to_json

    case = replace(fixtures.case(), added={"disk_flushes": 3})
    document = to_json(fixtures.results(case))
    with pytest.raises(UsageError, match="added figures: expected none"):
        from_json(document, "theirs")


def test_a_figure_is_added_once_and_before_an_experiment_is_read() -> None:
    with pytest.raises(ValueError, match="there is a figure holes already"):
        add_figure("holes", lambda run: 0, Figure(says="Mine."))
    with pytest.raises(RuntimeError, match="before the first experiment"):
        add_figure("mine", lambda run: 0, Figure(says="Mine."))


def test_what_may_be_expected_and_tolerated_is_the_table() -> None:
    assert [*Expect.model_fields] == [*FIGURES, "known"]
    for name, figure in FIGURES.items():
        assert Expect.model_fields[name].description == figure.says
        assert parse_tolerances([f"{name}=5%"])


def test_every_figure_is_read_from_a_case_and_every_column_is_one() -> None:
    case = fixtures.case()
    assert {name: figure.of(case) for name, figure in FIGURES.items()}.keys() == FIGURES.keys()
    shown = [figure.column for figure in FIGURES.values() if figure.column]
    assert len({column.place for column in shown}) == len(shown) == len(COLUMNS) - 1
    assert [one.column.place for one in COLUMNS] == sorted(one.column.place for one in COLUMNS)


def test_failure_domains_are_the_same_everywhere() -> None:
    listed = {
        "docs/results.md": r"\| `domain` \| text \| what failed: (.*) \|",
        "README.md": r"`--domain` chooses what fails: ((?:.|\n)*?)\. ",
        "crashsim/experiment/starter.yaml": r"domains: \[power-cut\] +# ((?:.|\n)*?)\n *[a-z]\w*:",
    }
    for place, pattern in listed.items():
        found = re.search(pattern, (ROOT / place).read_text(encoding="utf-8"))
        assert found, place
        assert re.findall(r"[a-z]+(?:-[a-z]+)*", found[1]) == [*Domain], place
