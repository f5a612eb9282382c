"""What a command line, a running monitor or libvirt's XML does to its data.

Contract: `examine` reads and judges; it prints nothing. Exit codes: 0 nothing loses data that was
to be kept · 1 something loses data or fails · 2 there is no virtio-pmem device or nvdimm to judge
(zero is never green). A command line that is wrong, or of a program that is not known, raises
`CommandLineError` with every mistake; a process that cannot be read, or is no monitor, is a
`UsageError` that says why. What is said is read from the command line, the configuration
and the files that they name, and each hazard names where.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crashsim.errors import UsageError
from crashsim.printable import printable
from crashsim.vmm.hazards import FAILS, LOSES, Hazard, judge, remarks
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import Machine
from crashsim.vmm.monitors import known, monitor_of, read_command
from crashsim.vmm.probe import Look, Read, looker, reader
from crashsim.vmm.spans import split


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A machine, what of it loses data, and what was not judged."""

    machine: Machine
    hazards: tuple[Hazard, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        if not self.machine.devices:
            return 2
        return int(any(hazard.severity in (LOSES, FAILS) for hazard in self.hazards))


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


def read_process(process_id: int, proc: Path = Path("/proc")) -> tuple[list[str], Look, Read]:
    """The words of a monitor's command line, what it sees of the host, and its files."""
    own = proc / str(process_id)
    try:
        raw = (own / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise UsageError(f"there is no process {process_id}") from None
    except PermissionError:
        raise UsageError(f"process {process_id}: no permission to read its command line") from None
    except OSError as error:
        raise UsageError(f"process {process_id}: {error.strerror}") from None
    words = [os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")]
    if not raw:
        raise UsageError(f"process {process_id} has no command line: a kernel thread or a zombie")
    if monitor_of(words[0]) is None:
        raise UsageError(
            f"process {process_id} is none of {known()}: it runs {printable(words[0])}"
        )
    return words, looker(own / "cwd", own / "root"), reader(own / "cwd", own / "root")


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
