"""QEMU, and its command line: the virtio-pmem devices in it.

Contract: `_read` gives the machine, or one `CommandLineError` with every mistake in the options
that decide what becomes of a device's data: `-object`, `-device`, and where they touch these `-m`,
`-machine`, `-numa` and `-mem-prealloc`. All other options are passed over, but for one whose
argument is that of a pmem device: it is a misspelt one, and refused. Devices may stand before
their objects. `-readconfig`, `-set` and `-global` of a pmem device are not followed; a note says
so. An option has one or two dashes and its argument in the next word; one that is not known has
none if that word begins with a dash. Sources: `qemu_init` and `object_option_parse` in system/vl.c,
qemu-options.hx, docs/system/devices/virtio-pmem.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crashsim.engine.units import exact_bytes
from crashsim.printable import nearest
from crashsim.vmm.assembly import NVDIMM, Assembly
from crashsim.vmm.keyval import Settings, parse_size, parse_truth, read
from crashsim.vmm.machine import Machine, Monitor
from crashsim.vmm.probe import Look, Read
from crashsim.vmm.spans import Span, word

_FOLLOWED = ("object", "device", "m", "machine", "M", "numa")
_NOT_FOLLOWED = ("readconfig", "set")
# Their argument is any text, which may begin with a dash.
_TEXTS = ("append", "name", "initrd", "kernel", "fw_cfg", "smbios", "uuid", "qtest-log")
_WITHOUT_ARGUMENT = ("mem-prealloc",)
_OF_A_PMEM = re.compile(r"(qom-type=|driver=)?(memory-backend-|virtio-pmem|nvdimm[,.])|.*,memdev=")


@dataclass(frozen=True, slots=True)
class Option:
    """An option and its argument."""

    name: str
    word: Span
    argument: Span | None


def is_followed(name: str) -> bool:
    """Whether an option of this name is looked at here."""
    return name in (*_FOLLOWED, *_NOT_FOLLOWED, *_TEXTS, *_WITHOUT_ARGUMENT)


def options(words: Sequence[str], begin: int) -> Iterator[Option]:
    """The options, in order; words that belong to none (a disk image) are passed over."""
    index = begin
    while index < len(words):
        text, at = words[index], index
        index += 1
        if len(text) < 2 or not text.startswith("-"):
            continue
        name = text.removeprefix("-").removeprefix("-")
        needed = is_followed(name) and name not in _WITHOUT_ARGUMENT
        argument = None
        if index < len(words) and (needed or not words[index].startswith("-")):
            argument = word(words, index)
            index += 1
        yield Option(name, word(words, at), argument)


def _read(words: Sequence[str], begin: int, look: Look | None, _: Read | None) -> Machine:
    assembly = Assembly(look)
    found = list(options(words, begin))
    assembly.prealloc = any(option.name == "mem-prealloc" for option in found)
    for option, settings in _of(found, "object", "qom-type", assembly):
        assembly.add_object(settings, option)
    for option, settings in _of(found, "device", "driver", assembly):
        assembly.add_device(settings, option)
    memory: Settings = {}
    for other in found:
        if other.argument is not None:
            _other(other, other.argument, assembly, memory)
    _check_memory(memory, assembly)
    return assembly.finished()


def _of(
    found: list[Option], name: str, first_key: str, assembly: Assembly
) -> Iterator[tuple[Span, Settings]]:
    """The arguments of all options of this name, and what they set."""
    for option in found:
        if option.name != name:
            continue
        if option.argument is None:
            assembly.report(option.word, f"-{name} needs an argument")
            continue
        settings = read(option.argument, first_key, assembly.mistakes.append)
        if settings is not None:
            yield option.argument, settings


def _other(option: Option, argument: Span, assembly: Assembly, memory: Settings) -> None:
    name = option.name
    if name == "m":
        memory |= _quiet(argument, "size")
    elif name in ("machine", "M"):
        settings = _quiet(argument, "type")
        if "memory-backend" in settings:
            assembly.use(settings["memory-backend"], "the guest's main memory")
        nvdimm = settings.get("nvdimm")
        any_nvdimm = any(device.kind == NVDIMM for device in assembly.devices)
        if nvdimm is not None and _is_on(str(nvdimm.value)) and not any_nvdimm:
            assembly.notes.append(
                "-machine nvdimm=on does nothing for virtio-pmem, which has no ACPI NVDIMM regions "
                "and namespaces (V7)"
            )
    elif name == "numa":
        settings = _quiet(argument, "type")
        if "memdev" in settings:
            assembly.use(settings["memdev"], "a NUMA node")
    elif name in _NOT_FOLLOWED or (name == "global" and _OF_A_PMEM.match(argument.text)):
        assembly.notes.append(f"-{name} is not followed: what it sets is not seen here")
        assembly.unread = True
    elif not is_followed(name) and _OF_A_PMEM.match(argument.text):
        message = f"no option -{name} takes a pmem device or its memory"
        assembly.report(option.word, message + nearest(name, ("object", "device")))


def _quiet(argument: Span, first_key: str) -> Settings:
    """Settings of an option that is not ours to judge."""
    return read(argument, first_key, lambda mistake: None) or {}


def _is_on(text: str) -> bool:
    try:
        return parse_truth(text)
    except ValueError:
        return False


def _check_memory(memory: Settings, assembly: Assembly) -> None:
    """Room for devices: `memory_device_check_addable` in hw/mem/memory-device.c."""
    if "size" not in memory or not assembly.devices:
        return
    if "maxmem" not in memory:
        assembly.notes.append("QEMU needs -m ...,maxmem= for memory devices such as virtio-pmem")
        return
    sizes = {}
    for name in ("size", "maxmem"):
        setting = memory[name]
        try:
            # A bare number is MiB for `size` and bytes for `maxmem`.
            sizes[name] = parse_size(str(setting.value), "m" if name == "size" else "b")
        except ValueError as error:
            assembly.report(setting.place, f"{name} takes {error}")
    if len(sizes) < 2:
        return
    room_bytes = sizes["maxmem"] - sizes["size"]
    needed_bytes = sum(device.backend.size_bytes or 0 for device in assembly.devices)
    if needed_bytes > room_bytes:
        assembly.report(
            memory["maxmem"].place,
            f"maxmem leaves {exact_bytes(max(0, room_bytes))} above the guest's memory for devices "
            f"that need {exact_bytes(needed_bytes)}",
        )


QEMU = Monitor(
    name="qemu",
    title="QEMU",
    datasync=False,
    threads=64,
    queue=128,
    error=1,
    advises_huge_pages=True,  # `ram_block_add` in system/physmem.c
    creates_file=True,
    file_option="mem-path=",
    programs=r"qemu-system-[\w.-]+|qemu-kvm|kvm",
    read=_read,
)
