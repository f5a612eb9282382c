"""A finding as a small file that needs no seed: the choices themselves.

Contract: the file is JSON, its story first. Choices are named by their place on the device and the
digest of their bytes, the epoch by its cut, so that the file holds as long as the run and the rules
leave that state possible, whatever order states are numbered in; the digest of the whole image
tells when the rest of it has changed. A file that does not fit any more is refused (StaleFinding),
never bent to fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crashsim.checkers import Verdict
from crashsim.engine.history import DeviceSpan
from crashsim.engine.streams import I64
from crashsim.errors import OutputError, StaleFinding, UsageError
from crashsim.explore.grouping import Cause
from crashsim.explore.outcomes import outcome_of
from crashsim.explore.selection import as_choices, newest
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.replay.build import write_image as write_sparse
from crashsim.replay.image import Extents
from crashsim.states import Atom, Choices, Epoch, Rules, Space

SUFFIX = ".crashsim-finding"
FORMAT = 1
_DIGEST_DIGITS = 32
_LARGEST_BYTES = 64 << 20
_SHOWN_BYTES = 64  # the bytes themselves are given up to this length
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
Hex = Annotated[str, Field(pattern="^[0-9a-f]*$")]


class SavedAtom(BaseModel):
    """What one atom holds. `write`: the newest write in it, -1 for what was guaranteed."""

    model_config = _STRICT
    offset: int
    start: int
    length: int
    sha256: Hex
    write: int
    content: Hex | None = None


class Expected(BaseModel):
    """What the checker said."""

    model_config = _STRICT
    kind: Literal["finding", "crash", "hang"]
    outcome: str
    message: str


class Saved(BaseModel):
    """The file. `rest`: what every atom holds that is not in `choices`; `acks`: acknowledgements
    that accompany the state; `experiment`, `files` (path -> SHA-256) and `checker` are what the
    target can be made of again."""

    model_config = _STRICT
    format: Literal[1] = Field(alias="crashsim-finding")
    story: list[str]
    verdict: Expected
    device: str
    host: Literal["this-host", "any-host"]
    atom_bytes: int
    epoch: int = Field(ge=0)
    cut_ns: int
    acks: int
    rest: Literal["guaranteed", "newest"]
    choices: list[SavedAtom]
    image: Hex
    checker: dict[str, Any]
    experiment: dict[str, Any]
    files: dict[str, str]

    @property
    def verdict_then(self) -> Verdict:
        """What the checker said when it was saved."""
        return Verdict(self.verdict.kind, self.verdict.outcome, self.verdict.message)

    @property
    def rules(self) -> Rules:
        return Rules(self.host, self.atom_bytes)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the checker says of the state now."""

    verdict: Verdict
    expected: Verdict

    @property
    def as_saved(self) -> bool:
        """It fails in the same way."""
        mine, theirs = self.verdict, self.expected
        return (mine.kind, outcome_of(mine)) == (theirs.kind, outcome_of(theirs))


def saved(
    finding: Cause,
    target: Target,
    experiment: dict[str, Any],
    files: dict[str, str],
    checker: dict[str, Any],
) -> Saved:
    """A finding with everything that is needed to see it again."""
    atoms, rules = target.space.epoch(finding.epoch).atoms, target.space.rules
    written: dict[str, Any] = {
        "crashsim-finding": FORMAT,
        "story": list(finding.story),
        "verdict": {name: getattr(finding, name) for name in Expected.model_fields},
        "device": target.history.devices[target.device].name,
        "host": rules.host,
        "atom_bytes": rules.atom_bytes,
        "rest": "newest",
        "choices": [_saved_atom(atoms[number], version) for number, version in finding.changes],
        "image": f"{finding.digest:x}",
        "checker": checker,
        "experiment": experiment,
        "files": files,
    }
    written |= {name: getattr(finding, name) for name in ("epoch", "cut_ns", "acks")}
    return Saved.model_validate(written)


