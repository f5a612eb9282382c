"""Functions that do harm: each gets its verdict, and nobody else notices."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.by_function import FunctionChecker
from crashsim.checkers.spec import Function
from crashsim.checkers.verdict import verdict
from crashsim.engine.shared import SharedImage
from tests.checkers_support import ACKS, caller, image_of, processes_with, wait_until

HEAD = "import ctypes, os, signal, subprocess, sys, time\n\n\ndef check(image, acks):\n"
FINE = "if image[0] == 0:\n        return f'fine in {os.getcwd()}'\n    "


@pytest.fixture(autouse=True)
def nobody_notices(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing of this process is touched, nor does anything appear on its output."""
    before = caller()
    yield
    assert caller() == before
    assert capfd.readouterr() == ("", "")


@contextmanager
def function(
    folder: Path, body: str, time_limit_s: float = 20.0, memory_bytes: int = 1 << 30
) -> Iterator[FunctionChecker]:
    (folder / "mine.py").write_text(f"{HEAD}    {body}\n")
    made = Function(
        "mine.py:check", time_limit=time_limit_s, memory=memory_bytes, folder=folder
    ).checker()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("os._exit(0)", "ended: exit code 0"),
        ("os._exit(3)", "ended: exit code 3"),
        ("ctypes.string_at(0)", "died: SIGSEGV"),
        ("os.abort()", "died: SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "died: SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "died: SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", "KeyboardInterrupt"),
        ("sys.exit(0)", "SystemExit"),
        ("os.execv('/bin/true', ['true'])", "ended: exit code 0"),
        ("os.closerange(3, 1 << 10)", "ended: exit code 70"),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", "died: with its keeper"),
        ("os.killpg(0, signal.SIGKILL)", "died: SIGKILL"),
        ("import numpy; ctypes.memset(numpy.frombuffer(image).ctypes.data, 1, 1)", "died: SIGSEGV"),
        ("bytearray(1 << 31)", "MemoryError"),
    ],
)
def test_however_a_function_ends_it_is_a_crash_of_that_state_alone(
    tmp_path: Path, body: str, outcome: str
) -> None:
    image = image_of()
    fine = Verdict("ok", f"fine in {os.getcwd()}")
    with function(tmp_path, FINE + body) as checker:
        for _ in range(2):
            image[0] = 0
            assert checker.check(image, ACKS) == fine
            image[0] = 1
            found = checker.check(image, ACKS)
            assert (found.kind, found.outcome) == ("crash", outcome)
    assert image[0] == 1


def test_a_crash_of_a_library_is_told_with_its_place_and_what_was_printed(tmp_path: Path) -> None:
    with function(tmp_path, "print('opening it')\n    ctypes.string_at(0)") as checker:
        found = checker.check(image_of(), ACKS)
    told = r"killed by SIGSEGV\n__init__\.py:\d+, string_at\nopening it"
    assert re.fullmatch(told, found.message)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("while True: pass", "timed out"),
        ("time.sleep(1000)", "timed out"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)", "timed out"),
        ("os.write(1, b'x' * (1 << 22)); time.sleep(1000)", "timed out"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "stopped"),
    ],
)
def test_a_function_that_loops_and_one_that_was_stopped_are_told_apart(
    tmp_path: Path, body: str, outcome: str
) -> None:
    image = image_of(b"\1")
    with function(tmp_path, FINE + body, time_limit_s=0.3) as checker:
        found = checker.check(image, ACKS)
        assert (found.kind, found.outcome) == ("hang", outcome)
    with function(tmp_path, FINE + body) as checker:
        image[0] = 0
        assert checker.check(image, ACKS).kind == "ok"


def test_a_function_that_takes_too_long_is_followed_by_the_next_state(tmp_path: Path) -> None:
    image = image_of(b"\1")
    with function(tmp_path, FINE + "time.sleep(1000)", time_limit_s=5.0) as checker:
        assert checker.check(image, ACKS).kind == "hang"
        image[0] = 0
        assert checker.check(image, ACKS).kind == "ok"


def test_a_function_that_forks_answers_once(tmp_path: Path) -> None:
    body = 'who = os.fork()\n    return f\'{image[0]} {"parent" if who else "child"}\''
    image = image_of()
    with function(tmp_path, body) as checker:
        for number in range(20):
            image[0] = number
            assert checker.check(image, ACKS).outcome == f"{number} parent"


def test_what_a_function_starts_ends_with_its_answer(tmp_path: Path) -> None:
    start = "subprocess.Popen(['/bin/sleep', '1000.375'], start_new_session=True)"
    with function(tmp_path, f"{start}\n    return 'started'") as checker:
        assert checker.check(image_of(), ACKS).outcome == "started"
        assert processes_with("1000.375") == []
    with function(tmp_path, f"{start}\n    os._exit(0)") as checker:
        assert checker.check(image_of(), ACKS).outcome == "ended: exit code 0"
        assert processes_with("1000.375") == []


