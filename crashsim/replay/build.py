"""Writing an image into a real sparse file: extents and their content over what the device held
before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crashsim.engine.history import DeviceSpan
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64, Stream
from crashsim.guest.content import Content
from crashsim.replay.image import Extents
from crashsim.replay.sparse import SparseFile

NO_PAGES: I64 = np.empty(0, dtype=np.int64)


def write_image(
    path: Path,
    span: DeviceSpan,
    extents: Extents,
    content: Content,
    before: memoryview | None,
    damaged: I64 = NO_PAGES,
) -> int:
    """Write the device's image to a new file; returns the bytes stored on top of `before`. The
    device's damaged pages (Rule D4) are filled with bytes that nobody stored."""
    with SparseFile(path, span.pages * PAGE_BYTES) as file:
        return lay_image(file, span, extents, content, before, damaged)


def lay_image(
    file: SparseFile,
    span: DeviceSpan,
    extents: Extents,
    content: Content,
    before: memoryview | None,
    damaged: I64 = NO_PAGES,
) -> int:
    """The same, into a file that is all zero."""
    low, high = np.searchsorted(extents.offset, [span.first_byte, span.end_byte])
    columns = [
        column[low:high] for column in (extents.write, extents.start, extents.end, extents.length)
    ]
    offset = extents.offset[low:high] - span.first_byte
    if before is not None:
        _lay_down(file, before)
    for start, size in runs(offset, columns[2] - columns[1]):
        file.reserve(start, size)
    target = file.map
    for at, part in zip(offset.tolist(), content.parts(*columns), strict=True):
        target[at : at + len(part)] = bytes(part)
    for page in damaged.tolist():
        start = (page - span.first_page) * PAGE_BYTES
        file.reserve(start, PAGE_BYTES)
        noise = Stream(page, "damage").draws(np.arange(PAGE_BYTES // 8, dtype=np.int64))
        target[start : start + PAGE_BYTES] = noise.tobytes()
    return int((columns[2] - columns[1]).sum())


def _lay_down(file: SparseFile, before: memoryview) -> None:
    """Copy the pages that are not all zero."""
    data = np.frombuffer(before, dtype=np.uint8)
    whole = data[: data.size // PAGE_BYTES * PAGE_BYTES].reshape(-1, PAGE_BYTES)
    used = np.flatnonzero(whole.any(axis=1)) * PAGE_BYTES
    for start, size in runs(used, np.full(used.size, PAGE_BYTES)):
        file.reserve(start, size)
        file.map[start : start + size] = before[start : start + size]
    rest = whole.size
    if rest < data.size:
        file.reserve(rest, data.size - rest)
        file.map[rest : data.size] = before[rest:]


def runs(offset: I64, size: I64) -> list[tuple[int, int]]:
    """Ascending disjoint byte ranges, neighbours joined: (offset, size)."""
    if not offset.size:
        return []
    fresh = np.flatnonzero(np.append(True, offset[1:] != (offset + size)[:-1]))
    last = np.append(fresh[1:] - 1, offset.size - 1)
    ends = (offset + size)[last]
    return list(zip(offset[fresh].tolist(), (ends - offset[fresh]).tolist(), strict=True))
