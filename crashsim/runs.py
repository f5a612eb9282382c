"""Running an experiment's cases, and the folder in which a run is kept.

Contract: a run's folder appears under its final name only when everything in it is written and on
the disk; `latest` is switched after that. A run that is killed leaves nothing but a hidden
`.unfinished-*` folder, which nobody takes for a result and the next run removes. Results depend on
neither the number of workers nor the folder's name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import ValidationError

from crashsim.crew import Crew
from crashsim.engine.history import History
from crashsim.errors import OutputError, UsageError, WorkerDied
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.experiment.units import exact_duration
from crashsim.inputs import make_inputs
from crashsim.measure import measure
from crashsim.results import CaseResult
from crashsim.stack import simulate

HISTORY_FILE = "history.npz"
_LATEST = "latest"
_NEW_LINK = ".latest-"
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Finished:
    """A case that has run. `files`: the recordings it read, path -> SHA-256."""

    case: Case
    result: CaseResult
    history: History
    files: dict[str, str]


def run_case(case: Case, paranoid: bool = False) -> Finished:
    """Simulate one case and measure it."""
    inputs = make_inputs(case.experiment)
    history = simulate(case.experiment, inputs.programs)
    result = measure(case, history, inputs, paranoid)
    return Finished(case, result, history, inputs.files)


def run_cases(
    cases: tuple[Case, ...], workers: int, paranoid: bool, advance: Callable[[int, str], None]
) -> Iterator[Finished]:
    """Run all cases, in order, on several processes; `advance(done, now)` tells how far it is.

    Interrupted, or with a case whose process was killed twice (WorkerDied), it gives what is
    finished before it raises; no process is left."""
    if workers <= 1 or len(cases) == 1:
        for number, case in enumerate(cases):
            advance(number, case.name)
            yield run_case(case, paranoid)
        return

    def run(case: Case) -> Finished:
        return run_case(case, paranoid)

    def wait_for(case: Case, done: int) -> None:
        advance(done, case.name)

    with Crew(min(workers, len(cases)), lambda: nullcontext(run), lambda case: case.name) as crew:
        try:
            for _, one in crew.work_off(cases, wait_for):
                yield one
        except (KeyboardInterrupt, WorkerDied):
            yield from (one for _, one in crew.left())
            raise


@contextmanager
def new_folder(base: Path, name: str, seed: int, suffix: str = "") -> Iterator[tuple[Path, Path]]:
    """(where to write, where it will be); on a clean exit it is put in its place."""
    parent = base / name
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{seed}{suffix}"
    check_latest(base, name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(parent):
            _sweep(parent)
            working, final = _claim(parent, stamp)
            lock = _locked(working)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from None
    try:
        yield working, final
        sync_tree(working)
        with _alone(parent):
            working.rename(final)
            if not suffix:
                _point(parent / _LATEST, final.name)
        _sync(parent)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(working, ignore_errors=True)
        os.close(lock)


def check_latest(base: Path, name: str) -> None:
    """OutputError when something else is where the link to the latest run belongs."""
    link = base / name / _LATEST
    if link.exists() and not link.is_symlink():
        raise OutputError(
            f"{link}: expected a symbolic link that points to the latest run, and found something "
            "else: rename or remove it, or choose another --output"
        )


def _claim(parent: Path, stamp: str) -> tuple[Path, Path]:
    """A new folder to write in and a name that nobody else has or will take: another run of the
    same experiment may begin or end within the same second."""
    for number in count(1):
        final = parent / (stamp if number == 1 else f"{stamp}-{number}")
        working = parent / f"{_UNFINISHED}{final.name}"
        if not (working.exists() or final.exists()):
            working.mkdir()
            return working, final
    raise AssertionError("numbers do not end")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else begins or ends a run of this experiment meanwhile."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems have no locks on folders
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    """A lock on it that ends with the process."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _sweep(parent: Path) -> None:
    """Remove what runs left that were killed."""
    for path in parent.glob(f"{_NEW_LINK}*"):
        path.unlink()
    for path in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):  # its run goes on
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder of a tree."""
    for path in [*sorted(folder.rglob("*")), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(link: Path, target: str) -> None:
    """Switch a symbolic link in one step."""
    new = link.with_name(f"{_NEW_LINK}{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    try:
        new.replace(link)
    finally:
        new.unlink(missing_ok=True)


def write_history(folder: Path, finished: list[Finished]) -> None:
    """All Histories of a run in one file; `cases` says what they are."""
    head = [
        {
            "name": one.case.name,
            "experiment": one.case.experiment.model_dump(mode="json", exclude_unset=True),
            "files": one.files,
        }
        for one in finished
    ]
    columns: dict[str, np.ndarray[Any, Any]] = {"cases": np.array(json.dumps(head))}
    for number, one in enumerate(finished):
        for name, column in one.history.columns().items():
            columns[f"{number}/{name}"] = column
    with (folder / HISTORY_FILE).open("xb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Saved:
    """One case of a run that was kept."""

    name: str
    experiment: Experiment
    history: History
    files: dict[str, str]


def load_run(folder: Path, case_name: str | None) -> Saved:
    """A case from a run's folder; without a name the only one."""
    path = folder / HISTORY_FILE if folder.is_dir() else folder
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            head = json.loads(str(archive["cases"]))
            number = _choose([entry["name"] for entry in head], case_name, folder)
            prefix = f"{number}/"
            columns = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith(prefix)
            }
        entry = head[number]
        experiment = Experiment.model_validate(entry["experiment"])
        return Saved(entry["name"], experiment, History.from_columns(columns), entry["files"])
    except FileNotFoundError:
        message = f"{folder}: no run here; expected a folder such as runs/NAME/latest"
        raise UsageError(message) from None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        BadZipFile,
        EOFError,
        ValidationError,
    ) as error:
        raise UsageError(f"{path}: not a History that can be read: {error}") from None


def _choose(names: list[str], wanted: str | None, folder: Path) -> int:
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    listed = "\n  ".join(names)
    ask = f"no case {wanted!r}" if wanted else "several cases: say which with --case"
    raise UsageError(f"{folder}: {ask}\n  {listed}")


def check_instant(saved: Saved, at_ns: int) -> None:
    """UsageError unless the instant lies within the run."""
    if at_ns > saved.history.end_ns:
        end = exact_duration(saved.history.end_ns)
        raise UsageError(f"--at: the run ended at {end}; choose an instant up to then")


def device_number(saved: Saved, wanted: str | None) -> int:
    """A device by its name; without one the only one."""
    names = [span.name for span in saved.history.devices]
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    raise UsageError(f"--device: expected one of {', '.join(names)}, got {wanted or 'none'}")
