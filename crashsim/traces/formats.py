"""The formats of block logs, by the name that a recording's `format` gives.

A format is one entry: a function that reads a log, the file of its entries' instants or without one
a clock of so many ns from entry to entry, and gives a `Trace` or raises `TraceError`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crashsim.traces import dm_log_writes
from crashsim.traces.block_log import Trace

FORMATS: dict[str, Callable[[Path, Path | None, int], Trace]] = {
    "dm-log-writes": dm_log_writes.read_log,
}
