"""Exploring a case as its experiment says, and what of its findings was expected.

Contract: what was checked is kept beside the runs while it goes on, so that an exploration that was
killed or interrupted goes on where it was when the same experiment is run again; when it is done,
that file is removed. Findings are written to `findings/` in the run's folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from crashsim.checkers.spec import KINDS, Spec, from_json
from crashsim.errors import OutputError, StaleFinding, UsageError
from crashsim.experiment.expect import Expect, judge
from crashsim.experiment.trial import Explore
from crashsim.explore.budget import Budget
from crashsim.explore.saved import SUFFIX, Replayed, Saved, locate, read_saved
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import Exploration, OnProgress
from crashsim.explore.trust import remember
from crashsim.results import CaseResult, Expectation
from crashsim.results.discovery import KnownResult
from crashsim.runs.one import Run
from crashsim.runs.session import Session, open_session
from crashsim.states import Choices

KNOWN = "known_findings"  # the name of what is expected of known ones


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of one case, and of what its experiment knows. `journal` is what to remove once
    the results are kept."""

    found: Exploration
    session: Session
    known: list[KnownResult]
    journal: Path | None

    def why_known(self, number: int) -> str:
        """Why the finding of that number is no surprise, '': it is one."""
        return next((one.why for one in self.known if number in one.findings), "")


def explore_case(
    run: Run,
    file: str,
    workers: int,
    advance: OnProgress | None = None,
    *,
    output: Path | None = None,
    states: int | None = None,
    causes: bool = True,
) -> Explored:
    """Explore a run as the `explore` block of its experiment in this file says, or fewer states.
    `output`: the folder of the experiment's runs, where the journal is kept. UsageError without a
    block. Causes are always looked for where some are known."""
    wanted, expect = run.experiment.explore, run.experiment.expect
    if wanted is None:
        raise UsageError(f"{file}: it has no `explore` block")
    spec = named_checker(wanted, file)
    session = open_session(run, spec, wanted.host, wanted.atom, wanted.device)
    known = _possible(expect, file, session.target)
    journal = None if output is None else _journal(output, session.identity)
    found = session.explore(
        _budget(wanted, states),
        workers,
        advance,
        journal=journal,
        causes=causes or bool(expect.known),
        known=[one.state for one in known.values()],
    )
    return Explored(found, session, _happening(expect, found, known), journal)


def named_checker(wanted: Explore, file: str) -> Spec:
    """The checker that an experiment in this file names."""
    check = wanted.check
    limits = {"time_limit_s": check.time_limit / 1e9, "memory_bytes": check.memory}
    said = check.model_dump(include={*KINDS}, exclude_none=True)
    return from_json({**said, **limits, "folder": str(Path(file).resolve().parent)})


def _budget(wanted: Explore, states: int | None) -> Budget:
    """From now on."""
    most = wanted.states if states is None else min(states, wanted.states)
    if wanted.time is None:
        return Budget(most)
    deadline = time.monotonic() + wanted.time / 1e9
    return Budget(most, lambda: time.monotonic() >= deadline)


def _journal(output: Path, identity: str) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from None
    return output / f".exploring-{identity[:16]}.journal"


# --- what is known --------------------------------------------------------------------------------


class _Possible(NamedTuple):
    """A saved finding that an experiment knows, and its state in the numbers of today."""

    saved: Saved
    state: tuple[int, Choices]


def _possible(expect: Expect, file: str, target: Target) -> dict[str, _Possible]:
    """Of the saved findings that an experiment in this file knows those that are still possible,
    by the names that it gives them. UsageError when one is of another space."""
    folder = Path(file).resolve().parent
    found = {}
    for name in (one.finding for one in expect.known if one.finding is not None):
        saved = read_saved(folder / name)
        state = _located(saved, target, name)
        if state is not None:
            found[name] = _Possible(saved, state)
    return found


def _located(one: Saved, target: Target, name: str) -> tuple[int, Choices] | None:
    """Its state, None when that is not possible any more."""
    space, device = target.space, target.history.devices[target.device].name
    mine = (device, space.rules.host, space.rules.unit_bytes)
    theirs = (one.device, one.host, one.rules.unit_bytes)
    if mine != theirs:
        text = ", ".join(f"{a}, not {b}" for a, b in zip(theirs, mine, strict=True) if a != b)
        raise UsageError(f"known finding {name}: it was found with {text}")
    try:
        epoch, choices = locate(space, one)
    except StaleFinding:
        return None
    return epoch.number, choices


def _happening(
    expect: Expect, found: Exploration, possible: dict[str, _Possible]
) -> list[KnownResult]:
    """What an experiment knows, in its order. `found` looked up just those that are possible."""
    placed = {  # saved ones that still fail alike: the number of the finding that each is one of
        name: now.finding
        for (name, one), now in zip(possible.items(), found.known, strict=False)
        if Replayed(now.verdict, one.saved.verdict_then).as_saved
    }
    happening = []
    for one in expect.known:
        if one.finding is not None:
            place, happens = placed.get(one.name, -1), one.name in placed
            mine = [place] if place >= 0 else []
        else:
            names = enumerate(f.outcome or f.kind for f in found.findings)
            mine = [number for number, name in names if one.is_called(name)]
            happens = bool(mine)
        happening.append(KnownResult(one.name, one.why, mine, happens))
    return happening


# --- results --------------------------------------------------------------------------------------


def with_exploration(result: CaseResult, explored: Explored) -> CaseResult:
    """The case's result with what was explored, and judged by it: no finding is expected, unless
    the experiment says otherwise."""
    told, expect = explored.found.result, explored.session.run.experiment.expect
    findings = [
        replace(finding, known=explored.why_known(number))
        for number, finding in enumerate(told.findings)
    ]
    found = sum(not finding.known for finding in findings)
    if expect.findings is not None:
        judged = judge(Expect(findings=expect.findings), {"findings": found})
    else:
        judged = [Expectation("findings", "== 0", found, "", found == 0)]
    if not told.interrupted:
        judged += [
            Expectation(KNOWN, f">= 1 of '{one.name}'", int(one.happens), "", one.happens)
            for one in explored.known
        ]
    told = replace(told, findings=findings, known=explored.known)
    return replace(result, expectations=[*result.expectations, *judged], exploration=told)


def keep_findings(explored: Explored, case: str, folder: Path) -> list[str]:
    """Write each finding to the run's folder; the files' names in it. Its checker, which has just
    run, is not asked about when they are replayed."""
    names, plain = [], "".join(c if c.isalnum() or c in "-_." else "-" for c in case)[:80]
    for number, finding in enumerate(explored.found.findings, start=1):
        (folder / "findings").mkdir(exist_ok=True)
        name = f"findings/{plain}-{number}{SUFFIX}"
        explored.session.keep(finding, folder / name)
        names.append(name)
    if names:
        remember(explored.session.spec)
    return names
