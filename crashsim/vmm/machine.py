"""Monitors, and what a command line of theirs comes to: the virtio-pmem devices and the memory
behind each.

Contract: all that is known of a monitor is one `Monitor`, in the module that reads its command
line. Values of a `Backend` are as QEMU would have them after its defaults: `share` is off unless
given (on for `memory-backend-memfd` and `memory-backend-shm`), `rom` follows `readonly`. Sizes are
bytes. Two devices are equal if they behave alike, wherever they were written: places do not count.
Sources: qapi/qom.json (MemoryBackendProperties and those derived from it), hw/virtio/virtio-pmem.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crashsim.vmm.probe import Look, Read
from crashsim.vmm.spans import Span

FILE = "memory-backend-file"
RAM = "memory-backend-ram"
MEMFD = "memory-backend-memfd"
SHM = "memory-backend-shm"


@dataclass(frozen=True, slots=True)
class Backend:
    """Memory as a monitor makes it: an `-object memory-backend-...` of QEMU.

    `size_bytes` is None where it is the file's and that cannot be seen. `readonly_option` is what
    made it read-only, as written. `places` has the place of each option that was given, and under
    "" that of the whole."""

    name: str
    kind: str
    size_bytes: int | None
    mem_path: str = ""
    share: bool = False
    readonly: bool = False
    rom: bool = False
    discard_data: bool = False
    prealloc: bool = False
    pmem: bool = False
    hugetlb: bool = False
    align_bytes: int = 0
    offset_bytes: int = 0
    readonly_option: str = field(default="readonly=on", compare=False)
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_read_only(self) -> bool:
        """The guest's stores are refused."""
        return self.readonly and self.rom

    @property
    def keeps(self) -> bool:
        """The guest's stores reach the memory that flushes are about."""
        return self.share and not self.readonly

    def place_of(self, option: str) -> Span:
        """Where an option stands, or, if it was left out, the whole that lacks it."""
        return self.places.get(option) or self.places.get("") or Span("command line", "")


@dataclass(frozen=True, slots=True)
class PmemDevice:
    """A virtio-pmem device or an nvdimm (`kind`), its memory, and the instant at which it is
    plugged in (V7).

    `name` is the device's id, or its backend's if it has none."""

    name: str
    backend: Backend
    plug_ns: int = 0
    monitor: str = "qemu"
    kind: str = "virtio-pmem"
    place: Span = field(default=Span("command line", ""), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything of a machine that touches virtio-pmem or an nvdimm.

    `spare` are backends that nothing uses, which a monitor command may; `other_devices` and
    `other_objects` ids that are taken; `notes` what was passed over and may matter; `unread` is
    set where devices may be in what was passed over."""

    devices: tuple[PmemDevice, ...]
    spare: tuple[Backend, ...] = ()
    other_devices: tuple[str, ...] = ()
    other_objects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unread: bool = False


# A command line in words, how many of them come before the options (the program's name among
# them), the host's files, and the texts of configurations that the words name.
ReadWords = Callable[[Sequence[str], int, Look | None, Read | None], Machine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """A virtual machine monitor; `name` is what an experiment's `vmm` says.

    How it serves flushes (V1, V3, G8): with `datasync` by msync, which leaves the mtime alone
    (H12), else by fsync; in so many `threads`; `queue` requests fit on the virtqueue; `error` is
    the le32 of a failed one. `reuses_result`: requests that were posted while a call ran are
    answered with that call's result. `limits_flushes`: a device can have a rate limiter.

    The memory of its devices: `advises_huge_pages` for it (H2), `creates_file`s that are missing,
    fills a device up to whole 2 MiB beyond its file (`pads`); `file_option` names the file.

    Its words: `programs` is a pattern of its programs' names, `read` reads their command line;
    `configuration` reads the text under `device: {NAME: ...}` where that is no command line, and
    `written` says what that text is. Without `read` it is a variant that no program's name tells.
    """

    name: str
    title: str
    datasync: bool
    threads: int
    queue: int
    error: int
    reuses_result: bool = False
    limits_flushes: bool = False
    advises_huge_pages: bool = False
    creates_file: bool = False
    pads: bool = False
    file_option: str = ""
    programs: str = ""
    read: ReadWords | None = None
    configuration: Callable[[str], Machine] | None = None
    written: str = "command line"
