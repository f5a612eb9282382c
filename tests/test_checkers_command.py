"""Programs as checkers: what they see, what their end means, and that nothing of them stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashsim.checkers import Acks, self_test
from crashsim.checkers.by_command import CommandChecker
from crashsim.checkers.scratch import base_folder, sweep
from crashsim.checkers.spec import Command
from crashsim.errors import UsageError
from tests.checkers_support import (
    ACKS,
    IMAGE_BYTES,
    caller,
    image_of,
    once,
    own_prefix,
    processes_with,
    python,
    wait_until,
)


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    return own_prefix(monkeypatch)


@pytest.fixture(autouse=True)
def nothing_stays(prefix: str) -> Iterator[None]:
    """No test leaves a folder of its own behind, or a child, or changes this process."""
    before = caller()
    yield
    assert caller() == before
    assert not list(base_folder().glob(f"{prefix}*"))


# What it sees


def test_a_command_finds_the_image_under_a_path() -> None:
    code = "import sys; sys.exit(open(sys.argv[1], 'rb').read(5) != b'bytes')"
    assert once(f"{python(code)} {{image}}", image_of(b"bytes")).kind == "ok"
    assert once(f"{python(code)} {{image}}", image_of(b"other")).kind == "finding"


def test_a_command_finds_the_image_under_the_name_that_the_guest_knows() -> None:
    checker = Command("/usr/bin/basename {device}").checker(device="/dev/pmem7")
    assert checker.check(image_of(), ACKS).message == "pmem7"
    checker.close()
    assert once("/bin/grep -q bytes {device}", image_of(b"bytes")).kind == "ok"


def test_placeholders_are_filled_once_and_doubled_braces_stay() -> None:
    code = "import sys; print(sys.argv[1:])"
    checker = Command(
        f"{python(code)} a{{acks}}b {{{{image}}}} ${{HOME}} {{}} {{1,2}} }}}}"
    ).checker()
    said = checker.check(image_of(), ACKS).message
    checker.close()
    assert said.endswith("b', '{image}', '${HOME}', '{}', '{1,2}', '}}']")
    assert "{acks}" not in said


def test_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown placeholder \{ack\}.*\{acks\}"):
        Command("true {ack}").checker()


def test_a_command_finds_one_acknowledgement_on_each_line() -> None:
    assert once("/bin/cat {acks}").message == "ready\nack 0"


def test_acknowledgements_without_a_label_are_their_writes() -> None:
    assert once("/bin/cat {acks}", acks=Acks(("", ""), ((0, 1), (1, 3)))).message == "0 1\n1 3"


def test_acknowledgements_are_those_of_each_state() -> None:
    checker = Command("/bin/cat {acks}").checker()
    assert checker.check(image_of(), ACKS.first(1), None).message == "ready"
    assert checker.check(image_of(), ACKS, ()).message == "ready\nack 0"
    assert checker.check(image_of(), ACKS.first(0), ()).message == ""
    checker.close()


def test_the_paths_are_in_the_environment_and_little_else_is() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "1")
        said = once("/usr/bin/env").message
    names = {line.partition("=")[0] for line in said.splitlines()}
    ours = {f"CRASHSIM_{name}" for name in ("IMAGE", "DEVICE", "ACKS", "MNT")}
    assert names == {"PATH", "HOME", "TMPDIR", *ours}


def test_a_command_begins_in_an_empty_folder_and_what_it_leaves_there_is_removed() -> None:
    code = "import os; print(os.listdir()); os.mkdir('a'); open('b', 'w'); os.chmod('a', 0)"
    checker = Command(python(code)).checker()
    for _ in range(2):
        assert checker.check(image_of(), ACKS, ()).message == "[]"
    checker.close()


def test_a_command_reads_nothing_from_us_and_has_none_of_our_files() -> None:
    assert once("/bin/cat").message == ""
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    assert once("/bin/sh -c 'ls /proc/$$/fd; true'").message.split() == ["0", "1", "2"]
    os.close(inherited)


def test_words_that_name_files_are_found_from_where_the_user_is(tmp_path: Path) -> None:
    (tmp_path / "check.sh").write_text("exit 3")
    checker = Command("sh check.sh", folder=tmp_path).checker()
    assert "exit code 3" in checker.check(image_of(), ACKS).message
    checker.close()


@pytest.mark.parametrize("template", ["", "  ", "sh 'unclosed"])
def test_a_command_that_is_none_is_a_mistake_of_the_user(template: str) -> None:
    with pytest.raises(UsageError):
        Command(template).checker()


# What its end means


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/bin/true", "ok"),
        ("/bin/false", "finding"),
        ("/bin/sh -c 'exit 125'", "finding"),
        ("/bin/sh -c 'exit 126'", "broken"),
        ("/bin/sh -c 'exit 127'", "broken"),
        ("/bin/sh -c 'kill -SEGV $$'", "crash"),
        ("/bin/sh -c 'kill -KILL $$'", "crash"),
    ],
)
def test_how_it_ends_is_the_kind_of_the_verdict(command: str, kind: str) -> None:
    assert once(command).kind == kind


def test_a_signal_is_named() -> None:
    assert "SIGSEGV" in once("/bin/sh -c 'kill -SEGV $$'").message


@pytest.mark.parametrize("command", ["no-such-program {image}", "./no/such/file", "/etc/passwd"])
def test_a_program_that_cannot_be_found_or_started_is_broken_and_named(command: str) -> None:
    found = once(command)
    assert found.kind == "broken"
    assert command.split()[0] in found.message


def test_a_command_that_hangs_is_killed_when_its_time_is_up() -> None:
    found = once("/bin/sh -c 'echo begun; exec sleep 1000.25'", time_limit_s=0.2)
    assert found.kind == "hang"
    assert "begun" in found.message
    assert processes_with("1000.25") == []


def test_a_command_that_ignores_every_signal_is_killed_too() -> None:
    ignore = "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]"
    code = f"import signal, time; {ignore}; time.sleep(99)"
    assert once(python(code), time_limit_s=0.3).kind == "hang"


def test_the_last_outcome_that_it_prints_is_the_outcome() -> None:
    said = "/usr/bin/printf 'outcome: first\\nmore\\noutcome:  lost  rows \\n'"
    assert once(said).outcome == "lost rows"
    assert once("/bin/sh -c 'echo outcome: torn; exit 1'").outcome == "torn"
    assert once("/bin/true").outcome == ""


def test_output_that_is_no_text_does_no_harm() -> None:
    found = once("/usr/bin/printf 'outcome: \\377\\000\\033[31m\\n\\200'")
    assert found.kind == "ok"
    assert found.outcome == "\ufffd\\x00\\x1b[31m"
    found.message.encode()


# What is contained


@pytest.mark.parametrize("leaver", ["sleep 1000.75", "setsid sleep 1000.75"])
@pytest.mark.parametrize("end", ["exit 0", "kill -9 $$", "sleep 1000.75"])
def test_grandchildren_do_not_outlive_it(leaver: str, end: str) -> None:
    once(f"/bin/sh -c '{leaver} & sleep 0.1; {end}'", time_limit_s=0.5)
    assert processes_with("1000.75") == []


def test_a_child_that_we_had_before_is_left_alone() -> None:
    mine = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    mine.start()
    assert once("/bin/sh -c 'setsid sleep 1000.5 & exit 0'").kind == "ok"
    assert processes_with("1000.5") == []
    assert mine.is_alive()
    mine.terminate()
    mine.join()


def test_a_child_that_another_thread_starts_meanwhile_is_left_alone(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    mine: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        wait_until(begun.exists)
        mine.append(subprocess.Popen(["/bin/sleep", "60"]))
        begun.unlink()

    thread = threading.Thread(target=start)
    thread.start()
    waits = f"/bin/sh -c 'touch {begun}; while test -e {begun}; do sleep 0.01; done'"
    assert once(waits, time_limit_s=60).kind == "ok"
    thread.join()
    assert mine[0].poll() is None
    mine[0].kill()
    mine[0].wait()


@pytest.mark.parametrize("program", ["exec sleep 1000.25", "setsid sleep 1000.25 & sleep 1000.25"])
def test_when_its_user_is_killed_all_of_a_command_ends(program: str, prefix: str) -> None:
    code = (
        "import sys, crashsim.checkers.scratch as folder; folder._PREFIX = sys.argv[1]\n"
        "from crashsim.checkers.spec import Command\n"
        "from tests.checkers_support import ACKS, image_of\n"
        "Command(sys.argv[2], time_limit=1000).checker().check(image_of(), ACKS)\n"
    )
    words = [sys.executable, "-c", code, prefix, f"/bin/sh -c '{program}'"]
    user = subprocess.Popen(words, cwd=Path(__file__).parents[1])
    wait_until(lambda: len(processes_with("1000.25")) == program.count("1000.25"))
    user.send_signal(signal.SIGKILL)
    user.wait()
    wait_until(lambda: not processes_with("1000.25"))
    sweep()


def test_a_command_that_kills_who_runs_it_is_a_crash_and_the_next_state_is_checked() -> None:
    checker = Command("/bin/sh -c 'if grep -q deadly $0; then kill -9 $PPID; fi' {image}").checker()
    for _ in range(2):
        found = checker.check(image_of(b"deadly"), ACKS)
        assert (found.kind, found.outcome) == ("crash", "died: with its helper")
        assert checker.check(image_of(b"fine"), ACKS).kind == "ok"
    checker.close()


def test_an_interrupt_ends_a_command_and_the_checker_can_be_used_again(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    once_only = f"if ! test -e {begun}; then touch {begun}; sleep 1000.375; fi"
    checker = Command(f"/bin/sh -c '{once_only}'", time_limit=1000).checker()

    def interrupt() -> None:
        wait_until(begun.exists)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        checker.check(image_of(), ACKS)
    thread.join()
    assert processes_with("1000.375") == []
    assert checker.check(image_of(), ACKS).kind == "ok"
    checker.close()


def test_limits_are_inherited_from_who_starts_it() -> None:
    """So no program has a moment without them."""
    files = "/proc/$PPID/limits /proc/self/limits"
    said = once(f"/bin/sh -c 'grep -h -e address -e file.size {files}'").message
    lines = [(line[:25].strip(), line[25:].split()[:2]) for line in said.splitlines()]
    assert lines[:3] == lines[3:]
    limits = dict(lines)
    assert limits["Max address space"] == [str(2 << 30)] * 2
    assert limits["Max file size"] == [str((2 << 30) + IMAGE_BYTES)] * 2
    assert limits["Max core file size"] == ["0", "0"]


def test_a_command_that_fills_memory_is_stopped() -> None:
    code = "b = bytearray(1 << 30); print('had it all')"
    found = once(python(code), memory_bytes=200 << 20)
    assert found.kind == "finding"
    assert "MemoryError" in found.message
    assert "had it all" in once(python(code)).message


def test_a_file_larger_than_image_and_memory_together_cannot_be_written() -> None:
    code = "f = open('big', 'wb'); f.truncate(1 << 40)"
    assert once(python(code)).kind in ("crash", "finding")


def test_endless_output_is_bounded_and_ends_with_its_time() -> None:
    found = once("/usr/bin/yes outcome: endless", time_limit_s=0.3)
    assert found.kind == "hang"
    assert found.outcome == "endless"
    assert len(found.message) <= 2000


def test_a_lot_of_output_blocks_nobody_and_the_end_of_it_is_read() -> None:
    code = "print('x' * (1 << 22)); print('outcome: after all that')"
    found = once(python(code))
    assert (found.kind, found.outcome) == ("ok", "after all that")


def test_no_core_file_is_written() -> None:
    assert once("/bin/sh -c 'ulimit -c'").message == "0"


def test_a_command_gets_default_signals() -> None:
    said = once("/bin/grep SigIgn /proc/self/status").message
    ignored = int(said.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


# The next state


WRITERS = {
    "writes": "f = open(p, 'r+b'); f.seek(4096); f.write(b'x' * 8192)",
    "maps": "import mmap; f = open(p, 'r+b'); m = mmap.mmap(f.fileno(), 0); m[9000] = 1",
    "cuts": "import os; os.truncate(p, 100)",
    "cuts and grows": "import os; n = os.stat(p).st_size; os.truncate(p, 0); os.truncate(p, n)",
    "lengthens": "open(p, 'ab').write(b'more')",
    "removes": "import os; os.unlink(p)",
    "replaces": "import os; open(p + '2', 'wb').write(b'new'); os.rename(p + '2', p)",
    "makes a folder of it": "import os; os.unlink(p); os.mkdir(p); open(p + '/a', 'w')",
    "takes permissions": "import os; os.chmod(p, 0)",
    "removes everything": "import os, shutil; shutil.rmtree(os.path.dirname(p))",
    "writes acknowledgements": "open(os.environ['CRASHSIM_ACKS'], 'w').write('all lost')",
    "links the device": "import os; os.unlink(d); os.symlink('/dev/null', d)",
    "fills the files": "open(os.environ['CRASHSIM_MNT'] + '/a', 'w')",
}


@pytest.mark.parametrize("writes", WRITERS)
@pytest.mark.parametrize("hint", [True, False])
def test_nothing_that_it_does_to_its_files_reaches_another_state(writes: str, hint: bool) -> None:
    """It looks at everything, then spoils it; the second time it must see the second state."""
    look = (
        "import hashlib, os, sys; p = os.environ['CRASHSIM_IMAGE'];"
        "d = os.environ['CRASHSIM_DEVICE']; a = open(os.environ['CRASHSIM_ACKS']).read();"
        "print('outcome:', hashlib.sha256(open(d, 'rb').read()).hexdigest()[:16], repr(a),"
        "os.stat(p).st_size, os.listdir(os.environ['CRASHSIM_MNT']));"
    )
    image = image_of(b"first" * 1000)
    image[40000:40004] = b"tail"
    expected = Command(python(look)).checker()
    spoiling = Command(python(look + WRITERS[writes])).checker()
    assert spoiling.check(image, ACKS).outcome == expected.check(image, ACKS).outcome
    image[20000:20006] = b"second"
    changed = [(20000, 20006)] if hint else None
    again = spoiling.check(image, ACKS, changed)
    assert again.kind == "ok", again.message
    assert again.outcome == expected.check(image, ACKS).outcome
    spoiling.close()
    expected.close()


def test_the_image_that_was_given_is_never_written() -> None:
    image = image_of(b"mine")
    before = bytes(image)
    once(python("import os; open(os.environ['CRASHSIM_IMAGE'], 'w')"), image)
    assert bytes(image) == before


def test_only_what_changed_is_written_when_nobody_else_wrote() -> None:
    """The proof that a hint is used: what is not in it stays as it was."""
    image = image_of(b"old")
    checker = Command("/usr/bin/head -c 3 {image}").checker()
    assert checker.check(image, ACKS).message == "old"
    image[:3] = b"new"
    assert checker.check(image, ACKS, [(4096, 4097)]).message == "old"
    assert checker.check(image, ACKS, [(0, 3)]).message == "new"
    checker.close()


def test_an_image_of_another_size_gets_a_file_of_its_own() -> None:
    checker = Command("/usr/bin/stat -c %s {image}").checker()
    assert checker.check(image_of(), ACKS).message == str(IMAGE_BYTES)
    assert checker.check(image_of(size_bytes=4096), ACKS, ()).message == "4096"
    checker.close()


# Processes that use one


def _checks_in_a_child(checker: CommandChecker, results: str) -> None:
    found = checker.check(image_of(b"child"), ACKS)
    Path(results).write_text(found.message)


def test_a_checker_that_was_used_before_a_fork_works_in_both_processes(tmp_path: Path) -> None:
    checker = Command("/usr/bin/head -c 5 {image}").checker()
    assert checker.check(image_of(b"first"), ACKS).message == "first"
    results = tmp_path / "results"
    child = multiprocessing.get_context("fork").Process(
        target=_checks_in_a_child, args=(checker, str(results))
    )
    child.start()
    child.join()
    assert results.read_text() == "child"
    assert checker.check(image_of(b"first"), ACKS, ()).message == "first"
    checker.close()


def _killed_while_it_has_a_folder(checker: CommandChecker) -> None:
    checker.check(image_of(), ACKS)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_folder_of_a_killed_process_is_removed_by_the_next(prefix: str) -> None:
    checker = Command("/bin/true").checker()
    child = multiprocessing.get_context("fork").Process(
        target=_killed_while_it_has_a_folder, args=(checker,)
    )
    child.start()
    child.join()
    (left,) = base_folder().glob(f"{prefix}*")
    checker.check(image_of(), ACKS)
    assert not left.exists()
    checker.close()


# First of all


def test_a_checker_that_fails_without_a_cut_is_reported_as_such() -> None:
    for command in ("/bin/false", "no-such-program", "/bin/sh -c 'kill -9 $$'"):
        checker = Command(command).checker()
        found = self_test(checker, image_of(), ACKS)
        assert found.kind == "broken"
        assert "without a cut" in found.message
        checker.close()
    fine = Command("/bin/echo outcome: fine").checker()
    assert self_test(fine, image_of(), ACKS).outcome == "fine"
    fine.close()
