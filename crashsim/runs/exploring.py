"""Exploring the cases of a run, and replaying findings that were saved.

Contract: what was checked is kept beside the runs while it goes on, so that an exploration that was
killed or interrupted goes on where it was when the same experiment is run again; when it is done,
that file is removed. Findings are written to `findings/` in the run's folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from crashsim.checkers.image_session import DEVICE, MEMORY_BYTES, TIME_LIMIT_S, ImageSession
from crashsim.checkers.sandbox import Sandbox
from crashsim.checkers.verdict import OK, Acks, Ranges, Verdict
from crashsim.errors import OutputError, StaleFinding, UsageError
from crashsim.experiment.expect import Known, judge
from crashsim.experiment.model import Expect, Experiment
from crashsim.experiment.trial import Explore
from crashsim.explore.budget import Budget
from crashsim.explore.results import told
from crashsim.explore.saved import Replayed, Saved, locate, read_saved, replay, write_image
from crashsim.explore.session import (
    CheckerSpec,
    FindingFile,
    Session,
    keep_finding,
    open_finding,
    open_run,
    read_finding,
)
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import Exploration, explore
from crashsim.explore.trust import remember
from crashsim.results import CaseResult, Expectation
from crashsim.results.discovery import ExplorationResult, KnownResult
from crashsim.runs.new_file import new_file
from crashsim.runs.one import Run
from crashsim.states import Choices, Rules

SUFFIX = ".crashsim-finding"
KNOWN = "known_findings"  # the name of what is expected of known ones
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of one case. `journal` is what to remove once the results are kept; `known`: as
    `placed` has it."""

    found: Exploration
    opened: Session
    journal: Path
    known: dict[str, int] = field(default_factory=dict)


def explore_case(
    run: Run, file: str, output: Path, workers: int, advance: OnProgress | None
) -> Explored:
    """Explore a run as its `explore` block says. `output`: the folder of the experiment's runs."""
    wanted, rules = run.experiment.explore, rules_of(run.experiment)
    if wanted is None:
        raise UsageError(f"{file}: it has no `explore` block")
    spec = named_checker(wanted, file)
    opened = open_run(run, spec, rules, wanted.device)
    states = known_states(run.experiment.expect, file, opened.target)
    journal = _journal(output, opened.identity)
    found = explore(
        opened.target,
        budget_of(wanted),
        run.experiment.seed,
        workers,
        journal,
        opened.identity,
        advance,
        known=[one.state for one in states.values()],
    )
    return Explored(found, opened, journal, placed(found, states))


class KnownState(NamedTuple):
    """A saved finding that an experiment knows, and its state in the numbers of today."""

    saved: Saved
    state: tuple[int, Choices]


def known_states(expect: Expect, file: str, target: Target) -> dict[str, KnownState]:
    """Of the saved findings that an experiment in this file knows those that are still possible,
    by the names that it gives them. UsageError when one is of another space."""
    folder = Path(file).resolve().parent
    found = {}
    for name in (one.finding for one in expect.known if one.finding is not None):
        saved = read_saved(folder / name)
        state = _located(saved, target, name)
        if state is not None:
            found[name] = KnownState(saved, state)
    return found


def placed(found: Exploration, states: Mapping[str, KnownState]) -> dict[str, int]:
    """Which of them still fail alike, and the number of the finding that each is one of, -1:
    none. `found` looked up just these."""
    return {
        name: now.finding
        for (name, one), now in zip(states.items(), found.known, strict=False)
        if Replayed(now.verdict, one.saved.verdict_then).as_saved
    }


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


def rules_of(experiment: Experiment) -> Rules:
    """Whose states, and what survives or not as one: the disk's power-fail atom, unless the
    experiment says otherwise."""
    wanted = experiment.explore
    if wanted is None:
        return Rules(atom_bytes=experiment.disk.atom)
    return Rules(wanted.host, wanted.atom or experiment.disk.atom)


def named_checker(wanted: Explore, file: str) -> CheckerSpec:
    """The checker that an experiment in this file names."""
    check = wanted.check
    return CheckerSpec(
        command=check.command,
        function=check.function,
        files_function=check.files_function,
        rule=check.rule,
        time_limit_s=check.time_limit / 1e9,
        memory_bytes=check.memory,
        folder=str(Path(file).resolve().parent),
    )


def budget_of(wanted: Explore) -> Budget:
    """From now on."""
    if wanted.time is None:
        return Budget(wanted.states)
    deadline = time.monotonic() + wanted.time / 1e9
    return Budget(wanted.states, lambda: time.monotonic() >= deadline)


def _journal(output: Path, identity: str) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from None
    return output / f".exploring-{identity[:16]}.journal"


