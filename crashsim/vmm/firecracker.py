"""Firecracker, and its configuration: the `pmem` entries of its JSON.

Contract: `_read` gives the machine of a command line whose `--config-file` can be read; `read_json`
that of the JSON itself; or one `CommandLineError` with every mistake. The file is mapped shared,
with `read_only` for reading alone; the device is as large as the file, filled up to 2 MiB with
memory of no file. What is configured through the API socket, and what a jailer puts into its jail,
cannot be read from a command line. A rate limiter delays flushes and loses nothing; it is not
looked at. Sources: `PmemConfig` in src/vmm/src/vmm_config/pmem.rs, `PmemMmap` in
src/vmm/src/devices/virtio/pmem/device.rs (no advice for huge pages), docs/pmem.md, `VmmConfig` in
src/vmm/src/resources.rs (of August 2026).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

from crashsim.errors import CommandLineError
from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Settings, from_members, places
from crashsim.vmm.machine import FILE, Backend, Machine, Monitor
from crashsim.vmm.probe import Look, Read, size_of
from crashsim.vmm.spans import Objection, Span, word

_KEYS = {"id": str, "path_on_host": str, "root_device": bool, "read_only": bool}
_NEEDED = ("id", "path_on_host")
_WANTED = {str: "a text", bool: "true or false"}


def _read(words: Sequence[str], begin: int, look: Look | None, read: Read | None) -> Machine:
    if begin and "jailer" in words[begin - 1]:
        _give_up(
            word(words, begin - 1),
            "a jailer's configuration lies in its jail; name the running Firecracker with --pid",
        )
    found = _config_file(words)
    if found is None:
        _give_up(
            word(words, max(0, begin - 1)) if words else Span("command line", ""),
            "without --config-file the devices come over the API socket",
        )
    where, path = found
    text = read(path) if read is not None else None
    if text is None:
        hint = "" if read is not None else "; give its text as firecracker:"
        _give_up(where, f"{path} is no file that can be read here{hint}")
    return read_json(text, look, path)


def _give_up(where: Span, why: str) -> NoReturn:
    raise CommandLineError([Objection(where, f"cannot be read: {why}")])


def _config_file(words: Sequence[str]) -> tuple[Span, str] | None:
    for index, one in enumerate(words):
        if one == "--config-file" and index + 1 < len(words):
            return word(words, index + 1), words[index + 1]
        if one.startswith("--config-file="):
            return word(words, index), one.partition("=")[2]
    return None


def read_json(text: str, look: Look | None = None, name: str = "configuration") -> Machine:
    """The machine of a configuration; `name` is what messages call it."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        line = f"{name}, line {error.lineno}"
        _give_up(Span(line, "", error.colno), f"not JSON: {error.msg}")
    except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of braces
        _give_up(Span(name, ""), "not JSON")
    entries = document.get("pmem", []) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        _give_up(Span(name, ""), "expected an object whose pmem is a list of objects")
    assembly = Assembly(look)
    for number, entry in enumerate(entries):
        shown = json.dumps(entry)
        whole = Span(f"{name}, pmem[{number}]", shown, 1, len(shown))
        settings = from_members(list(entry.items()), whole, assembly.mistakes.append)
        _add(settings, whole, assembly, look)
    return assembly.finished()


def _add(settings: Settings, whole: Span, assembly: Assembly, look: Look | None) -> None:
    before = len(assembly.mistakes)
    assembly.check_keys(settings, (*_KEYS, "rate_limiter"), "pmem")
    for setting in settings.values():
        if setting.name in _KEYS and not isinstance(setting.value, _KEYS[setting.name]):
            wanted = _WANTED[_KEYS[setting.name]]
            assembly.report(setting.place, f"{setting.name} takes {wanted}")
    for name in _NEEDED:
        if name not in settings:
            assembly.report(whole, f"a pmem entry needs {name}")
    if len(assembly.mistakes) > before:
        return
    path = str(settings["path_on_host"].value)
    readonly = "read_only" in settings and settings["read_only"].value is True
    backend = Backend(
        name=str(settings["id"].value),
        kind=FILE,
        size_bytes=size_of(path, look),
        mem_path=path,
        share=True,
        readonly=readonly,
        rom=readonly,
        readonly_option='"read_only": true',
        places=places(settings, whole, mem_path="path_on_host", readonly="read_only"),
    )
    assembly.add_pair(backend, FIRECRACKER)


FIRECRACKER = Monitor(
    name="firecracker",
    title="Firecracker",
    datasync=True,
    threads=1,
    queue=256,
    error=0xFFFFFFFF,
    limits_flushes=True,
    pads=True,
    file_option="path_on_host",
    programs=r"(firecracker|jailer)[\w.-]*",
    read=_read,
    configuration=read_json,
    written="configuration, JSON",
)
