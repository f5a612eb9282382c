"""Thinned figures never show less than there was, and exact ones say so."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crashsim import thinning
from crashsim.power.safety import Stage
from crashsim.power.steps import Ramps, StepFunction
from crashsim.thinning import largest, layers, saw_teeth

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
    shown = [value_at(t, thin.instants, thin.values) for t in range(end)]
    real = [whole.at(t) for t in range(end)]
    if thin.exact:
        assert shown == real
    else:
        bounds = [*thin.instants, end]
        for low, high, value in zip(bounds, bounds[1:], thin.values, strict=False):
            assert value == max(real[low:high])


@given(ramps(), st.integers(50, 500), st.integers(1, 40))
def test_thinned_saw_teeth_show_the_largest_value_of_each_interval(
    teeth: Ramps, end: int, limit: int
) -> None:
    thin = saw_teeth(teeth, end, limit)
    real = [teeth.at(t) for t in range(end)]
    if thin.exact:
        assert all(real[t] == v for t, v in zip(thin.instants, thin.values, strict=True))
        assert max(thin.values, default=0) == max(real)
    else:
        bounds = [*thin.instants, end]
        for low, high, value in zip(bounds, bounds[1:], thin.values, strict=False):
            assert value == max(real[low:high])


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(1, 6), st.data())
def test_thinned_layers_add_up_to_the_whole_at_the_worst_instants(
    parts: list[int], limit: int, data: st.DataObject
) -> None:
    t = np.array(data.draw(INSTANTS), dtype=np.int64)
    scale = np.array(
        data.draw(st.lists(st.integers(0, 9), min_size=t.size, max_size=t.size)), dtype=np.int64
    )
    total = np.cumsum([0, *parts])
    stages = {
        stage: StepFunction(t, scale * amount)
        for stage, amount in zip(thinning._INWARD, total, strict=True)
    }
    found = layers(stages, 401, limit)
    whole = stages[Stage.DURABLE]
    summed = np.sum([one.values for one in found.values()], axis=0).tolist()
    first = next(iter(found.values()))
    if first.exact:
        assert summed == [whole.at(instant) for instant in first.instants]
    else:
        assert max(summed) == max(whole.at(instant) for instant in range(401))
