"""What a reader sees of an exploration: on the terminal, on the page, in CI."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from crashsim.report import bars, causes
from crashsim.report.canvas import COLOURS, style
from crashsim.report.compare import compare
from crashsim.report.fates import finding_picture
from crashsim.report.github import error_annotations
from crashsim.report.html import html_report, is_of_states
from crashsim.report.junit import junit_xml
from crashsim.report.markdown import comparison_summary, summary
from crashsim.report.plots import draw
from crashsim.report.readback import from_json
from crashsim.report.standing import as_expected, expectations_summary
from crashsim.report.terminal import print_comparison
from crashsim.report.words import UNCOVERED
from crashsim.results import CaseResult, Results, to_json
from crashsim.results.discovery import EpochResult, WriteFates
from tests import report_explored as explorations
from tests import report_fixtures as fixtures
from tests.report_explored import epoch, exploration, finding

COMMAND = "crashsim run log.yaml"
LOST, KEPT = COLOURS[0], COLOURS[1]


def page(results: Results, *, plots: bool = False) -> str:
    return html_report(results, draw(results) if plots else [], COMMAND)


def words(text: str) -> str:
    """A page's words."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def drawn(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_results_with_an_exploration_are_read_as_they_were_written() -> None:
    document = to_json(fixtures.results(explorations.bad(), explorations.clean()))
    assert to_json(from_json(document, "these")) == document


def test_the_headline_gives_exact_numbers_and_powers_of_ten() -> None:
    small = exploration(epoch(0, 12_345, 100))
    assert causes.headline(small) == (
        "pmem0: 100 of 12,345 images that a cut may leave on any host were checked "
        "(1 epoch, atoms of 512 B)"
    )
    vast = causes.headline(exploration(epoch(0, 10**36, 100), epoch(1, 4, 4)))
    assert "104 of over 10^36 images" in vast and "(2 epochs," in vast


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ([epoch(0, 8, 8), epoch(1, 1, 1)], "every image of every epoch was checked"),
        (
            [epoch(0, 512, 100), epoch(1, 4, 4)],
            "images checked, by epoch: all in 1, some in 1; in 1 of them, of whose "
            "images at least 98 were drawn at random and none was rejected, at most 3.0% of the "
            "images are bad (95 % confidence, each epoch by itself)",
        ),
        ([epoch(0, 512, 100, 3)], "images checked, by epoch: some in 1"),
        (  # at most 95 % may be bad: that tells nobody anything
            [epoch(0, 512, 3, unseen_share=0.95)],
            "images checked, by epoch: some in 1",
        ),
        (
            [
                epoch(0, 512, 2, kinds={"none": 1, "all": 1}, unseen_share=1.0),
                epoch(1, 512, 1, unseen_share=1.0),
                epoch(2, 10**400, 9, kinds={"none": 1, "all": 1, "pair": 7}, unseen_share=1.0),
                *(epoch(n, 512, 0, kinds={}, unseen_share=1.0) for n in range(3, 1996)),
                epoch(1996, 1, 1),
            ],
            "images checked, by epoch: all in 1, some in 1, an end or both in 2, none in 1,993",
        ),
    ],
)
def test_coverage_says_what_zero_findings_mean_and_nothing_of_epochs_with_findings(
    epochs: list[EpochResult], said: str
) -> None:
    assert causes.coverage(exploration(*epochs)) == said


def test_epochs_that_were_not_come_to_are_no_part_of_what_was_looked_at() -> None:
    cut_short = exploration(epoch(0, 8, 8), epoch(1, 4, 1, unseen_share=1.0), all_epochs=1000)
    assert "(the first 2 of 1,000 epochs," in causes.headline(cut_short)
    assert causes.coverage(cut_short) == (
        "images checked, by epoch: all in 1, an end or both in 1, none in 998"
    )
    assert "every image of every" not in causes.coverage(exploration(epoch(0, 8, 8), all_epochs=2))


@pytest.mark.parametrize(
    ("number", "total", "text"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 3, "33.3 %"),
        (1, 10**9, "under 0.01 %"),
        (99_999, 100_000, "over 99.9 %"),
        (99_899, 100_000, "99.9 %"),
    ],
)
def test_a_share_is_neither_nothing_nor_all_unless_it_is(
    number: int, total: int, text: str
) -> None:
    assert causes.percent(number, total) == text


