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
from crashsim.engine.folios import Folios
from crashsim.engine.history import NEVER
from crashsim.engine.pages import unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.experiment.model import Device
from crashsim.guest.l1 import COPY_PAGE_NS
from crashsim.pagecache.cache import FsyncKind, PageCache
from crashsim.pagecache.writeback import BackingFile

IN_MEMORY = ("tmpfs", "hugetlbfs")


class Memory(Protocol):
    """What stores and copies need of either kind."""

    @property
    def fault_ns(self) -> int: ...
    @property
    def folios(self) -> Folios: ...
    @property
    def cleaned_by_sync(self) -> bool: ...
    @property
    def stamp_bar_ns(self) -> int: ...
    def will_store(self, t_ns: int) -> None: ...
    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None: ...
    def dirtied_now(self) -> None: ...
    def reserve(self, pages: int) -> None: ...
    def room(self) -> int: ...
    def dirtied_many(self) -> None: ...
    def pause_ns(self, dirtied_pages: int) -> int: ...


class FileMemory:
    """A shared mapping of a backing file."""

    __slots__ = ("_cache", "_file", "cleaned_by_sync", "fault_ns", "folios")

    def __init__(
        self, cache: PageCache, file: BackingFile, fault_ns: int, cleaned_by_sync: bool
    ) -> None:
        self._cache = cache
        self._file = file
        self.fault_ns = fault_ns
        self.folios = file.folios
        self.cleaned_by_sync = cleaned_by_sync

    @property
    def stamp_bar_ns(self) -> int:
        return self._file.mtime.bar_ns

    def will_store(self, t_ns: int) -> None:
        self._cache.will_store(self._file, t_ns)

    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        self._file.dirtied(first_ns, stamped_ns, last_ns)

    def dirtied_now(self) -> None:
        self._file.dirtied_now()

    def reserve(self, pages: int) -> None:
        self._cache.planned_pages += pages

    def room(self) -> int:
        return self._cache.room()

    def dirtied_many(self) -> None:
        self._cache.dirtied_many()

    def pause_ns(self, dirtied_pages: int) -> int:
        return self._cache.pause_ns(dirtied_pages)


class OwnMemory:
    """Memory that the host never writes back."""

    __slots__ = ("fault_ns", "folios")
    cleaned_by_sync = False
    stamp_bar_ns = 0

    def __init__(self, folios: Folios, fault_ns: int) -> None:
        self.folios = folios  # single pages
        self.fault_ns = fault_ns

    def will_store(self, t_ns: int) -> None:
        """It counts for nothing."""

    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        """It counts for nothing."""

    def dirtied_now(self) -> None:
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

    def __init__(self, cache: PageCache, device: int, memory: Memory, through: bool) -> None:
        self._cache = cache
        self._device = device
        self._memory = memory
        self._through = through
        self.pages = PageSet(memory.folios)

    def copied(self, pages: I64) -> int:
        memory = self._memory
        clean = self.pages.add(unique_sorted(memory.folios.of_pages(pages)))
        if clean:
            memory.dirtied_now()
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


def sync_of(device: Device) -> FsyncKind:
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
