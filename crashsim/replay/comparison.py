"""At chosen cuts (`power.cuts`) the calculation is held against two files.

Contract: the two must be equal to the byte; if not, that is crashsim's error, not the user's
(`ReplayMismatch`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES, unique_sorted
from crashsim.engine.streams import I64
from crashsim.errors import OutputError, ReplayMismatch
from crashsim.experiment.failures import HostCrash
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, Stage, kept_stage
from crashsim.power.steps import StepFunction
from crashsim.replay.build import lay_image
from crashsim.replay.image import Extents, all_pieces, certain
from crashsim.replay.sparse import SparseFile
from crashsim.replay.versions import TwoFiles
from crashsim.results import Cut
from crashsim.simulate.inputs import Inputs

KEEP = {Stage.IN_HOST: "host", Stage.IN_FILE: "file", Stage.AFTER_QUIT: "after-quit"}
KEEP |= {Stage.ELSEWHERE: "elsewhere", Stage.SUBMITTED: "submitted"}
KEEP |= {Stage.COMPLETED: "completed", Stage.DURABLE: "durable"}
_IN_MEMORY = "/dev/shm"
_BYTES_OF_FILES = 4  # for each byte touched: two of content, as much of stamps at most, and room
_CONTENT_CUTS = 32  # cuts of a case whose images are compared byte by byte in content as well
_CONTENT_STORES = 1 << 18


@dataclass(frozen=True, slots=True)
class Figures:
    """What the calculation says of one failure domain."""

    domain: Domain
    stage: Stage
    at_risk: StepFunction
    unsaved: StepFunction
    uncovered: StepFunction


def figures(history: History, domain: Domain, options: HostCrash, at_risk: StepFunction) -> Figures:
    """The calculation for one domain; its bytes at risk are given."""
    stage = kept_stage(domain, options)
    found = Losses(history, stage)
    return Figures(domain, stage, at_risk, found.unsaved, found.uncovered)


def compare(
    history: History,
    inputs: Inputs,
    chosen: list[tuple[int, str]],
    domains: list[Figures],
) -> list[Cut]:
    """Every chosen cut in every domain."""
    cuts: list[Cut] = []
    room = _scratch_folder(history, inputs)
    for domain in domains:
        files: TwoFiles | None = None
        try:
            if domain.stage in KEEP:
                files = TwoFiles(history, KEEP[domain.stage], room)
            for number, (t, why) in enumerate(chosen):
                cuts.append(_one(history, inputs, domain, t, why, files, number, room))
        except OSError as error:
            raise OutputError(f"comparing files in {room}: {error}") from error
        finally:
            if files is not None:
                files.close()
    return cuts


def _scratch_folder(history: History, inputs: Inputs) -> Path:
    """Where the files to be compared live: in memory if that has room, it is not for long."""
    pages = unique_sorted(all_pieces(history).page).size
    before = sum(image.nbytes for image in inputs.before if image is not None)
    need = pages * PAGE_BYTES * _BYTES_OF_FILES + 2 * before
    try:
        free = os.statvfs(_IN_MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    enough = free.f_bavail * free.f_frsize > 2 * need
    in_memory = enough and os.access(_IN_MEMORY, os.W_OK | os.X_OK)
    return Path(_IN_MEMORY if in_memory else tempfile.gettempdir())


def _one(
    history: History,
    inputs: Inputs,
    domain: Figures,
    t: int,
    why: str,
    files: TwoFiles | None,
    number: int,
    folder: Path,
) -> Cut:
    lost = domain.at_risk.at(t)
    compared = files.advance(t) if files is not None else lost
    if compared != lost:
        raise ReplayMismatch(
            f"cut at {t} ns, {domain.domain}: the calculation finds {lost} bytes lost, two files "
            f"differ in {compared}. One of the two is wrong: please report it with the "
            f"experiment and --seed {history.info.seed}."
        )
    differing = -1
    if number < _CONTENT_CUTS and history.store_t_ns.size <= _CONTENT_STORES:
        differing = differing_bytes(history, inputs, domain.stage, t, folder)
        if differing > lost:
            raise ReplayMismatch(
                f"cut at {t} ns, {domain.domain}: images differ in {differing} bytes, "
                f"only {lost} are lost"
            )
    return Cut(
        t_ns=t,
        domain=str(domain.domain),
        lost_bytes=lost,
        compared_bytes=compared,
        differing_bytes=differing if differing >= 0 else compared,
        unsaved_writes=domain.unsaved.at(t),
        uncovered_acknowledgements=domain.uncovered.at(t),
        why=why,
    )


def differing_bytes(history: History, inputs: Inputs, stage: Stage, t: int, folder: Path) -> int:
    """Bytes that read differently in the guest's image and in the one the failure leaves."""
    total = 0
    intended, kept = _apart(
        certain(history, Stage.STORED, t, whole=True), certain(history, stage, t, whole=True)
    )
    for device, span in enumerate(history.devices):
        low, high = np.searchsorted(intended.offset, [span.first_byte, span.end_byte])
        pages = np.unique((intended.offset[low:high] - span.first_byte) // PAGE_BYTES)
        before = inputs.before[device]
        size = span.pages * PAGE_BYTES
        with SparseFile(folder, size, True) as guest, SparseFile(folder, size, True) as media:
            for file, extents in ((guest, intended), (media, kept)):
                lay_image(file, span, extents, inputs.content, before)
            for page in pages.tolist():
                here = slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
                there = (np.frombuffer(file.map[here], dtype=np.uint8) for file in (guest, media))
                total += int(np.count_nonzero(np.not_equal(*there)))
    return total


def _apart(one: Extents, other: Extents) -> tuple[Extents, Extents]:
    """Two images without the runs that show the same part of the same write: their bytes are the
    same, as content depends on nothing else. What is left to compare is in proportion to the loss.
    """
    _, here, there = np.intersect1d(
        one.offset, other.offset, assume_unique=True, return_indices=True
    )
    same = (one.write[here] == other.write[there]) & (one.start[here] == other.start[there])
    same &= one.end[here] == other.end[there]
    return _leave_out(one, here[same]), _leave_out(other, there[same])


def _leave_out(extents: Extents, rows: I64) -> Extents:
    e = extents
    columns = (e.offset, e.write, e.start, e.end, e.length)
    return Extents(*(np.delete(column, rows) for column in columns))
