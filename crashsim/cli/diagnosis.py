"""What `crashsim doctor` prints: a diagnosis as text or as JSON.

Contract: a terminal gets colour unless NO_COLOR is set; a pipe gets plain text, of 100 columns
unless COLUMNS says otherwise; the JSON has the keys of `as_object`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TextIO

from crashsim.engine.units import exact_bytes
from crashsim.printable import printable
from crashsim.report.speaker import Speaker, console_for, width_of
from crashsim.vmm.assembly import NVDIMM
from crashsim.vmm.examine import Diagnosis
from crashsim.vmm.hazards import COSTS, DISCARDS, FAILS, LOSES, READ_ONLY, Hazard
from crashsim.vmm.machine import PmemDevice

_STYLES = {LOSES: "bold red", FAILS: "bold red", COSTS: "yellow"}
_PLAIN_COLUMNS = 100  # of a pipe that does not say how wide it is
_UNKEPT = {READ_ONLY: "read-only, nothing to lose", DISCARDS: "discarding what is written"}
_OF_A_BACKEND = ("mem_path", "size_bytes", "share", "readonly", "discard_data", "prealloc", "pmem")


def print_diagnosis(
    diagnosis: Diagnosis, as_json: bool = False, stream: TextIO | None = None
) -> None:
    """Print on `stream` (standard output unless given)."""
    stream = stream or sys.stdout
    if as_json:
        stream.write(json.dumps(as_object(diagnosis), indent=2) + "\n")
        return
    console = console_for(stream)
    say, width = Speaker(console), width_of(console) or _PLAIN_COLUMNS

    def paragraph(text: str, indent: int = 0, style: str = "", hanging: int = 0) -> None:
        """Its further lines are indented by `hanging` more."""
        columns = max(20, width - indent - hanging)
        lines = textwrap.wrap(printable(text), columns, break_on_hyphens=False)
        for number, line in enumerate(lines):
            say(" " * (indent + hanging * (number > 0)) + line, style, whole=True)

    for device in diagnosis.machine.devices:
        paragraph(_title(device), 0, "bold")
        own = [hazard for hazard in diagnosis.hazards if hazard.device == device.name]
        for hazard in own:
            style = _STYLES.get(hazard.severity, "")
            paragraph(f"{hazard.rule} {hazard.severity}: {hazard.option}", 2, style)
            paragraph(f"where: {hazard.place}", 5)
            paragraph(f"why:   {hazard.why}", 5, hanging=7)
            if hazard.mend:
                paragraph(f"mend:  {hazard.mend}", 5, hanging=7)
        if not own:
            paragraph("nothing found", 2)
        say("")
    for note in diagnosis.notes:
        paragraph(f"note: {note}", 0, "dim")
    paragraph(_summary(diagnosis))


def as_object(diagnosis: Diagnosis) -> dict[str, object]:
    """A diagnosis as JSON's own types."""
    return {
        "devices": [_device(device) for device in diagnosis.machine.devices],
        "findings": [_hazard(hazard) for hazard in diagnosis.hazards],
        "notes": list(diagnosis.notes),
        "exit_code": diagnosis.exit_code,
    }


def _device(device: PmemDevice) -> dict[str, object]:
    backend = device.backend
    named = {"name": device.name, "kind": device.kind, "monitor": device.monitor}
    return named | {"backend": backend.kind} | {key: getattr(backend, key) for key in _OF_A_BACKEND}


def _hazard(hazard: Hazard) -> dict[str, object]:
    found = asdict(hazard)
    place = {key: found["place"][key] for key in ("where", "column", "text")}
    ordered = ("device", "rule", "severity", "option", *place, "why", "mend")
    return {key: place[key] if key in place else found[key] for key in ordered}


def _title(device: PmemDevice) -> str:
    backend = device.backend
    nvdimm = "nvdimm, " if device.kind == NVDIMM else ""
    kind = backend.kind if device.monitor == "qemu" else f"{device.monitor},"
    file = f" {backend.mem_path}" if backend.mem_path else ""
    size = ", size unknown"
    if backend.size_bytes is not None:
        size = f", {exact_bytes(backend.size_bytes)}"
    return f"{device.name}: {nvdimm}{kind}{file}{size}"


def _summary(diagnosis: Diagnosis) -> str:
    devices = len(diagnosis.machine.devices)
    if not devices and diagnosis.machine.unread:
        return "No virtio-pmem device in what could be read, and not all could: see the note."
    if not devices:
        return "No virtio-pmem device here: there is nothing to judge."
    some = "1 device" if devices == 1 else f"{devices} devices"
    count = Counter(hazard.severity for hazard in diagnosis.hazards)
    bad = count[LOSES] + count[FAILS]
    if bad:
        told = "1 setting loses data or fails" if bad == 1 else f"{bad} settings lose data or fail"
    else:
        told = "no setting was found that loses data that is to be kept"
    more = [f"{count[one]} {words}" for one, words in _UNKEPT.items() if count[one]]
    return f"{some}: {told}{''.join(f'; {one}' for one in more)}."
