"""What `crashsim advise` says of the SQLite recordings, held against what was explored.

    crashsim run experiments/sqlite-*.yaml --output runs
    python3 -m tests.advise_truth runs

Its verdict has to be that of the run: as many states, as many rejected, a reason for each finding.
That marks fail with nothing lost is held against the log alone, without the simulator and the
states. A flush of the device is offered for none of them, and the directory is blamed where it is
the journal that is in the way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from crashsim.advise.changes import Typed
from crashsim.advise.guest_memory import MOST_MARKS
from crashsim.advise.search import Advised, advise
from crashsim.advise.sentences import lines
from crashsim.checkers import Acks, Verdict
from crashsim.checkers.spec import Files
from experiments.sqlite_check import check_files
from tests.checkers_support import after_requests, entries
from tests.sqlite_truth import CHECKER, EXPERIMENTS, NAMES, cases, explored


def faults(name: str, found: Advised, run: dict[str, Any]) -> Iterator[str]:
    """Where what is advised contradicts the exploration of the run, and the log."""
    said = "\n".join(lines(name, found))
    mine = found.explored
    if mine is None:
        yield "nothing was explored"
        return
    if (mine.checked, mine.failing) != (run["checked"], run["failing"]):
        yield f"{mine.failing} of {mine.checked}, but in the run {run['failing']}"
    if len(mine.reasons) != len(run["findings"]):
        yield f"{len(mine.reasons)} reasons for {len(run['findings'])} findings"
    new = sum(not one["known"] for one in run["findings"])
    if found.fine == bool(new) and not found.before.uncovered:
        yield f"fine: {found.fine}, but {new} findings are not known"
    if found.exit_code != (0 if found.fine or found.advice else 1):
        yield f"exit code {found.exit_code}"
    failing = late_marks(name)
    late = found.unsent
    if (late.failing + late.damaged if late else 0) != (len(failing) if run["failing"] else 0):
        yield f"{late}, but of the log alone {len(failing)} marks fail"
    if failing and run["failing"]:
        if found.advice or "ends it: " in said:
            yield "something is said to end what no disk can keep"
        if "No flush of the device, and no disk, can replace the sync" not in said:
            yield "it is not said that no flush helps"
    journal = bool(failing) and journal_is_in_the_way(name, failing[0])
    if journal != ("sync of the directory / after app.db-journal is deleted" in said):
        yield f"the directory is {'not ' if journal else ''}blamed"


@cache
def late_marks(name: str) -> list[int]:
    """Requests after which a mark was given and the checker says no, of those that are tried."""
    marks = [n for n, entry in enumerate(entries(name), 1) if entry.label]
    most = min(len(marks), MOST_MARKS)
    step = (len(marks) - 1) / (most - 1)
    tried = {marks[round(step * n)] for n in range(most)}
    image, _ = after_requests(name, 0)
    labels: list[str] = []
    failing: list[int] = []
    checker = Files(CHECKER).checker()
    for number, entry in enumerate(entries(name), 1):
        image[entry.offset : entry.offset + len(entry.content)] = entry.content
        labels += [entry.label] if entry.label else []
        if number in tried:
            acks = Acks(tuple(labels), tuple((n, n) for n in range(len(labels))))
            if checker.check(image, acks).kind != "ok":
                failing.append(number)
    checker.close()
    return failing


def without_the_journal(folder: Path, acks: Acks) -> Verdict:
    """What SQLite makes of it once nothing can be rolled back."""
    (folder / "app.db-journal").unlink(missing_ok=True)
    return check_files(folder, acks)


@cache
def journal_is_in_the_way(name: str, mark: int) -> bool:
    """Whether a mark that fails is fine without the journal."""
    checker = Files("tests.advise_truth:without_the_journal", folder=EXPERIMENTS.parent).checker()
    verdict = checker.check(*after_requests(name, mark))
    checker.close()
    return verdict.kind == "ok"


def main(folder: Path) -> int:
    """Print what is said of each recording; 1 where that is not true."""
    wrong = 0
    for name in NAMES:
        run = explored(folder, name)
        for case in cases(name):
            typed = Typed(str(EXPERIMENTS / f"{name}.yaml"))
            found = advise(case, typed, os.cpu_count() or 1)
            print(f"{name}, {lines(case.name, found)[0]}", flush=True)
            for fault in faults(name, found, run[case.name]):
                wrong += 1
                print(f"{name}, {case.name}: advise: {fault}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
