"""What of a machine loses data, before any simulation, and what to write instead.

Contract: `judge` gives the findings of rules V4 (flushes succeed and nothing persists), V5 (flushes
that fail, contents that are thrown away, pages that start dirty) and V6 (holes that the host cannot
fill), and no others, in the order of the devices. What depends on a file is judged only if `look`
sees it; `remarks` says what could not be judged. A setting that a monitor refuses is no finding: it
is a mistake in the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from crashsim.experiment.units import exact_bytes, format_bytes
from crashsim.monitor.host import HostFile, Look
from crashsim.monitor.machine import FILE, MEMFD, RAM, SHM, Machine, PmemDevice
from crashsim.monitor.place import Place

LOSES, FAILS, COSTS, NOTE = "loses data", "fails", "costs", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting of one device, and what it does; `mend` is what to write instead."""

    device: str
    rule: str
    severity: str
    option: str
    place: Place
    why: str
    mend: str


def judge(machine: Machine, look: Look | None = None) -> list[Finding]:
    """All findings of a machine."""
    return [finding for device in machine.devices for finding in _judge(device, look)]


def remarks(machine: Machine, look: Look) -> list[str]:
    """What keeps `judge` from seeing how a device's file is."""
    found = []
    for device in machine.devices:
        backend = device.backend
        if backend.kind != FILE:
            continue
        file = look(backend.mem_path)
        if file is None:
            found.append(f"{backend.mem_path} cannot be looked at: its file system is not judged")
        elif file.kind == "directory":
            found.append(
                f"{backend.mem_path} is a folder: the monitor makes a nameless file in it, which "
                "is gone when the monitor ends"
            )
    return found


def _judge(device: PmemDevice, look: Look | None) -> Iterator[Finding]:
    kind = device.backend.kind
    if kind == RAM:
        why = "there is no file behind it, so every flush fails and the guest's fsync gets EIO"
        yield _finding(device, "V5", FAILS, "qom-type", RAM, why, _as_file(device))
    elif kind in (MEMFD, SHM):
        where = "hugetlbfs" if device.backend.hugetlb else "tmpfs"
        why = f"its file is in memory ({where}), where a flush succeeds and does nothing (H15)"
        yield _finding(device, "V4", LOSES, "qom-type", kind, why, _as_file(device))
    else:
        yield from _settings(device)
        file = look(device.backend.mem_path) if look is not None else None
        if file is not None:
            yield from _on_host(device, file)


def _settings(device: PmemDevice) -> Iterator[Finding]:
    backend = device.backend
    private = "the file is mapped privately: stores stay in the monitor's own memory, every flush "
    if not backend.share:
        if device.monitor == "qemu":
            option = "share=off" if "share" in backend.places else "share=off, QEMU's default"
            name, mend = "share", "share=on"
        else:
            option, name, mend = "discard_writes=on", "discard_writes", "discard_writes=off"
        yield _finding(device, "V4", LOSES, name, option, private + _NOTHING, mend)
    if backend.readonly:
        why = "the file is open for reading only: every flush " + _NOTHING
        yield _finding(device, "V4", LOSES, "readonly", "readonly=on", why, "readonly=off")
    if backend.discard_data and backend.share:
        why = "the file's contents are thrown away when QEMU quits: it reads as zeros then"
        mend = "discard-data=off"
        yield _finding(device, "V5", LOSES, "discard-data", "discard-data=on", why, mend)
    if backend.prealloc and backend.share:
        why = "every page of the file is dirty from the start, and the first flush writes them all"
        yield _finding(device, "V5", COSTS, "prealloc", "prealloc=on", why, "prealloc=off")
    if backend.pmem:
        why = (
            "if the file is on no DAX file system, QEMU warns and maps it like any other: flushes "
            "are needed all the same"
        )
        yield _finding(device, "V5", NOTE, "pmem", "pmem=on", why, "pmem=off")


_NOTHING = "succeeds and nothing reaches the file"


def _on_host(device: PmemDevice, file: HostFile) -> Iterator[Finding]:
    path, backend = device.backend.mem_path, device.backend
    if file.filesystem:
        why = f"the file is in memory ({file.filesystem}): a flush succeeds and does nothing (H15)"
        mend = f"{'mem-path' if device.monitor == 'qemu' else 'file'}= on a disk's file system"
        yield _finding(device, "V4", LOSES, "mem-path", path, why, mend)
        return
    if file.kind not in ("file", "missing") or not backend.share or backend.readonly:
        return  # no store reaches the file, so none meets a hole
    end_bytes = backend.offset_bytes + backend.size_bytes
    holes_bytes = max(0, end_bytes - file.allocated_bytes)
    mend = f"fallocate -l {end_bytes} {shlex.quote(path)}"
    if holes_bytes > file.free_bytes:
        why = (
            f"{format_bytes(holes_bytes)} of the file are holes and its file system has "
            f"{format_bytes(file.free_bytes)} left: the first store to a hole beyond that kills "
            "the monitor with SIGBUS, and no flush reports it"
        )
        option = f"size={exact_bytes(backend.size_bytes)}"
        yield _finding(device, "V6", FAILS, "size", option, why, f"make room, then {mend}")
    elif file.kind == "missing":
        why = "the file does not exist yet and is created sparse"
        yield _finding(device, "V5", NOTE, "mem-path", path, why, f"{mend}, before the start")


def _as_file(device: PmemDevice) -> str:
    return f"{FILE},id={device.backend.name},share=on,mem-path=FILE,size=..."


def _finding(
    device: PmemDevice, rule: str, severity: str, name: str, option: str, why: str, mend: str
) -> Finding:
    place = device.backend.place_of(name)
    return Finding(device.name, rule, severity, option, place, why, mend)
