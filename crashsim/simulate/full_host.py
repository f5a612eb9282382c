"""A sparse backing file on a full host file system (Rule V6).

The first store to a hole for which there is no block kills the monitor with SIGBUS. No flush
reports it: what the guest had stored and not synced is in the host's page cache, and the guest is
gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crashsim.engine.history import History, Refusal
from crashsim.engine.pages import PAGE_BYTES, pages_touched
from crashsim.experiment.model import Experiment
from crashsim.guest.program import Program


def first_refusal(
    history: History, experiment: Experiment, programs: Sequence[Program]
) -> Refusal | None:
    """When the pages touched of sparse files first exceed the free space, if ever. A write touches
    all pages of what is left of it when it begins."""
    if experiment.host.free is None:
        return None
    room = experiment.host.free // PAGE_BYTES
    end = np.empty(history.info.writes, dtype=np.int64)
    for program in programs:
        here = slice(program.first_write, program.first_write + program.offset.size)
        end[here] = program.offset + program.length
    left = end[history.store_write] - history.store_offset
    stored, row = pages_touched(history.store_offset, left)
    stored_ns = history.store_t_ns if row is None else history.store_t_ns[row]
    page = np.concatenate([stored, history.copy_page])
    t_ns = np.concatenate([stored_ns, history.copy_t_ns])
    is_copy = np.repeat([False, True], [stored.size, history.copy_page.size])
    sparse = np.zeros(page.size, dtype=bool)
    devices = [device for device, _, _ in experiment.resolved_devices()]
    for number, (span, device) in enumerate(zip(history.devices, devices, strict=True)):
        if device.backing.extents == "sparse":
            mine = (page >= span.first_page) & (page < span.first_page + span.pages)
            sparse |= mine & (is_copy != history.info.dax[number])
    order = np.flatnonzero(sparse)
    order = order[np.argsort(t_ns[order], kind="stable")]
    page, t_ns = page[order], t_ns[order]
    _, first = np.unique(page, return_index=True)
    if first.size <= room:
        return None
    refused = int(np.sort(first)[room])
    first_page = int(page[refused])
    span = next(s for s in history.devices if first_page < s.first_page + s.pages)
    return Refusal(int(t_ns[refused]), first_page, span.name)
