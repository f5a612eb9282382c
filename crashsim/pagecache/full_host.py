"""A sparse backing file on a full host file system (Rule V6).

The first store to a hole for which there is no block kills the monitor with SIGBUS. No flush
reports it: what the guest had stored and not synced is in the host's page cache, and the guest is
gone.
"""

from __future__ import annotations

import numpy as np

from crashsim.engine.history import History, Refusal
from crashsim.engine.pages import PAGE_BYTES, pages_touched
from crashsim.engine.streams import I64
from crashsim.experiment.model import Experiment


def first_refusal(history: History, experiment: Experiment, write_end: I64) -> Refusal | None:
    """When the pages touched of sparse files first exceed the host's free space, if ever. A write,
    which ends before byte `write_end` (by its number), touches all pages of what is left of it when
    it begins."""
    room = (experiment.host.free or 0) // PAGE_BYTES
    left = write_end[history.store_write] - history.store_offset
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
