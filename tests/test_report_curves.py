"""Step functions are made ready for drawing without telling less than the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.report.distribution import distribution, thinned
from crashsim.report.timelines import stack
from crashsim.results import Means, Steps
from crashsim.results.thinning import band, line, means, seen

END = 1000


@st.composite
def step_functions(draw: st.DrawFn) -> Steps:
    instants = sorted(draw(st.sets(st.integers(0, END - 1), max_size=60)))
    size = len(instants)
    values = draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    return Steps(instants, values)


def value_at(steps: Steps, t_ns: int) -> int:
    held = [v for at, v in zip(steps.instants, steps.values, strict=True) if at <= t_ns]
    return held[-1] if held else 0


def test_a_function_of_few_steps_is_drawn_as_it_is() -> None:
    shape = band(Steps([10, 20], [5, 7]), 0, 100, columns=10)
    assert shape.exact
    assert shape.t_ns.tolist() == [0, 10, 20, 100]
    assert shape.low.tolist() == [0, 5, 7, 7]


@settings(deadline=None)
@given(step_functions(), st.integers(1, 12))
def test_an_envelope_holds_the_least_and_the_largest_value_of_each_column(
    steps: Steps, columns: int
) -> None:
    shape = band(steps, 0, END, columns)
    for i in range(shape.t_ns.size - 1):
        start, stop = int(shape.t_ns[i]), int(shape.t_ns[i + 1])
        values = [value_at(steps, t) for t in range(start, stop)]
        assert (shape.low[i], shape.high[i]) == (min(values), max(values))


def test_the_narrowest_peak_of_a_huge_function_is_drawn() -> None:
    steps = Steps(list(range(100_000)), [0] * 100_000)
    steps.values[70_123] = 9
    shape = band(steps, 0, 100_000)
    assert not shape.exact
    assert shape.t_ns.size < 1000
    assert shape.high.max() == 9


def test_a_window_begins_with_the_value_that_held_before_it() -> None:
    shape = band(Steps([10, 50], [5, 7]), 20, 60)
    assert shape.t_ns.tolist() == [20, 50, 60]
    assert shape.low.tolist() == [5, 7, 7]


def test_between_two_points_of_a_recovery_point_the_value_is_on_the_line() -> None:
    shape = line(Steps([0, 100], [0, 100]), 20, 60)
    assert shape.t_ns.tolist() == [20, 60]
    assert shape.low.tolist() == [20, 60]


def test_the_envelope_of_a_recovery_point_keeps_peaks_and_what_lies_between_points() -> None:
    points = [(t + d, v) for t in range(0, 10_000, 10) for d, v in ((0, 0), (10, 10))]
    shape = line(Steps([t for t, _ in points], [v for _, v in points]), 0, 10_000, columns=50)
    assert set(shape.low.tolist()) == {0}
    assert set(shape.high.tolist()) == {10}
    slope = Steps([0, *range(9000, 10_000)], [0, *range(9000, 10_000)])
    shape = line(slope, 0, 10_000, columns=50)
    assert shape.high[0] == 200
    assert shape.low[10] == 2000


def test_parts_of_a_whole_are_taken_at_common_instants() -> None:
    shape = stack([Means([0, 20], [5, 0]), Means([10], [1])], 30)
    assert shape.mean_ns == 0
    assert shape.t_ns.tolist() == [0, 10, 20, 30]
    assert [row.tolist() for row in shape.rows] == [[5, 5, 0, 0], [0, 1, 1, 1]]


def test_too_many_steps_of_a_whole_are_averaged_so_that_the_parts_still_add_up() -> None:
    there = Means(list(range(1000)), [8 * (t % 4 == 0) for t in range(1000)])
    elsewhere = Means(list(range(1000)), [8 * (t % 4 != 0) for t in range(1000)])
    shape = stack([there, elsewhere], 1000, columns=10)
    assert shape.mean_ns == 100
    assert np.allclose(shape.rows[0], 2)
    assert np.allclose(shape.rows[1], 6)


def test_a_function_that_was_thinned_is_never_drawn_as_exact() -> None:
    assert stack([Means([0, 500], [1.5, 2], exact=False)], 1000).mean_ns > 0


@settings(deadline=None)
@given(step_functions(), st.integers(1, 12))
def test_the_mean_of_each_column_is_that_of_every_instant(steps: Steps, columns: int) -> None:
    found = means(Means(steps.instants, [*map(float, steps.values)]), END, columns)
    edges = [END * i // columns for i in range(columns + 1)]
    for value, start, stop in zip(found, edges, edges[1:], strict=False):
        assert value == pytest.approx(np.mean([value_at(steps, t) for t in range(start, stop)]))


@settings(deadline=None)
@given(step_functions())
def test_the_distribution_is_the_exact_share_of_time_above_each_value(steps: Steps) -> None:
    whole = distribution(steps, END)
    everywhere = [value_at(steps, t) for t in range(END)]
    for value, share in zip(whole.values, whole.share, strict=True):
        assert share == sum(v > value for v in everywhere) / END
    assert whole.values[0] == 0
    assert whole.share[-1] == 0


def test_a_thinned_distribution_keeps_its_ends_and_every_visible_change() -> None:
    whole = distribution(Steps(list(range(5000)), list(range(5000))), 5000)
    few = thinned(whole, points=100)
    assert few.values.size < 220
    assert few.values[-1] == 4999
    assert few.share[0] == whole.share[0]
    assert np.abs(np.diff(few.share)).max() <= 2 / 100


@pytest.mark.parametrize(("columns", "expected"), [(1000, [1, 2, 3, 900]), (10, [1, 900])])
def test_marks_are_thinned_to_one_for_each_column(columns: int, expected: list[int]) -> None:
    marks = [1, 2, 3, 900, 5000]
    if columns == 10:
        marks = [*marks, *[901] * 20]
    assert sorted({*seen(marks, 0, 1000, columns).tolist()}) == expected
