"""What of a machine loses data, before any simulation, and what to write instead.

Contract: `judge` gives the findings of rules V4 (flushes succeed and nothing persists), V5 (flushes
that fail, contents that are thrown away, pages that start dirty), V6 (holes that the host cannot
fill), V9 (an nvdimm has no flushes) and H2 (what a store dirties), and no others, in the order of
the devices. A device that its guest cannot write to has nothing to lose, and is told as that; so is
one that discards writes because its option says so. Advice never opens a file to writers that had
none. What depends on a file is judged only if `look` sees it; `remarks` says what could not be
judged. A setting that a monitor refuses is no finding: it is a mistake in the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from crashsim.engine.units import exact_bytes, format_bytes
from crashsim.vmm.assembly import NVDIMM, REAL
from crashsim.vmm.machine import FILE, MEMFD, RAM, SHM, Machine, PmemDevice
from crashsim.vmm.monitors import MONITORS
from crashsim.vmm.probe import IN_MEMORY, HostFile, Look
from crashsim.vmm.spans import Span

LOSES, FAILS, COSTS, NOTE = "loses data", "fails", "costs", "note"
READ_ONLY, DISCARDS = "read-only", "discards"

_PADDED_TO_BYTES = _HUGE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Hazard:
    """One setting of one device, and what it does; `mend` is what to write instead, or empty where
    nothing is to be mended."""

    device: str
    rule: str
    severity: str
    option: str
    place: Span
    why: str
    mend: str


def judge(machine: Machine, look: Look | None = None) -> list[Hazard]:
    """All findings of a machine."""
    return [finding for device in machine.devices for finding in _judge(device, look)]


def remarks(machine: Machine, look: Look) -> list[str]:
    """What keeps `judge` from seeing how a device's file is, and what no command line tells."""
    found = []
    for device in machine.devices:
        backend = device.backend
        if backend.kind != FILE or backend.mem_path.startswith(REAL):
            continue
        file = look(backend.mem_path)
        if file is None:
            found.append(f"{backend.mem_path} cannot be looked at: its file system is not judged")
        elif file.kind == "directory":
            found.append(
                f"{backend.mem_path} is a folder: the monitor makes a nameless file in it, which "
                "is gone when the monitor ends"
            )
    if any(device.backend.keeps for device in machine.devices):
        found.append(_RAW)
    return found


_RAW = (
    "how the guest uses its device is not seen here: only a file system mounted with -o dax, "
    "devdax or O_DIRECT stores straight into it; /dev/pmem0 that is mapped or written as it is "
    "goes through the guest's page cache (G2)"
)


def _judge(device: PmemDevice, look: Look | None) -> Iterator[Hazard]:
    backend = device.backend
    if backend.is_read_only:
        yield _finding(device, "V4", READ_ONLY, "readonly", backend.readonly_option, _UNWRITTEN, "")
    elif device.kind == NVDIMM:
        yield from _nvdimm(device)
    elif backend.kind == RAM:
        why = "there is no file behind it, so every flush fails and the guest's fsync gets EIO"
        yield _finding(device, "V5", FAILS, "qom-type", RAM, why, _as_file(device))
    elif device.monitor == "crosvm" and backend.kind == MEMFD:
        why = f"the device is memory of no file, where a flush {_NOTHING}"
        mend = "path= of a file, without vma-size="
        yield _finding(device, "V4", LOSES, "vma-size", "vma-size=", why, mend)
    elif backend.kind in (MEMFD, SHM):
        where = "hugetlbfs" if backend.hugetlb else "tmpfs"
        why = f"its file is in memory ({where}), where a flush succeeds and does nothing (H15)"
        yield _finding(device, "V4", LOSES, "qom-type", backend.kind, why, _as_file(device))
    else:
        yield from _settings(device)
        file = look(backend.mem_path) if look is not None else None
        if file is not None and backend.keeps:
            yield from _on_host(device, file)


_NOTHING = "succeeds and nothing reaches the file"
_UNWRITTEN = (
    "the guest cannot change what is in it, so there is nothing to lose; what a guest tries to "
    "write all the same is gone, whatever its flushes return: mount it read-only there"
)
_PRIVATE = (
    "the file is mapped privately: stores stay in the monitor's own memory and end with it, every "
    f"flush {_NOTHING}"
)


def _nvdimm(device: PmemDevice) -> Iterator[Hazard]:
    backend = device.backend
    if not backend.share:
        yield from _private(device)
    elif backend.mem_path.startswith(REAL):
        return  # persistent memory itself: a store is durable without a flush
    elif backend.pmem:
        why = (
            "no flush of the guest reaches the host, and none is needed if the file lies on "
            "persistent memory, on a file system mounted with -o dax; anywhere else what was "
            "synced is lost when the host fails"
        )
        yield _finding(device, "V9", NOTE, "pmem", "pmem=on", why, "")
    else:
        why = (
            "an emulated nvdimm has no flush path: the guest's syncs succeed at once, and what the "
            "host has not written back by itself is lost when the host fails"
        )
        mend = f"-device virtio-pmem-pci,memdev={backend.name}"
        yield _finding(device, "V9", LOSES, "", "-device nvdimm", why, mend)


