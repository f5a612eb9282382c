"""cloud-hypervisor's command line: `--pmem file=...,size=...,discard_writes=on`.

Contract: `read_words` gives the machine, or one `CommandLineError` with every mistake. Each value
of `--pmem` is a device; without `size` the device is as large as its file. The file is mapped
shared, with `discard_writes=on` privately (V4); it is never created, and the size must be a
multiple of 2 MiB. Sources: `PmemConfig` in vmm/src/vm_config.rs and vmm/src/config.rs,
`make_virtio_pmem_device` in vmm/src/device_manager.rs, `OptionParser` in option_parser/src/lib.rs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crashsim.errors import CommandLineError
from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Settings, read
from crashsim.vmm.machine import FILE, Backend, Machine
from crashsim.vmm.probe import Look, size_of
from crashsim.vmm.shell import place, program
from crashsim.vmm.spans import Span, nearest
from crashsim.vmm.values import parse_size

ALIGNMENT_BYTES = 2 << 20
_KEYS = ("file", "size", "iommu", "mergeable", "discard_writes", "id", "pci_segment")
_KEYS_OF_LATER = ("pci_device_id",)
_TRUTH = {"on": True, "true": True, "off": False, "false": False, "": False}


def read_words(words: Sequence[str], look: Look | None = None) -> Machine:
    """The machine of a command line in words."""
    assembly = Assembly(look)
    for number, value in enumerate(_values(words)):
        settings = read(value, "", assembly.mistakes.append) or {}
        _add(settings, value, f"_pmem{number}", assembly, look)
    if assembly.mistakes:
        raise CommandLineError(assembly.mistakes)
    return assembly.machine()


def _values(words: Sequence[str]) -> Iterator[Span]:
    """`--pmem a b` and `--pmem=a`; the values go on up to the next option."""
    taking = False
    for index in range(program(words), len(words)):
        word = words[index]
        if word.startswith("-"):
            taking = word == "--pmem"
            if word.startswith("--pmem="):
                at = len("--pmem=")
                yield Span(f"word {index + 1}", word, at + 1, len(word) - at)
        elif taking:
            yield place(words, index)


def _add(settings: Settings, whole: Span, name: str, assembly: Assembly, look: Look | None) -> None:
    before = len(assembly.mistakes)
    for setting in settings.values():
        if setting.name not in _KEYS + _KEYS_OF_LATER:
            known = nearest(setting.name, _KEYS)
            assembly.report(setting.place, f"--pmem has no key {setting.name!r}{known}")
    text = {setting.name: str(setting.value) for setting in settings.values()}
    if not text.get("file"):
        assembly.report(whole, "--pmem needs file=")
    discard = text.get("discard_writes", "off")
    if discard not in _TRUTH:
        assembly.report(settings["discard_writes"].place, "discard_writes takes 'on' or 'off'")
    size_bytes = _size(settings, text.get("file", ""), assembly, look)
    if len(assembly.mistakes) > before:
        return
    places = {setting.name: setting.place for setting in settings.values()} | {"": whole}
    if "file" in places:
        places["mem-path"] = places["file"]
    backend = Backend(
        name=text.get("id", name),
        kind=FILE,
        size_bytes=size_bytes,
        mem_path=text["file"],
        share=not _TRUTH[discard],
        places=places,
    )
    assembly.add_pair(backend.name, backend, "cloud-hypervisor")


def _size(settings: Settings, path: str, assembly: Assembly, look: Look | None) -> int | None:
    if "size" not in settings:
        return size_of(path, look)
    try:
        size_bytes = parse_size(str(settings["size"].value))
    except ValueError as error:
        assembly.report(settings["size"].place, f"size takes {error}")
        return None
    if size_bytes == 0 or size_bytes % ALIGNMENT_BYTES:
        assembly.report(settings["size"].place, "size takes a multiple of 2 MiB")
    return size_bytes
