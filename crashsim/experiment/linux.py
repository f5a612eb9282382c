"""The two kernels: the guest's, and the host's with its page cache and file system.

Contract: names of the host's keys follow /proc/sys/vm. A tick of 0 is a clock without coarseness.
Rules G2, G4, G6, G7, G9 (guest), H2, H6, H7, H8, H11, H14, H16 (host).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from crashsim.engine import units
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import Duration, Kernel, PositiveDuration, Ratio, Size
from crashsim.vmm.probe import LARGE_FOLIOS_SINCE

SECOND_NS = 1_000_000_000


class Guest(Block):
    """The guest's kernel."""

    driver: Literal["concurrent", "serialized", "ordered"] = Key(
        "concurrent",
        "The virtio-pmem driver: many flushes in flight (Linux 5.3 on), one at a "
        "time, or one at a time with the preflush before the data (2026).",
    )
    file_system: Literal["ext4", "none"] = Key(
        "ext4",
        "ext4 commits its journal, and flushes, some 5 s after a store; a raw device never does.",
    )
    access: Literal["dax", "devdax", "direct", "cached"] = Key(
        "dax",
        "How the program reaches the device: ext4 mounted with -o dax, a character "
        "device, O_DIRECT, or through the guest's page cache. Default: dax on ext4, cached on a "
        "raw device.",
    )
    tick: Duration = Key(
        4_000_000, "How coarse the guest's clock is (4ms: HZ=250); 0s: not at all."
    )
    second_phase: Duration = Key(
        250_000_000,
        "When its first whole second is; timers of the journal round up to those.",
        lt=SECOND_NS,
    )
    commit_interval: Duration = Key(5_000_000_000, "ext4's mount option commit=; 0s: no timer.")
    journal_pages: int = Key(4, "Pages that a commit writes to its own journal.", ge=0, le=1024)
    on_sync_error: Literal["give-up", "retry", "panic", "rewrite"] = Key(
        "give-up",
        "After EIO the program goes on without, calls again, panics, or writes again "
        "what was not acknowledged.",
    )
    map_sync: bool = Key(False, "The program asks for MAP_SYNC: it is told EOPNOTSUPP.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_access(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "access" in value:
            return value
        return {**value, "access": "cached" if value.get("file_system") == "none" else "dax"}

    def contradictions(self) -> Iterator[Clash]:
        if self.file_system == "none" and self.access == "dax":
            message = "a raw /dev/pmem0 is not DAX: expected cached, direct or devdax"
            yield Clash(("access",), message)
        if self.file_system == "ext4" and self.access == "devdax":
            message = "there is no file system on a character device: use file_system: none"
            yield Clash(("access",), message)
        if self.access == "devdax" and self.on_sync_error in ("retry", "rewrite"):
            message = f"{self.on_sync_error} never ends: on devdax every sync fails"
            yield Clash(("on_sync_error",), message)


class EarlyWriteback(Block):
    """Writeback of some dirty pages ahead of the flusher (reclaim, somebody else's sync)."""

    every: PositiveDuration = Field(description="How often pages are taken.")
    share: Ratio = Field(description="Chance of each dirty page to be taken, such as 1/8.")


class Host(Block):
    """The host's page cache; names follow /proc/sys/vm."""

    memory: Size = Key(16 << 30, "Dirtyable memory, the base of the two ratios.")
    dirty_background_ratio: int = Key(
        10, "Percent of memory at which background writeback starts.", ge=0, le=100
    )
    dirty_ratio: int = Key(20, "Percent of memory at which writers are stopped.", ge=1, le=100)
    dirty_writeback: Duration = Key(5_000_000_000, "How often the flusher wakes; 0s: never.")
    dirty_expire: Duration = Key(
        30_000_000_000, "Age of a file's oldest change at which all of it is written."
    )
    flusher_phase: Literal["idle", "busy", "random"] = Key(
        "idle",
        "When the flusher wakes: from the first store on, as where nobody else writes; "
        "from the start on, kept awake by others; or from a random instant on.",
    )
    fsync_resets_age: bool = Key(
        False, "An fsync that leaves nothing dirty ends the file's age, as on FUSE."
    )
    file_system: Literal["ext4", "xfs"] = Key(
        "ext4", "Where the backing files are: what a sync writes to commit."
    )
    kernel: Kernel = Key("6.18", "The host's Linux: folio: auto depends on it.")
    thp: Literal["always", "madvise", "never", "none"] = Key(
        "madvise",
        "Transparent huge pages, system-wide; none: a kernel without them. Only that "
        "makes a difference to folio: auto.",
    )
    tick: Duration = Key(4_000_000, "How coarse the host's clock is (4ms: HZ=250); 0s: not at all.")
    second_phase: Duration = Key(
        250_000_000,
        "When its first whole second is; timers of the journal round up to those.",
        lt=SECOND_NS,
    )
    commit_interval: Duration = Key(5_000_000_000, "ext4's mount option commit=; 0s: no timer.")
    fault: Duration = Key(2_400, "What the first store to a clean page costs the guest.")
    early_writeback: EarlyWriteback | None = Key(
        None, "Pages written ahead of the flusher. Default: none."
    )
    fsync_errors: tuple[Duration, ...] = Key(
        (), "Instants; the first fsync that ends at or after each one fails.", strict=False
    )
    write_errors: tuple[Duration, ...] = Key(
        (), "Instants; the first writeback that ends at or after each one fails.", strict=False
    )
    free: Size | None = Key(
        None, "Free space on the file system of sparse backing files. Default: enough."
    )

    @property
    def large_folios(self) -> bool:
        """Whether advised mappings of files are kept in folios of 2 MiB (Rule H2)."""
        major, minor = self.kernel.split(".")
        return (int(major), int(minor)) >= LARGE_FOLIOS_SINCE[self.file_system]

    def contradictions(self) -> Iterator[Clash]:
        if self.fault > SECOND_NS:  # of millions of stores, each may pay it
            got = units.exact_duration(self.fault)
            yield Clash(("fault",), f"expected at most 1s, got {got}")
        if self.dirty_background_ratio >= self.dirty_ratio:
            blamed = "dirty_background_ratio"
            if blamed not in self.model_fields_set:
                blamed = "dirty_ratio"
            yield Clash(
                (blamed,),
                f"dirty_background_ratio ({self.dirty_background_ratio}) must be below "
                f"dirty_ratio ({self.dirty_ratio})",
            )
