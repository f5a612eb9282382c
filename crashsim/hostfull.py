"""A sparse backing file on a full host file system (Rule V6).

The first store to a hole for which there is no block kills the monitor with SIGBUS. No flush
reports it: what the guest had stored and not synced is in the host's page cache, and the guest is
gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES, pages_touched
from crashsim.experiment.model import Experiment


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first touch of a page that finds no block."""

    t_ns: int
    page: int  # global
    device: str

    def as_facts(self) -> dict[str, Any]:
        return asdict(self)


def first_refusal(history: History, experiment: Experiment) -> Refusal | None:
    """When the pages touched of sparse files first exceed the free space, if ever."""
    if experiment.host.free is None:
        return None
    room = experiment.host.free // PAGE_BYTES
    if history.facts["dax"]:
        page, row = pages_touched(history.store_offset, history.store_length)
        t_ns = history.store_t_ns if row is None else history.store_t_ns[row]
    else:
        page, t_ns = history.copy_page, history.copy_t_ns
    sparse = np.zeros(page.size, dtype=bool)
    devices = [device for device, _, _ in experiment.resolved_devices()]
    for span, device in zip(history.devices, devices, strict=True):
        if device.backing.extents == "sparse":
            sparse |= (page >= span.first_page) & (page < span.first_page + span.pages)
    page, t_ns = page[sparse], t_ns[sparse]
    _, first = np.unique(page, return_index=True)
    if first.size <= room:
        return None
    refused = int(np.sort(first)[room])
    here = int(page[refused])
    span = next(s for s in history.devices if here < s.first_page + s.pages)
    return Refusal(int(t_ns[refused]), here, span.name)
