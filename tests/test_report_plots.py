"""Every picture can be drawn of every kind of run, and is the same each time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.text import Annotation, Text

from crashsim.engine.units import parse_bytes, parse_duration
from crashsim.report import canvas, distribution, prices, standing, timelines
from crashsim.report.alike import note
from crashsim.report.canvas import log_scale, rendered, size_unit, style, time_unit
from crashsim.report.html import html_report
from crashsim.report.plots import draw
from crashsim.report.vector import compact, inlined
from crashsim.results import CaseResult, Means, Results, Spread
from tests import report_explored as explorations
from tests import report_fixtures as fixtures

NAMES = ["price", "risk", "recovery-point", "distribution", "layers"]


@pytest.mark.parametrize(
    ("results", "names"),
    [
        (fixtures.story(), NAMES),
        (fixtures.results(fixtures.case()), [n for n in NAMES if n != "price"]),
        (fixtures.results(fixtures.huge(20_000), fixtures.two_devices()), NAMES),
        (fixtures.results(fixtures.case(end_ns=0, writes=0)), [n for n in NAMES if n != "price"]),
        (fixtures.results(), []),
        (fixtures.hostile(), ["schedule", *(n for n in NAMES if n != "price")]),
    ],
    ids=["story", "no loss", "huge", "nothing", "no case", "hostile"],
)
def test_every_picture_of_a_run_is_drawn_as_svg_and_png(results: Results, names: list[str]) -> None:
    plots = draw(results)
    assert [plot.name for plot in plots] == names
    for plot in plots:
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
        assert plot.png.startswith(b"\x89PNG")


def test_twenty_cases_are_the_same_number_of_pictures_and_stay_small() -> None:
    plots = draw(fixtures.sweep_of_twenty())
    assert [plot.name for plot in plots] == NAMES
    assert sum(len(plot.svg) for plot in plots) < 1_500_000
    page = html_report(fixtures.sweep_of_twenty(), plots, "crashsim run x.yaml")
    assert len(page.encode()) < 2_000_000


def test_the_same_results_give_the_same_bytes_in_every_process() -> None:
    script = (
        "import hashlib; from tests.report_fixtures import story; from crashsim.report.plots "
        "import draw; print([hashlib.sha256(p.svg + p.png).hexdigest() for p in draw(story())])"
    )
    run = [sys.executable, "-c", script]
    other = subprocess.run(run, env={"PYTHONHASHSEED": "1"}, capture_output=True, check=True).stdout
    mine = [hashlib.sha256(plot.svg + plot.png).hexdigest() for plot in draw(fixtures.story())]
    assert other.decode() == f"{mine}\n" and mine


def test_pictures_carry_no_date() -> None:
    for plot in draw(fixtures.results(fixtures.case())):
        assert b"dc:date" not in plot.svg
        assert b"Software" not in plot.png


def test_matplotlib_is_loaded_only_when_something_is_drawn() -> None:
    modules = ["compare", "github", "html", "junit", "readback", "markdown", "plots", "progress"]
    modules += ["terminal", "words", "write"]
    script = "; ".join(f"import crashsim.report.{module}" for module in modules)
    script += "; import sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def words_of(figure: object) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def size_bytes(text: str) -> int:
    number, _, unit = text.partition(" ")
    return round(float(number) * (parse_bytes("1" + unit) if unit else 1))


def time_ns(text: str) -> int:
    return 0 if text == "0" else parse_duration(text.replace(" ", "").replace("µ", "u"))


@pytest.mark.parametrize("results", [fixtures.story(), fixtures.sweep_of_twenty()])
@pytest.mark.parametrize(
    ("figure_of", "panels_of", "worst", "read"),
    [
        (
            timelines.risk_over_time,
            timelines.risk_panels,
            lambda case: case.at_risk_bytes.max,
            size_bytes,
        ),
        (
            timelines.recovery_point_over_time,
            timelines.age_panels,
            lambda case: case.recovery_point_ns.max,
            time_ns,
        ),
    ],
    ids=["risk", "recovery point"],
)
def test_each_panel_says_what_its_curve_shows(
    results: Results, figure_of: Any, panels_of: Any, worst: Any, read: Any
) -> None:
    cases = results.cases
    with style():
        figure = figure_of(cases)
        rendered(figure)
    groups = panels_of(cases)

    def panel(group: list[int]) -> list[CaseResult]:
        return [cases[i] for i in group]

    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == len(groups)
    for axes, group in zip(shown, groups, strict=True):
        (text,) = [t.get_text() for t in axes.texts if t.get_text().startswith("worst: ")]
        if "mean " in text:
            told = text.partition("mean ")[2].partition(",")[0].split(" to ")
            areas = [np.diff([*c.loss.instants, c.end_ns]) @ c.loss.values for c in panel(group)]
            means = [area / c.end_ns for area, c in zip(areas, panel(group), strict=True)]
            found = [size_bytes(part) for part in told]
            assert found == pytest.approx(sorted({min(means), max(means)})[: len(told)], rel=0.01)
        values = [worst(cases[i]) for i in group]
        told = text.removeprefix("worst: ").partition(",")[0].partition(" at ")[0]
        assert [read(part) for part in told.split(" to ")] == pytest.approx(
            sorted({min(values), max(values)})[: told.count(" to ") + 1], rel=0.01
        )
        curves = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines[:1]]
        assert max(curve.max() for curve in curves) == pytest.approx(values[0], rel=0.02)
        for tick in axes.get_yticks():
            label = axes.yaxis.get_major_formatter()(tick, list(axes.get_yticks()).index(tick))
            assert read(label) == pytest.approx(tick)
    unit = {"s": 10**9, "ms": 10**6}[figure.get_supxlabel().partition("(")[2][:-1]]
    ticks = shown[0].xaxis.get_major_formatter()
    assert float(ticks(3 * unit, 0)) == 3


def test_cases_that_draw_the_same_are_drawn_once_and_named_together() -> None:
    first, other = fixtures.with_sync(100, "atom=512B"), fixtures.without_sync("atom=8B")
    cases = [first, replace(first, name="atom=4KiB"), other]
    assert timelines.risk_panels(cases) == [[0, 1], [2]]
    assert timelines.layer_panels(cases) == [[0, 1], [2]]
    assert distribution.distribution_groups(cases) == [[0, 1], [2]]
    with style():
        assert "atom=512B / 4KiB" in words_of(timelines.risk_over_time(cases))
        assert "atom=512B / 4KiB" in words_of(distribution.distribution_of_loss(cases))
    captions = {plot.name: plot.caption for plot in draw(fixtures.results(*cases[:2]))}
    assert "drawn once" in captions["risk"]
    assert "price" not in captions, "two cases that lose and cost the same compare nothing"


def test_flushes_and_the_flushers_passes_are_marked_where_they_were() -> None:
    case = fixtures.without_sync()
    case = replace(case, marks=replace(case.marks, flush_acks=[7 * fixtures.SECOND]))
    with style():
        axes = timelines.risk_over_time([case]).axes[0]
    marked = {line.get_marker(): np.asarray(line.get_xdata()).tolist() for line in axes.lines}
    assert marked["v"] == case.marks.flusher_passes
    ticks = [line for line in axes.lines if np.isnan(np.asarray(line.get_ydata())).any()]
    assert {*np.asarray(ticks[0].get_xdata()).tolist()} == {7 * fixtures.SECOND}


@pytest.mark.parametrize(
    ("figure_of", "expected"),
    [
        (timelines.risk_over_time, "nothing is at risk at any instant"),
        (timelines.recovery_point_over_time, "every write is safe at once"),
        (distribution.distribution_of_loss, "nothing is lost at any instant"),
        (timelines.layers_over_time, "all on the media at every instant"),
    ],
)
def test_a_picture_of_no_loss_says_so(figure_of: object, expected: str) -> None:
    with style():
        assert expected in words_of(figure_of([fixtures.case()]))  # type: ignore[operator]


def test_of_very_many_cases_the_worst_are_drawn_and_the_caption_says_so() -> None:
    cases = [
        replace(fixtures.without_sync(f"case {n}"), end_ns=fixtures.END // (n + 1))
        for n in range(timelines.MOST_PANELS + 3)
    ]
    cases = [replace(c, at_risk_bytes=Spread(10**6 - n, 0, 0)) for n, c in enumerate(cases)]
    assert timelines.risk_panels(cases) == [[n] for n in range(timelines.MOST_PANELS)]
    said = note(timelines.risk_panels(cases), cases)
    assert said == " Left out, for they lose less: 3 cases."
    assert note([[0]], cases[:1]) == ""


def points(*places: tuple[int, int]) -> list[CaseResult]:
    return [
        fixtures.case(f"case {i}", guest_wait_ns=x, at_risk_bytes=Spread(y, y, y))
        for i, (x, y) in enumerate(places)
    ]


@pytest.mark.parametrize(
    "cases",
    [
        fixtures.sweep_of_twenty().cases,
        points(*[(10**9 + i * 10**8, 4096 + 200 * i) for i in range(20)]),
        points(*[(i * 10**6, 4096 + j * 400) for i in range(5) for j in range(5)]),
    ],
    ids=["sweep", "a line", "a grid"],
)
def test_labels_of_points_never_lie_over_each_other(cases: list[CaseResult]) -> None:
    with style():
        figure = prices.loss_against_price(cases)
        rendered(figure)
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        notes = figure.findobj(Annotation)
        assert len(notes) >= 5
        boxes = [Text.get_window_extent(note, renderer) for note in notes]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_points_at_one_place_have_one_label() -> None:
    cases = [*points(*[(10**6, 4096)] * 3), *points((10**9, 10**6))]
    cases = [replace(case, name=f"case {i}") for i, case in enumerate(cases)]
    with style():
        notes = prices.loss_against_price(cases).findobj(Annotation)
    assert sorted(note.get_text() for note in notes) == ["case 0 / case 1 / case 2", "case 3"]


def test_where_each_point_stands_is_what_the_case_loses_and_pays() -> None:
    cases = fixtures.sweep_of_twenty().cases
    with style():
        figure = prices.loss_against_price(cases)
        rendered(figure)
    scale = {axes: axes.yaxis.get_major_formatter() for axes in figure.axes}
    found = []
    for axes in figure.axes:
        bad = axes.get_title(loc="left") == "loses acknowledged records"
        for place, tick in enumerate(axes.get_yticks()):
            assert size_bytes(scale[axes](tick, place)) == pytest.approx(2**tick, rel=0.01)
        for line in axes.lines:
            if line.get_marker() in ("o", "s"):
                filled = line.get_markerfacecolor() != "none"
                (y,) = np.asarray(line.get_ydata(), dtype=np.float64)
                found.append((bad, filled, round(2 ** float(y))))
    worth = standing.best(cases)
    expected = [
        (standing.loses_acknowledged(case), is_worth, case.at_risk_bytes.max)
        for case, is_worth in zip(cases, worth, strict=True)
    ]
    assert sorted(found) == sorted(expected)


def test_the_price_is_what_tells_the_cases_apart() -> None:
    slow = fixtures.case("slow", acknowledged=100)
    with style():
        words = words_of(prices.loss_against_price([fixtures.case(), slow]))
        assert "records acknowledged per second (logarithmic)" in words
        waits = [fixtures.case(), fixtures.case("waits", guest_wait_ns=fixtures.SECOND)]
        assert "guest's time spent waiting" in words_of(prices.loss_against_price(waits))
        flushes = [fixtures.case(), fixtures.case("few", flushes=3)]
        assert "flushes (logarithmic)" in words_of(prices.loss_against_price(flushes))


def test_layers_of_many_cases_are_on_one_scale_and_each_has_its_mean() -> None:
    little, much = Means([0], [100]), Means([0, fixtures.END // 2], [0, 1 << 20])
    cases = [fixtures.case("a", layers={"L2": little}), fixtures.case("b", layers={"L9": much})]
    with style():
        figure = timelines.layers_over_time(cases)
        rendered(figure)
    words = words_of(figure)
    assert "mean 100 B: too little to be seen on this scale" in words
    assert {"mean 512 KiB", "L9", "not on media (MiB)"} <= {*words}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    ticks = figure.axes[0].yaxis.get_major_formatter()
    assert float(ticks(1 << 20, 0)) == 1


def test_what_is_drawn_as_a_mean_says_of_how_long() -> None:
    second = fixtures.SECOND
    exact = fixtures.case(layers={"L2": Means([0], [1]), "L3": Means([second], [2])})
    thin = replace(exact, layers={"L2": Means([0, second], [1.5, 2], exact=False)})
    with style():
        assert "time (s)" in words_of(timelines.layers_over_time([exact]))
        words = words_of(timelines.layers_over_time([thin]))
    assert "time (s), drawn: mean of each 444 ms" in words
    assert pytest.approx(fixtures.END / 10**6, rel=0.01) == timelines._LAYER_COLUMNS * 444


@pytest.mark.parametrize(
    ("largest", "size", "time"),
    [(0, "bytes", "ns"), (999, "bytes", "ns"), (1024, "KiB", "µs"), (1 << 40, "GiB", "min")],
)
def test_units_of_axes_follow_the_largest_value(largest: int, size: str, time: str) -> None:
    assert size_unit(largest).name == size
    assert time_unit(largest).name == time


def test_zero_has_a_place_of_its_own_on_a_logarithmic_axis() -> None:
    scale = log_scale([0, 1000, 5_000_000], "ns")
    assert scale.labels[0] == "0"
    assert scale.position(0) == scale.ticks[0] < scale.position(1000)
    assert scale.position(5_000_000) <= scale.ticks[-1]
    assert "0" not in log_scale([1, 2], "bytes").labels


@pytest.mark.parametrize("kind", ["bytes", "ns", "count"])
def test_every_value_lies_within_its_logarithmic_axis(kind: str) -> None:
    for largest in (1, 2, 3, 1023, 1024, 1025, 10**6, 10**6 + 1, 1 << 62):
        scale = log_scale([largest, 1], kind)
        assert scale.ticks[0] <= scale.position(1) <= scale.position(largest) <= scale.ticks[-1]
        assert len(scale.ticks) <= 8


def test_a_compact_path_says_the_same_in_fewer_bytes() -> None:
    svg = b'<path d="M 1.23456 2 \nL 3 2 \nL 3 2 \nL 3 4.999999 \nL 5 6 z"/><use x="1.0001"/>'
    assert compact(svg) == b'<path d="M1.23 2H3V5L5 6z"/><use x="1"/>'
    curve = b'<path d="M 0 1 \nC 1 2 3 4 5 6.12345"/>'
    assert compact(curve) == b'<path d="M 0 1 C 1 2 3 4 5 6.12"/>'


def test_two_plots_in_one_page_share_no_id() -> None:
    svg = (
        b'<?xml?><svg width="9pt" height="8pt"><a id="x"/><use xlink:href="#x" c="url(#x)"/></svg>'
    )
    assert inlined(svg, "p1-", {}) == (
        '<svg><a id="p1-x"/><use xlink:href="#p1-x" c="url(#p1-x)"/></svg>'
    )


def test_every_picture_of_a_recording_says_of_what_it_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canvas, "rendered", lambda figure: (b"", b""))
    bad = replace(explorations.bad(), recorded=True, schedules=fixtures.lying_disk().schedules)
    other = replace(fixtures.without_sync(), recorded=True)
    plots = draw(fixtures.results(bad, other))
    assert {"price", "risk", "recovery-point", "distribution", "layers", "states"} < {
        plot.name for plot in plots
    }
    for plot in plots:
        assert plot.title.endswith(" (of what reached the device)"), plot.name
        assert plot.caption.endswith(" What the guest still held in memory is not in it.")
    for plot in draw(fixtures.results(bad, fixtures.with_sync())):
        mixed = "of what" if plot.name.startswith(("finding", "states", "out")) else "of recordings"
        assert f"({mixed}" in plot.title
    assert not any("of what" in plot.title for plot in draw(fixtures.story()))


def test_no_picture_says_of_records_what_a_checker_refutes() -> None:
    lossy = replace(fixtures.without_sync(), name="lossy")
    with style():
        said = " ".join(words_of(prices.loss_against_price([lossy, explorations.bad()])))
        fine = " ".join(words_of(prices.loss_against_price([lossy, fixtures.with_sync()])))
    assert "record in the simulation; a checker rejects states" in said
    assert "keeps every acknowledged record" in fine and "checker" not in fine
