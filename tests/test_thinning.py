"""Thinned figures never show less than there was, and exact ones say so."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.power.steps import Ramps, StepFunction
from crashsim.report import timelines
from crashsim.results import thinning
from crashsim.results.thinning import largest, saw_teeth
from crashsim.runs import measure
from crashsim.runs.measure import layers
from tests.against_oracle import comparable, simulate_world
from tests.oracle import OracleWorld
from tests.oracle.worlds import worlds
from tests.test_two_files import FEWER_WORLDS

INSTANTS = st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True).map(sorted)


@st.composite
def steps(draw: st.DrawFn) -> StepFunction:
    t = draw(INSTANTS)
    values = draw(st.lists(st.integers(0, 50), min_size=len(t), max_size=len(t)))
    return StepFunction(np.array(t, dtype=np.int64), np.array(values, dtype=np.int64))


@st.composite
def ramps(draw: st.DrawFn) -> Ramps:
    t = draw(INSTANTS)
    start, end = t[:-1], t[1:]
    low = draw(st.lists(st.integers(0, 9), min_size=len(start), max_size=len(start)))
    return Ramps(*(np.array(column, dtype=np.int64) for column in (start, end, low)))


def value_at(t: int, instants: list[int], values: list[int]) -> int:
    return max([0, *[v for i, v in zip(instants, values, strict=True) if i <= t][-1:]])


@given(steps(), st.integers(50, 500), st.integers(1, 12))
def test_a_thinned_step_function_shows_the_largest_value_of_each_interval(
    whole: StepFunction, end: int, limit: int
) -> None:
    thin = largest(whole, end, limit)
    shown = [value_at(t, thin.instants, thin.values) for t in range(end + 1)]
    real = [whole.at(t) for t in range(end + 1)]
    if thin.exact:
        assert shown == real
    else:
        bounds = [*thin.instants, end + 1]
        for low, high, value in zip(bounds, bounds[1:], thin.values, strict=False):
            assert value == max(real[low:high])


@given(ramps(), st.integers(50, 500), st.integers(1, 40))
def test_thinned_saw_teeth_show_the_largest_value_of_each_interval(
    teeth: Ramps, end: int, limit: int
) -> None:
    thin = saw_teeth(*teeth, end, limit)
    real = [teeth.at(t) for t in range(end)]
    if thin.exact:
        assert all(real[t] == v for t, v in zip(thin.instants, thin.values, strict=True))
        assert max(thin.values, default=0) == max(real)
    else:
        bounds = [*thin.instants, end]
        for low, high, value in zip(bounds, bounds[1:], thin.values, strict=False):
            assert value == max(real[low:high])


def mean(values: list[int]) -> float:
    return float(Fraction(sum(values), len(values)))


@given(st.data(), st.integers(50, 500), st.integers(1, 12), st.sampled_from([1, 1 << 45]))
def test_thinned_layers_are_the_mean_of_each_interval_and_add_up_to_that_of_the_whole(
    data: st.DataObject, end: int, limit: int, scale: int
) -> None:
    drawn = [data.draw(steps()) for _ in range(4)]
    # Each stage is reached by what reached the one after it, so the stages only grow.
    t = np.unique(np.concatenate([part.instants for part in drawn]))
    parts = [scale * thinning.values_at(part, t) for part in drawn]
    stages = {measure._INWARD[0]: StepFunction(t, np.zeros_like(t))}
    for stage, number in zip(measure._INWARD[1:], range(1, 5), strict=True):
        stages[stage] = StepFunction(t, np.sum(parts[:number], axis=0))
    found = layers(stages, end, limit, intervals=limit)
    for part, thin in zip(parts, found.values(), strict=True):
        real = [StepFunction(t, part).at(instant) for instant in range(end + 1)]
        bounds = [*thin.instants, end]
        if thin.exact:
            assert [real[instant] for instant in thin.instants] == thin.values
        else:
            assert len(thin.values) == limit
            assert thin.values == [mean(real[low:high]) for low, high in pairwise(bounds)]


@FEWER_WORLDS
@given(world=worlds())
def test_the_layers_of_a_run_are_the_means_of_what_the_analysis_says_at_each_nanosecond(
    world: OracleWorld,
) -> None:
    history = simulate_world(comparable(world))
    end = min(history.end_ns, 3000)
    assume(end >= 12)
    stages = measure._stages(history, Losses(history, Stage.DURABLE).at_risk)
    found = layers(stages, end, limit=12, intervals=12)
    for (inner, outer), thin in zip(pairwise(measure._INWARD), found.values(), strict=True):
        real = [stages[outer].at(t) - stages[inner].at(t) for t in range(end)]
        shown = zip(thin.instants, [*thin.instants[1:], end], thin.values, strict=True)
        if not thin.exact:
            assert all(value == mean(real[low:high]) for low, high, value in shown)


def test_every_column_of_a_picture_is_a_whole_number_of_thinned_intervals() -> None:
    for columns in (timelines._LAYER_COLUMNS, timelines._ALIKE_LAYER_COLUMNS, 1):
        assert thinning.COLUMNS % columns == 0
    assert thinning.COLUMNS < thinning.PICTURE_STEPS