def test_a_finding_is_told_with_how_to_see_it_again() -> None:
    lines = causes.lines_of(explorations.bad(), "runs/log/1")
    assert lines[0].startswith("case: explored pmem0: 104 of 516 images")
    assert lines[1] == "  30 were rejected, for 1 cause; outcomes: ok 74, hole 30"
    assert lines[3] == "  Finding 1: hole (30 states in 1 epoch)"
    assert [line.strip() for line in lines[4:9]] == explorations.STORY
    assert lines[9] == f"    Again: crashsim replay runs/log/1/{explorations.FILE}"


def test_a_crash_and_a_hang_of_the_checker_are_not_called_findings() -> None:
    crash = finding(kind="crash", outcome="killed by signal 11", states=1)
    assert causes.title(crash) == "the checker crashed: killed by signal 11"
    assert causes.title(finding(kind="hang", outcome="")) == "the checker did not end"
    assert causes.title(finding(outcome="")) == "rejected"
    assert causes.seen_in(finding(states=1, minimal=False)) == (
        "1 state in 1 epoch, not shrunk to the end"
    )


def test_a_file_with_a_space_in_its_name_can_be_typed() -> None:
    assert causes.replay_command("a b.x", "runs/my run") == "crashsim replay 'runs/my run/a b.x'"


def test_one_expectation_is_told_as_one() -> None:
    assert expectations_summary(fixtures.results(explorations.clean())) == (
        "As expected: the one expectation holds."
    )
    assert expectations_summary(fixtures.results(explorations.bad())) == (
        "Not as expected: 1 of 1 expectation did not come true."
    )


def test_explorations_side_by_side_are_told_only_when_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    causes.print_outcomes([fixtures.results(explorations.bad())])
    assert capsys.readouterr().out == ""
    causes.print_outcomes([fixtures.results(explorations.bad(), explorations.clean())])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["case", "images", "checked", "rejected", "findings", "outcomes"]
    assert re.split(" {2,}", lines[2]) == [
        "append-log: case",
        "516",
        "104",
        "30",
        "1",
        "ok 71.2 %, hole 28.8 %",
    ]


def test_the_page_has_coverage_outcomes_stories_and_pictures() -> None:
    text = page(fixtures.results(explorations.bad(), explorations.clean()), plots=True)
    said = words(text)
    assert said.index(" has 1 cause.") < (said.index("Every state that a cut may leave"))
    assert "Finding 1: hole (30 states in 1 epoch)" in said
    for line in explorations.STORY:
        assert line in said.replace("&#39;", "'")
    assert "The checker: exit code 1 record 1 is not there, record 2 is" in said
    assert "exit code 1<br>record 1" in text  # never a literal \\n
    assert f"Again, in this folder: crashsim replay {explorations.FILE}" in said
    assert "1 0 ns 1 ms 0 9 512 100 19.5 % 30 none 1, all 1, random 98" in said
    assert "2 1 ms 2 ms 1 2 4 4 100 % 0 none none 1, all 1, random 2" in said
    assert text.count("<svg") == 7  # all but the price, three of explorations


def test_a_page_without_an_exploration_says_nothing_of_one() -> None:
    assert "Every state" not in page(fixtures.story())
    assert causes.verdict_lines(fixtures.story(), None) == []


def test_names_and_outcomes_are_never_markup() -> None:
    evil = finding(outcome=fixtures.HOSTILE, message=fixtures.HOSTILE, story=[fixtures.HOSTILE])
    document = exploration(epoch(0, 8, 8, 8), findings=[evil], device=fixtures.HOSTILE)
    document = replace(document, outcomes={fixtures.HOSTILE: 8})
    case = replace(
        explorations.bad(fixtures.HOSTILE), exploration=document, findings=[fixtures.HOSTILE]
    )
    results = fixtures.results(case)
    text = page(results, plots=True)
    assert "<script" not in text and "\x1b" not in text
    assert not re.search(r"(?<!\\)<script", re.sub("`[^`]*`", "", summary(results)))
    assert ElementTree.fromstring(junit_xml(results, COMMAND)) is not None
    for line in error_annotations(results, "a.yaml", {}):
        assert line.startswith("::error ") and "\n" not in line


def test_of_thousands_of_epochs_the_telling_ones_are_on_the_page() -> None:
    case = explorations.vast(3000)
    assert case.exploration is not None
    numbers = [one.number for one in causes.telling_epochs(case.exploration)]
    assert len(numbers) == causes.MOST_EPOCHS and numbers == sorted(numbers)
    assert 700 in numbers  # something was rejected there
    text = page(fixtures.results(case))
    assert "200 of 3,000 epochs: those with rejected states and those covered least" in words(text)
    assert len(text) < 200_000


