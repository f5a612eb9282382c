"""Small runs whose states can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crashsim.engine.history import History
from crashsim.states import HostKind, Rules, Space
from tests.against_oracle import simulate_world
from tests.oracle import OracleDevice, OracleWorld
from tests.states_slowly import Letters


@dataclass(frozen=True)
class Flush:
    """Submitted at `at`, acknowledged at `ack`."""

    at: int
    ack: int
    result: int = 0


def run_of(
    stores: Sequence[tuple[int, int, int]],
    flushes: Sequence[Flush] = (),
    acks: Sequence[int] = (),
    end_ns: int = 10**6,
    pages: int = 64,
) -> History:
    """A run of one device: (begin, offset, length) of its stores, each a write of its own."""
    begin, offset, length = np.array(stores, dtype=np.int64).reshape(-1, 3).T
    submit = np.array([flush.at for flush in flushes], dtype=np.int64)
    ack = np.array(acks, dtype=np.int64)
    nothing = simulate_world(OracleWorld((OracleDevice(pages, ((),)),)))
    return replace(
        nothing,
        info=replace(nothing.info, end_ns=end_ns),
        store_t_ns=begin,
        store_offset=offset,
        store_length=length,
        store_write=np.arange(begin.size),
        flush_device=np.zeros_like(submit),
        flush_vcpu=np.zeros_like(submit),
        flush_asked_ns=submit,
        flush_submit_ns=submit,
        flush_begin_ns=submit,
        flush_ack_ns=np.array([flush.ack for flush in flushes], dtype=np.int64),
        flush_result=np.array([flush.result for flush in flushes], dtype=np.int64),
        ack_t_ns=ack,
        ack_device=np.zeros_like(ack),
        ack_low=np.zeros_like(ack),
        ack_high=np.zeros_like(ack),
        ack_label=np.zeros(ack.size, dtype=np.str_),
    )


def space_of(
    history: History, atom_bytes: int = 512, letters: int = 251, host: HostKind = "any-host"
) -> Space:
    space = Space(history, Letters(letters), None, 0, Rules(host, atom_bytes))
    space._check()
    return space
