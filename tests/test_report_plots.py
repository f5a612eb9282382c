"""Every picture can be drawn of every kind of run, and is the same each time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest
from matplotlib.text import Annotation, Text

from crashsim.report import layers, prices, timelines
from crashsim.report.canvas import log_scale, rendered, size_unit, style, time_unit
from crashsim.report.plots import draw
from crashsim.report.vector import compact, inlined
from crashsim.results import CaseResult, Results, Spread, Steps
from tests import report_fixtures as fixtures

NAMES = ["risk", "recovery-point", "distribution", "price", "layers"]


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


def test_the_same_results_give_the_same_bytes_in_every_process() -> None:
    script = (
        "import hashlib; from tests.report_fixtures import story; from crashsim.report.plots "
        "import draw; print([hashlib.sha256(p.svg + p.png).hexdigest() for p in draw(story())])"
    )
    run = [sys.executable, "-c", script]
    outputs = [
        subprocess.run(run, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 100


def test_pictures_carry_no_date() -> None:
    for plot in draw(fixtures.results(fixtures.case())):
        assert b"dc:date" not in plot.svg
        assert b"Software" not in plot.png


def test_matplotlib_is_loaded_only_when_something_is_drawn() -> None:
    modules = ["compare", "github", "html", "junit", "loading", "markdown", "plots", "progress"]
    modules += ["terminal", "words", "write"]
    script = "; ".join(f"import crashsim.report.{module}" for module in modules)
    script += "; import sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def words_of(figure: object) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def test_axes_are_labelled_with_their_units() -> None:
    with style():
        risk = timelines.risk_over_time(fixtures.story().cases)
        age = timelines.recovery_point_over_time(fixtures.story().cases)
    assert {"bytes at risk (MiB)", "time (s)"} <= {*words_of(risk)}
    assert {"age of the oldest unsaved write (s)", "time (s)"} <= {*words_of(age)}


def test_one_picture_shows_the_unsynced_loss_the_flusher_and_the_synced_one() -> None:
    with style():
        words = words_of(timelines.risk_over_time(fixtures.story().cases))
    assert "worst: 17.2 MiB at 35.2 s" in words
    assert {"sync=none", "no flush", "host flusher's pass", "1,600 flushes"} <= {*words}
    assert any("a closer look" in text and "27.5 KiB at worst" in text for text in words)


@pytest.mark.parametrize(
    ("figure_of", "expected"),
    [
        (timelines.risk_over_time, "nothing is at risk at any instant"),
        (timelines.recovery_point_over_time, "every write is safe at once"),
        (prices.distribution_of_loss, "nothing is lost at any instant"),
        (layers.layers_over_time, "all on the media at every instant"),
    ],
)
def test_a_picture_of_no_loss_says_so(figure_of: object, expected: str) -> None:
    with style():
        assert expected in words_of(figure_of([fixtures.case()]))  # type: ignore[operator]


def test_many_cases_are_told_apart_by_colour_only_from_worst_to_best() -> None:
    cases = fixtures.sweep_of_twenty().cases
    chosen = timelines.coloured(cases)
    assert len(chosen) == timelines.MOST_COLOURED
    losses = [case.at_risk_bytes.max for case in cases]
    assert max(losses) in [losses[i] for i in chosen]
    assert min(losses) in [losses[i] for i in chosen]
    with style():
        assert "15 other cases (largest values)" in words_of(timelines.risk_over_time(cases))


def points(*places: tuple[int, int]) -> list[CaseResult]:
    return [
        fixtures.case(f"case {i}", guest_wait_ns=x, at_risk_bytes=Spread(y, y, y))
        for i, (x, y) in enumerate(places)
    ]


@pytest.mark.parametrize(
    "cases",
    [
        fixtures.sweep_of_twenty().cases,
        points(*[(10**6, 4096)] * 5),
        points(*[(10**6 + i, 4096 + i) for i in range(20)]),
    ],
    ids=["sweep", "one place", "close"],
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


def test_a_layer_plot_of_many_cases_shows_the_worst_and_says_what_it_leaves_out() -> None:
    cases = fixtures.sweep_of_twenty().cases
    assert len(layers.panels_of(cases)) == layers.MOST_PANELS
    assert "8 cases" in layers.hidden_note(cases)
    assert layers.hidden_note(cases[:3]) == ""
    loss = Steps([0], [1])
    unknown = fixtures.case(loss=loss, layers={"L9": loss})
    with style():
        assert "L9" in words_of(layers.layers_over_time([unknown]))


def test_thinned_layers_are_not_passed_off_as_one_instants() -> None:
    loss = Steps([0, 1], [1, 2])
    case = fixtures.case(layers={"L2": loss, "L3": replace(loss, exact=False)})
    with style():
        words = words_of(layers.layers_over_time([case]))
        assert "time (s), each layer at its largest" in words
        exact = replace(case, layers={"L2": loss, "L3": loss})
        assert "time (s)" in words_of(layers.layers_over_time([exact]))


def test_a_closer_look_is_taken_only_at_functions_that_were_not_thinned() -> None:
    big, small = fixtures.without_sync(), fixtures.with_sync(100)
    window = timelines._zoom([big, small], [0, 1])
    assert window is not None
    assert 0 < window[0] < window[1] < fixtures.END
    thinned = replace(small, loss=replace(small.loss, exact=False))
    assert timelines._zoom([big, thinned], [0, 1]) == (0, fixtures.END, [1])
    assert timelines._zoom([big, fixtures.case()], [0, 1]) is None


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
