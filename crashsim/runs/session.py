"""The one door to exploring: a device of a run, and the checker of its states.

Contract: `Run.explore`, `crashsim run`, `advise` and `replay` come through `open_session`; nothing
of a checker is loaded before an image is checked. A finding is saved with everything that is needed
to see it again, its files named relative to itself, so that it can be moved together with them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crashsim import __version__
from crashsim.checkers import Checker
from crashsim.checkers.builtin import built_in
from crashsim.checkers.by_function import FunctionChecker
from crashsim.checkers.retry import Confirmed
from crashsim.checkers.spec import Rule, Spec, to_json
from crashsim.experiment.model import Experiment
from crashsim.explore.budget import Budget
from crashsim.explore.grouping import Cause
from crashsim.explore.saved import saved, write_saved
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import Exploration, OnProgress, explore
from crashsim.results.discovery import ExplorationResult
from crashsim.runs.new_file import new_file
from crashsim.runs.one import Run
from crashsim.states import Choices, HostKind, Rebuilt, Rules, Space

_RECORDING_FILES = ("log", "times", "image")


@dataclass(frozen=True, slots=True)
class Session:
    """What is explored, and all that it was made of."""

    target: Target
    run: Run
    spec: Spec

    @property
    def identity(self) -> str:
        """The same for the same experiment, recordings, rules and checker alone."""
        rules = self.target.space.rules
        parts = [
            __version__,
            _dump(self.run.experiment),
            sorted(self.run.inputs.files.items()),
            self.target.device,
            [rules.host, rules.atom_bytes],
            to_json(self.spec),
            self.run.paranoid,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def explore(
        self,
        budget: Budget,
        workers: int = 1,
        advance: OnProgress | None = None,
        *,
        journal: Path | None = None,
        causes: bool = True,
        known: Sequence[tuple[int, Choices]] = (),
    ) -> Exploration:
        """As `survey.explore`, by the experiment's seed."""
        seed, name = self.run.experiment.seed, self.identity if journal else ""
        return explore(self.target, budget, seed, workers, journal, name, advance, causes, known)

    def keep(self, finding: Cause, path: Path) -> None:
        """Write a finding to a file. OutputError when it cannot be written."""
        here = os.path.dirname(os.path.abspath(path))

        def relative(name: str) -> str:
            return os.path.relpath(name, here)

        experiment = renamed(_dump(self.run.experiment), relative)
        files = {relative(name): digest for name, digest in self.run.inputs.files.items()}
        checker = to_json(self.spec, relative(str(self.spec.folder)))
        write_saved(saved(finding, self.target, experiment, files, checker), path)


def open_session(
    run: Run,
    spec: Spec,
    host: HostKind = "any-host",
    atom_bytes: int | None = None,
    device: str | None = None,
) -> Session:
    """One device's states of a run; what survives or not as one is by default what the disk never
    tears. If the run is paranoid, whatever the checker is given is held against the state made from
    the History alone: a difference is a ReplayMismatch."""
    history, inputs, number = run.history, run.inputs, run.device_number(device)
    rules = Rules(host, atom_bytes or run.experiment.disk.atom)
    of_device = (history, inputs.content, inputs.before[number], number, rules)
    rebuilt = Rebuilt(*of_device) if run.paranoid else None
    return Session(
        Target(history, number, Space(*of_device), _maker(run, spec, number), rebuilt), run, spec
    )


def _maker(run: Run, spec: Spec, device: int) -> Callable[[], Checker]:
    """Makes the checker, in any process."""
    if not isinstance(spec, Rule):
        name, paranoid = run.history.devices[device].name, run.paranoid

        def made() -> Checker:
            checker = spec.checker(name, paranoid)
            if isinstance(checker, FunctionChecker) or not checker.session.shows_files:
                return Confirmed(checker)
            from crashsim.checkers.each_view import EachView  # with what reads file systems

            return EachView(checker, paranoid)

        return made
    kind, inputs = run.experiment.resolved_devices()[device][1].kind, run.inputs
    of_device = (inputs.programs, device, inputs.content, inputs.before[device], run.paranoid)
    return partial(built_in, spec.rule, kind, run.history, *of_device)


def _dump(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(mode="json", exclude_unset=True)


def renamed(tree: Any, name: Callable[[str], str]) -> Any:
    """An experiment as plain data, with the files of its recordings named anew."""
    if isinstance(tree, list):
        return [renamed(one, name) for one in tree]
    if not isinstance(tree, dict):
        return tree
    recording = tree.get("kind") == "recording"
    return {
        key: name(value)
        if recording and key in _RECORDING_FILES and isinstance(value, str)
        else renamed(value, name)
        for key, value in tree.items()
    }


@dataclass(frozen=True, slots=True)
class FoundState:
    """One cause: a state that the checker rejects, told and kept."""

    finding: Cause
    session: Session

    @property
    def outcome(self) -> str:
        """What the checker called it."""
        return self.finding.outcome or self.finding.kind

    @property
    def states(self) -> int:
        """How many of the states that were checked have this cause."""
        return self.finding.states

    @property
    def story(self) -> str:
        """What was kept and lost, what that breaks, and what would have forbidden it."""
        return "\n".join(self.finding.story)

    def save(self, path: str | Path) -> Path:
        """As a new file for `crashsim replay`. OutputError when something is there already, or it
        cannot be written."""
        with new_file(Path(path)) as working:
            self.session.keep(self.finding, working)
        return Path(path)


@dataclass(frozen=True, slots=True)
class Found:
    """What was explored, in `exploration` (counts, exact, and coverage), and what was found."""

    exploration: ExplorationResult
    findings: tuple[FoundState, ...]

    @property
    def checked(self) -> int:
        """States that were checked."""
        return self.exploration.checked

    @property
    def outcomes(self) -> dict[str, int]:
        """States by what the checker said, the most frequent first."""
        return self.exploration.outcomes

    def __repr__(self) -> str:
        count = len(self.findings)
        causes = "1 cause" if count == 1 else f"{count} causes"
        return f"<Found {causes} in {self.exploration.failing} of {self.checked} states>"
