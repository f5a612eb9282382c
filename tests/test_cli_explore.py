"""Exploring, from the experiment's text to exit codes, saved findings and reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.explore.survey import UNIT_STATES
from tests.cli_support import (
    EXPERIMENTS,
    PATIENCE_SECONDS,
    ROOT,
    Program,
    command,
    environment,
    outside,
    wait_until,
)
from tests.log_writer import flush, mark, write_log

LOG = """
device: {size: 64KiB}
workload: {kind: append-log, records: 6, record_size: 1500B}
sync: {call: fdatasync, every: %s}
explore: {states: %d, check: %s}
"""
SYNCED = LOG % ("1 record", 300, "{rule: acknowledged}")
FORGETS = LOG.replace("fdatasync", "msync-async") % ("2 records", 200, "{rule: acknowledged}")
HOLES = LOG % ("3 records", 300, "{rule: prefix}")

# Accepts every image, and notes each in `asked`. As long as there is a file `slowly` beside it, it
# waits with each, and with what comes after the first 500 until the file is gone: an exploration
# of more cannot end before, however busy the machine is.
CHECK = """
import os, pathlib, time

HERE = pathlib.Path(__file__).parent

def check(image, acks):
    with open(HERE / "asked", "ab") as file:
        file.write(b".")
    while (HERE / "slowly").exists():
        time.sleep(0.02)
        if (HERE / "asked").stat().st_size <= 500:
            break

def first(image, acks):
    check(image, acks)
    assert bytes(image[:1]) != b"\\0" or not acks.count, "nothing at the start"

def never(image, acks):
    raise AssertionError("it is always wrong")
"""

COMMAND = """
cd "$(dirname "$0")"
printf . >> asked
while test -e slowly; do
    sleep 0.02
    test "$(wc -c < asked)" -gt 500 || break
