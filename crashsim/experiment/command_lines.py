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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from crashsim.engine import units
from crashsim.errors import CommandLineError, UnitError
from crashsim.experiment.document import Mistake, Node, Place, find, with_value
from crashsim.vmm.assembly import NVDIMM, REAL
from crashsim.vmm.hotplug import read_timeline
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import FILE, RAM, Backend, Machine, PmemDevice
from crashsim.vmm.monitors import MONITORS, read_text

_IN_MEMORY = {"/dev/shm/": "tmpfs", "/dev/hugepages/": "hugetlbfs"}
_NO_MACHINE = Machine(())
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
    written = find(tree, ("device",))
    timeline = find(tree, ("monitor",))
    source = _source(written)
    if source is None and timeline is None:
        return tree, []
    listed = find(tree, ("devices",))
    if listed is not None and not _is_list(listed):
        message = f"expected a list of devices, got {units.shown(listed.value)}"
        return tree, [Mistake(listed.place, message)]
    mistakes: list[Mistake] = []
    machine = _NO_MACHINE if source is None else _machine(*source, mistakes)
    plugged = machine if timeline is None else _plugged(timeline, machine, mistakes)
    place = timeline if source is None else source[1]
    if mistakes or place is None or not isinstance(tree.value, Mapping):
        return tree, mistakes
    if source is not None and not plugged.devices:
        return tree, [Mistake(place.place, "no virtio-pmem device or nvdimm in it")]
    top = _replaced(tree.value, written, source, plugged, place)
    return replace(tree, value=top), []


def _source(written: Node | None) -> tuple[str, Node] | None:
    """Which reader, and what it is to read."""
    if written is None or not isinstance(written.value, Mapping):
        return None
    for key in readers():
        node = written.value.get(key)
        if isinstance(node, Node) and isinstance(node.value, str):
            return key, node
    return None


def _machine(reader: str, node: Node, mistakes: list[Mistake]) -> Machine:
    try:
        return readers()[reader].read(str(node.value))
    except CommandLineError as error:
        mistakes += [Mistake(node.place, str(mistake)) for mistake in error.mistakes]
        return _NO_MACHINE


def _plugged(timeline: Node, machine: Machine, mistakes: list[Mistake]) -> Machine:
    commands: list[tuple[int, str]] = []
    value = timeline.value
    entries = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    if not entries:
        mistakes.append(Mistake(timeline.place, "expected a list of {at: 5s, do: object_add ...}"))
    for entry in entries:
        at, do = (find(entry, (key,)) for key in ("at", "do"))
        try:
            if at is None or do is None or not isinstance(do.value, str):
                raise UnitError("expected at and do, such as {at: 5s, do: object_add ...}")
            commands.append((units.parse_duration(str(at.value)), do.value))
            mistakes += _strange(entry)
        except UnitError as error:
            mistakes.append(Mistake(entry.place, str(error)))
    try:
        return read_timeline(commands, machine)
    except CommandLineError as error:
        mistakes += [Mistake(timeline.place, str(mistake)) for mistake in error.mistakes]
        return machine


def _is_list(node: Node) -> bool:
    return isinstance(node.value, Sequence) and not isinstance(node.value, str)


def _strange(entry: Node) -> list[Mistake]:
    """Keys beside `at` and `do`."""
    keys = entry.value if isinstance(entry.value, Mapping) else {}
    return [
        Mistake(below.key, f"unknown key {units.shown(key)}: expected at and do")
        for key, below in keys.items()
        if key not in ("at", "do")
    ]


def _replaced(
    keys: Mapping[str, Node],
    written: Node | None,
    source: tuple[str, Node] | None,
    machine: Machine,
    node: Node,
) -> dict[str, Node]:
    """The top-level keys with the machine's devices, and those written out beside them."""
    beside = dict(written.value) if written and isinstance(written.value, Mapping) else {}
    devices: list[Node] = []
    if source is not None:
        beside.pop(source[0])
    elif written is not None:
        devices.append(written)
        beside = {}
    listed = keys.get("devices")
    if listed is not None:
        devices += list(listed.value)  # type: ignore[arg-type]
    for number, device in enumerate(machine.devices):
        made = _tree(_device(device, number), node.place)
        for key, value in beside.items():
            made = _with(made, key, value)
        devices.append(made)
    top = {k: v for k, v in keys.items() if k not in ("device", "devices", "monitor")}
    if len(devices) == 1:
        top["device"] = devices[0]
    else:
        top["devices"] = Node(devices, node.place, node.place)
    monitors = {device.monitor for device in machine.devices}
    if "vmm" not in top and len(monitors) == 1:
        top["vmm"] = _tree(monitors.pop(), node.place)
    return top


def _with(made: Node, key: str, value: Node) -> Node:
    """A key that the user wrote beside the command line; parts of `backing` one by one."""
    if key == "backing" and isinstance(value.value, Mapping):
        for part, below in value.value.items():
            made = with_value(made, ["backing", part], below)
        return made
    return with_value(made, [key], value)


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
    for folder, kind in _IN_MEMORY.items():
        if backend.mem_path.startswith(folder):
            return kind
    return "file"


def _tree(value: _Plain, place: Place) -> Node:
    if isinstance(value, dict):
        return Node({key: _tree(below, place) for key, below in value.items()}, place, place)
    return Node(value, place, place)
