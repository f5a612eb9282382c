"""Any command line: which program it runs, and so how it is read.

Contract: `read_command` gives the machine of QEMU's or cloud-hypervisor's command line; words
without a program are read as QEMU's. `ndctl` is refused with QEMU's reason (V7).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from crashsim.monitor import cloud_hypervisor, qemu
from crashsim.monitor.host import Look
from crashsim.monitor.hotplug import NDCTL
from crashsim.monitor.machine import Machine
from crashsim.monitor.place import CommandLineError, Mistake
from crashsim.monitor.words import place, program, split

CLOUD_HYPERVISOR = "cloud-hypervisor"


def read_text(text: str, look: Look | None = None) -> Machine:
    """The machine of a command as it is pasted."""
    return read_command(split(text), look)


def read_command(words: Sequence[str], look: Look | None = None) -> Machine:
    """The machine of a command in words."""
    before = program(words)
    name = posixpath.basename(words[before - 1]) if before else ""
    if name == "ndctl" or list(words[:1]) == ["ndctl"]:
        raise CommandLineError([Mistake(place(words, 0), NDCTL)])
    if name == CLOUD_HYPERVISOR:
        return cloud_hypervisor.read_words(words, look)
    return qemu.read_words(words, look)
