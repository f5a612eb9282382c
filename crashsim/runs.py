"""Running an experiment's cases, and the folder in which a run is kept.

Contract: a run's folder appears under its final name only when everything in it is written and on
the disk; `latest` is switched after that. A run that is killed leaves nothing but a hidden
`.unfinished-*` folder, which nobody takes for a result. Results depend on neither the number of
workers nor the folder's name.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import ValidationError

from crashsim.engine.history import History
from crashsim.errors import OutputError, UsageError
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.experiment.units import exact_duration
from crashsim.inputs import make_inputs
from crashsim.measure import measure
from crashsim.results import CaseResult
from crashsim.stack import simulate

HISTORY_FILE = "history.npz"


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

    Interrupted, it gives what is finished and raises KeyboardInterrupt; no process is left."""
    if workers <= 1 or len(cases) == 1:
        for number, case in enumerate(cases):
            advance(number, case.name)
            yield run_case(case, paranoid)
        return
    pool = ProcessPoolExecutor(min(workers, len(cases)), initializer=_begin_worker)
    try:
        # Workers inherit the mask: none of them sees a Ctrl-C that comes before it is set up.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            futures = [pool.submit(run_case, case, paranoid) for case in cases]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        yield from _in_order(cases, futures, advance)
    except BaseException:  # whatever ends this, no worker goes on
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C reaches every process of the terminal: the parent alone answers it. A worker whose
    parent was killed has nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_order(
    cases: tuple[Case, ...],
    futures: list[Future[Finished]],
    advance: Callable[[int, str], None],
) -> Iterator[Finished]:
    given = 0
    try:
        for case, future in zip(cases, futures, strict=True):
            while not future.done():
                advance(sum(one.done() for one in futures), case.name)
                wait([one for one in futures if not one.done()], return_when=FIRST_COMPLETED)
            given += 1
            yield future.result()
    except KeyboardInterrupt:
        yield from [one.result() for one in futures[given:] if _succeeded(one)]
        raise


def _succeeded(future: Future[Finished]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@contextmanager
def new_folder(base: Path, name: str, seed: int, suffix: str = "") -> Iterator[tuple[Path, Path]]:
    """(where to write, where it will be); on a clean exit it is put in its place."""
    parent = base / name
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{seed}{suffix}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        working, final = _claim(parent, stamp)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from None
    try:
        yield working, final
        sync_tree(working)
        working.rename(final)
        if not suffix:
            _point(parent / "latest", final.name)
        _sync(parent)
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _claim(parent: Path, stamp: str) -> tuple[Path, Path]:
    """A new folder to write in and a name that nobody else has or will take: another run of the
    same experiment may begin or end within the same second."""
    for number in count(1):
        final = parent / (stamp if number == 1 else f"{stamp}-{number}")
        working = parent / f".unfinished-{final.name}"
        try:
            working.mkdir()
        except FileExistsError:
            continue
        if not final.exists():
            return working, final
        working.rmdir()
    raise AssertionError("numbers do not end")


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
    new = link.with_name(f".latest-{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


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
