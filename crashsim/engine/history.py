"""The History: everything that happened in one run, as columns. All analysis is a pure function of
it.

Contract: rows of a table are in order of time (stores by begin, batches and flush requests by
submission, FLUSHes by issue). Addresses are *global*: the devices lie one behind another, so page
numbers and byte offsets are unique over all of them; `DeviceSpan` gives each device's place. Times
are int64 ns; an instant that had not come when the run ended is `NEVER`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np

from crashsim.engine.pages import PAGE_SHIFT
from crashsim.engine.streams import I64

NEVER = (1 << 63) - 1


class Reason(IntEnum):
    """Why the host wrote pages back."""

    FSYNC = 0
    FLUSHER = 1
    BACKGROUND = 2
    EARLY = 3
    DIRECT = 4  # the guest's own write, past the host's page cache


@dataclass(frozen=True, slots=True)
class DeviceSpan:
    """A device's place in the global address space."""

    name: str
    first_page: int
    pages: int

    @property
    def end_page(self) -> int:
        return self.first_page + self.pages

    @property
    def first_byte(self) -> int:
        return self.first_page << PAGE_SHIFT

    @property
    def end_byte(self) -> int:
        return (self.first_page + self.pages) << PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first touch of a page of a sparse file that finds no block on a full host."""

    t_ns: int
    page: int  # global
    device: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is true of a run as a whole; tuples without a comment have an entry for each device, in
    order. Instants that never came are None, but `dead_ns`."""

    end_ns: int
    seed: int
    dax: tuple[bool, ...]
    media: tuple[str, ...]  # 'nvdimm' or the kind of the backing
    new_extents: tuple[bool, ...]
    discard_data: tuple[bool, ...]
    journal_aborted_ns: tuple[int | None, ...]
    panicked_ns: int | None
    sigbus: Refusal | None
    plp: bool
    dead_ns: int  # the disk's death; NEVER
    ignores_flush: bool
    sector_bytes: int
    atom_bytes: int
    stable_writes: bool
    recorded: bool  # some program is a recording
    guest_wait_ns: int  # of all vCPUs, throttling included
    throttle_ns: int
    failed_syncs: int
    metadata_bytes: int  # the host's own, beside the pages
    writes: int  # of all programs, begun or not
    faults_configured: int
    faults_not_fired: tuple[tuple[str, int], ...]  # (setting, instant) each
    fsync_errors_not_fired: tuple[int, ...]  # instants
    unfinished_writes: tuple[int, ...] = ()  # of which a rest never began

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> RunInfo:
        """The inverse of `asdict`, through JSON. TypeError when one is missing or unknown."""
        info = cls(**{name: _frozen(value) for name, value in facts.items()})
        return replace(info, sigbus=Refusal(**facts["sigbus"])) if facts["sigbus"] else info


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class History:
    """Columns of one run (n stores, b batches, i disk writes of pages, c journal commits, d
    FLUSHes, f flush requests, a acknowledgements)."""

    devices: tuple[DeviceSpan, ...]
    info: RunInfo
    store_t_ns: I64  # [n] begin: the first word lands
    store_offset: I64  # [n] global byte address
    store_length: I64  # [n] bytes
    store_write: I64  # [n] number of the program's write it belongs to
    copy_t_ns: I64  # [c] guest writeback, L1 -> L2, guests without DAX
    copy_page: I64  # [c] global page
    batch_t_ns: I64  # [b] the snapshot: the pages' content of this instant is what is written
    batch_reason: I64  # [b] Reason
    batch_device: I64  # [b]
    batch_whole: I64  # [b] 1: it took every page of its device that was dirty, 0: some
    batch_failed: I64  # [b] 1: none of it reached the disk
    io_batch: I64  # [i] ascending
    io_first_page: I64  # [i] global page, ascending within a batch
    io_pages: I64  # [i]
    io_complete_ns: I64  # [i] in the disk's cache (L4) from here on
    io_shorn: I64  # [i] 1: its last page never arrived
    io_corrupted: I64  # [i] 1: its last page arrived damaged
    commit_device: I64  # [c] journal commits of devices with new extents
    commit_t_ns: I64  # [c] covers first writes that had ended by then
    commit_complete_ns: I64  # [c] its last block is in the disk's cache
    commit_fua_ns: I64  # [c] durable by itself from here on, NEVER: by the next FLUSH
    flush_disk_issue_ns: I64  # [d]
    flush_disk_end_ns: I64  # [d]
    flush_disk_ignored: I64  # [d] 1: it made nothing durable
    flush_device: I64  # [f] virtio flush requests
    flush_vcpu: I64  # [f] global vCPU number, -1: the guest kernel's journal commit
    flush_asked_ns: I64  # [f] the guest wanted it
    flush_submit_ns: I64  # [f] it was put on the queue
    flush_begin_ns: I64  # [f] the host's fsync began; NEVER: it got the result of another
    flush_ack_ns: I64  # [f] NEVER while outstanding
    flush_result: I64  # [f] 0 success, the monitor's error code, -1 outstanding
    ack_t_ns: I64  # [a]
    ack_device: I64  # [a]
    ack_low: I64  # [a] the writes [low, high) it stands for
    ack_high: I64  # [a]
    ack_label: np.ndarray[tuple[int], np.dtype[np.str_]]  # [a] '' or a recording's mark

    @property
    def end_ns(self) -> int:
        """A cut may come at any instant of [0, end_ns], after all that happens at it."""
        return self.info.end_ns

    def rows_of(self, device: int) -> I64:
        """Rows of the stores to a device, ascending."""
        span = self.devices[device]
        return np.flatnonzero(
            (self.store_offset >= span.first_byte) & (self.store_offset < span.end_byte)
        )

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """Name -> array, ready for `np.savez`; `info` and `devices` travel as one JSON string."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_COLUMNS}
        head = {
            "facts": asdict(self.info),
            "devices": [[d.name, d.first_page, d.pages] for d in self.devices],
        }
        out["head"] = np.array(json.dumps(head, sort_keys=True))
        return out

    @classmethod
    def from_columns(cls, columns: dict[str, np.ndarray[Any, Any]]) -> History:
        """The inverse of `columns`. KeyError when one is missing, ValueError when one is not as
        long as the others of its table."""
        head = json.loads(str(columns["head"]))
        rows: dict[str, int] = {}
        for name in (f.name for f in fields(cls) if f.name not in _NOT_COLUMNS):
            column = columns[name]
            table = "flush_disk" if name.startswith("flush_disk") else name.partition("_")[0]
            wanted = np.str_ if name == "ack_label" else np.int64
            if column.ndim != 1 or column.dtype.type is not wanted:
                raise ValueError(f"{name} is no column of {wanted.__name__}")
            if rows.setdefault(table, column.size) != column.size:
                raise ValueError(f"{name} has {column.size} rows, others have {rows[table]}")
        return cls(
            devices=tuple(DeviceSpan(*entry) for entry in head["devices"]),
            info=RunInfo.from_json(head["facts"]),
            **{f.name: columns[f.name] for f in fields(cls) if f.name not in _NOT_COLUMNS},
        )

    def _check(self) -> None:
        for name in ("store_t_ns", "copy_t_ns", "batch_t_ns", "io_batch", "flush_disk_issue_ns"):
            column = getattr(self, name)
            assert bool(np.all(column[1:] >= column[:-1])), f"{name} is not ascending"
        assert bool(np.all(self.store_length > 0)), "empty store"
        assert bool(np.all(self.io_complete_ns >= self.batch_t_ns[self.io_batch])), (
            "I/O before its batch"
        )
        assert bool(np.all(self.flush_begin_ns >= self.flush_submit_ns)), "fsync before its request"


_NOT_COLUMNS = ("devices", "info")
