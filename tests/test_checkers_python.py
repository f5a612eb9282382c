"""Functions as checkers: what they are given and what their answers mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict, self_test
from crashsim.checkers.by_function import FunctionChecker
from crashsim.checkers.spec import Function
from crashsim.errors import UsageError
from tests.checkers_support import ACKS, image_of

ANSWERS = {
    "return None": ("ok", ""),
    "return True": ("ok", ""),
    "return 'three rows'": ("ok", "three rows"),
    "return False": ("finding", ""),
    "assert image[0] == 1": ("finding", ""),
    "raise AssertionError('torn')": ("finding", ""),
    "raise KeyError('k')": ("crash", "KeyError"),
    "raise SystemExit(0)": ("crash", "SystemExit"),
    "return [][0]": ("crash", "IndexError"),
    "image[0] = 1": ("crash", "TypeError"),
    "return 0": ("broken", ""),
    "from crashsim.checkers import Verdict; return Verdict('finding', 'lost')": ("finding", "lost"),
}


@contextmanager
def function(folder: Path, body: str) -> Iterator[FunctionChecker]:
    """A checker with that body, in a file of its own."""
    (folder / "mine.py").write_text(f"def check(image, acks):\n    {body}\n")
    with closing(Function("mine.py:check", folder=folder).checker()) as made:
        yield made


def said(folder: Path, body: str, image: memoryview | None = None) -> Verdict:
    """What a function with that body says of one image."""
    with function(folder, body) as made:
        return made.check(image_of() if image is None else image, ACKS)


@pytest.mark.parametrize("body", ANSWERS)
def test_what_a_function_answers_is_the_verdict(tmp_path: Path, body: str) -> None:
    found = said(tmp_path, body)
    assert (found.kind, found.outcome) == ANSWERS[body]


def test_an_assertion_is_told_with_its_message_or_as_it_is_written(tmp_path: Path) -> None:
    found = said(tmp_path, "assert image[0] == 1, 'no header'")
    assert found.message == "no header\nmine.py:2, check"
    found = said(tmp_path, "assert image[0] == 1")
    assert found.message == "assert image[0] == 1\nmine.py:2, check"


def test_a_crash_is_told_with_its_type_message_and_place(tmp_path: Path) -> None:
    found = said(tmp_path, "raise KeyError('k')")
    assert found.message == "KeyError: 'k'\nmine.py:2, check"


def test_a_function_sees_the_image_and_the_acknowledgements(tmp_path: Path) -> None:
    body = "return f'{bytes(image[:3])} {acks.labels} {acks.records} {acks.count}'"
    found = said(tmp_path, body, image_of(b"abc"))
    assert found.outcome == "b'abc' ('ready', 'ack 0') ((0, 1), (1, 2)) 2"


def test_a_function_cannot_write_to_the_image(tmp_path: Path) -> None:
    image = image_of(b"abc")
    assert said(tmp_path, "image[:1] = b'x'", image).kind == "crash"
    assert bytes(image[:3]) == b"abc"


def test_a_function_of_a_module_is_found_where_the_user_is(tmp_path: Path) -> None:
    (tmp_path / "module_of_the_user.py").write_text("def check(image, acks): return 'mine'")
    with closing(Function("module_of_the_user:check", folder=tmp_path).checker()) as checker:
        assert checker.check(image_of(), Acks()) == Verdict("ok", "mine")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-colon", "expected module:function"),
        (":check", "expected module:function"),
        ("mine.py:", "expected module:function"),
        ("missing.py:check", "cannot be imported: FileNotFoundError"),
        ("no.such.module:check", "cannot be imported: ModuleNotFoundError"),
        ("broken.py:check", "cannot be imported: ZeroDivisionError: division by zero"),
        ("mine.py:other", "has no function other"),
        ("mine.py:NUMBER", "has no function NUMBER"),
        ("exits.py:check", r"importing it ended the process \(exit code 0\)\nlast words"),
        ("leaves.py:check", "cannot be imported: SystemExit: 3"),
        ("crashes.py:check", r"importing it ended the process \(killed by SIGABRT\)"),
    ],
)
def test_a_function_that_is_not_there_is_a_mistake_of_the_user(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "mine.py").write_text("NUMBER = 1\ndef check(image, acks): pass")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "exits.py").write_text("import os; os.write(1, b'last words'); os._exit(0)")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "crashes.py").write_text("import os; os.abort()")
    with closing(Function(name, folder=tmp_path).checker()) as checker:
        for _ in range(2):
            with pytest.raises(UsageError, match=told):
                checker.check(image_of(), ACKS)


def test_a_function_that_fails_without_a_cut_is_reported_as_such(tmp_path: Path) -> None:
    with function(tmp_path, "raise KeyError('k')") as checker:
        found = self_test(checker, image_of(), ACKS)
    assert found.kind == "broken"
    assert "without a cut" in found.message and "KeyError" in found.message


def test_texts_of_a_verdict_are_bounded(tmp_path: Path) -> None:
    found = said(tmp_path, "return 'x' * 10000")
    assert len(found.outcome) <= 120
    found = said(tmp_path, "raise KeyError('x' * 100000)")
    assert len(found.message) <= 2000