def _private(device: PmemDevice) -> Iterator[Hazard]:
    """Stores go to a copy of the monitor's own: by an option that says so, or by a default."""
    backend = device.backend
    own = "give a guest that is to keep its writes a file of its own"
    if device.monitor == "cloud-hypervisor":
        why = f"as it says, writes are discarded: {_PRIVATE}; {own}"
        place = "discard_writes"
        yield _finding(device, "V4", DISCARDS, place, "discard_writes=on", why, "")
    elif backend.readonly:
        why = f"the guest may write, to a copy that is discarded: {_PRIVATE}; {own}"
        yield _finding(device, "V4", DISCARDS, "rom", "readonly=on,rom=off", why, "")
    else:
        option = "share=off" if "share" in backend.places else "share=off, QEMU's default"
        mend = (
            "share=on, if the file is this guest's own: guests that share it would change it for "
            "each other"
        )
        yield _finding(device, "V4", LOSES, "share", option, _PRIVATE, mend)


def _settings(device: PmemDevice) -> Iterator[Hazard]:
    backend = device.backend
    if not backend.share or backend.readonly:
        yield from _private(device)
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
        yield _finding(device, "V5", NOTE, "pmem", "pmem=on", why, "")


def _on_host(device: PmemDevice, file: HostFile) -> Iterator[Hazard]:
    path, backend = device.backend.mem_path, device.backend
    if file.filesystem in IN_MEMORY:
        why = f"the file is in memory ({file.filesystem}): a flush succeeds and does nothing (H15)"
        mend = f"{MONITORS[device.monitor].file_option} on a disk's file system"
        yield _finding(device, "V4", LOSES, "mem-path", path, why, mend)
        return
    if file.kind not in ("file", "missing"):
        return
    size_bytes = backend.size_bytes or file.size_bytes
    monitor = MONITORS[device.monitor]
    if monitor.advises_huge_pages and file.large_folios and size_bytes >= _HUGE_BYTES:
        option = f"{backend.kind}, shared"
        yield _finding(device, "H2", COSTS, "qom-type", option, _huge(file), _HUGE_MEND)
    yield from _holes(device, file, backend.offset_bytes + size_bytes)
    beyond = -file.size_bytes % _PADDED_TO_BYTES
    if monitor.pads and beyond:
        why = (
            f"the device is {exact_bytes(beyond)} larger than the file, up to 2 MiB: what the "
            "guest stores in that last part is in no file"
        )
        mend = f"truncate -s {file.size_bytes + beyond} {shlex.quote(path)}"
        yield _finding(device, "V4", LOSES, "mem-path", path, why, mend)


_HUGE_MEND = "no option of QEMU's ends it; docs/huge-pages.md says what helps"


def _huge(file: HostFile) -> str:
    spared = ", but for data=journal or -O verity," if file.filesystem == "ext4" else ""
    return (
        f"QEMU advises huge pages for its memory, and {file.filesystem} of this kernel{spared} "
        "can keep the file in folios of 2 MiB then: a stored word dirties one, and the next flush "
        "writes all of it. To see it: VmFlags (hg) and FilePmdMapped of the file in "
        "/proc/PID/smaps"
    )


def _holes(device: PmemDevice, file: HostFile, end_bytes: int) -> Iterator[Hazard]:
    path, backend = device.backend.mem_path, device.backend
    mend = f"fallocate -l {end_bytes} {shlex.quote(path)}"
    if not MONITORS[device.monitor].creates_file and file.size_bytes < end_bytes:
        why = (
            f"the file has {exact_bytes(file.size_bytes)}: the first store behind its end kills "
            "the monitor with SIGBUS, and no flush reports it"
        )
        option = f"size={exact_bytes(end_bytes)}"
        yield _finding(device, "V6", FAILS, "size", option, why, mend)
        return
    holes_bytes = max(0, end_bytes - file.allocated_bytes)
    if holes_bytes > file.free_bytes:
        why = (
            f"{format_bytes(holes_bytes)} of the file are holes and its file system has "
            f"{format_bytes(file.free_bytes)} left: the first store to a hole beyond that kills "
            "the monitor with SIGBUS, and no flush reports it"
        )
        option = f"size={exact_bytes(backend.size_bytes or file.size_bytes)}"
        yield _finding(device, "V6", FAILS, "size", option, why, f"make room, then {mend}")
    elif file.kind == "missing":
        why = "the file does not exist yet and is created sparse"
        yield _finding(device, "V5", NOTE, "mem-path", path, why, f"{mend}, before the start")


def _as_file(device: PmemDevice) -> str:
    return f"{FILE},id={device.backend.name},share=on,mem-path=FILE,size=..."


def _finding(
    device: PmemDevice, rule: str, severity: str, name: str, option: str, why: str, mend: str
) -> Hazard:
    place = device.backend.place_of(name) if name else device.place
    return Hazard(device.name, rule, severity, option, place, why, mend)
