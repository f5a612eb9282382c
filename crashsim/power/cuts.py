"""Chosen cuts of a run: which instants, and why.

Contract: the instant of the greatest loss is always among them, so no run is without a cut.
"""

from __future__ import annotations

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.pages import unique_sorted
from crashsim.engine.streams import I64, Stream
from crashsim.experiment.failures import Power
from crashsim.power.steps import StepFunction


def instants(
    history: History, power: Power, at_risk: StepFunction, paranoid: bool
) -> list[tuple[int, str]]:
    """(instant, why) of the chosen cuts, ascending, without repetition."""
    end = history.end_ns
    chosen: dict[int, str] = {}
    inside = at_risk.instants <= end
    if bool(inside.any()):
        values = at_risk.values[inside]
        chosen[int(at_risk.instants[inside][int(values.argmax())])] = "the greatest loss"
    elif end:
        chosen[end] = "the run's end"
    for t in power.at:
        if t <= end:
            chosen.setdefault(t, "asked for")
    draws = Stream(history.info.seed, "cuts").draws(np.arange(power.random))
    for draw in draws.tolist():
        chosen.setdefault(draw * end >> 64, "at random")
    if power.every_durability_event or paranoid:
        for t in durability_events(history).tolist():
            if t <= end:
                chosen.setdefault(t, "something became durable")
    return sorted(chosen.items())


def durability_events(history: History) -> I64:
    """Instants at which stores may have become durable."""
    if history.info.plp:
        return unique_sorted(history.io_complete_ns)
    return unique_sorted(history.flush_disk_end_ns)
