"""What is tried: runs, what each loses and costs, and what the checker says of its states.

Contract: a run is simulated once, and explored as `crashsim run` explores it: by its own block, its
checker, budget and seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crashsim.engine.pages import words
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.report.causes import states_text
from crashsim.report.progress import progress
from crashsim.runs.judged import Explored, explore_case
from crashsim.runs.one import Run

MOST_RUNS = 60


@dataclass(frozen=True, slots=True)
class Toll:
    """What a run loses to a power cut at the worst instant, and what it costs."""

    uncovered: int  # acknowledgements
    broken: int
    acknowledged: int
    flushes: int
    wait_ns: int
    delay_ns: int  # the longest from a record's last word to its acknowledgement

    @property
    def safe(self) -> bool:
        return not self.uncovered and not self.broken

    def cost(self) -> tuple[int, int]:
        return self.flushes, self.wait_ns


def losses(run: Run) -> Losses:
    """Of a power cut."""
    return Losses(run.history, Stage.DURABLE)


def toll(run: Run) -> Toll:
    """What it loses and costs."""
    history = run.history
    landed = np.zeros(int(history.store_write.max(initial=0)) + 2, dtype=np.int64)
    count = words(history.store_offset, history.store_length)
    np.maximum.at(landed, history.store_write + 1, history.store_t_ns + count - 1)
    return Toll(
        uncovered=run.uncovered().max,
        broken=int(losses(run).broken[0].size),
        acknowledged=run.acknowledged,
        flushes=int(history.flush_device.size),
        wait_ns=history.info.guest_wait_ns,
        delay_ns=int((history.ack_t_ns - landed[history.ack_high]).max(initial=0)),
    )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A finding: its states, what would have forbidden it, and why it is known, '': it is not."""

    outcome: str
    states: int
    cure: str
    known: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker said of the states. `reasons`: of each finding, none if their causes were
    not looked for; `known`: those that the experiment knows and that happen, as it spells them."""

    checked: int
    images: str  # how many there are, in words
    every: bool  # whether all of them were checked
    rejected: dict[str, int]
    reached: bool
    reasons: tuple[Rejected, ...] = ()
    known: tuple[dict[str, str], ...] = ()

    @property
    def failing(self) -> int:
        return sum(self.rejected.values())

    @property
    def fine(self) -> bool:
        """Nothing was rejected, or only what is known, as in `crashsim run`."""
        known = bool(self.reasons) and all(one.known for one in self.reasons)
        return known or not self.failing


def checked(explored: Explored) -> Checked:
    """What is told of an exploration."""
    found, result = explored.found, explored.found.result
    asked = explored.session.run.experiment.expect.known
    known = [k for k, one in zip(asked, explored.known, strict=True) if one.happens]
    return Checked(
        result.checked,
        states_text(result.images, result.images_text),
        result.checked == result.images and result.reached,
        found.rejected,
        result.reached,
        tuple(
            Rejected(one.outcome or one.kind, one.states, one.cure, explored.why_known(number))
            for number, one in enumerate(found.findings)
        ),
        tuple(one.model_dump(mode="json", exclude_none=True) for one in known),
    )


class Trials:
    """Runs and explorations, counted and told of. `file`: of the experiment, for its checker."""

    def __init__(self, file: str = "", workers: int = 1) -> None:
        self.made = 0
        self.advance: Callable[[int, str], None] = lambda _done, _what: None
        self._file = file
        self._workers = workers

    def run(self, run: Run, what: str) -> Run:
        """The same, simulated."""
        self.advance(self.made, what)
        self.made += 1
        _ = run.history
        return run

    def left(self, reserve: int = 0) -> bool:
        """Whether there may be another run, with some set aside."""
        return self.made < MOST_RUNS - reserve

    def explored(
        self, run: Run, what: str, states: int | None = None, causes: bool = False
    ) -> Explored | None:
        """Its states, at most so many; None where the experiment explores nothing. `causes`: look
        for those of the rejected ones. KeyboardInterrupt when it is interrupted."""
        wanted = run.experiment.explore
        if wanted is None:
            return None
        most = wanted.states if states is None else min(states, wanted.states)
        with progress(most) as advance:
            found = explore_case(
                run,
                self._file,
                self._workers,
                lambda done, _planned: advance(done, what),
                states=states,
                causes=causes,
            )
        if found.found.result.interrupted:
            raise KeyboardInterrupt
        return found

    def checked(self, run: Run, what: str, states: int | None = None) -> Checked | None:
        """What the checker says of them."""
        found = self.explored(run, what, states)
        return None if found is None else checked(found)
