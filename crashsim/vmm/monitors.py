"""Any command line: which program it runs, and so how it is read.

Contract: `read_command` gives the machine of a command line of QEMU, cloud-hypervisor, crosvm or
Firecracker; options alone are read as those of `monitor`. A line of another program is not read at
all: that there is nothing in it to judge would be a guess. `ndctl` is refused with QEMU's reason
(V7).
"""

from __future__ import annotations

from collections.abc import Sequence

from crashsim.errors import CommandLineError
from crashsim.vmm import cloud_hypervisor, crosvm, firecracker, qemu
from crashsim.vmm.hotplug import NDCTL
from crashsim.vmm.machine import Machine
from crashsim.vmm.probe import Look, Read
from crashsim.vmm.shell import QEMU, is_known, monitor_of, place, program, split
from crashsim.vmm.spans import Refusal

KNOWN = "QEMU, cloud-hypervisor, crosvm and Firecracker"


def read_text(text: str, look: Look | None = None, monitor: str = QEMU) -> Machine:
    """The machine of a command as it is pasted."""
    return read_command(split(text), look, monitor=monitor)


def read_command(
    words: Sequence[str], look: Look | None = None, read: Read | None = None, monitor: str = QEMU
) -> Machine:
    """The machine of a command in words; `read` opens a configuration that they name."""
    before = program(words)
    named = monitor_of(words[before - 1]) if before else ""
    if "ndctl" in words[:1]:
        raise CommandLineError([Refusal(place(words, 0), NDCTL)])
    if not named:
        _only_options(words, monitor)
        named = monitor
    if named == "cloud-hypervisor":
        return cloud_hypervisor.read_words(words, look)
    if named == "crosvm":
        return crosvm.read_words(words, look)
    if named in ("firecracker", "jailer"):
        return firecracker.read_words(words, look, read)
    return qemu.read_words(words, look)


def _only_options(words: Sequence[str], monitor: str) -> None:
    """CommandLineError for words that name no monitor and are not options of this one either."""
    for index, word in enumerate(words):
        is_option = word.startswith("-") and len(word) > 1
        name = word.removeprefix("-").removeprefix("-")
        if monitor == QEMU and is_option and not is_known(name):
            message = f"cannot be read: QEMU has no such option, and no monitor is named ({KNOWN})"
            raise CommandLineError([Refusal(place(words, index), message)])
        if index == 0 and not is_option:
            message = f"cannot be read: this is none of {KNOWN}"
            raise CommandLineError([Refusal(place(words, index), message)])
