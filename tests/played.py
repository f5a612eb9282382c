"""Small runs on a stack of round numbers, with some settings changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from crashsim.engine.history import History
from crashsim.experiment.backing import Device
from crashsim.experiment.model import Experiment
from crashsim.power.per_write import rows_safe
from crashsim.power.safety import Domain, Safety, kept_stage
from crashsim.simulate.stack import simulate
from tests import against_oracle
from tests.oracle import OracleDevice, OracleGuest, OracleWorld, Sync, Write
from tests.oracle.cases import DISK, HOST, P
from tests.oracle.inputs import Item

Changes = dict[str, Any]


def play(
    *vcpus: Sequence[Item],
    device: Changes | None = None,
    guest: Changes | None = None,
    host: Changes | None = None,
    disk: Changes | None = None,
    program: Changes | None = None,
    pages: int = 8,
    until: int | None = None,
    synced: bool = True,
    **top: Any,
) -> History:
    """One device, one program for each vCPU, on the round stack with some settings changed."""
    oracle_guest = OracleGuest(acknowledge="synced" if synced else "immediate")
    programs = tuple(tuple(items) for items in vcpus)
    world = OracleWorld((OracleDevice(pages, programs),), HOST, DISK, oracle_guest, 1, until)
    plain = against_oracle.experiment(world)
    changed = {
        "guest": plain.guest.model_copy(update={"access": "direct"} | (guest or {})),
        "host": plain.host.model_copy(update={"thp": "none"} | (host or {})),
        "disk": plain.disk.model_copy(update=disk or {}),
        "devices": (Device(name="pmem0", size=pages * P, **(device or {})),),
    }
    experiment: Experiment = plain.model_copy(update=changed | top)
    programs_of = [replace(one, **(program or {})) for one in against_oracle.programs(world)]
    history = simulate(experiment, programs_of)
    history._check()
    return history


def safe(history: History, domain: Domain = Domain.POWER_CUT) -> list[int]:
    return [int(t) for t in rows_safe(history, Safety(history, kept_stage(domain)))[1]]


def acked(history: History) -> list[tuple[int, int]]:
    rows = zip(history.flush_ack_ns, history.flush_result, strict=True)
    return [(int(t), int(result)) for t, result in rows]


def flushes(history: History) -> list[int]:
    return [int(t) for t in history.flush_disk_issue_ns]


STORE_AND_SYNC = [Write(0, 8, ends_record=True), Sync()]
# The store begins at 10, the sync at 11, its data is written at 111.