def test_few_epochs_are_not_folded_up() -> None:
    one = explorations.bad().exploration
    assert one is not None and len(causes.telling_epochs(one)) == 2
    assert "<summary>2 of 2 epochs" not in page(fixtures.results(explorations.bad()))


@pytest.mark.parametrize(
    ("cases", "names"),
    [
        ([explorations.bad()], ["states", "outcomes", "finding-1"]),
        ([explorations.clean()], ["states", "outcomes"]),
        ([explorations.vast(3000)], ["states", "outcomes"]),
        ([fixtures.case()], []),
    ],
)
def test_what_was_explored_is_drawn(cases: list[CaseResult], names: list[str]) -> None:
    plots = [plot for plot in draw(fixtures.results(*cases)) if is_of_states(plot.name)]
    assert [plot.name for plot in plots] == names
    for plot in plots:
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
        assert plot.png.startswith(b"\x89PNG") and len(plot.svg) < 500_000


def test_no_more_findings_are_drawn_than_can_be_looked_at_and_none_of_a_case_before_anothers() -> (
    None
):
    cases = [explorations.bad(f"case {n}", 4) for n in range(3)]
    assert [(case.name, place) for case, place in causes.pictured(cases)] == [
        ("case 0", 0),
        ("case 1", 0),
        ("case 2", 0),
        ("case 0", 1),
        ("case 1", 1),
        ("case 2", 1),
    ]
    text = page(fixtures.results(*cases), plots=False)
    assert words(text).count("Finding 4: hole") == 3  # told all the same


def test_a_budget_that_ended_too_early_is_never_green() -> None:
    none = exploration(epoch(0, 512, 0), epoch(1, 4, 0), reached=False, exit_code=4)
    none = replace(none, outcomes={})
    case = replace(explorations.clean(), exploration=none)
    results = fixtures.results(case)
    assert as_expected(results) is False
    said = words(page(results, plots=True))
    assert "Not enough was explored: not every state" in said and "accepts all" not in said
    assert "No state was checked." in said
    assert "❌" in summary(results)
    root = ElementTree.fromstring(junit_xml(results, COMMAND))
    assert root.get("errors") == "1"
    assert [line.split("::")[2] for line in error_annotations(results, "a.yaml", {})] == [UNCOVERED]
    assert causes.lines_of(case, "runs")[1:] == [
        "  no state was checked",
        "  that shows nothing",
        f"  {UNCOVERED}",
    ]


def test_a_comparison_names_what_is_explored_no_more() -> None:
    old = to_json(fixtures.results(explorations.clean()))
    comparison = compare(old, to_json(fixtures.results(fixtures.case("clean"))), {})
    stream = io.StringIO()
    print_comparison(comparison, stream)
    assert "Not explored any more: clean" in stream.getvalue()
    assert "### Not explored any more\n\n- clean" in comparison_summary(comparison)


def test_a_finding_without_writes_is_told_and_not_drawn() -> None:
    nothing = WriteFates(0, [], None)
    document = exploration(epoch(0, 8, 8, 8), findings=[finding(picture=nothing)])
    case = replace(explorations.bad(), exploration=document)
    assert causes.pictured([case]) == []
    assert "Finding 1: hole" in words(page(fixtures.results(case), plots=True))


def test_the_picture_tells_each_writes_fate_in_words_colour_and_hatching() -> None:
    with style():
        figure = finding_picture(finding())
        said = drawn(figure)
        assert "write 1: 1.5 KiB at 1536, 2us" in said
        assert said.count("kept") == 3  # two writes, and the legend
        assert "torn, 512 B lost" in said
        assert "500 other writes: 400 kept, 100 lost" in said
        assert "'one' acknowledged at 1.000024ms: broken" in said
        assert "power cut at 2.000345ms" in said
        (axes,) = figure.axes
        blocks = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        hatched = {patch.get_hatch() is not None for patch in blocks if _edge(patch) == LOST}
        solid = {patch.get_hatch() is None for patch in blocks if _edge(patch) == KEPT}
        assert hatched == {True} and solid == {True}
        bold = [
            label.get_text() for label in axes.get_yticklabels() if label.get_fontweight() == "bold"
        ]
        assert [label.partition(":")[0] for label in bold] == ["write 1", "write 2"]


