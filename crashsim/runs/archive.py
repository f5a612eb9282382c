"""The folder in which a run is kept.

Contract: a run's folder appears under its final name only when everything in it is written and on
the disk; `latest` is switched after that. A run that is killed leaves nothing but a hidden
`.unfinished-*` folder, which nobody takes for a result and the next run removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED

import numpy as np

from crashsim.engine.history import History
from crashsim.errors import OutputError, UsageError
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.runs.one import Run

HISTORY_FILE = "history.npz"
_LATEST = "latest"
_NEW_LINK = ".latest-"
_UNFINISHED = ".unfinished-"


@contextmanager
def new_folder(base: Path, name: str, seed: int, suffix: str = "") -> Iterator[tuple[Path, Path]]:
    """(where to write, where it will be); on a clean exit it is put in its place."""
    parent = base / name
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{seed}{suffix}"
    check_latest(base, name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as until_done:
            with _locked(parent):
                _sweep(parent)
                working, final = _claim(parent, stamp)
                until_done.enter_context(_locked(working))
            until_done.callback(shutil.rmtree, working, ignore_errors=True)
            yield working, final
            sync_tree(working)
            with _locked(parent):
                working.rename(final)
                if not suffix:
                    _point(parent / _LATEST, final.name)
            _sync(parent)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from None


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
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Nobody else has this folder meanwhile; OSError when somebody has it and we do not `wait`."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some network file systems have no locks on folders.
        with suppress(OSError) if wait else nullcontext():
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove what runs left that were killed."""
    for path in parent.glob(f"{_NEW_LINK}*"):
        path.unlink()
    for path in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), _locked(path, wait=False):  # else its run goes on
            shutil.rmtree(path, ignore_errors=True)


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


def write_history(folder: Path, runs: list[Run]) -> None:
    """The Histories of all cases in one file; `cases` says what they are."""
    head = [
        {
            "name": run.name,
            "experiment": run.experiment.model_dump(mode="json", exclude_unset=True),
            "files": run.inputs.files,
        }
        for run in runs
    ]
    columns: dict[str, np.ndarray[Any, Any]] = {"cases": np.array(json.dumps(head))}
    for number, run in enumerate(runs):
        for name, column in run.history.columns().items():
            columns[f"{number}/{name}"] = column
    with (folder / HISTORY_FILE).open("xb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


def load_run(folder: str | Path, case_name: str | None = None) -> Run:
    """A case from a run's folder, such as `runs/NAME/latest`; without a name the only one.
    UsageError when there is none, or several."""
    folder = Path(folder)
    path = folder / HISTORY_FILE if folder.is_dir() else folder
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if any(one.compress_type != ZIP_STORED for one in archive.zip.infolist()):
                raise ValueError("it is compressed")  # nobody knows to how much it would unpack
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
        history = History.from_columns(columns)
        return Run(Case(entry["name"], experiment, {}), history=history, files=entry["files"])
    except FileNotFoundError:
        message = f"{folder}: no run here; expected a folder such as runs/NAME/latest"
        raise UsageError(message) from None
    except UsageError:
        raise
    # Of a damaged archive, zipfile and numpy raise whatever they happen to meet.
    except Exception as error:  # noqa: BLE001
        said = str(error) or type(error).__name__
        raise UsageError(f"{path}: not a History that can be read: {said}") from None


def _choose(names: list[str], wanted: str | None, folder: Path) -> int:
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    listed = "\n  ".join(names)
    ask = f"no case {wanted!r}" if wanted else "several cases: say which with --case"
    raise UsageError(f"{folder}: {ask}\n  {listed}")
