"""The terminal gets a table that fits, a pipe gets plain columns, and neither gets a surprise."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from typing import TextIO

import pytest
from rich.console import Console

from crashsim.report.compare import compare
from crashsim.report.progress import progress
from crashsim.report.terminal import print_comparison, print_results
from crashsim.results import Results, to_json
from tests import report_fixtures as fixtures


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(results: Results, stream: TextIO | None = None) -> str:
    stream = stream or io.StringIO()
    print_results(results, stream)
    stream.seek(0)
    return stream.read()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def at_width(monkeypatch: pytest.MonkeyPatch, columns: int, *, color: bool = False) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")


def test_a_pipe_gets_aligned_columns_without_boxes_or_colours() -> None:
    text = printed(fixtures.story())
    header, *rows, _note = text.split("\n\n")[0].splitlines()
    assert header.split("  ")[1].strip() == "case"
    assert all(len(row) == len(header) for row in rows)
    assert len(rows) == 3
    assert "\x1b" not in text
    assert not any(character in text for character in "│┃─━┏")


def test_a_pipe_is_no_wider_than_columns_if_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, 100)
    text = printed(fixtures.story())
    assert max(map(len, text.splitlines())) <= 100
    assert "acks uncovered" in text
    assert "flushes" in text
    assert "Not shown for want of room: at risk p50" in text


def test_a_pipe_gets_whole_names_and_unbroken_lines() -> None:
    name = "sync=" + "x" * 300
    assert name in printed(fixtures.results(fixtures.case(name)))


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 160])
def test_a_terminals_table_never_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    at_width(monkeypatch, columns)
    lines = printed(fixtures.sweep_of_twenty(), Terminal()).replace("\x1b[1m", "")
    lines = lines.replace("\x1b[0m", "").replace("\x1b[2m", "")
    assert max(len(line) for line in lines.splitlines()) <= columns


def test_a_narrow_terminal_keeps_the_gravest_columns_and_names_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_width(monkeypatch, 80)
    text = printed(fixtures.results(fixtures.lying_disk()), Terminal())
    assert "39.1 MiB" in text
    assert "799" in text
    header = text[: text.index("──")]
    assert all(word in header for word in ("uncovered", "flushes", "second", "safe"))
    assert "Not shown for want of room: at risk p50" in text
    at_width(monkeypatch, 200)
    assert "Not shown" not in printed(fixtures.results(fixtures.lying_disk()), Terminal())


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, 120, color=True)
    red = "\x1b[31m"
    assert red in printed(fixtures.results(fixtures.lying_disk()), Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert red not in printed(fixtures.results(fixtures.lying_disk()), Terminal())


def test_failed_expectations_are_told_with_condition_and_actual_value() -> None:
    text = printed(fixtures.results(fixtures.lying_disk(), fixtures.with_sync()))
    assert "disk=ignores-flush: broken_promises == 0, but it was 799" in text
    assert "2 of 3 expectations did not come true." in text


def test_a_run_without_expectations_does_not_claim_that_they_hold() -> None:
    assert "measured, not judged" in printed(fixtures.results(fixtures.case()))
    assert "As expected" not in printed(fixtures.results(fixtures.case()))


def test_the_worst_case_is_told_by_example() -> None:
    text = printed(fixtures.results(fixtures.with_sync(), fixtures.lying_disk()))
    assert "For example:" in text
    assert "flush 1 was acknowledged at 100 ms, yet write 0" in text


def test_an_interrupted_run_and_one_that_wrote_nothing_say_so() -> None:
    assert "Interrupted: 3 cases had finished" in printed(
        replace(fixtures.story(), interrupted=True)
    )
    assert "nothing was written." in printed(fixtures.results(fixtures.case("empty", writes=0)))
    assert "Nothing was explored" in printed(fixtures.results())


def test_names_control_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, 200)
    assert "\x1b[31m" not in printed(fixtures.hostile(), Terminal())
    marked = fixtures.results(fixtures.case("[red]name[/red] :boom:"))
    assert "[red]name[/red] :boom:" in printed(marked)


def test_a_stream_that_cannot_carry_a_character_gets_another() -> None:
    case = replace(fixtures.lying_disk("disk=\u65e5\u672c"), guest_wait_ns=1500)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_results(fixtures.results(case), stream)
    text = raw.getvalue().decode("ascii")
    assert "1.5 us" in text
    assert "disk=??" in text


def test_a_comparison_tells_the_regressions_first_and_the_outcome_last() -> None:
    old, new = fixtures.story(), fixtures.results(fixtures.with_sync(100), fixtures.case("more"))
    worse = replace(new.cases[0], holes=3, flushes=1)
    stream = io.StringIO()
    new = replace(new, cases=[worse, *new.cases[1:]])
    print_comparison(compare(to_json(old), to_json(new), {}), stream)
    text = stream.getvalue()
    assert text.index("holes") < text.index("flushes")
    assert "Missing: sync=none" in text
    assert "New: more" in text
    assert text.splitlines()[-1].startswith("Regressed: 1 metric worse, 2 cases missing")


def test_progress_is_shown_only_on_a_terminal() -> None:
    stream = io.StringIO()
    with progress(3, Console(file=stream), delay_seconds=0) as advance:
        advance(1, "case")
    assert stream.getvalue() == ""


def test_progress_of_short_work_is_not_shown() -> None:
    stream = Terminal()
    with progress(3, Console(file=stream), delay_seconds=1000) as advance:
        advance(3, "case")
    assert stream.getvalue() == ""


class Waited(Terminal):
    """A terminal that tells when something has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        size = super().write(text)
        if "1/3" in self.getvalue():
            self.written.set()
        return size


def test_progress_of_long_work_is_shown_and_then_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, 80)
    stream = Waited()
    with progress(3, Console(file=stream), delay_seconds=0) as advance:
        advance(1, "[red]\x1b[31mcase")
        assert stream.written.wait(20)
    assert "[red]\\x1b[31mcase" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")


def test_progress_leaves_an_error_as_it_is() -> None:
    stream = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        progress(3, Console(file=stream), delay_seconds=1000),
    ):
        raise KeyboardInterrupt
