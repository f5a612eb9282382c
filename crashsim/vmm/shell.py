"""A command line as words, and the words as options with their arguments.

Contract: `split` reads a pasted command as a shell does: quotes, backslashes, lines continued by a
backslash. `options` walks over the words of a program that takes options as QEMU does: one or two
dashes, the argument in the next word; which options take none is known, and an unknown one takes
the next word unless that begins with a dash. Source: qemu-options.hx, of the releases since 2.12.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crashsim.errors import CommandLineError
from crashsim.vmm.spans import Refusal, Span

_WITHOUT = """
h help version mem-prealloc snapshot nographic full-screen win2k-hack no-fd-bootchk preconfig S s
no-reboot no-shutdown daemonize nodefaults nodefconfig no-user-config enable-kvm no-kvm
no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection enable-hax usb no-acpi no-hpet no-quit no-frame
alt-grab ctrl-grab sdl curses portrait show-cursor old-param semihosting singlestep one-insn-per-tb
xen-attach xen-domid-restrict enable-fips enable-sync-profile perfmap jitdump localtime rtc-td-hack
tdf async-teardown only-migratable
"""
_WITH = """
accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bt cdrom chardev
chroot clock compat cpu d D debugcon device dfilter display drive dtb dump-vmstate echr fda fdb
fsdev fw_cfg g gdb global hda hdachs hdb hdc hdd icount incoming initrd iscsi k kernel L loadvm m
M machine mem-path mon monitor msg mtdblock name net netdev nic numa object option-rom overcommit
parallel pflash pidfile plugin prom-env qmp qmp-pretty readconfig realtime rotate rtc run-with
runas sandbox sd seed semihosting-config serial set shim smbios smp soundhw spice startdate
tb-size tpmdev trace usbdevice uuid vga virtfs virtfs_synth virtioconsole vnc watchdog
watchdog-action writeconfig xen-domid
"""
_WITHOUT_ARGUMENT = frozenset(_WITHOUT.split())
_WITH_ARGUMENT = frozenset(_WITH.split())
_CONTINUED = re.compile(r"\\\r?\n")
_PROGRAM = re.compile(
    r"(?:.*/)?"
    r"(qemu-system-[\w.-]+|qemu-kvm|kvm|(cloud-hypervisor|crosvm|firecracker|jailer)[\w.-]*)"
)
_OF_A_USER = ("-u", "-g", "--user", "--group")  # a monitor may run as a user that is named like it
QEMU = "qemu"
_LONGEST_COMMAND = 128 << 10  # Linux starts no program with a longer word


@dataclass(frozen=True, slots=True)
class Option:
    """An option and its argument: words numbered from 1, the program's name among them."""

    name: str
    word: Span
    argument: Span | None


def split(text: str) -> list[str]:
    """The words of a pasted command."""
    if len(text) > _LONGEST_COMMAND:
        message = f"longer than {_LONGEST_COMMAND >> 10} KiB: no command line"
        raise CommandLineError([Refusal(None, message)])
    joined = _CONTINUED.sub("", text)
    try:
        return shlex.split(joined)
    except ValueError as error:
        place = Span("command line", joined.strip(), 1, len(joined.strip()))
        raise CommandLineError([Refusal(place, str(error)[:1].lower() + str(error)[1:])]) from None


def program(words: Sequence[str]) -> int:
    """How many words come before the options: the program, and what it is run with (`sudo`)."""
    for index, word in enumerate(words):
        if index == 0 and word.startswith("-"):
            break
        if monitor_of(word) and (index == 0 or words[index - 1] not in _OF_A_USER):
            return index + 1
    return 0


def monitor_of(word: str) -> str:
    """Which monitor a program is; empty if it is none."""
    match = _PROGRAM.fullmatch(word)
    return "" if match is None else match[2] or QEMU


def is_known(option: str) -> bool:
    """Whether QEMU has an option of this name."""
    return option in _WITH_ARGUMENT or option in _WITHOUT_ARGUMENT


def place(words: Sequence[str], index: int) -> Span:
    return Span(f"word {index + 1}", words[index], 1, len(words[index]))


def options(words: Sequence[str]) -> Iterator[Option]:
    """The options, in order; words that belong to none (a disk image) are passed over."""
    index = program(words)
    while index < len(words):
        word = words[index]
        at = index
        index += 1
        if len(word) < 2 or not word.startswith("-"):
            continue
        name = word.removeprefix("-").removeprefix("-")
        argument = None
        if index < len(words) and _takes(name, words[index]):
            argument = place(words, index)
            index += 1
        yield Option(name, place(words, at), argument)


def _takes(name: str, following: str) -> bool:
    if name in _WITHOUT_ARGUMENT:
        return False
    return name in _WITH_ARGUMENT or not following.startswith("-")
