"""What people run as a device: the command line of QEMU, cloud-hypervisor or crosvm, libvirt's
XML, Firecracker's JSON, and monitor commands on the experiment's timeline (Rules V4, V5, V7, V9).

Contract: `device: {qemu: ...}` and its kin (`readers`) become one device for each virtio-pmem
device or nvdimm of the machine, with its type, size and backing; keys beside it hold for each of
them and win. Where the size is that of a file it has to be given so. `monitor:`
is a list of `{at, do}` in the monitor's own words and adds what is plugged in later. Only the words
count, never the files of this host: the same experiment runs alike everywhere. Every mistake is
told at the value that holds it, with the offending words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from crashsim.engine import units
from crashsim.errors import CommandLineError, UnitError
from crashsim.experiment.document import Mistake, Node, Place, child, with_value, without
from crashsim.vmm.assembly import NVDIMM, REAL
from crashsim.vmm.hotplug import read_timeline
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import FILE, RAM, Backend, Machine, PmemDevice
from crashsim.vmm.monitors import MONITORS, read_text

_IN_MEMORY = {"/dev/shm/": "tmpfs", "/dev/hugepages/": "hugetlbfs"}
_Plain = str | bool | dict[str, "_Plain"]


class TextReader(NamedTuple):
    """Whose text stands under a key of `device`, and how it is read."""

    read: Callable[[str], Machine]
    written: str


def readers() -> dict[str, TextReader]:
    """What `device` may have in place of a size, by its key."""
    return {
        monitor.name: TextReader(
            monitor.configuration or partial(read_text, monitor=monitor.name),
            f"{monitor.title}'s {monitor.written}",
        )
        for monitor in MONITORS.values()
        if monitor.read is not None
    } | {"libvirt": TextReader(read_xml, "libvirt's XML")}


def with_machines(tree: Node) -> tuple[Node, list[Mistake]]:
    """The tree with devices in place of command lines and monitor commands."""
    written, timeline, listed = (child(tree, key) for key in ("device", "monitor", "devices"))
    beside = dict(written.members) if written else {}
    key = next((key for key in readers() if key in beside), "")
    source = beside.pop(key, None)
    if source is not None and not isinstance(source.value, str):
        source = None
    origin = source or timeline
    if origin is None:
        return tree, []
    if listed is not None and not isinstance(listed.value, list):
        message = f"expected a list of devices, got {units.shown(listed.value)}"
        return tree, [Mistake(listed.place, message)]
    mistakes: list[Mistake] = []
    machine = Machine(())
    if source is not None:
        machine = _read(source, mistakes, readers()[key].read, str(source.value))
    if timeline is not None:
        machine = _read(timeline, mistakes, read_timeline, _commands(timeline, mistakes), machine)
    if source is not None and not machine.devices and not mistakes:
        mistakes.append(Mistake(source.place, "no virtio-pmem device or nvdimm in it"))
    if mistakes:
        return tree, mistakes
    devices = [written] if written and source is None else []
    devices += listed.entries if listed else []
    for number, device in enumerate(machine.devices):
        made = _tree(_device(device, number), origin.place)
        for name, value in beside.items() if source else ():
            made = _with(made, name, value)
        devices.append(made)
    top = dict(without(tree, ("device", "devices", "monitor")).members)
    if len(devices) == 1:
        top["device"] = devices[0]
    else:
        top["devices"] = Node(devices, origin.place, origin.place)
    monitors = {device.monitor for device in machine.devices}
    if "vmm" not in top and len(monitors) == 1:
        top["vmm"] = _tree(monitors.pop(), origin.place)
    return replace(tree, value=top), []


def _read(
    node: Node, mistakes: list[Mistake], read: Callable[..., Machine], *what: object
) -> Machine:
    """The machine that is read; of a wrong one none, and its mistakes, at the node."""
    try:
        return read(*what)
    except CommandLineError as error:
        mistakes += [Mistake(node.place, str(mistake)) for mistake in error.mistakes]
        return Machine(())


def _commands(timeline: Node, mistakes: list[Mistake]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    if not timeline.entries:
        mistakes.append(Mistake(timeline.place, "expected a list of {at: 5s, do: object_add ...}"))
    for entry in timeline.entries:
        at, do = child(entry, "at"), child(entry, "do")
        try:
            if at is None or do is None or not isinstance(do.value, str):
                raise UnitError("expected at and do, such as {at: 5s, do: object_add ...}")
            found.append((units.parse_duration(str(at.value)), do.value))
        except UnitError as error:
            mistakes.append(Mistake(entry.place, str(error)))
            continue
        for key, below in without(entry, ("at", "do")).members.items():
            message = f"unknown key {units.shown(key)}: expected at and do"
            mistakes.append(Mistake(below.key, message))
    return found


def _with(made: Node, key: str, value: Node) -> Node:
    """A key that the user wrote beside the command line; parts of `backing` one by one."""
    if key != "backing" or not isinstance(value.value, dict):
        return with_value(made, [key], value)
    for part, below in value.value.items():
        made = with_value(made, ["backing", part], below)
    return made


def _device(device: PmemDevice, number: int) -> dict[str, _Plain]:
    name = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")[:64]
    backend = device.backend
    made: dict[str, _Plain] = {"name": name or f"pmem{number}"}
    if backend.size_bytes is not None:
        made["size"] = units.exact_bytes(backend.size_bytes)
    if device.kind == NVDIMM and backend.keeps and backend.mem_path.startswith(REAL):
        made["type"] = "real-nvdimm"  # memory by itself: it has no backing
    else:
        made["backing"] = _backing(backend)
        if device.kind == NVDIMM:
            made["type"] = "nvdimm"
    if device.plug_ns:
        made["plugged"] = units.exact_duration(device.plug_ns)
    return made


def _backing(backend: Backend) -> dict[str, _Plain]:
    made: dict[str, _Plain] = {"kind": _kind(backend)}
    if made["kind"] == "file" and backend.prealloc:
        made["prealloc"] = True
    if backend.discard_data and made["kind"] not in ("private", "ram"):  # the file is not touched
        made["discard_data"] = True
    return made


def _kind(backend: Backend) -> str:
    if backend.kind == RAM:
        return "ram"
    if not backend.share or backend.readonly:
        return "private"
    if backend.kind != FILE:
        return "hugetlbfs" if backend.hugetlb else "tmpfs"  # memfd and shm: files in memory
    in_memory = (kind for folder, kind in _IN_MEMORY.items() if backend.mem_path.startswith(folder))
    return next(in_memory, "file")


def _tree(value: _Plain, place: Place) -> Node:
    if isinstance(value, dict):
        return Node({key: _tree(below, place) for key, below in value.items()}, place, place)
    return Node(value, place, place)
