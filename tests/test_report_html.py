"""The page is one file, says the verdict first, and takes nothing from a name but its letters."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from crashsim.report import html
from crashsim.report.canvas import INK, PAPER
from crashsim.report.plots import draw
from crashsim.results import Cut, Results
from tests import report_fixtures as fixtures

COMMAND = "crashsim run append-log.yaml --seed 1"


def page(results: Results, *, plots: bool = False) -> str:
    return html.html_report(results, draw(results) if plots else [], COMMAND)


@cache
def story_page() -> str:
    return page(fixtures.story(), plots=True)


class Reader(HTMLParser):
    """Words, tags and balance of a page."""

    VOID = ("meta", "wbr", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_the_page_is_balanced_and_fetches_nothing() -> None:
    text = story_page()
    reader = Reader(text)
    assert reader.open == []
    assert reader.tags.count("svg") == 5
    assert not {"script", "link", "img", "iframe"} & {*reader.tags}
    fetched = [
        v for n, v in reader.attributes if n in ("src", "href", "xlink:href") and v[:1] != "#"
    ]
    assert fetched == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_verdict_comes_first_and_names_loss_without_and_with_sync() -> None:
    text = Reader(page(fixtures.story())).text
    without = text.index("Without a sync, a power cut takes 17.2 MiB at worst")
    synced = text.index("With syncs, a power cut takes 27.5 KiB at worst")
    assert without < synced < text.index("Cases")


def test_names_cannot_become_markup() -> None:
    text = page(fixtures.hostile(), plots=True)
    reader = Reader(text)
    assert "script" not in reader.tags
    assert '<script>alert("x")</script>' in reader.text
    assert "\x1b" not in text


def test_ink_and_paper_follow_the_readers_light_or_dark() -> None:
    text = story_page()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    svg = text[text.index("<svg") :]
    assert INK not in svg
    assert PAPER not in svg
    assert "currentColor" in svg


def test_failed_expectations_are_listed_with_condition_actual_and_command() -> None:
    text = page(fixtures.results(fixtures.lying_disk()))
    read = Reader(text).text
    assert "broken_promises == 0, but it was 799" in read
    assert "at_risk_max <= 1MiB, but it was 39.1 MiB" in read
    assert COMMAND in read
    assert 'class="verdict lost"' in text


def test_the_box_has_the_colour_of_the_loss_whether_it_was_expected_or_not() -> None:
    text = page(fixtures.story())
    assert 'class="verdict lost"' in text
    assert "✓ As expected: all 4 expectations hold." in text
    assert "Not safe in 1 of 3 cases" in Reader(text).text


def test_a_run_that_is_safe_is_shown_in_green_and_one_that_shows_nothing_is_not() -> None:
    assert 'class="verdict safe"' in page(fixtures.results(fixtures.with_sync()))
    for doubtful in (
        fixtures.results(),
        fixtures.results(fixtures.case(writes=0)),
        replace(fixtures.story(), interrupted=True),
    ):
        assert 'class="verdict safe"' not in page(doubtful)
        assert "As expected" not in page(doubtful)


def test_examples_cuts_notices_parameters_domains_and_devices_are_told() -> None:
    told = replace(fixtures.two_devices(), notices=["a fault never fired"])
    read = Reader(page(fixtures.results(told))).text
    for words in (
        "would be lost by a power cut at 35 s",
        "lost, compared",
        "8.3 MiB",
        "a fault never fired",
        "disk.profile: plp-nvme",
        "guest-crash",
        "table",
    ):
        assert words in read


def test_a_cut_in_which_calculation_and_files_differ_is_marked() -> None:
    cut = Cut(1, "power-cut", 10, 11, 0, 0, 0, "worst")
    assert "≠" in page(fixtures.results(fixtures.case(cuts=[cut])))
    assert "≠" not in page(fixtures.results(fixtures.case(cuts=[replace(cut, lost_bytes=11)])))


def test_a_sweep_of_very_many_cases_shows_the_worst_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html, "MOST_ROWS", 3)
    monkeypatch.setattr(html, "MOST_DETAILED", 2)
    text = page(fixtures.sweep_of_twenty())
    read = Reader(text).text
    assert "The worst 3 of 20 cases are shown" in read
    assert "The worst 2 of 20 cases" in read
    assert text.count("<details") == 2


def test_the_same_results_give_the_same_page() -> None:
    assert page(fixtures.story(), plots=True) == story_page()


def test_a_figure_and_its_unit_stay_on_one_line() -> None:
    cells = re.findall(r"<td data-label=[^>]*>([^<]*)</td>", page(fixtures.story()))
    figures = [text for text in cells if re.match(r"\d", text) and " to " not in text]
    assert any("\u00a0" in text for text in figures)
    assert not any(" " in text for text in figures)
