"""Saved findings, seen again: checked, written as an image, or looked into.

Contract: what a file names was run by nobody when it is read, and no checker is loaded for its
image or its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from crashsim.checkers.image_session import ImageSession, Sandbox
from crashsim.checkers.spec import Spec, from_json
from crashsim.checkers.verdict import NO_ACKS, OK, Verdict
from crashsim.errors import UsageError
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.explore.saved import (
    SUFFIX,
    Replayed,
    Saved,
    read_saved,
    replay,
    standing,
    write_image,
)
from crashsim.runs.new_file import new_file
from crashsim.runs.one import Run
from crashsim.runs.session import Session, open_session, renamed


@dataclass(frozen=True, slots=True)
class FindingFile:
    """What a saved finding's file holds, its paths absolute. Nothing of it was run or opened."""

    path: Path
    saved: Saved
    experiment: Experiment
    spec: Spec
    files: dict[str, str]


def read_finding(path: Path) -> FindingFile:
    """UsageError when the file, or the experiment in it, is not what it should be."""
    one = read_saved(path)
    here = os.path.dirname(os.path.abspath(path))

    def absolute(name: str) -> str:
        return os.path.normpath(os.path.join(here, name))

    try:
        experiment = Experiment.model_validate(renamed(one.experiment, absolute))
        folder = one.checker.get("folder", ".")
        if not isinstance(folder, str):
            raise UsageError(f"{path}: checker.folder: expected a path")
        written = {**one.checker, "folder": absolute(folder)}
        spec = from_json(written)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {place}: {first['msg']}") from None
    files = {absolute(name): digest for name, digest in one.files.items()}
    return FindingFile(path, one, experiment, spec, files)


def open_finding(file: FindingFile) -> Session:
    """A saved finding's states, made again. UsageError when a recording is not what it was."""
    one = file.saved
    run = Run(Case(file.experiment.name, file.experiment, {}), files=file.files)
    return open_session(run, file.spec, one.host, one.atom_bytes, one.device)


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
    """The image of a saved finding as a new file; its size in bytes."""
    file = read_finding(path)
    target = open_finding(file).target
    with new_file(output) as working:
        write_image(file.saved, target, working)
    return target.space.size_bytes


def look_into(path: Path, look: Callable[[Path], None]) -> str:
    """Call `look` with a folder of the files in a saved finding's image, laid out as a checker's
    `{mnt}` and gone afterwards; returns what had to be repaired. UsageError when that fails."""

    def visit(sandbox: Sandbox) -> Verdict:
        mounted = sandbox.helper.has_mounts  # where nobody else sees them
        root = f"/proc/{sandbox.helper.process}/root" if mounted else ""
        look(Path(f"{root}{sandbox.files}"))
        return OK

    file, session = read_finding(path), ImageSession("auto")
    try:
        with standing(file.saved, open_finding(file).target) as (_, image):
            found = session.check(image, NO_ACKS, None, visit)
    finally:
        session.close()
    if found.kind != "ok":
        raise UsageError(f"{path}: {found.outcome or 'no files'}: {found.message}")
    return found.message.strip()
