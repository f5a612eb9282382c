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
from crashsim.engine.folios import Folios
from crashsim.engine.history import NEVER
from crashsim.engine.pages import unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.experiment.model import Device
from crashsim.pagecache.cache import FsyncKind, PageCache
from crashsim.pagecache.writeback import BackingFile

COPY_PAGE_NS = 512
IN_MEMORY = ("tmpfs", "hugetlbfs")


class Memory:
    """What stores go to. As it is: memory that the host never writes back, for which stores count
    for nothing."""

    cleaned_by_sync = False  # whether a sync leaves every page clean

    def __init__(self, folios: Folios, fault_ns: int) -> None:
        self.folios = folios  # what it dirties and cleans as one
        self.fault_ns = fault_ns

    @property
    def stamp_bar_ns(self) -> int:
        """Stores that dirty pages before that leave the memory's time stamp as it is."""
        return 0

    def will_store(self, t_ns: int) -> None:
        """A store is planned to begin then."""

    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        """Stores from `first_ns` to `last_ns` dirtied pages, that at `stamped_ns` as the first at
        or after the bar."""

    def dirtied_now(self) -> None:
        """A copy dirtied pages."""

    def reserve(self, pages: int) -> None:
        """So many more may be dirtied by stores under way."""

    def room(self) -> int:
        """How many may be dirtied before a threshold has to be looked at."""
        return NEVER

    def dirtied_many(self) -> None:
        """A store that may have crossed a threshold has begun."""

    def pause_ns(self, dirtied_pages: int) -> int:
        """How long a writer that has just dirtied that many is held up."""
        return 0


class FileMemory(Memory):
    """A shared mapping of a backing file."""

    def __init__(
        self, cache: PageCache, file: BackingFile, fault_ns: int, cleaned_by_sync: bool
    ) -> None:
        super().__init__(file.folios, fault_ns)
        self.cleaned_by_sync = cleaned_by_sync
        self._cache = cache
        self._file = file

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
