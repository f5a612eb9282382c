"""What a device's memory is, and what a copy of a guest without DAX does there (Rules V4, V5, V9,
H15).

A shared mapping of a file: a store dirties pages of the host's page cache. Anything else (a private
mapping, a file in memory, no file, a real NVDIMM) is memory that the host never writes back: the
first store to a page costs its fault, and no page is ever clean again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crashsim.engine.clock import Clock
from crashsim.engine.history import NEVER, DeviceSpan
from crashsim.engine.pages import PAGE_SHIFT, unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.experiment.model import Device
from crashsim.guest.pagecache import COPY_PAGE_NS
from crashsim.pagecache.cache import PageCache, Sync
from crashsim.pagecache.writeback import BackingFile

IN_MEMORY = ("tmpfs", "hugetlbfs")


class Memory(Protocol):
    """What stores and copies need of either kind."""

    @property
    def fault_ns(self) -> int: ...
    @property
    def shift(self) -> int: ...
    @property
    def cleaned_by_sync(self) -> bool: ...
    def dirtied(self, t_ns: int) -> None: ...
    def reserve(self, pages: int) -> None: ...
    def room(self) -> int: ...
    def dirtied_many(self) -> None: ...
    def pause_ns(self, dirtied_pages: int) -> int: ...


class FileMemory:
    """A shared mapping of a backing file. Pages here are the file's folios (Rule H2)."""

    __slots__ = ("_bits", "_cache", "_file", "cleaned_by_sync", "fault_ns", "shift")

    def __init__(
        self, cache: PageCache, file: BackingFile, fault_ns: int, cleaned_by_sync: bool
    ) -> None:
        self._cache = cache
        self._file = file
        self.fault_ns = fault_ns
        self.shift = file.shift
        self.cleaned_by_sync = cleaned_by_sync
        self._bits = file.shift - PAGE_SHIFT

    def dirtied(self, t_ns: int) -> None:
        self._file.dirtied(t_ns)

    def reserve(self, pages: int) -> None:
        self._cache.planned_pages += pages << self._bits

    def room(self) -> int:
        return self._cache.room() >> self._bits

    def dirtied_many(self) -> None:
        self._cache.dirtied_many()

    def pause_ns(self, dirtied_pages: int) -> int:
        return self._cache.pause_ns(dirtied_pages << self._bits)


class OwnMemory:
    """Memory that the host never writes back."""

    __slots__ = ("fault_ns",)
    shift = PAGE_SHIFT
    cleaned_by_sync = False

    def __init__(self, fault_ns: int) -> None:
        self.fault_ns = fault_ns

    def dirtied(self, t_ns: int) -> None:
        """It counts for nothing."""

    def reserve(self, pages: int) -> None:
        """It counts for nothing."""

    def room(self) -> int:
        return NEVER

    def dirtied_many(self) -> None:
        """It counts for nothing."""

    def pause_ns(self, dirtied_pages: int) -> int:
        return 0


class CopiesIntoMemory:
    """Copies land in the device's memory; `through`: each is followed by an fdatasync of it."""

    __slots__ = ("_cache", "_clock", "_device", "_memory", "_through", "pages")

    def __init__(
        self, cache: PageCache, device: int, span: DeviceSpan, memory: Memory, through: bool
    ) -> None:
        self._cache = cache
        self._device = device
        self._memory = memory
        self._through = through
        bits = memory.shift - PAGE_SHIFT
        self.pages = PageSet(span.first_page >> bits, span.pages >> bits, memory.shift)

    def copied(self, pages: I64) -> int:
        memory = self._memory
        clean = self.pages.add_pages(unique_sorted(pages >> (memory.shift - PAGE_SHIFT)))
        if clean:
            memory.dirtied(self._cache.now_ns())
            memory.dirtied_many()
        return int(pages.size) * COPY_PAGE_NS + clean * memory.fault_ns

    def written_through(self, done: Callable[[bool], None]) -> None:
        if self._through:
            self._cache.fsync(self._device, True, done)
        else:
            done(True)


class CopiesToDisk:
    """Copies go past the host's page cache (O_DIRECT)."""

    __slots__ = ("_clock", "_file")

    def __init__(self, clock: Clock, file: BackingFile) -> None:
        self._clock = clock
        self._file = file

    def copied(self, pages: I64) -> int:
        return self._file.write_direct(pages) - self._clock.now

    def written_through(self, done: Callable[[bool], None]) -> None:
        done(True)


def sync_of(device: Device) -> Sync:
    """What an fsync of the device's backing does."""
    if device.type == "virtio-blk" and device.cache == "unsafe":
        return Sync.NOTHING
    if device.backing.kind == "ram":
        return Sync.FAILS
    return Sync.NOTHING if device.backing.kind in IN_MEMORY else Sync.OF_A_FILE


def has_flush_path(device: Device) -> bool:
    """Whether the guest's syncs reach the monitor as flush requests (Rule V9)."""
    if device.type == "virtio-blk":
        return device.cache != "writethrough"
    return device.type == "virtio-pmem"


def is_shared_file(device: Device) -> bool:
    """Whether stores land in the page cache of a file on the disk."""
    return device.backing.kind == "file" and device.type != "real-nvdimm"
