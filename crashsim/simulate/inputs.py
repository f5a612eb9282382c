"""From a checked experiment to what is simulated: programs, the bytes they store, and what the
devices held before.

Contract: files that the user named are only read. Content depends on the write's number alone, so
it can be made again for any run of the same experiment; a recording must still be the file it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from crashsim.engine.streams import I64
from crashsim.engine.units import LONGEST_NS
from crashsim.errors import TraceError, UsageError
from crashsim.experiment.applications import AppendLog, Recording, WriteAheadLog
from crashsim.experiment.model import Experiment
from crashsim.guest.content import Content, RecordedContent, SyntheticContent
from crashsim.guest.program import Program
from crashsim.guest.recording import recorded_program
from crashsim.guest.synthetic import synthetic_programs
from crashsim.traces.block_log import check_fits, check_lasts
from crashsim.traces.formats import FORMATS
from crashsim.traces.source import read_only


class _Joined:
    """Content of several recordings: each knows its own range of write numbers."""

    def __init__(self, synthetic: Content, recorded: list[tuple[int, int, Content]]) -> None:
        self._synthetic = synthetic
        self._recorded = recorded

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        source = np.full(write.size, -1, dtype=np.int64)
        for number, (low, high, _) in enumerate(self._recorded):
            source[(low <= write) & (write < high)] = number
        bounds = [0, *(np.flatnonzero(np.diff(source)) + 1).tolist(), write.size]
        for first, last in pairwise(bounds if write.size else []):
            here, number = slice(first, last), int(source[first])
            low, content = 0, self._synthetic
            if number >= 0:
                low, _, content = self._recorded[number]
            yield from content.parts(write[here] - low, start[here], end[here], length[here])


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an experiment's guests do; `before[device]` is the initial content, if any."""

    programs: list[Program]
    content: Content
    before: list[memoryview | None]
    notices: list[str]
    files: dict[str, str] = field(default_factory=dict)  # path -> SHA-256 of the recordings used


def make_inputs(experiment: Experiment, files: dict[str, Any] | None = None) -> Inputs:
    """Read recordings and make programs. With `files`, refuse a recording that has changed
    since."""
    programs: list[Program] = []
    recorded: list[tuple[int, int, Content]] = []
    before: list[memoryview | None] = []
    notices: list[str] = []
    hashes: dict[str, str] = {}
    synthetic = synthetic_programs(experiment)
    first_write = sum(program.offset.size for program in synthetic)
    for number, (device, workload, _sync) in enumerate(experiment.resolved_devices()):
        image = None
        if isinstance(workload, Recording):
            program, content = _recording(workload, experiment, number, first_write, notices)
            programs.append(program)
            recorded.append((first_write, first_write + program.offset.size, content))
            first_write += program.offset.size
            named = (workload.log, workload.times, workload.image)
            hashes |= {path: _sha256(Path(path)) for path in named if path is not None}
            if workload.image is not None:
                image = read_only(Path(workload.image))
                if image.nbytes > device.size:
                    message = f"the image has {image.nbytes} bytes, {device.name} {device.size}"
                    raise TraceError(workload.image, device.size, message)
        before.append(image)
    for path, digest in (files or {}).items():
        if hashes.get(path) != digest:
            raise UsageError(
                f"{path}: has changed since the run was made; run the experiment again"
            )
    programs = sorted(programs + synthetic, key=lambda program: program.device)
    joined = _content(experiment, synthetic, recorded)
    return Inputs(programs, joined, before, notices, hashes)


def _content(
    experiment: Experiment, synthetic: list[Program], recorded: list[tuple[int, int, Content]]
) -> Content:
    ranges: list[tuple[int, int]] = []
    resolved = experiment.resolved_devices()
    for program in synthetic:
        workload = resolved[program.device][1]
        if not program.offset.size:  # more vCPUs than records
            continue
        if isinstance(workload, AppendLog):
            ranges.append((program.first_write, program.first_write + program.offset.size))
        elif isinstance(workload, WriteAheadLog):
            bounds = np.flatnonzero(np.diff(program.record_low, prepend=-2) > 1)
            lows = program.record_low[bounds] + program.first_write
            last = np.append(bounds[1:], program.record_low.size) - 1
            highs = program.record_high[last] + program.first_write
            ranges.extend(zip(lows.tolist(), highs.tolist(), strict=True))
    made = SyntheticContent(experiment.seed, ranges)
    return _Joined(made, recorded) if recorded else made


def _recording(
    workload: Recording, experiment: Experiment, device: int, first_write: int, notices: list[str]
) -> tuple[Program, Content]:
    times = None if workload.times is None else Path(workload.times)
    log = FORMATS[workload.format](Path(workload.log), times, workload.clock)
    check_fits(log, experiment.resolved_devices()[device][0].size)
    check_lasts(log, times, LONGEST_NS)
    notices.extend(log.notices)
    if not log.labels:
        notices.append(
            f"{Path(workload.log).name} has no marks: nothing is acknowledged, so no "
            "acknowledgement can be lost"
        )
    generation, first_byte = experiment.guest.driver, experiment.first_bytes()[device]
    program, payload_at = recorded_program(log, generation, device, first_byte, first_write)
    return program, RecordedContent(log.payload, payload_at)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
