"""crosvm, and its command line: `--pmem path=disk.img,ro=true` and its older and stranger kin.

Contract: `_read` gives the machine of `crosvm run`, or one `CommandLineError` with every mistake.
The file is mapped shared and is as large as the device, which is filled up to 2 MiB with memory of
no file; `ro`, `--pmem-device` and `--pmem-ext2` map it for reading alone; `vma-size` takes memory
of no file. Devices are in crosvm's order: those of `--pmem`, then of `--pmem-device`, then of
`--rw-pmem-device`, then of `--pmem-ext2`. Sources: `RunCommand` in src/crosvm/cmdline.rs,
`PmemOption` and `validate_pmem` in src/crosvm/config.rs, `parse_pmem_ext2_option` in
src/crosvm/sys/linux/config.rs, `create_pmem_device` in src/crosvm/sys/linux/device_helpers.rs (no
advice for huge pages), serde_keyvalue/src/key_values.rs (of August 2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crashsim.errors import CommandLineError
from crashsim.printable import nearest
from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Setting, Settings, places
from crashsim.vmm.machine import FILE, MEMFD, Backend, Machine, Monitor
from crashsim.vmm.probe import Look, Read, size_of
from crashsim.vmm.spans import Objection, Span, word

_KEYS = ("path", "ro", "root", "vma-size", "swap-interval-ms")
_EXT2_KEYS = (
    *("path", "blocks_per_group", "inodes_per_group", "size"),
    *("uid", "gid", "uidmap", "gidmap"),
)
_EXT2_BYTES = 16 << 20
_OPTIONS = ("pmem", "pmem-device", "rw-pmem-device", "pmem-ext2")
_TRUTH = {"": True, "true": True, "false": False}


def _read(words: Sequence[str], begin: int, look: Look | None, _: Read | None) -> Machine:
    if begin and "run" not in words[begin:]:
        message = "cannot be read: only `crosvm run` starts a machine"
        raise CommandLineError([Objection(word(words, begin - 1), message)])
    assembly = Assembly(look)
    found = list(_values(words, begin, assembly))
    for number, (option, value) in enumerate(sorted(found, key=lambda o: _OPTIONS.index(o[0]))):
        backend = _pmem(option, value, f"pmem{number}", assembly, look)
        if backend is not None:
            assembly.add_pair(backend, CROSVM)
    return assembly.finished()


def _values(words: Sequence[str], begin: int, assembly: Assembly) -> Iterator[tuple[str, Span]]:
    """Options of pmem devices, each with its value: `--pmem a` or `--pmem=a`."""
    index = begin
    while index < len(words):
        text, at = words[index], index
        index += 1
        name, equals, value = text.removeprefix("--").partition("=")
        if not text.startswith("--") or "pmem" not in name:
            continue
        if name not in _OPTIONS:
            message = f"cannot be read: crosvm has no option --{name}" + nearest(name, _OPTIONS)
            assembly.report(word(words, at), message)
        elif equals:
            yield name, word(words, at, len(text) - len(value))
        elif index < len(words):
            yield name, word(words, index)
            index += 1
        else:
            assembly.report(word(words, at), f"--{name} needs a value")


def _pmem(
    option: str, whole: Span, name: str, assembly: Assembly, look: Look | None
) -> Backend | None:
    """The memory of a device; of `--pmem-ext2` a file system made of a folder, in memory, which the
    guest can only read."""
    before = len(assembly.mistakes)
    ext2 = option == "pmem-ext2"
    settings = _settings(whole, ":" if ext2 else ",", assembly)
    if len(assembly.mistakes) > before:
        return None
    if option == "pmem" or ext2:  # the others take the options of a block device
        assembly.check_keys(settings, _EXT2_KEYS if ext2 else _KEYS, f"--{option}")
    text = {setting.name: str(setting.value) for setting in settings.values()}
    if not text.get("path") and not ext2:
        assembly.report(whole, f"--{option} needs a path")
    if not ext2 and text.get("ro", "") not in _TRUTH:
        assembly.report(settings["ro"].place, "ro takes true or false")
    size = "size" if ext2 else "vma-size"  # of memory of no file
    sized = (ext2 or option == "pmem") and size in text
    if sized and not text[size].isdecimal():
        assembly.report(settings[size].place, f"{size} takes a number of bytes")
    if len(assembly.mistakes) > before:
        return None
    anonymous = ext2 or sized
    told = option == "pmem" and "ro" in text
    readonly = ext2 or option == "pmem-device" or (told and _TRUTH[text["ro"]])
    own_bytes = int(text[size]) if sized else _EXT2_BYTES
    return Backend(
        name=name,
        kind=MEMFD if anonymous else FILE,
        size_bytes=own_bytes if anonymous else size_of(text["path"], look),
        mem_path="" if anonymous and not ext2 else text.get("path", ""),
        share=True,
        readonly=readonly,
        rom=readonly,
        readonly_option="ro=true" if option == "pmem" else f"--{option}",
        places=places({} if ext2 else settings, whole, mem_path="path", readonly="ro"),
    )


def _settings(whole: Span, separator: str, assembly: Assembly) -> Settings:
    """`path,key=value,key`: the first value may go without its key, a key alone is true."""
    found: Settings = {}
    text, at = whole.text[whole.column - 1 :], whole.column
    if "'" in text or '"' in text:
        assembly.report(whole, "cannot be read: quotes within a value")
        return found
    for number, item in enumerate(text.split(separator)):
        here = Span(whole.where, whole.text, at, len(item))
        at += len(item) + 1
        name, equals, value = item.partition("=")
        if number == 0 and not equals:
            name, value = "path", item
        if name in found:
            assembly.report(here, f"{name} is given twice")
        found[name] = Setting(name, value, here)
    return found


CROSVM = Monitor(
    name="crosvm",
    title="crosvm",
    datasync=True,
    threads=1,
    queue=256,
    error=1,
    pads=True,
    file_option="path=",
    programs=r"crosvm[\w.-]*",
    read=_read,
)
