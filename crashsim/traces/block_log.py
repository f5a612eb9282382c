"""A block log, whatever format it was read from: what a device was asked for, in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crashsim.engine.streams import I64
from crashsim.errors import TraceError

FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Trace:
    """A log's entries in order: int64[n] columns.

    `t_ns` never descends; `flags` are those above. `length_bytes` of a discard is what it covers,
    of a mark or a bare flush 0. The data of entry i, unless it is a discard, is
    `payload[payload_at[i]:][:length_bytes[i]]`; the entry itself begins `header_bytes` before, in
    `file`. `label[i]` is the place in `labels` of a mark's label, -1 for every other entry.
    `payload` is the whole log; `notices` is what its user should know of it."""

    file: str
    header_bytes: int
    t_ns: I64
    offset_bytes: I64
    length_bytes: I64
    flags: I64
    payload_at: I64
    label: I64
    labels: tuple[str, ...]
    payload: memoryview
    notices: tuple[str, ...]

    def error(self, entry: int, message: str) -> TraceError:
        """What is wrong with an entry, at the byte where it begins."""
        return TraceError(self.file, int(self.payload_at[entry]) - self.header_bytes, message)


def check_fits(trace: Trace, device_bytes: int) -> None:
    """Raise `TraceError` for the first entry that goes beyond the end of the device."""
    length = trace.length_bytes
    end = np.where(length > 0, trace.offset_bytes + length, 0)  # a flush may name any sector
    beyond = np.flatnonzero(end > device_bytes)
    if beyond.size:
        entry = int(beyond[0])
        raise trace.error(
            entry,
            f"entry {entry} goes to byte {end[entry]} of the device, which has {device_bytes}; "
            f"the whole log needs {end.max()}",
        )


def check_lasts(trace: Trace, times: Path | None, longest_ns: int) -> None:
    """Raise `TraceError` for the first entry that comes later than anything may last."""
    late = np.flatnonzero(trace.t_ns > longest_ns)
    if not late.size:
        return
    entry, most = int(late[0]), f"{longest_ns // 10**9:,} s"
    told = f"entry {entry} comes {trace.t_ns[entry] / 1e9:,.0f} s after the recording began"
    if times is None:
        raise trace.error(entry, f"{told}: expected at most {most}, give a shorter clock")
    raise TraceError(str(times), 8 * entry, f"{told}: expected at most {most}")
