"""A curve answers as a slow count over every nanosecond does."""

from __future__ import annotations

import pickle
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.power.steps import Ramps, StepFunction, ramp_spread, spread
from crashsim.runs.curve import Curve, of_ramps, of_steps

END = 60


def _values(curve: Curve) -> list[int]:
    """At every nanosecond, the last one included, from the columns alone."""
    out = [0] * (END + 1)
    for i, t in enumerate(curve.t_ns.tolist()):
        last = curve.t_ns[i + 1] if i + 1 < curve.t_ns.size else END + 1
        for now in range(t, min(int(last), END + 1)):
            out[now] = int(curve.values[i]) + (now - t if curve.grows[i] else 0)
    return out


@st.composite
def steps(draw: st.DrawFn) -> StepFunction:
    instants = sorted(draw(st.sets(st.integers(0, END + 5), max_size=8)))
    values = draw(st.lists(st.integers(0, 9), min_size=len(instants), max_size=len(instants)))
    return StepFunction(np.array(instants, np.int64), np.array(values, np.int64))


@st.composite
def ramps(draw: st.DrawFn) -> Ramps:
    bounds = sorted(draw(st.sets(st.integers(0, END), max_size=10)))
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    if draw(st.booleans()):  # some touch: the oldest write is saved, a younger one is not
        pairs = list(pairwise(bounds))
    low = draw(st.lists(st.integers(0, 20), min_size=len(pairs), max_size=len(pairs)))
    columns = ([start for start, _ in pairs], [end for _, end in pairs], low)
    return Ramps(*(np.array(column, dtype=np.int64) for column in columns))


@given(steps(), st.integers(0, 100))
def test_a_curve_of_bytes_answers_as_a_count_over_every_instant(
    found: StepFunction, percent: int
) -> None:
    curve = of_steps("bytes", found, END)
    slow = _values(curve)
    assert [curve.at(t) for t in range(END + 1)] == slow
    assert curve.max == max(slow)
    slow.pop()  # it takes no time
    assert curve.mean == pytest.approx(sum(slow) / END)
    need = ceil(Fraction(percent, 100) * END)
    assert curve.quantile(percent / 100) == (sorted(slow)[need - 1] if need else 0)
    known = spread(found, END)
    assert (curve.max, curve.quantile(0.5), curve.quantile(0.99)) == (
        known.max,
        known.p50,
        known.p99,
    )


@given(ramps())
def test_a_curve_of_ages_agrees_with_the_figures(found: Ramps) -> None:
    curve = of_ramps("age", found, END)
    assert [curve.at(t) for t in range(END)] == [found.at(t) for t in range(END)]
    known = ramp_spread(found, END)
    assert (curve.max, curve.quantile(0.5), curve.quantile(0.99)) == (
        known.max,
        known.p50,
        known.p99,
    )
    slow = _values(curve)
    assert abs(curve.mean - sum(slow[:-1]) / END) <= 0.5


def test_instants_are_numbers_or_words_and_a_share_is_one() -> None:
    curve = of_steps("bytes", StepFunction(np.array([5]), np.array([7])), END)
    assert curve.at("5ns") == curve.at(5) == 7
    assert (curve.bytes == [7]).all()
    with pytest.raises(ValueError, match="share from 0 to 1"):
        curve.quantile(99)
    again = pickle.loads(pickle.dumps(curve))
    assert again.max == 7
    age = of_ramps("age", Ramps(*(np.array([n]) for n in (0, 3, 0))), END)
    with pytest.raises(AttributeError, match="nanoseconds"):
        _ = age.bytes


def test_a_curve_draws_what_it_holds() -> None:
    curve = of_steps("lost", StepFunction(np.array([10, 20]), np.array([7, 0])), END)
    axes = curve.plot()
    x, y = axes.lines[0].get_xdata(), axes.lines[0].get_ydata()
    assert max(np.asarray(y)) == 7 and max(np.asarray(x)) == END / 1e9
    assert axes.get_ylabel() == "lost [B]"
    assert curve._repr_png_().startswith(b"\x89PNG")
