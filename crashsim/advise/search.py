"""What is lost, whose fault it is, and the cheapest change that ends it.

Contract: a verdict has the two sources of `crashsim run`: the figures of the simulation, and, where
the experiment explores, its checker over the states of its own budget, by its own seed. Fine is
what both accept. A change is advised if its run is fine in the same way and something is
acknowledged in it; the command behind it runs just that. What was not established is said. What the
experiment knows (`expect: {known: ...}`) is no loss: it is told, and nothing is tried against it.

- At fault is what a change of it mends: single settings before pairs, each with the strictest of
  the programs' policies; those that end the loss with all of them. Cheapest first: fewest flushes,
  then waiting. Policies are left out that cost more than another and acknowledge no sooner.
- Of a recording nothing of the program can be changed. What its guest had not written by an
  acknowledgement is found by `guest_memory.py`, and then neither settings nor flushes of the device
  are tried: the best of disks loses it. Otherwise flushes before its marks are.
- Syncs that give no acknowledgement are told together with what the checker says without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from crashsim.advise.changes import (
    NO_LOSS,
    Changes,
    Typed,
    at_fault,
    changed,
    flow,
    programs,
    settings,
)
from crashsim.advise.guest_memory import MOST_MARKS, Unsent, unsent
from crashsim.advise.missing_syncs import (
    MOST_RUNS,
    Figures,
    Places,
    Removal,
    Trials,
    before_marks,
    figures,
    redundant,
)
from crashsim.engine.history import NEVER, History
from crashsim.engine.units import exact_instant
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment, Recording
from crashsim.explore.state_runner import Target
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.report.causes import states_text
from crashsim.report.progress import progress
from crashsim.runs.judged import Explored, explore_case
from crashsim.runs.one import Run
from crashsim.simulate.inputs import Inputs, make_inputs

MOST_SETTINGS = 36  # runs to find which settings end a loss
MOST_EXPLORED = 8  # changes
MOST_TOLD = 3  # policies under the same settings
STATES_WITHOUT = 1000  # explored without syncs that give no acknowledgement


@dataclass(frozen=True, slots=True)
class Reason:
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
    reasons: tuple[Reason, ...] = ()
    known: tuple[dict[str, str], ...] = ()

    @property
    def failing(self) -> int:
        return sum(self.rejected.values())

    @property
    def fine(self) -> bool:
        """Nothing was rejected, or only what is known, as in `crashsim run`."""
        known = bool(self.reasons) and all(one.known for one in self.reasons)
        return known or not self.failing


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that was run, with its figures and states. `flushes`: of a recording, where."""

    changes: Changes
    flushes: Places | None
    after: Figures
    explored: Checked | None
    command: str

    @property
    def fine(self) -> bool:
        return _fine(self.after, self.explored)


@dataclass(frozen=True, slots=True)
class Spare:
    """Syncs that give no acknowledgement, and what came of a run without them. `worse`: outcomes
    that the checker rejects only then; None: not explored."""

    places: Places
    before: Figures
    after: Figures
    explored: Checked | None = None
    worse: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Advised:
    """What is wrong, what ends it, and what does not."""

    recorded: bool
    before: Figures
    explored: Checked | None
    lost: str  # the first acknowledgement that the simulation loses, and why
    unsent: Unsent | None
    advice: tuple[Advice, ...]
    refuted: tuple[Advice, ...]  # the simulation loses nothing, the checker still rejects
    untried: int  # changes that were simulated, but not explored
    idle: Spare | None
    ordering: Spare | None
    runs: int
    command: str

    @property
    def fine(self) -> bool:
        return _fine(self.before, self.explored)

    @property
    def exit_code(self) -> int:
        """0 nothing is lost, or something ends it; 1; 4: the budget ended before the coverage."""
        if not self.fine:
            return 0 if self.advice else 1
        return 0 if self.explored is None or self.explored.reached else 4


def _fine(after: Figures, explored: Checked | None) -> bool:
    return after.safe and (explored is None or explored.fine)


def advise(case: Case, typed: Typed, workers: int = 1) -> Advised:
    """Find what ends the loss of a case. NothingExplored, CheckerError as `crashsim run`."""
    return _Adviser(case, typed, workers).advise()


class _Candidate(NamedTuple):
    settings: Changes
    changes: Changes
    experiment: Experiment
    inputs: Inputs
    history: History
    after: Figures


