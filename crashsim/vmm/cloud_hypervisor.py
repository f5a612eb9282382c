"""cloud-hypervisor, and its command line: `--pmem file=...,size=...,discard_writes=on`.

Contract: `_read` gives the machine, or one `CommandLineError` with every mistake. Each value of
`--pmem` is a device; without `size` the device is as large as its file. The file is mapped shared,
with `discard_writes=on` privately (V4); it is never created, and the size must be a multiple of
2 MiB. Sources: `PmemConfig` in vmm/src/vm_config.rs and vmm/src/config.rs,
`make_virtio_pmem_device` in vmm/src/device_manager.rs (no advice for huge pages, whatever it does
for the guest's main memory), `OptionParser` in option_parser/src/lib.rs (of August 2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Settings, parse_size, places, read
from crashsim.vmm.machine import FILE, Backend, Machine, Monitor
from crashsim.vmm.probe import Look, Read, size_of
from crashsim.vmm.spans import Span, word

ALIGNMENT_BYTES = 2 << 20
_KEYS = (
    *("file", "size", "iommu", "mergeable", "discard_writes", "id", "pci_segment"),
    "pci_device_id",  # of later ones
)
_TRUTH = {"on": True, "true": True, "off": False, "false": False, "": False}


def _read(words: Sequence[str], begin: int, look: Look | None, _: Read | None) -> Machine:
    assembly = Assembly(look)
    for number, value in enumerate(_values(words, begin)):
        settings = read(value, "", assembly.mistakes.append) or {}
        _add(settings, value, f"_pmem{number}", assembly, look)
    return assembly.finished()


def _values(words: Sequence[str], begin: int) -> Iterator[Span]:
    """`--pmem a b` and `--pmem=a`; the values go on up to the next option."""
    taking = False
    for index in range(begin, len(words)):
        if words[index].startswith("-"):
            taking = words[index] == "--pmem"
            if words[index].startswith("--pmem="):
                yield word(words, index, len("--pmem="))
        elif taking:
            yield word(words, index)


def _add(settings: Settings, whole: Span, name: str, assembly: Assembly, look: Look | None) -> None:
    before = len(assembly.mistakes)
    assembly.check_keys(settings, _KEYS, "--pmem")
    text = {setting.name: str(setting.value) for setting in settings.values()}
    if not text.get("file"):
        assembly.report(whole, "--pmem needs file=")
    discard = text.get("discard_writes", "off")
    if discard not in _TRUTH:
        assembly.report(settings["discard_writes"].place, "discard_writes takes 'on' or 'off'")
    size_bytes = _size(settings, text.get("file", ""), assembly, look)
    if len(assembly.mistakes) > before:
        return
    backend = Backend(
        name=text.get("id", name),
        kind=FILE,
        size_bytes=size_bytes,
        mem_path=text["file"],
        share=not _TRUTH[discard],
        places=places(settings, whole, mem_path="file"),
    )
    assembly.add_pair(backend, CLOUD_HYPERVISOR)


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


CLOUD_HYPERVISOR = Monitor(
    name="cloud-hypervisor",
    title="cloud-hypervisor",
    datasync=False,
    threads=1,
    queue=256,
    error=1,
    file_option="file=",
    programs=r"cloud-hypervisor[\w.-]*",
    read=_read,
)
