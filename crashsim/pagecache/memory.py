"""What a device's memory is, and what a copy of a guest without DAX does there (Rules V4, V5, V9,
H15).

A shared mapping of a file: a store dirties pages of the host's page cache. Anything else (a private
mapping, a file in memory, no file, a real NVDIMM) is memory that the host never writes back: the
first store to a page costs its fault, and no page is ever clean again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from crashsim.engine.clock import Clock
from crashsim.engine.pages import unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.experiment.backing import Device
from crashsim.pagecache.cache import FsyncKind, PageCache
from crashsim.pagecache.writeback import BackingFile, Memory

COPY_PAGE_NS = 512
IN_MEMORY = ("tmpfs", "hugetlbfs")


@dataclass(slots=True)
class CopiesIntoMemory:
    """Copies land in the device's memory; `through`: each is followed by an fdatasync of it."""

    _cache: PageCache
    _device: int
    _memory: Memory
    _through: bool
    pages: PageSet = field(init=False)

    def __post_init__(self) -> None:
        self.pages = PageSet(self._memory.folios)

    def copied(self, pages: I64) -> int:
        """Pages copied to the device now; how long that keeps the caller, ns."""
        memory = self._memory
        clean = self.pages.add(unique_sorted(memory.folios.of_pages(pages)))
        if clean:
            memory.dirtied_now()
            memory.dirtied_many()
        return int(pages.size) * COPY_PAGE_NS + clean * memory.fault_ns

    def written_through(self, done: Callable[[bool], None]) -> None:
        """`done(ok)` when copies are where the device's cache mode wants them."""
        if self._through:
            self._cache.fsync(self._device, True, done)
        else:
            done(True)


@dataclass(slots=True)
class CopiesToDisk:
    """Copies go past the host's page cache (O_DIRECT)."""

    _clock: Clock
    _file: BackingFile

    def copied(self, pages: I64) -> int:
        return self._file.write_direct(pages) - self._clock.now

    def written_through(self, done: Callable[[bool], None]) -> None:
        done(True)


def fsync_of(device: Device) -> FsyncKind:
    """What an fsync of the device's backing does."""
    if device.type == "virtio-blk" and device.cache == "unsafe":
        return FsyncKind.NOTHING
    if device.backing.kind == "ram":
        return FsyncKind.FAILS
    return FsyncKind.NOTHING if device.backing.kind in IN_MEMORY else FsyncKind.OF_A_FILE


def has_flush_path(device: Device) -> bool:
    """Whether the guest's syncs reach the monitor as flush requests (Rule V9)."""
    if device.type == "virtio-blk":
        return device.cache != "writethrough"
    return device.type == "virtio-pmem"


def is_shared_file(device: Device) -> bool:
    """Whether stores land in the page cache of a file on the disk."""
    return device.backing.kind == "file" and device.type != "real-nvdimm"