class _Adviser:
    """One case."""

    def __init__(self, case: Case, typed: Typed, workers: int) -> None:
        self._case = case
        self._typed = typed
        self._workers = workers
        self._trials = Trials()
        self._experiment = case.experiment
        self._inputs = make_inputs(case.experiment)
        self._target: Target | None = None  # that was explored last

    def advise(self) -> Advised:
        history = self._trials.run(self._experiment, self._inputs.programs, "as it is")
        before = figures(history)
        explored = self._explored(self._experiment, self._inputs, history, causes=True)
        late = self._unsent(explored)
        tried: list[Advice] = []
        untried = 0
        if not _fine(before, explored) and late is None:
            tried, untried = self._tried(before, history)
        idle, ordering = self._spare(history, explored)
        return Advised(
            recorded=history.info.recorded,
            before=before,
            explored=explored,
            lost="" if before.safe else _first_lost(history),
            unsent=late,
            advice=tuple(one for one in tried if one.fine),
            refuted=tuple(one for one in tried if not one.fine),
            untried=untried,
            idle=idle,
            ordering=ordering,
            runs=self._trials.made,
            command=self._typed.command(self._case, (), _no_loss(explored)),
        )

    # --- exploring --------------------------------------------------------------------------------

    def _explored(
        self,
        experiment: Experiment,
        inputs: Inputs,
        history: History,
        what: str = "",
        states: int | None = None,
        causes: bool = False,
    ) -> Checked | None:
        """What the experiment's checker says of a run; None without one."""
        wanted = experiment.explore
        if wanted is None:
            return None
        run = Run(replace(self._case, experiment=experiment), history=history, inputs=inputs)
        with progress(wanted.states if states is None else min(states, wanted.states)) as advance:
            found = explore_case(
                run,
                self._typed.file,
                self._workers,
                lambda done, _planned: advance(done, what or self._case.name),
                states=states,
                causes=causes,
            )
        if found.found.interrupted:
            raise KeyboardInterrupt
        self._target = found.session.target
        return _checked(found)

    def _unsent(self, explored: Checked | None) -> Unsent | None:
        wanted, target = self._experiment.explore, self._target
        if explored is None or not explored.failing or wanted is None or target is None:
            return None
        workload = self._experiment.resolved_devices()[target.device][1]
        if not isinstance(workload, Recording) or not target.history.ack_t_ns.size:
            return None
        files = wanted.check.files_function or "{mnt}" in (wanted.check.command or "")
        with progress(MOST_MARKS) as advance:
            return unsent(target, bool(files), advance)

    # --- changes ----------------------------------------------------------------------------------

    def _tried(self, before: Figures, history: History) -> tuple[list[Advice], int]:
        """Changes that the simulation loses nothing with, explored; and how many were not."""
        with progress(MOST_RUNS) as self._trials.advance:
            found = list(self._candidates(before))
            flushed = None
            if not before.safe and self._experiment.explore is not None:
                programs = self._inputs.programs
                flushed = before_marks(self._trials, self._experiment, programs, history)
        found = _worth(found)
        if self._experiment.explore is None:
            return [self._advice(one, None) for one in found], 0
        tried = [
            self._advice(one, self._explored(one.experiment, one.inputs, one.history, _words(one)))
            for one in found[:MOST_EXPLORED]
        ]
        if flushed is not None:
            where, run = flushed
            inputs = replace(self._inputs, programs=list(run.programs))
            explored = self._explored(self._experiment, inputs, run.history, "flushes before marks")
            tried.append(Advice((), where, figures(run.history), explored, ""))
        return tried, len(found[MOST_EXPLORED:])

    def _advice(self, one: _Candidate, explored: Checked | None) -> Advice:
        command = self._typed.command(self._case, one.changes, _no_loss(explored))
        return Advice(one.changes, None, one.after, explored, command)

    def _candidates(self, before: Figures) -> Iterator[_Candidate]:
        """Changes of settings and policies with which the simulation loses nothing."""
        policies = programs(self._experiment)
        if before.safe:  # only the checker rejects: more syncs may help, settings are not at fault
            for policy in policies:
                yield from self._run((), policy)
            return
        if not at_fault(self._experiment):
            policies = [()]
        good: list[Changes] = []
        for together in (0, 1, 2):
            for some in combinations(list(settings(self._experiment)), together):
                if (some or policies[0]) and self._trials.made < MOST_SETTINGS:
                    good += [one.settings for one in self._run(some, policies[0])]
            if good:
                break
        for some in good:
            for policy in policies:
                if self._trials.left():
                    yield from self._run(some, policy)

    def _run(self, some: Changes, policy: Changes) -> Iterator[_Candidate]:
        changes = some + policy
        experiment = changed(self._experiment, changes)
        if experiment is None:
            return
        inputs = make_inputs(experiment)
        what = ", ".join(change.key for change in changes)
        history = self._trials.run(experiment, inputs.programs, what)
        after = figures(history)
        if after.safe and after.acknowledged:
            yield _Candidate(some, changes, experiment, inputs, history, after)

    # --- syncs that give no acknowledgement -------------------------------------------------------

    def _spare(
        self, history: History, explored: Checked | None
    ) -> tuple[Spare | None, Spare | None]:
        with progress(MOST_RUNS) as self._trials.advance:
            idle, ordering = redundant(
                self._trials, self._experiment, self._inputs.programs, history
            )
        told = None if idle is None else Spare(idle.places, idle.before, idle.after)
        return told, None if ordering is None else self._ordering(ordering, explored)

    def _ordering(self, one: Removal, explored: Checked | None) -> Spare:
        inputs = replace(self._inputs, programs=list(one.tried.programs))
        without = self._explored(
            self._experiment, inputs, one.tried.history, "without some syncs", STATES_WITHOUT
        )
        worse = None
        if without is not None and explored is not None:
            worse = tuple(
                outcome for outcome in without.rejected if outcome not in explored.rejected
            )
        return Spare(one.places, one.before, one.after, without, worse)


