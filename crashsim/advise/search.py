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
from crashsim.advise.evidence import MOST_RUNS, Checked, Toll, Trials, checked, losses, toll
from crashsim.advise.guest_memory import MOST_MARKS, Unsent, unsent
from crashsim.advise.missing_syncs import MOST_REMOVALS, Places, Spare, before_marks, redundant
from crashsim.engine.history import NEVER
from crashsim.engine.units import exact_instant
from crashsim.experiment.applications import Recording
from crashsim.experiment.loader import Case
from crashsim.report.progress import progress
from crashsim.runs.judged import Explored
from crashsim.runs.one import Run

MOST_SETTINGS = 36  # runs to find which settings end a loss
MOST_EXPLORED = 8  # changes
MOST_TOLD = 3  # policies under the same settings
STATES_WITHOUT = 1000  # explored without syncs that give no acknowledgement


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that was run, with its toll and states. `flushes`: of a recording, where."""

    changes: Changes
    flushes: Places | None
    after: Toll
    explored: Checked | None
    command: str

    @property
    def fine(self) -> bool:
        return _fine(self.after, self.explored)


@dataclass(frozen=True, slots=True)
class Advised:
    """What is wrong, what ends it, and what does not."""

    recorded: bool
    before: Toll
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


def _fine(after: Toll, explored: Checked | None) -> bool:
    return after.safe and (explored is None or explored.fine)


def advise(case: Case, typed: Typed, workers: int = 1) -> Advised:
    """Find what ends the loss of a case. NothingExplored, CheckerError as `crashsim run`."""
    return _Adviser(case, typed, workers).advise()


class _Candidate(NamedTuple):
    settings: Changes
    changes: Changes
    run: Run
    after: Toll


class _Adviser:
    """One case."""

    def __init__(self, case: Case, typed: Typed, workers: int) -> None:
        self._case = case
        self._typed = typed
        self._trials = Trials(typed.file, workers)
        self._run = Run(case)

    def advise(self) -> Advised:
        run = self._trials.run(self._run, "as it is")
        before = toll(run)
        found = self._trials.explored(run, run.name, causes=True)
        explored = None if found is None else checked(found)
        late = None if found is None else self._unsent(found)
        tried: list[Advice] = []
        untried = 0
        if not _fine(before, explored) and late is None:
            tried, untried = self._tried(before)
        with progress(MOST_RUNS) as self._trials.advance:
            idle, ordering = redundant(self._trials, run)
        return Advised(
            recorded=run.history.info.recorded,
            before=before,
            explored=explored,
            lost="" if before.safe else _first_lost(run),
            unsent=late,
            advice=tuple(one for one in tried if one.fine),
            refuted=tuple(one for one in tried if not one.fine),
            untried=untried,
            idle=idle,
            ordering=None if ordering is None else self._ordering(*ordering, explored),
            runs=self._trials.made,
            command=self._command((), explored),
        )

    def _command(self, changes: Changes, explored: Checked | None) -> str:
        """It expects no loss, and of what is known that which happens."""
        known = explored.known if explored is not None else ()
        expect = NO_LOSS if not known else f"{NO_LOSS[:-1]}, known: {flow([*known])}}}"
        return self._typed.command(self._case, changes, expect)

    def _unsent(self, found: Explored) -> Unsent | None:
        """Of a recording that the checker rejects: what had not left its guest."""
        run, target = self._run, found.session.target
        wanted = run.experiment.explore
        workload = run.experiment.resolved_devices()[target.device][1]
        if not found.found.rejected or wanted is None or not run.acknowledged:
            return None
        if not isinstance(workload, Recording):
            return None
        files = wanted.check.files_function or "{mnt}" in (wanted.check.command or "")
        with progress(MOST_MARKS) as advance:
            return unsent(run, target, bool(files), advance)

    # --- changes ----------------------------------------------------------------------------------

    def _tried(self, before: Toll) -> tuple[list[Advice], int]:
        """Changes that the simulation loses nothing with, explored; and how many were not."""
        explores = self._run.experiment.explore is not None
        with progress(MOST_RUNS) as self._trials.advance:
            found = _worth(list(self._candidates(before)))
            flushed = None
            if explores and not before.safe:
                flushed = before_marks(self._trials, self._run)
        few = found[:MOST_EXPLORED] if explores else found
        tried = []
        for one in few:
            what = ", ".join(change.text for change in one.changes)
            explored = self._trials.checked(one.run, what)
            command = self._command(one.changes, explored)
            tried.append(Advice(one.changes, None, one.after, explored, command))
        if flushed is not None:
            where, run = flushed
            explored = self._trials.checked(run, "flushes before marks")
            tried.append(Advice((), where, toll(run), explored, ""))
        return tried, len(found) - len(few)

    def _candidates(self, before: Toll) -> Iterator[_Candidate]:
        """Changes of settings and policies with which the simulation loses nothing."""
        experiment = self._run.experiment
        policies = programs(experiment)
        if before.safe:  # only the checker rejects: more syncs may help, settings are not at fault
            for policy in policies:
                yield from self._candidate((), policy)
            return
        if not at_fault(experiment):
            policies = [()]
        good: list[Changes] = []
        for together in (0, 1, 2):
            for some in combinations(list(settings(experiment)), together):
                if (some or policies[0]) and self._trials.made < MOST_SETTINGS:
                    good += [one.settings for one in self._candidate(some, policies[0])]
            if good:
                break
        for some in good:
            for policy in policies:
                if self._trials.left(2 * MOST_REMOVALS):
                    yield from self._candidate(some, policy)

    def _candidate(self, some: Changes, policy: Changes) -> Iterator[_Candidate]:
        changes = some + policy
        experiment = changed(self._run.experiment, changes)
        if experiment is None:
            return
        what = ", ".join(change.key for change in changes)
        run = self._trials.run(Run(replace(self._case, experiment=experiment)), what)
        after = toll(run)
        if after.safe and after.acknowledged:
            yield _Candidate(some, changes, run, after)

    def _ordering(self, one: Spare, run: Run, explored: Checked | None) -> Spare:
        """Whether the checker needs syncs that give no acknowledgement."""
        without = self._trials.checked(run, "without some syncs", STATES_WITHOUT)
        if without is None or explored is None:
            return one
        worse = tuple(name for name in without.rejected if name not in explored.rejected)
        return replace(one, explored=without, worse=worse)


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


def _beats(other: Toll, one: Toll) -> bool:
    mine, theirs = ((*a.cost(), a.delay_ns, -a.acknowledged) for a in (one, other))
    return theirs != mine and all(b <= a for a, b in zip(mine, theirs, strict=True))


def _first_lost(run: Run) -> str:
    """The first acknowledgement that can be lost, and what it lacks."""
    history, found = run.history, losses(run)
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
