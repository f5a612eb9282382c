"""Round numbers for cases worked out by hand.

A fault costs 10 ns, a page takes 100 ns on the way to the disk, a FLUSH 1000 ns. So a page that is
dirty when an fsync begins at `s` has its data in L4 at s+100, the journal written at s+300, a
FLUSH until s+1300 (L5), the commit block until s+1400, and a second FLUSH until s+2400, when the
fsync returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.oracle import (
    OracleDevice,
    OracleDisk,
    OracleGuest,
    OracleHost,
    OracleWorld,
    Outcome,
    run,
)
from tests.oracle.inputs import Item

P = 4096  # bytes of a page
HOST = OracleHost(fault_ns=10, writeback_ns=0)
DEVICE = OracleDevice(8, ())
DISK = OracleDisk(bandwidth=40_960_000_000, flush_ns=1000)


def play(
    *programs: Sequence[Item],
    pages: int = 8,
    host: OracleHost = HOST,
    disk: OracleDisk = DISK,
    guest: OracleGuest | None = None,
    until: int | None = None,
    like: OracleDevice = DEVICE,
) -> Outcome:
    """One device, one program for each vCPU."""
    device = replace(like, pages=pages, vcpus=tuple(tuple(program) for program in programs))
    return run(OracleWorld((device,), host, disk, guest or OracleGuest(), 1, until))


def flusher(writeback_ns: int = 1000, expire_ns: int = 3000) -> OracleHost:
    return replace(HOST, writeback_ns=writeback_ns, expire_ns=expire_ns)


def small_memory() -> OracleHost:
    """Background writeback above 2 pages, throttling above 4, the hard limit at 6."""
    return replace(HOST, memory_bytes=10 * P, background_ratio=20, dirty_ratio=60)


def begins(outcome: Outcome) -> list[int]:
    return [store.begin for store in outcome.stores]


def batches(outcome: Outcome) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(batch.instant, batch.reason, batch.pages) for batch in outcome.batches]


def acknowledged(outcome: Outcome) -> list[int | None]:
    """When each flush was acknowledged, in the order of asking."""
    return [request.acknowledged for request in outcome.flush_requests]


def disk_flushes(outcome: Outcome) -> list[tuple[int, int]]:
    return [(flush.issued, flush.ended) for flush in outcome.disk_flushes]