def with_exploration(result: CaseResult, explored: Explored, expect: Expect) -> CaseResult:
    """The case's result with what was explored, and judged by it: no finding is expected, unless
    the experiment says otherwise."""
    known = those_known(expect, explored.found, explored.known)
    explanation = _told(explored, known)
    found = sum(not finding.known for finding in explanation.findings)
    if expect.findings is not None:
        only = Expect(findings=expect.findings)
        judged = judge(only, {"findings": found})
    else:
        judged = [Expectation("findings", "== 0", found, "", found == 0)]
    if not explored.found.interrupted:
        judged += [
            Expectation(KNOWN, f">= 1 of '{one.name}'", int(one.happens), "", one.happens)
            for one in explanation.known
        ]
    return replace(result, expectations=[*result.expectations, *judged], exploration=explanation)


def _told(explored: Explored, known: Sequence[Happens]) -> ExplorationResult:
    """The exploration, with what the experiment knows of its findings."""
    one = told(explored.found, explored.opened.target)
    findings = [
        replace(finding, known=why_known(number, known))
        for number, finding in enumerate(one.findings)
    ]
    names = [
        KnownResult(each.known.name, each.known.why, list(each.findings), each.happens)
        for each in known
    ]
    return replace(one, findings=findings, known=names)


@dataclass(frozen=True, slots=True)
class Happens:
    """A known finding, the numbers of those of the run that are it, and whether it happens."""

    known: Known
    findings: tuple[int, ...]
    happens: bool


def those_known(expect: Expect, found: Exploration, known: Mapping[str, int]) -> list[Happens]:
    """What an experiment knows, in its order; `known`: of saved ones, as `placed` has it."""
    told = []
    for one in expect.known:
        if one.finding is not None:
            place = known.get(one.name, -1)
            mine: tuple[int, ...] = (place,) if place >= 0 else ()
            happens = one.name in known
        else:
            names = enumerate(f.outcome or f.kind for f in found.findings)
            mine = tuple(number for number, name in names if one.is_called(name))
            happens = bool(mine)
        told.append(Happens(one, mine, happens))
    return told


def why_known(number: int, known: Sequence[Happens]) -> str:
    """Why the finding of that number is no surprise, '': it is one."""
    return next((one.known.why for one in known if number in one.findings), "")


def keep_findings(explored: Explored, case: str, folder: Path) -> list[str]:
    """Write each finding to the run's folder; the files' names in it. Its checker, which has just
    run, is not asked about when they are replayed."""
    names = []
    for number, finding in enumerate(explored.found.findings, start=1):
        (folder / "findings").mkdir(exist_ok=True)
        name = f"findings/{_plain(case)}-{number}{SUFFIX}"
        keep_finding(finding, explored.opened, folder / name)
        names.append(name)
    if names:
        remember(explored.opened.spec)
    return names


def _plain(case: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in case)[:80]


def replay_file(file: FindingFile) -> Replayed:
    """Rebuild a saved finding's state and check it again. The caller has seen to it that its
    checker may run."""
    return replay(file.saved, open_finding(file).target)


def saved_files(folder: Path) -> list[Path]:
    """The findings in a folder, which may be none. UsageError when there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    return sorted(folder.glob(f"*{SUFFIX}"))


def image_of(path: Path, output: Path) -> int:
    """The image of a saved finding as a new file; its size in bytes. No checker is loaded."""
    file = read_finding(path)
    target = replace(open_finding(file).target, make_checker=_Nobody)
    with new_file(output) as working:
        write_image(file.saved, target, working)
    return target.space.size_bytes


def look_into(path: Path, look: Callable[[Path], None]) -> str:
    """Call `look` with a folder of the files in a saved finding's image, laid out as a checker's
    `{mnt}` and gone afterwards; returns what had to be repaired. UsageError when that fails."""
    file = read_finding(path)
    visitor = _Visitor(look)
    target = replace(open_finding(file).target, make_checker=lambda: visitor)
    found = replay(file.saved, target).verdict
    if found.kind != "ok":
        raise UsageError(f"{path}: {found.outcome or 'no files'}: {found.message}")
    return found.message.strip()


class _Nobody:
    """In a checker's place where nothing is checked."""

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        raise AssertionError("nothing is checked here")

    def close(self) -> None: ...


class _Visitor:
    """In a checker's place."""

    def __init__(self, look: Callable[[Path], None]) -> None:
        self._look = look
        self._session = ImageSession(TIME_LIMIT_S, MEMORY_BYTES, DEVICE, "auto")

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._session.check(image, acks, changed, self._visit)

    def close(self) -> None:
        self._session.close()

    def _visit(self, sandbox: Sandbox) -> Verdict:
        mounted = sandbox.helper.has_mounts  # where nobody else sees them
        seen = f"/proc/{sandbox.helper.process}/root{sandbox.files}" if mounted else sandbox.files
        self._look(Path(seen))
        return OK