done
"""


@pytest.fixture
def crashsim(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Program:
    (tmp_path / "check.py").write_text(CHECK)
    (tmp_path / "check.sh").write_text(COMMAND)
    return Program(tmp_path, capfd)


def explored(crashsim: Program, name: str = "small") -> dict[str, Any]:
    document = crashsim.results(name)["cases"][0]["exploration"]
    assert isinstance(document, dict)
    return document


def saved(crashsim: Program, name: str = "small") -> Path:
    (path,) = (crashsim.latest(name) / "findings").iterdir()
    return path


def test_nothing_found_is_exit_code_0_and_says_how_much_was_checked(
    drawn: None, crashsim: Program
) -> None:
    answer = crashsim.run(SYNCED)
    assert answer.code == 0, answer.err
    document = explored(crashsim)
    assert document["checked"] == document["images"] > 50 and document["reached"]
    assert "all were accepted" in answer.out and "every image of every epoch was checked" in (
        answer.out
    )
    assert "As expected: the one expectation holds." in answer.out
    folder = crashsim.latest()
    assert not (folder / "findings").exists()
    assert {"states.svg", "outcomes.png"} <= {path.name for path in (folder / "plots").iterdir()}
    assert not list((crashsim.runs / "small").glob(".exploring*"))


def test_findings_are_exit_code_1_told_kept_and_drawn(drawn: None, crashsim: Program) -> None:
    answer = crashsim.run(HOLES)
    assert answer.code == 1
    assert "Finding 1: hole" in answer.out and "survived" in answer.out
    path = saved(crashsim)
    assert f"Again: crashsim replay {path.parent.parent.resolve()}/findings/" in answer.out
    lines = answer.out.splitlines()
    assert lines[-1].startswith("Report: ") and lines[-2].startswith("Again: crashsim run ")
    (finding,) = explored(crashsim)["findings"]
    picture = finding["picture"]
    assert picture["writes"] == 3 and any(row["taken"] for row in picture["rows"])
    folder = crashsim.latest()
    assert (folder / "plots" / "finding-1.png").stat().st_size > 1000
    assert "Finding 1: hole" in (folder / "report.html").read_text()
    assert "hole" in (folder / "summary.md").read_text()
    failure = ElementTree.parse(folder / "junit.xml").findtext(".//failure") or ""
    assert finding["story"][0] in failure


def test_findings_that_are_expected_are_exit_code_0_and_none_of_them_is_1(
    crashsim: Program,
) -> None:
    assert crashsim.run(HOLES + "expect: {findings: '>= 1'}\n").code == 0
    answer = crashsim.run(SYNCED + "expect: {findings: '>= 1'}\n")
    assert answer.code == 1
    assert "findings >= 1, but it was 0" in answer.out


def test_findings_are_expected_only_of_what_is_explored(crashsim: Program) -> None:
    text = SYNCED.partition("explore:")[0] + "expect: {findings: 0}\n"
    answer = crashsim.run(text)
    assert answer.code == 2
    assert "nothing is explored" in answer.err


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("{function: 'check.py:never'}", "does not accept the image without a cut"),
        ("{command: 'false'}", "does not accept the image without a cut"),
        ("{command: 'no-such-program {image}'}", "No such file"),
        ("{function: 'check.py:nobody'}", "nobody"),
    ],
)
def test_a_wrong_checker_is_exit_code_2_and_leaves_nothing(
    crashsim: Program, check: str, said: str
) -> None:
    answer = crashsim.run(LOG % ("1 record", 20, check))
    assert answer.code == 2
    assert said in answer.err
    assert not list(crashsim.runs.rglob("results.json"))


@pytest.mark.parametrize("change", ["explore.time=1ns", "explore.states=3"])
def test_a_budget_that_ends_too_early_is_exit_code_4_and_not_green(
    crashsim: Program, change: str
) -> None:
    answer = crashsim.run(SYNCED, "--set", change)
    assert answer.code == 4
    assert "not every state that the budget was for was checked and judged" in answer.out
    assert "Not enough was explored" in (crashsim.latest() / "report.html").read_text()
    assert ElementTree.parse(crashsim.latest() / "junit.xml").getroot().get("errors") == "1"


IDLE = """
devices:
- {name: idle, size: 64KiB, workload: {kind: recording, log: flushes.log}}
%s
explore: {states: 10, device: idle, check: {command: 'true'}}
"""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("", "the guest wrote nothing"),
        ("- {name: busy, size: 64KiB, workload: {kind: append-log, records: 3}}", "idle: nothing"),
    ],
    ids=["on one device", "on the explored device"],
)
def test_nothing_to_explore_is_exit_code_5_and_leaves_nothing(
    crashsim: Program, other: str, said: str
) -> None:
    write_log(crashsim.folder / "flushes.log", [flush(), mark("done"), flush()])
    answer = crashsim.run(IDLE % other)
    assert answer.code == 5
    assert answer.err.splitlines()[-1].startswith("Nothing explored: ")
    assert said in answer.err
    assert not list(crashsim.runs.rglob("results.json"))


def test_json_is_one_document_with_the_exploration(crashsim: Program) -> None:
    answer = crashsim.run(HOLES, "--json")
    assert answer.code == 1
    document = json.loads(answer.out)
    assert document["cases"][0]["exploration"]["findings"][0]["outcome"] == "hole"
    assert document["cases"][0]["findings"] == ["findings/small-1.crashsim-finding"]
    assert "findings == 0, but it was 1" in answer.err


def test_results_do_not_depend_on_the_number_of_workers(crashsim: Program) -> None:
    file = crashsim.write(HOLES)
    outs = [
        crashsim("run", file, "--json", "--workers", str(n), "--output", crashsim.folder / str(n))
        for n in (1, 2)
    ]
    assert outs[0].out == outs[1].out and outs[0].code == 1


def test_each_case_of_a_sweep_is_explored(crashsim: Program) -> None:
    sweep = "sweep: {product: {sync.call: [fdatasync, msync-async]}}\n"
    answer = crashsim.run(SYNCED + sweep)
    assert answer.code == 1
    cases = crashsim.results()["cases"]
    assert [case["name"] for case in cases] == ["call=fdatasync", "call=msync-async"]
    assert [bool(case["exploration"]["findings"]) for case in cases] == [False, True]
    assert cases[1]["findings"][0].startswith("findings/call-msync-async-1")
    rows = [line.split() for line in answer.out.splitlines() if line.startswith("small: ")]
    assert [row[1] for row in rows] == ["call=fdatasync", "call=msync-async"]


def test_several_experiments_end_with_a_table_and_the_worst_exit_code(crashsim: Program) -> None:
    files = [crashsim.write(SYNCED, "good.yaml"), crashsim.write(HOLES, "bad.yaml")]
    answer = crashsim("run", *files, "--workers", "1", "--output", crashsim.runs)
    assert answer.code == 1
    table = answer.out.splitlines()[-3:]
    assert table[0].split() == ["case", "images", "checked", "rejected", "findings", "outcomes"]
    assert table[1].split()[0] == "good" and table[1].endswith("ok 100 %")
    assert table[2].split()[0] == "bad" and "hole" in table[2]
    assert crashsim("run", *files, "--json").code == 2


def test_a_saved_finding_fails_again_and_then_no_more(crashsim: Program) -> None:
    checked = "{function: 'check.py:first'}"
    assert crashsim.run(FORGETS.replace("{rule: acknowledged}", checked)).code == 1
    path = saved(crashsim)
    again = crashsim("replay", path)
    assert again.code == 1
    assert "found:    finding" in again.out and "nothing at the start" in again.out
    assert "A power cut at" in again.out
    mended = CHECK.replace("assert bytes", "return  # assert bytes")
    (crashsim.folder / "check.py").write_text(mended)
    sys.modules.pop("check", None)
    again = crashsim("replay", path, "--trust")
    assert again.code == 0
    assert "found:    ok" in again.out


def test_the_image_of_a_finding_is_written_once(crashsim: Program) -> None:
    crashsim.run(HOLES)
    output = crashsim.folder / "out.img"
    answer = crashsim("replay", saved(crashsim), "--image", output)
    assert answer.code == 0
    assert answer.out.startswith(f"{output}: the image of ")
    assert answer.out.endswith(", 64 KiB; its checker was not run\n")
    image = output.read_bytes()
    assert len(image) == 64 << 10
    (finding,) = explored(crashsim)["findings"]
    (lost,) = finding["lost"]
    assert not any(image[lost["start"] : lost["start"] + lost["length"]])
    assert crashsim("replay", saved(crashsim), "--image", output).code == 2
    assert output.read_bytes() == image


def test_what_is_no_finding_is_exit_code_2(crashsim: Program) -> None:
    assert crashsim("replay", crashsim.write("{}", "x.crashsim-finding")).code == 2
    assert crashsim("replay", crashsim.folder / "nothing").code == 2


def test_saved_findings_run_first_and_fail_the_run_while_they_fail(crashsim: Program) -> None:
    crashsim.run(HOLES, name="bad.yaml")
    folder = saved(crashsim, "bad").parent
    answer = crashsim.run(SYNCED, "--findings", str(folder))
    assert answer.code == 1
    assert "still fails: hole" in answer.err and "survived" in answer.err
    assert crashsim.results()["cases"][0]["exploration"]["findings"] == []


def test_a_gate_begins_with_a_folder_without_findings(crashsim: Program) -> None:
    folder = crashsim.folder / "findings"
    answer = crashsim.run(SYNCED, "--findings", str(folder))
    assert answer.code == 2 and answer.err == f"Error: {folder}: no such folder\n"
    folder.mkdir()
    answer = crashsim.run(SYNCED, "--findings", str(folder))
    assert answer.code == 0
    assert answer.err.splitlines()[0] == f"{folder}: no saved findings yet, so none to replay"


def test_a_comparison_finds_new_findings(crashsim: Program) -> None:
    crashsim.run(SYNCED)
    old = crashsim.latest().resolve()
    crashsim.run(FORGETS)
    answer = crashsim("compare", old, crashsim.latest(), "--tolerance", "at_risk_max=1GiB")
    assert answer.code == 1
    (line,) = (line for line in answer.out.splitlines() if " findings " in line)
    assert line.split()[-1] == "worse"


def test_a_workflow_is_told_the_story(
    crashsim: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    answer = crashsim.run(HOLES)
    (line,) = (line for line in answer.out.splitlines() if line.startswith("::error"))
    assert ",line=5," in line and "%0AFinding 1: hole" in line
    assert "Finding" not in (tmp_path / "summary").read_text().split("###")[0]
    assert "**hole" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize(
    ("workers", "check"),
    [
        ("1", "{function: 'check.py:check'}"),
        ("2", "{function: 'check.py:check'}"),
        ("2", "{command: 'sh %s/check.sh'}"),
    ],
    ids=["a function", "a function and two workers", "a command and two workers"],
)
def test_an_interrupted_exploration_goes_on_where_it_was_and_ends_the_same(
    crashsim: Program, workers: str, check: str
) -> None:
    check = check.replace("%s", str(crashsim.folder))
    file = crashsim.write(LOG % ("6 records", 700, check))
    slowly, asked = crashsim.folder / "slowly", crashsim.folder / "asked"
    slowly.touch()
    process = subprocess.Popen(
        command("run", file, "--workers", workers, "--output", crashsim.runs),
        cwd=ROOT,
        env=environment(TMPDIR=str(crashsim.folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journals = crashsim.runs / "small"

    def some_kept() -> bool:
        return any(len(j.read_bytes().splitlines()) > 1 for j in journals.glob(".exploring*"))

    try:
        wait_until(some_kept, process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "run it again to go on" in err
    assert list(journals.glob(".exploring*"))
    (kept,) = journals.glob("*-interrupted/results.json")
    assert json.loads(kept.read_text())["interrupted"] is True
    slowly.unlink()
    asked.unlink()
    arguments = ("run", file, "--workers", workers, "--json", "--output")
    resumed = crashsim(*arguments, crashsim.runs)
    first = len(asked.read_bytes())
    whole = crashsim(*arguments, crashsim.folder / "others")
    second = len(asked.read_bytes()) - first
    assert resumed.code == whole.code == 0
    assert resumed.out == whole.out
    assert first <= second - UNIT_STATES  # a unit of work at least was not done again
    assert not list(journals.glob(".exploring*"))


@pytest.mark.skipif(
    shutil.which("debugfs", path=SYSTEM_PATH) is None, reason="e2fsprogs is not installed"
)
def test_a_shell_sees_the_files_of_a_finding_and_leaves_nothing(
    crashsim: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = crashsim.folder / "shell"
    shell.write_text('#!/bin/sh\npwd > "$(dirname "$0")/where"\nls > "$(dirname "$0")/seen"\n')
    shell.chmod(0o700)
    monkeypatch.setenv("SHELL", str(shell))
    finding = EXPERIMENTS / "findings" / "delete-full-journal-comes-back.crashsim-finding"
    done = outside("replay", finding, "--mount")
    assert done.code == 0, done.err
    assert "app.db" in (crashsim.folder / "seen").read_text().split()
    where = (crashsim.folder / "where").read_text().strip()
    assert where in done.err and not Path(where).exists()


def test_a_finding_whose_image_has_no_file_system_cannot_be_mounted(crashsim: Program) -> None:
    crashsim.run(HOLES)
    answer = crashsim("replay", saved(crashsim), "--mount")
    assert answer.code == 2 and "file system" in answer.err
