"""All monitors, and any command line: which program it runs, and so how it is read.

Contract: `MONITORS` is the one list of them; schema, checks, the simulated queue and doctor derive
from it. `read_command` gives the machine of a command line of one of their programs; options alone
are read as those of `monitor`. A line of another program is not read at all: that there is nothing
in it to judge would be a guess. `ndctl` is refused with QEMU's reason (V7).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from crashsim.errors import CommandLineError
from crashsim.vmm.cloud_hypervisor import CLOUD_HYPERVISOR
from crashsim.vmm.crosvm import CROSVM
from crashsim.vmm.firecracker import FIRECRACKER
from crashsim.vmm.hotplug import NDCTL
from crashsim.vmm.machine import Machine, Monitor
from crashsim.vmm.probe import Look, Read
from crashsim.vmm.qemu import QEMU, is_followed
from crashsim.vmm.spans import Objection, split, word

# Firecracker from 2026-03 on.
_REUSED = replace(
    FIRECRACKER,
    name="firecracker-reused-result",
    reuses_result=True,
    programs="",
    read=None,
    configuration=None,
)
MONITORS: dict[str, Monitor] = {
    monitor.name: monitor for monitor in (QEMU, CLOUD_HYPERVISOR, CROSVM, FIRECRACKER, _REUSED)
}
_OF_A_USER = ("-u", "-g", "--user", "--group")  # a monitor may run as a user that is named like it


def known() -> str:
    """The monitors whose command lines can be read, for a sentence."""
    *titles, last = (monitor.title for monitor in MONITORS.values() if monitor.programs)
    return f"{', '.join(titles)} and {last}"


def monitor_of(program: str) -> Monitor | None:
    """Which monitor a program is, if it is one."""
    name = program.rpartition("/")[2]
    matching = (m for m in MONITORS.values() if m.programs and re.fullmatch(m.programs, name))
    return next(matching, None)


def before_options(words: Sequence[str]) -> int:
    """How many words come before the options: the program, and what it is run with (`sudo`)."""
    for index, one in enumerate(words):
        if index == 0 and one.startswith("-"):
            break
        if monitor_of(one) and (index == 0 or words[index - 1] not in _OF_A_USER):
            return index + 1
    return 0


def read_text(text: str, look: Look | None = None, monitor: str = QEMU.name) -> Machine:
    """The machine of a command as it is pasted."""
    return read_command(split(text), look, monitor=monitor)


def read_command(
    words: Sequence[str],
    look: Look | None = None,
    read: Read | None = None,
    monitor: str = QEMU.name,
) -> Machine:
    """The machine of a command in words; `read` opens a configuration that they name."""
    before = before_options(words)
    if "ndctl" in words[:1]:
        raise CommandLineError([Objection(word(words, 0), NDCTL)])
    named = monitor_of(words[before - 1]) if before else None
    if named is None:
        named = MONITORS[monitor]
        _only_options(words, named)
    assert named.read is not None  # its program has a name, or it is one of an experiment's keys
    return named.read(words, before, look, read)


def _only_options(words: Sequence[str], monitor: Monitor) -> None:
    """CommandLineError for words that name no monitor and are not options of this one either.

    QEMU's users write one dash; an option with two that is not followed may be another program's,
    or a misspelt one of doctor's."""
    for index, one in enumerate(words):
        if monitor is QEMU and one.startswith("--") and len(one) > 2 and not is_followed(one[2:]):
            message = f"cannot be read: not followed, and no monitor is named ({known()})"
            raise CommandLineError([Objection(word(words, index), message)])
        if index == 0 and not (one.startswith("-") and len(one) > 1):
            message = f"cannot be read: this is none of {known()}"
            raise CommandLineError([Objection(word(words, index), message)])
