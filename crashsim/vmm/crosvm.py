"""crosvm's command line: `--pmem path=disk.img,ro=true` and its older and stranger kin.

Contract: `read_words` gives the machine of `crosvm run`, or one `CommandLineError` with every
mistake. The file is mapped shared and is as large as the device, which is filled up to 2 MiB with
memory of no file; `ro`, `--pmem-device` and `--pmem-ext2` map it for reading alone; `vma-size`
takes memory of no file. Devices are in crosvm's order: those of `--pmem`, then of `--pmem-device`,
then of `--rw-pmem-device`, then of `--pmem-ext2`. Sources: `RunCommand` in src/crosvm/cmdline.rs,
`PmemOption` and `validate_pmem` in src/crosvm/config.rs, `parse_pmem_ext2_option` in
src/crosvm/sys/linux/config.rs, `create_pmem_device` in src/crosvm/sys/linux/device_helpers.rs,
serde_keyvalue/src/key_values.rs (of August 2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crashsim.errors import CommandLineError
from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Setting, Settings
from crashsim.vmm.machine import FILE, MEMFD, Backend, Machine
from crashsim.vmm.probe import Look, size_of
from crashsim.vmm.shell import place, program
from crashsim.vmm.spans import Refusal, Span, nearest

_KEYS = ("path", "ro", "root", "vma-size", "swap-interval-ms")
_EXT2_KEYS = ["blocks_per_group", "inodes_per_group", "size", "uid", "gid", "uidmap", "gidmap"]
_EXT2_BYTES = 16 << 20
_OPTIONS = ("pmem", "pmem-device", "rw-pmem-device", "pmem-ext2")
_TRUTH = {"": True, "true": True, "false": False}


def read_words(words: Sequence[str], look: Look | None = None) -> Machine:
    """The machine of a command line in words."""
    begin = program(words)
    if begin and "run" not in words[begin:]:
        where = place(words, begin - 1)
        message = "cannot be read: only `crosvm run` starts a machine"
        raise CommandLineError([Refusal(where, message)])
    assembly = Assembly(look)
    found = list(_values(words, begin, assembly))
    for number, (option, value) in enumerate(sorted(found, key=lambda o: _OPTIONS.index(o[0]))):
        read = _ext2 if option == "pmem-ext2" else _pmem
        backend = read(option, value, f"pmem{number}", assembly, look)
        if backend is not None:
            assembly.add_pair(backend.name, backend, "crosvm")
    if assembly.mistakes:
        raise CommandLineError(assembly.mistakes)
    return assembly.machine()


def _values(words: Sequence[str], begin: int, assembly: Assembly) -> Iterator[tuple[str, Span]]:
    """Options of pmem devices, each with its value: `--pmem a` or `--pmem=a`."""
    index = begin
    while index < len(words):
        word, at = words[index], index
        index += 1
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "pmem" not in name:
            continue
        if name not in _OPTIONS:
            message = f"cannot be read: crosvm has no option --{name}" + nearest(name, _OPTIONS)
            assembly.report(place(words, at), message)
        elif equals:
            yield name, Span(f"word {at + 1}", word, len(word) - len(value) + 1, len(value))
        elif index < len(words):
            yield name, place(words, index)
            index += 1
        else:
            assembly.report(place(words, at), f"--{name} needs a value")


def _pmem(
    option: str, whole: Span, name: str, assembly: Assembly, look: Look | None
) -> Backend | None:
    before = len(assembly.mistakes)
    settings = _settings(whole, ",", assembly)
    known = _KEYS if option == "pmem" else None  # the others take the options of a block device
    if len(assembly.mistakes) > before:
        return None
    text = {setting.name: str(setting.value) for setting in settings.values()}
    for setting in settings.values():
        if known is not None and setting.name not in known:
            message = f"--{option} has no key {setting.name!r}" + nearest(setting.name, known)
            assembly.report(setting.place, message)
    if not text.get("path"):
        assembly.report(whole, f"--{option} needs a path")
    if text.get("ro", "") not in _TRUTH:
        assembly.report(settings["ro"].place, "ro takes true or false")
    anonymous = option == "pmem" and "vma-size" in text
    if anonymous and not text["vma-size"].isdecimal():
        assembly.report(settings["vma-size"].place, "vma-size takes a number of bytes")
    if len(assembly.mistakes) > before:
        return None
    readonly = option == "pmem-device" or (option == "pmem" and "ro" in text and _TRUTH[text["ro"]])
    places = {setting.name: setting.place for setting in settings.values()}
    return Backend(
        name=name,
        kind=MEMFD if anonymous else FILE,
        size_bytes=int(text["vma-size"]) if anonymous else size_of(text["path"], look),
        mem_path="" if anonymous else text["path"],
        share=True,
        readonly=readonly,
        rom=readonly,
        readonly_option="ro=true" if option == "pmem" else f"--{option}",
        places=places
        | {"": whole, "mem-path": places["path"], "readonly": places.get("ro", whole)},
    )


def _ext2(
    option: str, whole: Span, name: str, assembly: Assembly, look: Look | None
) -> Backend | None:
    """A file system made of a folder, in memory, which the guest can only read."""
    before = len(assembly.mistakes)
    settings = _settings(whole, ":", assembly)
    for setting in settings.values():
        if setting.name not in ("path", *_EXT2_KEYS):
            message = f"--{option} has no key {setting.name!r}" + nearest(setting.name, _EXT2_KEYS)
            assembly.report(setting.place, message)
    size = str(settings["size"].value) if "size" in settings else str(_EXT2_BYTES)
    if not size.isdecimal():
        assembly.report(settings["size"].place, "size takes a number of bytes")
    if len(assembly.mistakes) > before:
        return None
    return Backend(
        name=name,
        kind=MEMFD,
        size_bytes=int(size),
        mem_path=str(settings["path"].value) if "path" in settings else "",
        share=True,
        readonly=True,
        rom=True,
        readonly_option=f"--{option}",
        places={"": whole},
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