def _edge(patch: Rectangle) -> str:
    return to_hex(patch.get_edgecolor())


def test_the_acknowledgement_stands_behind_the_writes_that_were_made_before_it() -> None:
    with style():
        (axes,) = finding_picture(finding()).axes
        lines = sorted(np.asarray(line.get_ydata())[0] for line in axes.lines)
        assert lines == [2, 6]  # rows 0 and 1 above, the cut below all five
        assert [int(tick) for tick in axes.get_yticks()] == [0, 1, 3, 4, 5]


def test_bars_of_images_end_where_what_was_checked_can_be_seen() -> None:
    case = replace(fixtures.case(), exploration=exploration(epoch(0, 10**400, 900)))
    with style():
        (axes,) = bars.states_per_epoch([case]).axes
        assert axes.get_ylim()[1] == 7
        assert axes.get_xlabel() == "epoch; bars go on up to 10⁴⁰⁰"


def test_the_same_exploration_gives_the_same_bytes() -> None:
    results = fixtures.results(explorations.bad())
    assert page(results, plots=True) == page(results, plots=True)


def test_the_summary_has_coverage_stories_and_the_command() -> None:
    text = summary(fixtures.results(explorations.bad()))
    assert "### Every state that a cut may leave" in text
    assert "**hole \\(30 states in 1 epoch; case\\)**" in text
    assert f"- Again, in the run's folder: <code>crashsim replay {explorations.FILE}</code>" in text
    many = summary(fixtures.results(explorations.bad(findings=13)))
    assert many.count("**hole") == 10 and "And 3 more findings." in many


def test_junit_tells_the_story_where_no_finding_was_expected() -> None:
    root = ElementTree.fromstring(junit_xml(fixtures.results(explorations.bad()), COMMAND))
    safe, test = root.iter("testcase")
    skipped = safe.find("skipped")
    assert skipped is not None
    assert "the checker rejects 30" in skipped.get("message", "")
    assert test.get("name") == "findings == 0"
    told = test.findtext("failure") or ""
    assert explorations.STORY[2] in told
    assert f"Again, in the run's folder: crashsim replay {explorations.FILE}" in told
    assert f"to reproduce: {COMMAND}" in told


def test_a_workflow_is_told_the_story_at_the_line_of_what_is_explored() -> None:
    results = fixtures.results(explorations.bad())
    (line,) = error_annotations(results, "a.yaml", {"explore": 7})
    assert line.startswith("::error file=a.yaml,line=7,title=case::findings == 0, but it was 1%0A")
    assert explorations.STORY[2] in line
    (line,) = error_annotations(results, "a.yaml", {"explore": 7, "findings": 9})
    assert ",line=9," in line


def test_stdout_in_another_encoding_still_carries_the_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    document = exploration(epoch(0, 8, 8, 8), findings=[finding(story=["Lost: 'µ'."])])
    case = replace(explorations.bad(), exploration=document)
    causes.print_explored(fixtures.results(case), str(Path("runs")))
    stream.flush()
    assert b"Lost: 'u'." in stream.buffer.getvalue()


def test_the_command_of_a_finding_is_one_line_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = "runs/" + "a long name of an experiment/" * 3
    causes.print_explored(fixtures.results(explorations.bad()), folder)
    lines = capsys.readouterr().out.splitlines()
    command = f"    Again: {causes.replay_command(explorations.FILE, folder)}"
    assert [line for line in lines if len(line) > 40] == [command]


@pytest.mark.parametrize("panels", [1, 2])
def test_the_epochs_numbers_do_not_lie_over_each_other(panels: int) -> None:
    document = exploration(*(epoch(n, 8, 8) for n in range(211)))
    cases = [
        replace(explorations.clean(), name=f"{n}", exploration=document) for n in range(panels)
    ]
    with style():
        figure = bars.states_per_epoch(cases)
        drawn(figure)
        for axes in figure.axes:
            labels = [label for label in axes.get_xticklabels() if label.get_text()]
            boxes = [label.get_window_extent() for label in labels]
            assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize("recorded", [True, False])
def test_the_picture_beside_a_finding_of_a_recording_says_what_is_not_in_it(recorded: bool) -> None:
    said = words(page(fixtures.results(replace(explorations.bad(), recorded=recorded)), plots=True))
    missing = "makes the difference. What the guest still held in memory is not in it."
    assert (missing in said) == recorded
