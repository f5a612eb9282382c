"""Text from outside does nothing where it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.printable import LINES, printable
from tests.cli_support import SMALL, Program

CLIPBOARD = "\x1b]52;c;ZWNobyBoaQ==\a"
TURNED = "\u202eevil\u2066"


@given(st.text())
def test_nothing_is_left_that_acts_or_hides(text: str) -> None:
    assert printable(text).isprintable()
    kept = printable(text, keep=LINES)
    assert all(part.isprintable() for line in kept.split("\n") for part in line.split("\t"))


@given(st.text(st.characters(categories=["L", "N", "P", "S"]) | st.just(" ")))
def test_what_can_be_printed_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_control_characters_are_spelt_out() -> None:
    assert printable(f"a{CLIPBOARD}\n") == r"a\x1b]52;c;ZWNobyBoaQ==\x07\n"
    assert printable(TURNED + "\u200b\udcff") == r"\u202eevil\u2066\u200b\udcff"


@pytest.mark.parametrize("hostile", [CLIPBOARD, TURNED, "\x9b31m"])
@pytest.mark.parametrize(
    "arguments",
    [["run", "{}.yaml"], ["{}"], ["run", "--{}"], ["loss", "{}", "--at", "1s"], ["doctor", "{}"]],
)
def test_no_command_repeats_an_argument_that_acts_on_the_terminal(
    arguments: list[str], hostile: str, program: Program
) -> None:
    answer = program(*(argument.format(hostile) for argument in arguments))
    assert answer.code == 2
    assert printable(answer.err, LINES) == answer.err
    assert printable(answer.out, LINES) == answer.out


def test_no_mistake_in_a_file_repeats_what_acts_on_the_terminal(
    program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(SMALL + f'"{TURNED}": 1\n"a\\e]52;c;aGk=\\a": 2\nclock: "{TURNED}"\n')
    answer = program("run", file)
    assert answer.code == 2
    assert printable(answer.err, LINES) == answer.err
