"""Markdown, JUnit, GitHub's commands, and the folder that they are written into."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from crashsim.errors import OutputError
from crashsim.report.compare import compare
from crashsim.report.github import append_step_summary, error_annotations
from crashsim.report.junit import junit_xml
from crashsim.report.markdown import comparison_summary, escaped, summary
from crashsim.report.standing import headline
from crashsim.report.standing import sentences as verdict
from crashsim.report.words import told
from crashsim.report.write import json_text, write_reports
from crashsim.results import SCHEMA_VERSION, Expectation, Results, to_json
from tests import report_fixtures as fixtures

COMMAND = "crashsim run append-log.yaml --seed 1"


# Examples


def test_each_bad_case_is_told_by_one_example_before_any_by_a_second() -> None:
    lying = fixtures.lying_disk()
    (one,) = lying.examples
    many = replace(lying, examples=[one, one, replace(one, kind="hole")])
    other = fixtures.without_sync()
    found = told(fixtures.results(many, other), 10)
    assert [(case.name, example.kind) for case, example in found] == [
        ("disk=ignores-flush", "broken-promise"),
        ("sync=none", "at-risk-peak"),
        ("disk=ignores-flush", "hole"),
    ]
    assert len(told(fixtures.results(many, other), 1)) == 1


# Markdown


def test_the_summary_has_verdict_table_failures_and_examples() -> None:
    text = summary(fixtures.results(fixtures.lying_disk(), fixtures.with_sync()))
    assert text.startswith("## 🔴 crashsim")
    assert "\n\n❌ Not as expected: 2 of 3 expectations did not come true.\n\n" in text
    assert "799 flushes reported success" in text
    assert "\n| case | as expected | safe | at risk worst |" in text
    assert "### What would be lost, for example" in text


def test_a_loss_that_was_expected_is_as_expected_and_not_safe() -> None:
    text = summary(fixtures.story())
    assert text.startswith("## 🔴")
    assert "\n\n✅ As expected: all 4 expectations hold.\n\n" in text
    assert "| ✓ | no | 17.2 MiB |" in text
    assert "| ✓ | yes | 27.5 KiB |" in text


def test_only_a_run_that_shows_something_is_ticked() -> None:
    synced = summary(fixtures.results(fixtures.with_sync()))
    assert synced.startswith("## 🟢")
    assert "✅ As expected: the one expectation holds." in synced
    for doubtful in (
        fixtures.results(),
        fixtures.results(fixtures.case(writes=0)),
        replace(fixtures.story(), interrupted=True),
    ):
        text = summary(doubtful)
        assert "✅" not in text
        assert not text.startswith("## 🟢")


def test_every_row_of_a_table_has_as_many_cells_whatever_the_names() -> None:
    text = summary(fixtures.hostile())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {16}


def test_markdown_takes_a_name_for_its_letters() -> None:
    assert escaped("<b> [x](y) *z* `c` a|b\n# d") == (
        r"&lt;b&gt; \[x\]\(y\) \*z\* \`c\` a\|b\\n\# d"
    )


def test_a_comparison_in_markdown_groups_worse_tolerated_and_better() -> None:
    old, worse = fixtures.with_sync(), replace(fixtures.with_sync(), torn=2, flushes=1)
    text = comparison_summary(
        compare(to_json(fixtures.results(old)), to_json(fixtures.results(worse)), {})
    )
    assert text.startswith("## ❌ Regressed: 1 metric worse")
    assert "### Worse" in text
    assert "### Better" in text
    assert "### Tolerated" not in text
    assert "| `torn` | 0 | 2 | from 0 |" in text


# JUnit


def suite_of(results: Results) -> ElementTree.Element:
    root = ElementTree.fromstring(junit_xml(results, COMMAND))
    suite = root.find("testsuite")
    assert suite is not None
    return suite


def test_there_is_a_test_case_for_each_expectation_and_for_each_case_without() -> None:
    suite = suite_of(fixtures.results(fixtures.lying_disk(), fixtures.case("plain")))
    names = [test.get("name") for test in suite]
    assert names == [
        "safe",
        "broken_promises == 0",
        "at_risk_max <= 1MiB",
        "ran, nothing expected",
        "safe",
    ]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "2", "0")


def test_a_failure_carries_condition_actual_value_and_the_command() -> None:
    failure = suite_of(fixtures.results(fixtures.lying_disk())).find(".//failure")
    assert failure is not None
    assert failure.get("message") == "broken_promises == 0, but it was 799"
    for words in ("expected: broken_promises == 0", "actual: 799", COMMAND, "seed: 1"):
        assert words in (failure.text or "")


@pytest.mark.parametrize(
    "results",
    [
        fixtures.results(),
        fixtures.results(fixtures.case(writes=0)),
        replace(fixtures.story(), interrupted=True),
    ],
    ids=["no case", "no write", "interrupted"],
)
def test_a_run_that_shows_nothing_is_an_error(results: Results) -> None:
    suite = suite_of(results)
    assert suite.get("errors") == "1"
    assert suite.find(".//error") is not None


def test_names_of_every_kind_are_valid_xml() -> None:
    suite = suite_of(fixtures.hostile())
    assert '<script>alert("x")</script>' in (suite[0].get("classname") or "")


# GitHub


def test_a_failed_expectation_is_an_annotation_at_its_line() -> None:
    results = fixtures.results(fixtures.lying_disk())
    first, second = error_annotations(results, "a.yaml", {"broken_promises": 12})
    assert first == (
        "::error file=a.yaml,line=12,title=disk=ignores-flush::broken_promises == 0, but it was 799"
    )
    assert "line=1," in second
    assert error_annotations(fixtures.story(), "a.yaml", {}) == []


def test_no_text_can_end_an_annotation_or_start_another() -> None:
    bad = Expectation("m", "100%\n::error::x\r", 1, "", False)
    case = fixtures.case("a,b:c%\n", expectations=[bad])
    (line,) = error_annotations(fixtures.results(case), "dir,1/a:b.yaml", {})
    assert "\n" not in line
    assert "\r" not in line
    head, _, message = line.removeprefix("::error ").partition("::")
    assert head == r"file=dir%2C1/a%3Ab.yaml,line=1,title=a%2Cb%3Ac%25%0A"
    assert message == r"m 100%25\n::error::x\r, but it was 1"


def test_more_failures_than_github_shows_end_with_their_number() -> None:
    cases = [replace(fixtures.lying_disk(), name=str(i)) for i in range(20)]
    lines = error_annotations(fixtures.results(*cases), "a.yaml", {})
    assert len(lines) == 10
    assert lines[-1].endswith("::31 more failures: see the summary")


def test_a_run_that_shows_nothing_is_annotated() -> None:
    assert len(error_annotations(fixtures.results(), "a", {})) == 1
    assert len(error_annotations(fixtures.results(fixtures.case(writes=0)), "a", {})) == 1
    assert len(error_annotations(replace(fixtures.story(), interrupted=True), "a", {})) == 1


def test_the_step_summary_is_added_to_where_a_workflow_gives_one(tmp_path: Path) -> None:
    target = tmp_path / "summary"
    target.write_text("before\n")
    assert append_step_summary("## now\n", {"GITHUB_STEP_SUMMARY": str(target)})
    assert target.read_text() == "before\n## now\n\n"
    assert not append_step_summary("## now\n", {})
    with pytest.raises(OutputError, match="gone"):
        append_step_summary("", {"GITHUB_STEP_SUMMARY": str(tmp_path / "gone" / "x")})


# The folder


def test_all_reports_of_a_run_are_written(drawn: None, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    write_reports(fixtures.story(), folder, COMMAND)
    written = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    names = ("distribution", "layers", "price", "recovery-point", "risk")
    plots = [f"plots/{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert written == sorted(["junit.xml", "report.html", "results.json", "summary.md", *plots])
    assert fixtures.read(folder / "results.json") == fixtures.story()


def test_results_json_is_pure_json_on_one_line() -> None:
    text = json_text(fixtures.hostile())
    assert text.count("\n") == 1
    assert json.loads(text)["schema"] == SCHEMA_VERSION


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match=re.escape(str(blocked))):
        write_reports(fixtures.results(), blocked, COMMAND)


# Words


def test_the_verdict_begins_with_the_gravest() -> None:
    lying = fixtures.lying_disk()
    two = fixtures.results(lying, replace(lying, name="other"))
    lines = verdict(replace(two, interrupted=True))
    assert lines[0].startswith("Interrupted")
    assert lines[1].startswith("Promises are broken in 2 cases: in 'disk=ignores-flush'")


def test_the_verdict_of_a_synced_run_names_its_best_and_its_price() -> None:
    (line,) = verdict(fixtures.results(fixtures.with_sync(100), fixtures.with_sync(10)))
    assert "The price: 1,600 flushes, 3.2 s of waiting" in line
    assert "worth its price is 3.5 KiB ('sync=fdatasync, every=10 records'" in line


def test_a_program_that_acknowledges_nothing_is_not_praised_for_losing_no_record() -> None:
    silent = replace(fixtures.with_sync(), acknowledged=0)
    assert "acknowledged record" not in verdict(fixtures.results(silent))[0]


def test_flushes_that_nobody_waits_for_are_no_sync() -> None:
    journal_only = replace(fixtures.without_sync(), flushes=3)
    (line,) = verdict(fixtures.results(journal_only))
    assert line.startswith("Without a sync, a power cut takes 17.2 MiB at worst")
    assert "70,400" in headline(fixtures.results(journal_only)) and "70,400" not in line


def test_no_loss_is_said_plainly() -> None:
    (line,) = verdict(fixtures.results(fixtures.case()))
    assert line.startswith("With syncs, a power cut takes nothing at any instant.")