def test_a_function_begins_each_time_in_the_folder_where_the_user_is(tmp_path: Path) -> None:
    body = "here = os.getcwd()\n    os.chdir('/')\n    return here"
    with function(tmp_path, body) as checker:
        for _ in range(2):
            assert checker.check(image_of(), ACKS).outcome == os.getcwd()


def test_a_function_reads_nothing_from_us_and_has_none_of_our_files(tmp_path: Path) -> None:
    inherited = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    body = (
        "names = [os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')]\n"
        "    return f'{sys.stdin.read()!r} {\"/etc/passwd\" in names}'"
    )
    with function(tmp_path, body) as checker:
        assert checker.check(image_of(), ACKS).outcome == "'' False"
    os.close(inherited)


def test_what_it_prints_is_told_with_what_is_not_fine(tmp_path: Path) -> None:
    image = image_of()
    body = "print('looking at', image[0])\n    assert image[0] == 0, 'not zero'"
    with function(tmp_path, body) as checker:
        assert checker.check(image, ACKS) == Verdict("ok")
        image[0] = 7
        message = "not zero\nmine.py:6, check\nlooking at 7"
        assert checker.check(image, ACKS) == Verdict("finding", "", message)


def test_a_child_knows_the_acknowledgements_of_every_state(tmp_path: Path) -> None:
    labels = tuple(f"ack {number}" for number in range(9))
    given = Acks(labels, tuple((number, number + 1) for number in range(9)))
    other = Acks(("other",) * 3, ((5, 6), (7, 8), (9, 10)))
    plain = Acks(("",) * 3, ((0, 1), (1, 2), (2, 3)))
    every = [given.first(5), given.first(2), given, Acks(), given.first(7), other, given, plain]
    with function(
        tmp_path, "return f'{acks.labels[-3:]} {acks.records[-3:]} {acks.count}'"
    ) as checker:
        for acks in [*every, *reversed(every)]:
            expected = verdict("ok", f"{acks.labels[-3:]} {acks.records[-3:]} {acks.count}")
            assert checker.check(image_of(), acks) == expected
            assert checker.again(image_of(), acks, 1) == expected


def test_an_image_is_shown_as_it_is_whether_it_is_shared_or_not(tmp_path: Path) -> None:
    shared = SharedImage(1 << 16)
    given = [memoryview(shared).toreadonly(), image_of(), memoryview(bytearray(4096))]
    with function(tmp_path, "return f'{len(image)} {sum(image)}'") as checker:
        for number in range(1, 5):
            for image in given:
                target = shared if image.readonly else image
                target[number] = 1
                told = checker.check(image, ACKS, ()).outcome
                assert told == f"{image.nbytes} {number}"
    given.clear()
    del image, target, shared


def test_memory_of_the_image_does_not_count(tmp_path: Path) -> None:
    with function(tmp_path, "return str(len(bytearray(1 << 20)))", memory_bytes=1 << 26) as checker:
        assert checker.check(memoryview(SharedImage(1 << 30)), ACKS).outcome == str(1 << 20)


def _checks_in_a_child(checker: FunctionChecker, results: str) -> None:
    Path(results).write_text(checker.check(image_of(b"\2"), ACKS).outcome)
    checker.close()


def test_a_function_that_was_used_before_a_fork_works_in_both_processes(tmp_path: Path) -> None:
    with function(tmp_path, "return str(image[0])") as checker:
        assert checker.check(image_of(b"\1"), ACKS).outcome == "1"
        results = tmp_path / "results"
        child = multiprocessing.get_context("fork").Process(
            target=_checks_in_a_child, args=(checker, str(results))
        )
        child.start()
        child.join()
        assert results.read_text() == "2"
        child.close()
        assert checker.check(image_of(b"\3"), ACKS).outcome == "3"


def test_when_its_user_is_killed_all_of_it_ends(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"{HEAD}    subprocess.Popen(['/bin/sleep', '1000.4375'], start_new_session=True)\n"
        "    open('begun', 'w').close()\n"
        "    time.sleep(1000)\n"
    )
    code = (
        "import sys; from crashsim.checkers.spec import Function\n"
        "from tests.checkers_support import ACKS, image_of\n"
        "Function('mine.py:check', time_limit=1000).checker().check(image_of(), ACKS)\n"
    )
    root = str(Path(__file__).parents[1])
    user = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}
    )
    wait_until(lambda: (tmp_path / "begun").exists())
    assert processes_with("1000.4375")
    user.send_signal(signal.SIGKILL)
    user.wait()
    wait_until(lambda: not processes_with("1000.4375"))
