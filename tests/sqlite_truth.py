"""What exploring the SQLite recordings found, as the table of `docs/sqlite.md`.

    crashsim run experiments/sqlite-*.yaml --output runs
    python3 -m tests.sqlite_truth runs

`make truth` does both; the second ends with 1 when the table is not what the document says.
Contract: one row for each recording and atom, from the newest `results.json` of each experiment
below the folder; every state is checked once more, in one process, for what the results do not
hold: how many acknowledged transactions it lost. ValueError when the outcomes are then others.
`all kept` are outcomes of all that had reached the disk, in the epochs after `ready`: what a disk
that loses nothing would leave, so that only the guest's own memory is lost.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crashsim.checkers import Verdict
from crashsim.checkers.filesystem import How
from crashsim.checkers.spec import Files
from crashsim.experiment.loader import Case, load
from crashsim.explore.selection import as_choices, newest, plan
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.survey import share_out
from crashsim.runs.one import Run
from crashsim.runs.session import open_session

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
DOCUMENT = EXPERIMENTS.parent / "docs" / "sqlite.md"
NAMES = (
    "sqlite-wal-full",
    "sqlite-wal-normal",
    "sqlite-wal-normal-90s",
    "sqlite-wal-off",
    "sqlite-wal-off-90s",
    "sqlite-delete-full",
    "sqlite-delete-off",
)
CHECKER = "experiments/sqlite_check.py:check_files"
_LOST = re.compile(r"(\d+) acknowledged and not there")
# Not of the database: the file system's own finding, by the way the files came out of the image.
FILE_SYSTEM = ("file system does not mount", "file system cannot be repaired")


@dataclass(frozen=True, slots=True)
class End:
    """What the checker says of one end of one epoch."""

    epoch: int
    acks: int
    end: str  # "none" or "all"
    verdict: Verdict


def lost(verdict: Verdict) -> int:
    """Acknowledged transactions that are not there."""
    told = _LOST.search(verdict.message)
    return int(told[1]) if told else 0


def cases(name: str) -> tuple[Case, ...]:
    """The experiment's cases: one for each size of an atom."""
    return load(EXPERIMENTS / f"{name}.yaml").cases


def subject_of(case: Case, how: How = "auto") -> Target:
    """The case's states and their checker."""
    wanted = case.experiment.explore
    assert wanted is not None
    session = open_session(Run(case), Files(CHECKER, how=how), wanted.host, wanted.atom)
    return session.target


def ends(target: Target, every: int = 1) -> Iterator[End]:
    """Both ends of every epoch, of every n-th one, and of the last."""
    with StateRunner(target) as runner:
        for number in sorted({*range(0, len(target.space), every), len(target.space) - 1}):
            epoch = runner.enter(number)
            for name, versions in (("none", [0] * len(epoch.atoms)), ("all", newest(epoch.atoms))):
                yield End(number, epoch.acks, name, runner.check(as_choices(versions)))


def verdicts(case: Case) -> Iterator[Verdict]:
    """Of every state that is planned."""
    target, wanted = subject_of(case), case.experiment.explore
    assert wanted is not None
    shares = share_out(target, wanted.states)
    with StateRunner(target) as runner:
        for epoch in target.space.epochs():
            runner.enter(epoch.number)
            allowance, seed = shares[epoch.number].states, case.experiment.seed
            for step in plan(epoch, target.history.store_write, allowance, seed):
                yield runner.check(step.choices)


def explored(runs: Path, name: str) -> dict[str, Any]:
    """Case -> what was explored, of the newest finished run."""
    folder = max(path for path in (runs / name).iterdir() if (path / "results.json").exists())
    results = json.loads((folder / "results.json").read_text())
    return {case["name"]: case["exploration"] for case in results["cases"]}


def row(case: Case, name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    atom = case.parameters["explore.atom"]
    whole = Counter(
        one.verdict.outcome for one in ends(subject_of(case)) if one.end == "all" and one.acks
    )
    outcomes: Counter[str] = Counter()
    worst = 0
    for verdict in verdicts(case):
        outcomes[verdict.outcome] += 1
        worst = max(worst, lost(verdict))
    if outcomes != found["outcomes"]:
        raise ValueError(f"{name}, {atom}: {outcomes}, but in the run {found['outcomes']}")
    cells = [
        name.removeprefix("sqlite-"),
        atom,
        f"{found['checked']:,} of {found['images_text']}",
        _counted(found["outcomes"]),
        _counted(whole),
        str(worst),
        str(len(found["findings"])),
    ]
    return f"| {' | '.join(cells)} |"


def _counted(outcomes: dict[str, int]) -> str:
    ranked = sorted(outcomes.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{outcome} {count:,}" for outcome, count in ranked)


def table(runs: Path) -> Iterator[str]:
    """All lines below the head."""
    for name in NAMES:
        found = explored(runs, name)
        for case in cases(name):
            yield row(case, name, found[case.name])


def main(folder: Path) -> int:
    """Print the table; 1 when a line of it is not in the document."""
    written = DOCUMENT.read_text(encoding="utf-8").splitlines()
    missing = 0
    for line in table(folder):
        missing += line not in written
        print(line, flush=True)
    if missing:
        print(f"{missing} of these lines are not in {DOCUMENT.name}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
