"""Each switch in here breaks one rule of the simulator; the comparisons must notice every one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crashsim.engine.history import Reason
from crashsim.engine.streams import I64
from crashsim.pagecache.writeback import BackingFile
from crashsim.power.safety import Domain, Safety
from tests.against_oracle import (
    differences,
    predicted,
    predicted_loss,
    simulate_world,
    simulated,
    simulated_loss,
)
from tests.oracle import OracleDevice, OracleDisk, OracleHost, OracleWorld, Sync, Write, run
from tests.oracle.cases import DISK, HOST, P, flusher
from tests.oracle.inputs import Program
from tests.test_two_files import disagreements


def world(*programs: Program, host: OracleHost = HOST, disk: OracleDisk = DISK) -> OracleWorld:
    return OracleWorld((OracleDevice(8, programs),), host, disk, duration_ns=20_000)


WORLDS = (
    # Two pages whose ages differ, and a flusher.
    world((Write(0, 8), Write(P, 8, 2900)), host=flusher()),
    # Two pages, one sync.
    world((Write(0, 8), Write(P, 8), Sync())),
    # A store while another vCPU's fsync writes the page, and a sync much later.
    world((Write(0, 8), Sync()), (Write(8, 8, 50), Sync(delay_ns=9000))),
    # A page stored to again after its sync, beside a new one.
    world((Write(0, 8), Sync(), Write(0, 8), Write(P, 8), Sync())),
)

Patch = Callable[[pytest.MonkeyPatch], None]


def ages_per_page(patch: pytest.MonkeyPatch) -> None:
    seen: dict[int, int] = {}
    settle, write_back_all = BackingFile.settle, BackingFile.write_back_all

    def watch(self: BackingFile) -> None:
        settle(self)
        for page in self.dirty().tolist():
            seen.setdefault(page, self._clock.now)

    def only_the_old(self: BackingFile, reason: Reason) -> None:
        if reason is not Reason.FLUSHER:
            write_back_all(self, reason)
            return
        now = self._clock.now
        old = [page for page in self.dirty().tolist() if now - seen[page] >= 3000]
        self.write_back(np.array(old, dtype=np.int64), reason)

    patch.setattr(BackingFile, "settle", watch)
    patch.setattr(BackingFile, "write_back_all", only_the_old)


def a_store_after_tagging_is_covered(patch: pytest.MonkeyPatch) -> None:
    carried = Safety._carried
    patch.setattr(Safety, "_carried", lambda self, page, t_ns: carried(self, page, t_ns - 60))


def no_flush_is_needed(patch: pytest.MonkeyPatch) -> None:
    def at_once(self: Safety, complete_ns: I64) -> I64:
        return complete_ns

    patch.setattr(Safety, "_flushed", at_once)


def a_flush_has_a_range(patch: pytest.MonkeyPatch) -> None:
    def last_page(self: BackingFile, reason: Reason) -> None:
        self.write_back(self.dirty()[-1:], reason)

    patch.setattr(BackingFile, "write_back_all", last_page)


def a_cleaned_page_is_never_dirty_again(patch: pytest.MonkeyPatch) -> None:
    cleaned: set[int] = set()

    def forget(self: BackingFile, reason: Reason) -> None:
        new = [page for page in self.dirty().tolist() if page not in cleaned]
        cleaned.update(new)
        self.write_back(np.array(new, dtype=np.int64), reason)

    patch.setattr(BackingFile, "write_back_all", forget)


CANARIES: tuple[Patch, ...] = (
    ages_per_page,
    a_store_after_tagging_is_covered,
    no_flush_is_needed,
    a_flush_has_a_range,
    a_cleaned_page_is_never_dirty_again,
)


def oracle_objects(world: OracleWorld) -> bool:
    outcome, history = run(world), simulate_world(world)
    if differences(simulated(history), predicted(outcome, recorded=False)):
        return True
    return any(
        differences(simulated_loss(history, domain), predicted_loss(outcome, domain, False))
        for domain in Domain
    )


def two_files_object(world: OracleWorld) -> bool:
    return bool(disagreements(simulate_world(world), "durable"))


@pytest.mark.parametrize("canary", CANARIES)
def test_the_oracle_notices_a_broken_rule(canary: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    canary(monkeypatch)
    assert any(oracle_objects(world) for world in WORLDS)


@pytest.mark.parametrize("canary", [a_store_after_tagging_is_covered, no_flush_is_needed])
def test_the_two_files_notice_a_wrong_calculation(
    canary: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(monkeypatch)
    assert any(two_files_object(world) for world in WORLDS)


def test_without_a_switch_nobody_objects() -> None:
    assert not any(oracle_objects(world) or two_files_object(world) for world in WORLDS)
