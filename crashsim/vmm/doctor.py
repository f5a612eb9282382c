"""`crashsim doctor`: what a command line, a running monitor or libvirt's XML does to its data.

Contract: `doctor` reads, judges and prints, and returns the exit code: 0 nothing loses data that
was to be kept · 1 something loses data or fails · 2 there is no virtio-pmem device or nvdimm to
judge (zero is never green). A command line that is wrong, or of a program that is not known, raises
`CommandLineError` with every mistake, which exits with 2 as well. What is said is read from the
command line, the configuration and the files that they name, and each finding names where.
A terminal gets colour unless NO_COLOR is set; a pipe gets plain text; `--json` is pure JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from crashsim.engine.units import exact_bytes
from crashsim.errors import UsageError
from crashsim.printable import printable
from crashsim.vmm.assembly import NVDIMM
from crashsim.vmm.hazards import (
    COSTS,
    DISCARDS,
    FAILS,
    LOSES,
    READ_ONLY,
    Hazard,
    judge,
    remarks,
)
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import Machine, PmemDevice
from crashsim.vmm.monitors import read_command
from crashsim.vmm.probe import Look, looker, reader
from crashsim.vmm.procfs import read_process
from crashsim.vmm.shell import split

_STYLES = {LOSES: "bold red", FAILS: "bold red", COSTS: "yellow"}
_PLAIN_COLUMNS = 100  # of a pipe that does not say how wide it is
_UNKEPT = {READ_ONLY: "read-only, nothing to lose", DISCARDS: "discarding what is written"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A machine, what of it loses data, and what was not judged."""

    machine: Machine
    findings: tuple[Hazard, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        if not self.machine.devices:
            return 2
        return int(any(finding.severity in (LOSES, FAILS) for finding in self.findings))


def examine(
    words: Sequence[str], process_id: int | None, xml: Path | None, directory: Path
) -> Diagnosis:
    """Whichever of the three was given: a command line, a process, a file of XML."""
    if (len(words) > 0) + (process_id is not None) + (xml is not None) != 1:
        raise UsageError("give one of: -- COMMAND ..., --pid N, --xml FILE")
    if process_id is not None:
        return examine_process(process_id)
    return examine_words(words, directory) if xml is None else examine_xml(xml)


def examine_words(words: Sequence[str], directory: Path) -> Diagnosis:
    """A command line in words, or pasted as one word; its relative paths are below `directory`."""
    look = looker(directory)
    if len(words) == 1 and " " in words[0]:
        words = split(words[0])
    return _diagnosis(read_command(words, look, reader(directory)), look)


def examine_process(process_id: int, proc: Path = Path("/proc")) -> Diagnosis:
    """A running monitor, with its files as it sees them."""
    words, look, read = read_process(process_id, proc)
    return _diagnosis(read_command(words, look, read), look)


def examine_xml(path: Path) -> Diagnosis:
    """libvirt's XML in a file; libvirt runs QEMU in the root folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text in UTF-8") from None
    look = looker(Path("/"))
    return _diagnosis(read_xml(text, look), look)


def _diagnosis(machine: Machine, look: Look) -> Diagnosis:
    notes = (*machine.notes, *remarks(machine, look))
    return Diagnosis(machine, tuple(judge(machine, look)), notes)


def doctor(diagnosis: Diagnosis, as_json: bool = False, stream: TextIO | None = None) -> int:
    """Print a diagnosis on `stream` (standard output unless given); the exit code."""
    stream = stream or sys.stdout
    if as_json:
        stream.write(json.dumps(as_object(diagnosis), indent=2) + "\n")
    else:
        _print(diagnosis, stream)
    return diagnosis.exit_code


def as_object(diagnosis: Diagnosis) -> dict[str, object]:
    """A diagnosis as JSON's own types."""
    return {
        "devices": [_device(device) for device in diagnosis.machine.devices],
        "findings": [
            {
                "device": finding.device,
                "rule": finding.rule,
                "severity": finding.severity,
                "option": finding.option,
                "where": finding.place.where,
                "column": finding.place.column,
                "text": finding.place.text,
                "why": finding.why,
                "mend": finding.mend,
            }
            for finding in diagnosis.findings
        ],
        "notes": list(diagnosis.notes),
        "exit_code": diagnosis.exit_code,
    }


def _device(device: PmemDevice) -> dict[str, object]:
    backend = device.backend
    return {
        "name": device.name,
        "kind": device.kind,
        "monitor": device.monitor,
        "backend": backend.kind,
        "mem_path": backend.mem_path,
        "size_bytes": backend.size_bytes,
        "share": backend.share,
        "readonly": backend.readonly,
        "discard_data": backend.discard_data,
        "prealloc": backend.prealloc,
        "pmem": backend.pmem,
    }


def _print(diagnosis: Diagnosis, stream: TextIO) -> None:
    console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = _PLAIN_COLUMNS
    for device in diagnosis.machine.devices:
        _say(console, _title(device), 0, "bold")
        own = [finding for finding in diagnosis.findings if finding.device == device.name]
        for finding in own:
            _print_finding(console, finding)
        if not own:
            _say(console, "nothing found", 2)
        console.print("")
    for note in diagnosis.notes:
        _say(console, f"note: {note}", 0, "dim")
    _say(console, _summary(diagnosis), 0)


def _title(device: PmemDevice) -> str:
    backend = device.backend
    nvdimm = "nvdimm, " if device.kind == NVDIMM else ""
    kind = backend.kind if device.monitor == "qemu" else f"{device.monitor},"
    file = f" {backend.mem_path}" if backend.mem_path else ""
    size = ", size unknown"
    if backend.size_bytes is not None:
        size = f", {exact_bytes(backend.size_bytes)}"
    return f"{device.name}: {nvdimm}{kind}{file}{size}"


def _print_finding(console: Console, finding: Hazard) -> None:
    style = _STYLES.get(finding.severity, "")
    _say(console, f"{finding.rule} {finding.severity}: {finding.option}", 2, style)
    _say(console, f"where: {finding.place}", 5)
    _say(console, f"why:   {finding.why}", 5, hanging=7)
    if finding.mend:
        _say(console, f"mend:  {finding.mend}", 5, hanging=7)


def _say(console: Console, text: str, indent: int, style: str = "", hanging: int = 0) -> None:
    """One paragraph, its further lines indented by `hanging` more."""
    width = max(20, console.width - indent - hanging)
    carried = printable(text).encode(console.encoding, "replace").decode(console.encoding)
    lines = Text(carried).wrap(console, width)
    for number, line in enumerate(lines):
        line.rstrip()
        line.stylize(style)
        console.print(Padding(line, (0, 0, 0, indent + (hanging if number else 0)), expand=False))


def _summary(diagnosis: Diagnosis) -> str:
    devices = len(diagnosis.machine.devices)
    if not devices and diagnosis.machine.unread:
        return "No virtio-pmem device in what could be read, and not all could: see the note."
    if not devices:
        return "No virtio-pmem device here: there is nothing to judge."
    some = "1 device" if devices == 1 else f"{devices} devices"
    count = Counter(finding.severity for finding in diagnosis.findings)
    bad = count[LOSES] + count[FAILS]
    if bad:
        told = "1 setting loses data or fails" if bad == 1 else f"{bad} settings lose data or fail"
    else:
        told = "no setting was found that loses data that is to be kept"
    more = [f"{count[one]} {words}" for one, words in _UNKEPT.items() if count[one]]
    return f"{some}: {told}{''.join(f'; {one}' for one in more)}."
