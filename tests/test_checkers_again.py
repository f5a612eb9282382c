"""No answer counts as a failure unless it is given twice, and a time limit never does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.retry import PATIENCE, Confirmed
from crashsim.checkers.spec import Command, Function
from crashsim.explore.budget import Budget
from crashsim.explore.survey import Exploration, explore
from crashsim.report import causes
from tests import report_explored, report_fixtures
from tests.checkers_support import ACKS, image_of, python
from tests.explore_support import Write, target

OK, LOST, TORN = Verdict("ok"), Verdict("finding", "lost", "one"), Verdict("finding", "torn")
DIED, LATE = Verdict("crash", "died: SIGSEGV"), Verdict("hang", "timed out")
BROKEN = Verdict("broken", "", "no such program")


class Given:
    """A checker with given answers; keeps how it was asked."""

    def __init__(self, answers: Sequence[Verdict]) -> None:
        self._answers = iter(answers)
        self.asked: list[int] = []

    def check(self, image: memoryview, acks: Acks, changed: object = None) -> Verdict:
        return self.again(image, acks, 0)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self.asked.append(patience)
        return next(self._answers)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("answers", "verdict", "asked"),
    [
        ([OK], OK, [0]),
        ([LOST, LOST], LOST, [0, 1]),
        ([DIED, DIED], DIED, [0, 1]),
        ([BROKEN], BROKEN, [0]),
        ([LOST, BROKEN], BROKEN, [0, 1]),
        # Late answers are waited for, and count like others.
        ([LATE, OK], OK, [0, PATIENCE]),
        ([LATE, LATE], LATE, [0, PATIENCE]),
        ([LATE, LOST, LOST], LOST, [0, PATIENCE, PATIENCE]),
        ([LOST, LATE, LOST], LOST, [0, 1, PATIENCE]),
    ],
)
def test_what_is_not_fine_counts_when_it_is_said_twice(
    answers: list[Verdict], verdict: Verdict, asked: list[int]
) -> None:
    given = Given(answers)
    assert Confirmed(given).check(image_of(), ACKS) == verdict
    assert given.asked == asked


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([LOST, OK], "unstable: first lost, then ok"),
        ([LOST, TORN], "unstable: first lost, then torn"),
        ([DIED, OK], "unstable: first died: SIGSEGV, then ok"),
        ([Verdict("crash", "lost"), LOST], "unstable: first lost, then lost"),
        ([LATE, LOST, OK], "unstable: first lost, then ok"),
        ([LOST, LATE, LATE], "unstable: first lost, then timed out"),
        ([LATE, LOST, LATE], "unstable: first lost, then timed out"),
    ],
)
def test_different_answers_are_unstable_and_both_are_told(
    answers: list[Verdict], outcome: str
) -> None:
    found = Confirmed(Given(answers)).check(image_of(), ACKS)
    assert (found.kind, found.outcome) == ("unstable", outcome)
    assert found.message.startswith("first: ") and "\nthen: " in found.message


def test_a_function_is_asked_again_in_a_new_process(tmp_path: Path) -> None:
    """It goes wrong when it has been asked three times, whatever it is asked."""
    (tmp_path / "mine.py").write_text(
        "asked = []\ndef check(image, acks):\n    asked.append(1)\n    assert len(asked) < 3\n"
    )
    checker = Confirmed(Function("mine.py:check", folder=tmp_path).checker())
    kinds = [checker.check(image_of(), ACKS).kind for _ in range(6)]
    checker.close()
    assert kinds == ["ok", "ok", "unstable", "ok", "unstable", "ok"]


def test_a_command_is_asked_again_on_a_new_copy() -> None:
    """It rejects what it finds itself to have written."""
    spoils = (
        "import sys; f = open(sys.argv[1], 'r+b'); sys.exit(f.read(1) == b'x' or f.write(b'x'))"
    )
    checker = Confirmed(Command(f"{python(spoils)} {{image}}").checker())
    found = checker.check(image_of(), ACKS)
    checker.close()
    assert (found.kind, found.message) == ("finding", "exit code 1")


def test_a_function_that_is_late_once_has_more_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import os, time\ndef check(image, acks):\n"
        f"    if not os.path.exists('{tmp_path}/begun'):\n"
        f"        open('{tmp_path}/begun', 'w').close()\n"
        f"        time.sleep(1000)\n"
    )
    checker = Confirmed(Function("mine.py:check", time_limit=1.0, folder=tmp_path).checker())
    assert checker.check(image_of(), ACKS) == OK
    checker.close()


# Explorations

WRITES = [Write(n * 4096, bytes([n + 1]) * 512) for n in range(3)]


def explored_with(folder: Path, body: str, workers: int = 1) -> tuple[Exploration, str]:
    """All 8 states of three writes; a function that does that to each that has only the first, and
    the words for it."""
    head = "import ctypes, os, signal, time\n\n\ndef check(image, acks):\n"
    only = "    if (image[0], image[4096], image[8192]) == (1, 0, 0):\n"
    (folder / "mine.py").write_text(f"{head}{only}        {body}\n")
    one = replace(
        target(WRITES, lambda image, acks: ""),
        make_checker=lambda: Confirmed(
            Function("mine.py:check", time_limit=1.0, folder=folder).checker()
        ),
    )
    found = explore(one, Budget(100), seed=1, workers=workers)
    assert found.result.checked == 8
    return found, causes.verdict(found.result)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("os._exit(0)", "ended: exit code 0"),
        ("ctypes.string_at(0)", "died: SIGSEGV"),
        ("assert False", "assertion failed at mine.py:N, check"),
    ],
)
def test_a_function_that_ends_its_process_is_a_finding_of_the_state(
    tmp_path: Path, body: str, outcome: str, workers: int
) -> None:
    found, said = explored_with(tmp_path, body, workers)
    assert found.result.exit_code == 1
    assert found.result.outcomes == {"ok": 7, outcome: 1}
    (finding,) = found.findings
    assert (finding.outcome or finding.kind, finding.states) == (outcome, 1)
    assert said == f"1 was rejected, for 1 cause; outcomes: ok 7, {outcome} 1"


def test_a_function_that_always_ends_its_process_is_never_green(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\ndef check(image, acks): os._exit(0)\n")
    (tmp_path / "a.yaml").write_text(
        "device: {size: 64KiB}\nguest: {file_system: none}\n"
        "workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}\n"
        "explore: {states: 30, check: {function: 'mine.py:check'}}\n"
    )
    words = [sys.executable, "-m", "crashsim", "run", "a.yaml"]
    root = str(Path(__file__).parents[1])
    ended = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "does not accept the image without a cut" in ended.stderr
    assert "ended: exit code 0" in ended.stderr


def test_a_state_that_was_not_judged_in_time_is_no_finding_and_not_green(tmp_path: Path) -> None:
    found, said = explored_with(tmp_path, "time.sleep(1000)")
    assert (
        found.result.timed_out,
        found.result.unstable,
        found.result.failing,
        found.findings,
    ) == (1, 0, 0, ())
    assert not found.result.reached and found.result.exit_code == 4
    assert PATIENCE == 4
    assert said == (
        "none was rejected, 1 was not judged: in 1 the checker was not done in its time, nor in "
        "four times as much (ok 7, timed out 1)"
    )


def test_an_unstable_checker_is_called_so_and_no_finding_is_made_of_it(tmp_path: Path) -> None:
    mark = f"'{tmp_path}/' + str(time.monotonic_ns())"
    body = (
        f"import glob; open({mark}, 'w').close(); "
        f"assert len(glob.glob('{tmp_path}/[0-9]*')) % 2 == 0, 'odd'"
    )
    found, said = explored_with(tmp_path, body)
    assert (
        found.result.timed_out,
        found.result.unstable,
        found.result.failing,
        found.findings,
    ) == (0, 1, 0, ())
    assert not found.result.reached and found.result.exit_code == 4
    assert found.result.outcomes == {"ok": 7, "unstable: first finding, then ok": 1}
    assert said == (
        "none was rejected, 1 was not judged: in 1 it answered differently when it was asked "
        "again (ok 7, unstable: first finding, then ok 1)"
    )


def test_what_was_not_judged_is_said_beside_what_was_rejected() -> None:
    epoch = report_explored.epoch(0, 8, 8, 3)
    document = report_explored.exploration(
        epoch, findings=[report_explored.finding()], reached=False, timed_out=2, unstable=3
    )
    assert "3 were rejected, for 1 cause, 5 were not judged: in 2 the" in causes.verdict(document)
    clean = report_explored.exploration(report_explored.epoch(0, 8, 8), reached=False, unstable=1)
    case = replace(report_explored.clean(), exploration=clean)
    lines = causes.verdict_lines(report_fixtures.results(case), None)
    assert not any("accepts all" in line for line in lines)
    assert any("checked and judged" in line for line in lines)