def _checked(explored: Explored) -> Checked:
    found, known = explored.found.result, [one for one in explored.known if one.happens]
    reasons = [
        Reason(one.outcome or one.kind, one.states, one.cure, explored.why_known(number))
        for number, one in enumerate(explored.found.findings)
    ]
    return Checked(
        found.checked,
        states_text(found.images, found.images_text),
        found.checked == found.images and found.reached,
        explored.found.rejected,
        found.reached,
        tuple(reasons),
        tuple(one.known.model_dump(mode="json", exclude_none=True) for one in known),
    )


def _no_loss(explored: Checked | None) -> str:
    """What the command expects: no loss, and of what is known that which happens."""
    known = explored.known if explored is not None else ()
    return NO_LOSS if not known else f"{NO_LOSS[:-1]}, known: {flow([*known])}}}"


def _words(one: _Candidate) -> str:
    return ", ".join(change.text for change in one.changes)


def _worth(found: Sequence[_Candidate]) -> list[_Candidate]:
    """Cheapest first. Of policies under the same settings those that cost less or acknowledge
    sooner than every other, and of these the cheapest, the promptest, and one in between."""
    worth: list[_Candidate] = []
    for some in dict.fromkeys(one.settings for one in found):
        mine = [one for one in found if one.settings == some]
        best = [one for one in mine if not any(_beats(other.after, one.after) for other in mine)]
        best.sort(key=lambda one: one.after.cost())
        chosen = np.linspace(0, len(best) - 1, min(MOST_TOLD, len(best)))
        worth += [best[round(number)] for number in chosen.tolist()]
    return sorted(worth, key=lambda one: one.after.cost())


def _beats(other: Figures, one: Figures) -> bool:
    mine, theirs = ((*a.cost(), a.delay_ns, -a.acknowledged) for a in (one, other))
    return theirs != mine and all(b <= a for a, b in zip(mine, theirs, strict=True))


def _first_lost(history: History) -> str:
    """The first acknowledgement that can be lost, and what it lacks."""
    found = Losses(history, Stage.DURABLE)
    safe = found.covered_ns
    late = np.flatnonzero(safe > history.ack_t_ns)
    if not late.size and found.uncovered.instants.size:
        return "what had been durable was lost again: the disk is at fault (D4)"
    if not late.size:
        return "a flush was acknowledged with success and a store it covers was not durable (V2)"
    ack = int(late[0])
    given = int(history.ack_t_ns[ack])
    label = str(history.ack_label[ack])
    last_write = int(history.ack_high[ack]) - 1
    name = f"'{label}'" if label else f"of write {last_write}"
    rows = np.flatnonzero(history.store_write == last_write)
    stored = int(history.store_t_ns[rows[-1]]) if rows.size else 0
    behind = (history.flush_submit_ns > stored) & (history.flush_ack_ns <= given)
    flushed = bool(np.any(behind & (history.flush_result == 0)))
    until = "never safe" if safe[ack] == NEVER else f"safe at {exact_instant(int(safe[ack]))}"
    if history.info.recorded:
        why = "no flush that succeeded lies between the mark before it and it"
    elif flushed:
        why = "although a flush behind it had succeeded: a setting is at fault"
    else:
        why = f"no sync that succeeded lies between write {last_write} and it"
    return f"the acknowledgement {name}, given at {exact_instant(given)}, is {until}: {why}"
