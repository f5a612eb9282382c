"""QEMU's command line: the virtio-pmem devices in it.

Contract: `read_words` gives the machine, or one `CommandLineError` with every mistake in the
options that concern virtio-pmem: `-object`, `-device`, and where they touch these `-m`, `-machine`,
`-numa` and `-mem-prealloc`. All other options are passed over. Devices may stand before their
objects. Sources: `qemu_init` and `object_option_parse` in system/vl.c,
docs/system/devices/virtio-pmem.rst. `-readconfig` and `-set` are not followed; a note says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crashsim.engine.units import exact_bytes
from crashsim.errors import CommandLineError
from crashsim.vmm.assembly import NVDIMM, Assembly
from crashsim.vmm.keyval import Settings, read
from crashsim.vmm.machine import Machine
from crashsim.vmm.probe import Look
from crashsim.vmm.shell import Option, options
from crashsim.vmm.spans import Span
from crashsim.vmm.values import parse_size, parse_truth

_NOT_FOLLOWED = ("readconfig", "set")


def read_words(words: Sequence[str], look: Look | None = None) -> Machine:
    """The machine of a command line in words, the program's name among them or not."""
    assembly = Assembly(look)
    found = list(options(words))
    assembly.prealloc = any(option.name == "mem-prealloc" for option in found)
    for option, settings in _of(found, "object", "qom-type", assembly):
        assembly.add_object(settings, option)
    for option, settings in _of(found, "device", "driver", assembly):
        assembly.add_device(settings, option)
    memory: Settings = {}
    for other in found:
        if other.argument is not None:
            _other(other.name, other.argument, assembly, memory)
    machine = assembly.machine()
    _check_memory(memory, machine, assembly)
    if assembly.mistakes:
        raise CommandLineError(assembly.mistakes)
    return assembly.machine()


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


def _other(name: str, argument: Span, assembly: Assembly, memory: Settings) -> None:
    if name == "m":
        memory |= _quiet(argument, "size")
    elif name in ("machine", "M"):
        settings = _quiet(argument, "type")
        if "memory-backend" in settings:
            assembly.use(settings["memory-backend"], "the guest's main memory")
        nvdimm = settings.get("nvdimm")
        any_nvdimm = any(device.kind == NVDIMM for device in assembly.machine().devices)
        if nvdimm is not None and _is_on(str(nvdimm.value)) and not any_nvdimm:
            assembly.notes.append(
                "-machine nvdimm=on does nothing for virtio-pmem, which has no ACPI NVDIMM regions "
                "and namespaces (V7)"
            )
    elif name == "numa":
        settings = _quiet(argument, "type")
        if "memdev" in settings:
            assembly.use(settings["memdev"], "a NUMA node")
    elif name in _NOT_FOLLOWED:
        assembly.notes.append(f"-{name} is not followed: what it sets is not seen here")
        assembly.unread = True


def _quiet(argument: Span, first_key: str) -> Settings:
    """Settings of an option that is not ours to judge."""
    return read(argument, first_key, lambda mistake: None) or {}


def _is_on(text: str) -> bool:
    try:
        return parse_truth(text)
    except ValueError:
        return False


def _check_memory(memory: Settings, machine: Machine, assembly: Assembly) -> None:
    """Room for devices: `memory_device_check_addable` in hw/mem/memory-device.c."""
    if "size" not in memory or not machine.devices:
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
    needed_bytes = sum(device.backend.size_bytes or 0 for device in machine.devices)
    if needed_bytes > room_bytes:
        assembly.report(
            memory["maxmem"].place,
            f"maxmem leaves {exact_bytes(max(0, room_bytes))} above the guest's memory for devices "
            f"that need {exact_bytes(needed_bytes)}",
        )
