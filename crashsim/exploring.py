"""Exploring the cases of a run, and replaying findings that were saved.

Contract: what was checked is kept beside the runs while it goes on, so that an exploration that was
killed or interrupted goes on where it was when the same experiment is run again; when it is done,
that file is removed. Findings are written to `findings/` in the run's folder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from crashsim.errors import OutputError, UsageError
from crashsim.experiment.expect import judge
from crashsim.experiment.explore import Explore
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Expect
from crashsim.explore.budget import Budget
from crashsim.explore.results import to_json
from crashsim.explore.run import Exploration, explore
from crashsim.explore.saved import Replayed, Saved, replay, write_image
from crashsim.explore.wiring import CheckerSpec, Opened, keep_finding, open_saved, open_subject
from crashsim.results import CaseResult, Expectation
from crashsim.states import Rules

SUFFIX = ".crashsim-finding"
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of one case. `journal` is what to remove once the results are kept."""

    found: Exploration
    opened: Opened
    journal: Path


def explore_case(
    case: Case, file: str, output: Path, workers: int, advance: Advance | None
) -> Explored:
    """Explore a case as its `explore` block says. `output`: the folder of the experiment's runs."""
    wanted = case.experiment.explore
    assert wanted is not None
    rules = Rules(wanted.host, wanted.atom)
    spec = _spec(wanted, Path(file).resolve().parent)
    opened = open_subject(case.experiment, spec, rules, wanted.device)
    journal = _journal(output, opened.identity)
    found = explore(
        opened.subject,
        _budget(wanted),
        case.experiment.seed,
        workers,
        journal,
        opened.identity,
        advance,
    )
    return Explored(found, opened, journal)


def _spec(wanted: Explore, folder: Path) -> CheckerSpec:
    check = wanted.check
    return CheckerSpec(
        command=check.command,
        function=check.function,
        files_function=check.files_function,
        rule=check.rule,
        time_limit_s=check.time_limit / 1e9,
        memory_bytes=check.memory,
        folder=str(folder),
    )


def _budget(wanted: Explore) -> Budget:
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
    found = len(explored.found.findings)
    if expect.findings is not None:
        only = Expect(findings=expect.findings)
        judged = judge(only, {"findings": found})
    else:
        judged = [Expectation("findings", "== 0", found, "", found == 0)]
    return replace(
        result,
        expectations=[*result.expectations, *judged],
        exploration=to_json(explored.found, explored.opened.subject),
    )


def keep_findings(explored: Explored, case: str, folder: Path) -> list[str]:
    """Write each finding to the run's folder; the files' names in it."""
    names = []
    for number, finding in enumerate(explored.found.findings, start=1):
        (folder / "findings").mkdir(exist_ok=True)
        name = f"findings/{_plain(case)}-{number}{SUFFIX}"
        keep_finding(finding, explored.opened, folder / name)
        names.append(name)
    return names


def _plain(case: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in case)[:80]


def replay_file(path: Path) -> tuple[Saved, Replayed]:
    """Rebuild a saved finding's state and check it again."""
    one, opened = open_saved(path)
    return one, replay(one, opened.subject)


def saved_files(folder: Path) -> list[Path]:
    """The findings in a folder. UsageError when there is none."""
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found:
        raise UsageError(f"{folder}: no file *{SUFFIX} here")
    return found


def image_of(path: Path, output: Path) -> None:
    """The image of a saved finding as a new file."""
    if output.exists():
        raise OutputError(f"{output}: exists already; nothing was written")
    one, opened = open_saved(path)
    working = output.with_name(f".{output.name}.unfinished")
    try:
        write_image(one, opened.subject, working)
        working.rename(output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        working.unlink(missing_ok=True)


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """The file system of a saved finding's image, mounted read-only without replaying its journal
    (a loop device: needs root); gone afterwards."""
    base = Path(tempfile.mkdtemp(prefix="crashsim-"))
    folder = base / "mnt"
    folder.mkdir()
    image = base / "image"
    try:
        image_of(path, image)
        options = "loop,ro,noload"
        done = subprocess.run(
            ["mount", "-o", options, image, folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UsageError(f"cannot be mounted: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=False)
    finally:
        shutil.rmtree(base, ignore_errors=True)