def write_saved(one: Saved, path: Path) -> None:
    """OutputError when it cannot be written."""
    content = one.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_saved(path: Path) -> Saved:
    """UsageError when it is no saved finding. It may come from anybody: a pipe or a device is not
    waited for, and no more is read than a finding can be."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path}: not a saved finding: not a file")
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise UsageError(f"{path}: not a saved finding: larger than 64 MiB")
        return Saved.model_validate_json(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        where = f" at {place}" if place else ""
        raise UsageError(f"{path}: not a saved finding{where}: {first['msg']}") from None


def locate(space: Space, one: Saved) -> tuple[Epoch, Choices]:
    """The state in the numbers of today. StaleFinding when it is not possible any more."""
    epoch = _epoch(space, one.cut_ns, one.epoch)
    if epoch.acks != one.acks:
        raise StaleFinding(
            f"the finding came with {one.acks} acknowledgements, its cut now has {epoch.acks}: "
            "the run has changed"
        )
    atoms = epoch.atoms
    by_offset = {atom.offset: number for number, atom in enumerate(atoms)}
    versions = newest(atoms) if one.rest == "newest" else [0] * len(atoms)
    for choice in one.choices:
        number = by_offset.get(choice.offset)
        version = None if number is None else _version(atoms[number], choice)
        if number is None or version is None:
            raise StaleFinding(
                f"the bytes that the finding has at offset {choice.offset} are no longer possible "
                "there: the run or the rules have changed"
            )
        versions[number] = version
    return epoch, as_choices(versions)


def replay(one: Saved, target: Target) -> Replayed:
    """Build the image again and check it. StaleFinding when it cannot be that image."""
    with StateRunner(target) as runner:
        choices = _enter(runner, target.space, one)
        return Replayed(runner.check(choices), one.verdict_then)


@contextmanager
def standing(one: Saved, target: Target) -> Iterator[tuple[Epoch, memoryview]]:
    """The state's epoch and its image. No checker is made."""
    with StateRunner(target) as runner:
        image = runner.lay(_enter(runner, target.space, one))
        yield runner.epoch, image


def write_image(one: Saved, target: Target, path: Path) -> None:
    """The image of the state as a new sparse file."""
    span = target.history.devices[target.device]
    with standing(one, target) as (_, view):
        nothing = Extents(*(np.empty(0, dtype=np.int64) for _ in range(5)))
        write_sparse(path, DeviceSpan(span.name, 0, span.pages), nothing, _Nothing(), view)


class _Nothing:
    """No stores on top."""

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        return iter(())


def _enter(runner: StateRunner, space: Space, one: Saved) -> Choices:
    epoch, choices = locate(space, one)
    runner.enter(epoch.number)
    runner.lay(choices)
    if f"{runner.digest:x}" != one.image:
        raise StaleFinding(
            "the image differs from the one that was saved, though the choices fit: what is "
            "guaranteed by then, or what the device held before, has changed"
        )
    return choices


def _epoch(space: Space, cut_ns: int, number: int) -> Epoch:
    """The epoch with that cut; most likely it still has the number."""
    if number < len(space):
        epoch = space.epoch(number)
        if epoch.cut_ns == cut_ns:
            return epoch
    for epoch in space.epochs():
        if epoch.cut_ns == cut_ns:
            return epoch
    raise StaleFinding(f"no guarantee ends an epoch at {cut_ns} ns: the run has changed")


def _saved_atom(atom: Atom, version: int) -> SavedAtom:
    content = atom.versions[version]
    return SavedAtom(
        offset=atom.offset,
        start=atom.start,
        length=len(content),
        sha256=_digest(content),
        write=atom.writes[version],
        content=content.hex() if len(content) <= _SHOWN_BYTES else None,
    )


def _version(atom: Atom, choice: SavedAtom) -> int | None:
    if (atom.start, len(atom.versions[0])) != (choice.start, choice.length):
        return None
    wanted = (n for n, v in enumerate(atom.versions) if _digest(v) == choice.sha256)
    return next(wanted, None)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
