"""What a failure takes of a world's run, by the simulator and by the oracle, in one form: what is
equal compares equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from crashsim.engine.history import History
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, kept_stage
from crashsim.power.steps import StepFunction
from tests.against_oracle import rows
from tests.oracle import Outcome
from tests.oracle.loss import Loss, Steps, loss

V = TypeVar("V")


@dataclass(frozen=True)
class Lost:
    """What a failure takes at the instants of [0, end); broken promises up to the end itself."""

    at_risk: Steps
    unsaved: Steps
    recovery: list[tuple[int, int | None]]
    uncovered: Steps
    holes: set[int]
    torn: set[int]
    broken: list[tuple[int, int]]  # submitted, acknowledged


def simulated_loss(history: History, domain: str) -> Lost:
    end = history.end_ns
    found = Losses(history, kept_stage(Domain(domain)))
    broken: list[tuple[int, int]] = []
    if domain == Domain.POWER_CUT:
        request = found.broken[0]
        broken = [(int(history.flush_submit_ns[r]), int(history.flush_ack_ns[r])) for r in request]
    return Lost(
        at_risk=_steps(found.at_risk, end),
        unsaved=_steps(found.unsaved, end),
        recovery=_oldest(rows(*found.recovery), end),
        uncovered=_steps(found.uncovered, end),
        holes=set(found.writes.write[found.holes].tolist()),
        torn=set(found.writes.write[found.torn].tolist()),
        broken=sorted(broken),
    )


def _steps(function: StepFunction, end_ns: int) -> Steps:
    rows = zip(function.instants.tolist(), function.values.tolist(), strict=True)
    return _clip([(0, 0), *rows], end_ns)


def _clip(steps: list[tuple[int, V]], end_ns: int) -> list[tuple[int, V]]:
    """Only what is inside the run, a later word on one instant over an earlier, no repetition."""
    values = {instant: value for instant, value in steps if instant <= end_ns}
    clipped: list[tuple[int, V]] = []
    for instant, value in values.items():
        if not clipped or clipped[-1][1] != value:
            clipped.append((instant, value))
    return clipped


def _oldest(ramps: list[tuple[int, ...]], end_ns: int) -> list[tuple[int, int | None]]:
    steps: list[tuple[int, int | None]] = [(0, None)]
    for start, until, low in ramps:
        steps += [(start, start - low), (until, None)]
    return _clip(steps, end_ns)


def predicted_loss(outcome: Outcome, domain: str, recorded: bool) -> Lost:
    end = outcome.end_ns
    expected: Loss = loss(outcome, domain)
    requests = [outcome.flush_requests[index] for index in expected.broken]
    return Lost(
        at_risk=_clip(expected.at_risk, end),
        unsaved=_clip(expected.unsaved, end),
        recovery=_clip(expected.recovery, end),
        uncovered=_clip(expected.uncovered_marks if recorded else expected.uncovered, end),
        holes=expected.holes,
        torn=expected.torn,
        broken=sorted(
            (r.submitted or 0, r.acknowledged or 0) for r in requests if domain == Domain.POWER_CUT
        ),
    )
