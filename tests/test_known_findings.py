"""Findings that are known: they do not fail a run, and they have to happen."""

from __future__ import annotations

import json
import shlex
from typing import Any
from xml.etree import ElementTree

import pytest

from crashsim.errors import ExperimentError
from crashsim.experiment.loader import plan
from tests.cli_support import Program

CHECK = """
def check(image, acks):
    if image[512] and not image[0]:
        assert False, "hole at 0"
    if acks.count > 2 and not image[1024]:
        assert False, "lost 3"
"""
EXPERIMENT = """
device: {size: 64KiB}
guest: {file_system: none, access: direct}
workload: {kind: append-log, record_size: 512B, records: 4, acknowledge: before-sync}
sync: {call: fsync, every: 4 records}
explore: {states: 200, check: {function: "check.py:check"}}
"""
HOLE = {"outcome": "hole at *", "why": "the log has no checksums yet"}
LOST = {"outcome": "lost N", "why": "acknowledged too early"}


def run(program: Program, expect: dict[str, Any], *more: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, words, and the case's results."""
    (program.folder / "check.py").write_text(CHECK)
    text = EXPERIMENT + f"expect: {json.dumps(expect)}\n"
    answer = program.run(text, *more, name="log.yaml")
    cases = program.results("log")["cases"] if answer.code in (0, 1) else [{}]
    return answer.code, answer.out, cases[0]


def reasons(case: dict[str, Any]) -> dict[str, str]:
    return {one["outcome"]: one["known"] for one in case["exploration"]["findings"]}


def saved(program: Program) -> dict[str, str]:
    """The first finding of a run, kept beside the experiment."""
    _, _, case = run(program, {"findings": 2})
    (program.latest("log") / case["findings"][0]).rename(program.folder / "first.crashsim-finding")
    return {"finding": "first.crashsim-finding", "why": "nobody waits"}


def test_findings_that_are_known_are_told_and_fail_nothing(program: Program) -> None:
    code, words, case = run(program, {"findings": 0, "known": [HOLE, LOST]})
    assert code == 0, words
    assert reasons(case) == {"hole at N": HOLE["why"], "lost N": LOST["why"]}
    assert "for 2 known causes" in words
    assert "known: the log has no checksums yet" in words
    junit = ElementTree.parse(program.latest("log") / "junit.xml")
    told = [one.get("message") or "" for one in junit.iter("skipped")]
    assert f"known: {HOLE['why']}" in told and f"known: {LOST['why']}" in told
    assert not list(junit.iter("failure"))
    assert HOLE["why"] in (program.latest("log") / "summary.md").read_text().replace("\\", "")


def test_what_is_not_known_still_fails(program: Program) -> None:
    code, words, case = run(program, {"findings": 0, "known": [HOLE]})
    assert code == 1 and "findings == 0, but it was 1" in words
    assert reasons(case) == {"hole at N": HOLE["why"], "lost N": ""}


def test_a_known_finding_that_happens_no_more_fails_and_says_so(program: Program) -> None:
    gone = {"outcome": "torn *", "why": "it was so"}
    code, words, _ = run(program, {"findings": 0, "known": [HOLE, LOST, gone]})
    assert code == 1
    assert "known_findings >= 1 of 'torn *', but it was 0" in words
    junit = ElementTree.parse(program.latest("log") / "junit.xml")
    assert [one.get("type") for one in junit.iter("failure")] == ["expectation"]


def test_a_saved_finding_is_known_by_its_state_whatever_its_outcome_is_called(
    program: Program,
) -> None:
    file = saved(program)
    code, words, case = run(program, {"findings": 1, "known": [file]}, "--set", "seed=7")
    assert code == 0, words
    assert reasons(case) == {"lost N": "nobody waits", "hole at N": ""}


def test_a_saved_finding_that_is_not_possible_any_more_fails(program: Program) -> None:
    file = saved(program)
    code, words, _ = run(program, {"findings": 2, "known": [file]}, "--set", "guest.access=cached")
    assert code == 1 and "known_findings >= 1 of 'first.crashsim-finding', but it was 0" in words


def test_a_finding_of_another_space_is_refused(program: Program) -> None:
    file = saved(program)
    code, _, _ = run(program, {"known": [file]}, "--set", "explore.atom=4KiB")
    assert code == 2


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("[{outcome: a}]", "why"),
        ("[{why: b}]", "exactly one of outcome and finding"),
        ("[{outcome: a, finding: f, why: b}]", "exactly one of outcome and finding"),
    ],
)
def test_a_known_finding_has_one_name_and_a_reason(known: str, said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        plan(EXPERIMENT + f"expect: {{known: {known}}}\n", "log.yaml")


def test_nothing_is_known_where_nothing_is_explored() -> None:
    text = EXPERIMENT.replace("explore:", "description: x #")
    with pytest.raises(ExperimentError, match="nothing is explored"):
        plan(text + "expect: {known: [{outcome: a, why: b}]}\n", "log.yaml")


def advised(program: Program, *known: dict[str, str]) -> tuple[int, str]:
    """Exit code and words of `crashsim advise`."""
    (program.folder / "check.py").write_text(CHECK)
    # Acknowledged late enough for the simulation: only the checker finds fault.
    text = EXPERIMENT.replace(", acknowledge: before-sync", "")
    text += f"expect: {json.dumps({'findings': 0, 'known': known})}\n"
    answer = program("advise", program.write(text, "log.yaml"))
    return answer.code, answer.out


def test_what_is_known_is_no_loss_to_advise_either(program: Program) -> None:
    code, words = advised(program, HOLE)
    assert code == 0 and "ends it" not in words
    assert "rejects only what is known" in words and f"Known: {HOLE['why']}." in words
    shown = shlex.split(next(line for line in words.splitlines() if "Shown by" in line))[2:]
    assert program(*shown[1:], "--output", str(program.runs), "--workers", "1").code == 0


def test_what_is_not_known_is_still_a_loss_to_advise(program: Program) -> None:
    gone = {"outcome": "torn *", "why": "it was so"}
    code, words = advised(program, gone)
    assert "the checker rejects" in words and "Known: " not in words
    assert code == 0 and "1. ends it: no acknowledgement is lost in its run" in words
