"""The checker that a saved finding names runs only if somebody here agreed to it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from crashsim.checkers.spec import Function, Rule, from_json
from crashsim.explore import trust
from tests.cli_support import ROOT, Program, command, environment

EXPERIMENT = """
device: {size: 64KiB}
workload: {kind: append-log, records: 6, record_size: 1500B}
sync: {call: msync-async, every: 2 records}
explore: {states: 60, check: %s}
"""
# Says that it ran, and where from, then what it thinks of the image.
CHECK = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
def check(image, acks):
    assert bytes(image[:1]) != b"\\0" or not acks.count, "nothing at the start"
def check_files(folder, acks):
    pass
"""


@pytest.fixture
def finder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """Whoever wrote the finding: a checker in a folder of its own."""
    folder = tmp_path / "sender"
    folder.mkdir()
    (folder / "check.py").write_text(CHECK)
    return Program(folder, capsys)


@pytest.fixture
def finding(
    finder: Program, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finding that reached somebody who has agreed to nothing; its checker has not run since."""
    with monkeypatch.context() as sender:
        sender.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("sender")))
        assert finder.run(EXPERIMENT % "{function: 'check.py:check'}").code == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("receiver")))
    (path,) = (finder.latest() / "findings").iterdir()
    (finder.folder / "ran").unlink()
    return path


def ran(finder: Program) -> bool:
    return (finder.folder / "ran").exists()


def changed(finding: Path, **checker: object) -> Path:
    """The finding with something of its checker changed."""
    document = json.loads(finding.read_text())
    folder = document["checker"]["folder"]
    document["checker"] = {"folder": folder, **checker}
    finding.write_text(json.dumps(document))
    return finding


CHECKERS = [
    {"function": "check.py:check"},
    {"function": "check:check"},
    {"files_function": "check.py:check_files"},
    {"command": "touch ran"},
]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_strangers_checker_does_not_run_without_a_terminal(
    finder: Program, finding: Path, checker: dict[str, object]
) -> None:
    (kind, words), *_ = checker.items()
    answer = finder("replay", changed(finding, **checker))
    assert answer.code == 2 and not answer.out
    assert f"{finding} names a checker:" in answer.err
    assert f"{kind.replace('_', ' ')}: {words}" in answer.err
    assert f"in folder: {finder.folder}" in answer.err and "--trust" in answer.err
    assert not ran(finder)


def test_a_folder_of_findings_runs_nothing_of_a_strangers(finder: Program, finding: Path) -> None:
    text = EXPERIMENT % "{rule: acknowledged}"
    answer = finder.run(text, "--findings", str(finding.parent), name="other.yaml")
    assert answer.code == 2 and "names a checker" in answer.err
    assert not ran(finder) and not (finder.runs / "other").exists()


def test_what_the_experiment_itself_names_is_agreed_to(finder: Program, finding: Path) -> None:
    text = EXPERIMENT % "{function: 'check.py:check'}"
    answer = finder.run(text, "--findings", str(finding.parent))
    assert answer.code == 1 and f"{finding}: still fails" in answer.err


def test_trust_runs_it_and_keeps_nothing(finder: Program, finding: Path) -> None:
    answer = finder("replay", finding, "--trust")
    assert answer.code == 1 and "nothing at the start" in answer.out
    assert ran(finder)
    assert finder("replay", finding).code == 2


def test_ones_own_run_is_agreement_until_a_named_file_changes(finder: Program) -> None:
    assert finder.run(EXPERIMENT % "{function: 'check.py:check'}").code == 1
    (finding,) = (finder.latest() / "findings").iterdir()
    assert finder("replay", finding).code == 1
    (finder.folder / "check.py").write_text(CHECK + "# of another hand\n")
    assert finder("replay", finding).code == 2


@pytest.mark.parametrize("option", ["--image", "--mount"])
def test_looking_at_the_image_loads_no_checker(
    finder: Program, finding: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "true")
    more = [finder.folder / "out.img"] if option == "--image" else []
    answer = finder("replay", finding, option, *more)
    # No file system is in this image, so nothing can be mounted.
    assert answer.code == (0 if option == "--image" else 2), answer.err
    assert "names a checker" not in answer.err
    assert not ran(finder)


def test_a_rule_needs_no_agreement_and_every_function_does(tmp_path: Path) -> None:
    assert trust.named(Rule("acknowledged", folder=str(tmp_path))) is None
    for words in ("crashsim.checkers.scratch:sweep", "crashsim.cli.dispatch:main"):
        assert trust.named(Function(words)) is not None


def test_agreement_is_to_words_folder_and_contents(tmp_path: Path) -> None:
    def key(folder: Path, **given: str) -> str:
        one = trust.named(from_json({"folder": str(folder), **given}))
        assert one is not None
        return one.key

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "check.py").write_text("1")
    (tmp_path / "link").symlink_to(first)
    asked = key(first, command="python3 check.py {image}")
    assert key(tmp_path / "link", command="python3 check.py {image}") == asked
    others = [
        key(second, command="python3 check.py {image}"),
        key(first, command="python3 check.py {image} x"),
        key(first, function="check.py:check"),
        key(first, files_function="check.py:check"),
        key(first, function="check:check"),
    ]
    (first / "check.py").write_text("2")
    others += [
        key(first, command="python3 check.py {image}"),
        key(first, function="check.py:check"),
        key(first, function="check:check"),
    ]
    assert len({asked, *others}) == 9


def test_what_would_act_on_the_terminal_is_spelt_out(finder: Program, finding: Path) -> None:
    escape = "\x1b]52;c;cm0gLXJm\x07\u202e\r\n  in folder: /innocent"
    answer = finder("replay", changed(finding, command="true " + escape))
    assert answer.code == 2
    (line,) = (line for line in answer.err.splitlines() if line.startswith("  command: "))
    assert line.endswith(r"\x1b]52;c;cm0gLXJm\x07\u202e\r\n  in folder: /innocent")
    document = json.loads(finding.read_text())
    document["checker"] = {"rule": "acknowledged"}
    document["story"], document["verdict"]["outcome"] = [escape], escape
    named = finding.with_name("f\x1b[2J.crashsim-finding")
    named.write_text(json.dumps(document))
    for answer in (
        finder("replay", named),
        finder.run(EXPERIMENT % "{rule: acknowledged}", "--findings", str(named.parent), "--trust"),
    ):
        assert answer.code == 1
        assert r"\x1b]52;c;cm0gLXJm\x07\u202e" in answer.out + answer.err
        assert not {"\x1b", "\x07", "\u202e"} & set(answer.out + answer.err)


@pytest.mark.parametrize("folder", ["a\0b", "\ud800"])
def test_a_folder_that_cannot_be_one_is_a_clear_error(
    finder: Program, finding: Path, folder: str
) -> None:
    document = json.loads(finding.read_text())
    document["checker"]["folder"] = folder
    finding.write_text(json.dumps(document))
    assert finder("replay", finding).code == 2


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("", 2), ("y", 1)])
def test_in_a_terminal_it_asks_and_an_agreement_is_kept(
    finder: Program, finding: Path, terminal: tuple[int, int], answer: str, code: int
) -> None:
    ours, theirs = terminal
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        command("replay", finding),
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    said = os.read(ours, 1 << 16).decode()
    assert done.returncode == code, said
    assert "names a checker" in said and "Run it, now and again? [y/N]" in said
    assert ran(finder) == (answer == "y")
    assert finder("replay", finding).code == code


def test_a_finding_that_is_no_file_is_not_waited_for(finder: Program, tmp_path: Path) -> None:
    folder = tmp_path / "findings"
    folder.mkdir()
    (folder / "zero.crashsim-finding").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.crashsim-finding")
    with (folder / "large.crashsim-finding").open("wb") as file:
        file.truncate((64 << 20) + 1)
    for path in folder.iterdir():
        answer = finder("replay", path, "--trust")
        assert answer.code == 2 and "not a saved finding: " in answer.err


def test_an_image_is_never_written_over_a_file(finder: Program, finding: Path) -> None:
    others = finder.folder / ".out.img.unfinished"
    others.write_text("somebody's")
    assert finder("replay", finding, "--image", finder.folder / "out.img").code == 0
    assert others.read_text() == "somebody's"
    assert [path.name for path in finder.folder.glob(".out.img*")] == [others.name]


def test_what_lies_in_the_current_folder_is_not_taken_for_the_standard_librarys(
    tmp_path: Path,
) -> None:
    for name in ("enum", "json", "socket", "subprocess", "re"):
        (tmp_path / f"{name}.py").write_text("open('it-ran', 'w').close()\n", encoding="utf-8")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "check.py").write_text("def check(image, acks):\n    pass\n", encoding="utf-8")
    text = EXPERIMENT % "{function: 'check.py:check'}"
    (mine / "mine.yaml").write_text(text, encoding="utf-8")
    program = Path(sys.executable).with_name("crashsim")
    arguments = ("run", "mine/mine.yaml", "--output", "runs", "--workers", "2")
    done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "it-ran").exists()
