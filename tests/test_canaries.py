"""Each switch in here breaks one rule of the simulator; the comparisons must notice every one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from crashsim.engine.history import NEVER, Reason
from crashsim.engine.streams import I64
from crashsim.engine.timers import Stamps, Ticks
from crashsim.experiment.linux import Host
from crashsim.guest.syscalls import GuestKernel
from crashsim.guest.vcpu import VCpu
from crashsim.pagecache.fsync import JOURNALS
from crashsim.pagecache.writeback import BackingFile
from crashsim.power.safety import Domain, Safety
from crashsim.simulate.stack import Stack
from tests import test_measured as measured
from tests import test_rules_of_kernels as kernels
from tests.against_oracle import (
    differences,
    predicted,
    simulate_world,
    simulated,
)
from tests.lost_against_oracle import predicted_loss, simulated_loss
from tests.oracle import (
    OracleDevice,
    OracleDisk,
    OracleGuest,
    OracleHost,
    OracleWorld,
    Sync,
    Write,
    run,
)
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
    catch_up, write_back_all = BackingFile.catch_up, BackingFile.write_back_all

    def watch(self: BackingFile) -> None:
        catch_up(self)
        for page in self.dirty().tolist():
            seen.setdefault(page, self.cache.clock.now)

    def only_the_old(self: BackingFile, reason: Reason) -> None:
        if reason is not Reason.FLUSHER:
            write_back_all(self, reason)
            return
        now = self.cache.clock.now
        old = [page for page in self.dirty().tolist() if now - seen[page] >= 3000]
        self.write_back(np.array(old, dtype=np.int64), reason)

    patch.setattr(BackingFile, "catch_up", watch)
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


# --- rules of kernels: the oracle and their own tests must notice ---------------------------------


def advice_is_not_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Host, "large_folios", False)


def time_stamps_are_exact(patch: pytest.MonkeyPatch) -> None:
    original = Stamps.__init__
    patch.setattr(Stamps, "__init__", lambda self, _tick_ns: original(self, 0))


def a_raw_device_is_dax(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stack, "_guest_cache", lambda self, *what: None)


def a_journal_never_aborts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GuestKernel, "_abort", lambda self: None)


def journals_do_not_wait_for_whole_seconds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ticks, "commit_ns", lambda self, t_ns, interval_ns: t_ns + interval_ns)


def the_flusher_is_always_awake(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stack, "_first_wake_ns", lambda self, tick_ns, number: 5_120_000_000)


def xfs_writes_as_ext4(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(JOURNALS, "xfs", JOURNALS["ext4"])


def the_host_never_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ticks, "commit_ns", lambda self, t_ns, interval_ns: NEVER)


def no_fsync_resets_an_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BackingFile, "forget_age", lambda self: None)


def a_growing_file_is_like_any(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GuestKernel, "_may_commit", lambda self, call: call.commits == "always")


def a_range_is_the_whole(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VCpu, "_range", lambda self, position: None)


NOTICED: tuple[tuple[Patch, Callable[[], None]], ...] = (
    (advice_is_not_heard, measured.test_H2_qemus_advice_makes_each_small_sync_write_two_mebibytes),
    (
        time_stamps_are_exact,
        kernels.test_G4_within_one_tick_of_the_last_commit_an_fsync_of_the_guest_makes_one_flush,
    ),
    (a_raw_device_is_dax, lambda: measured.test_G2_a_raw_device_is_not_dax("cached")),
    (
        a_journal_never_aborts,
        lambda: kernels.test_G9_a_failed_flush_of_a_commit_ends_the_program("retry"),
    ),
    (
        journals_do_not_wait_for_whole_seconds,
        measured.test_G6_an_idle_ext4_guest_commits_with_two_flushes,
    ),
    (the_flusher_is_always_awake, kernels.test_H6_an_idle_flusher_wakes_from_the_first_store_on),
    (
        xfs_writes_as_ext4,
        kernels.test_H11_xfs_flushes_writes_one_kibibyte_of_journal_and_flushes,
    ),
    (the_host_never_commits, kernels.test_H16_it_covers_new_extents),
    (
        no_fsync_resets_an_age,
        kernels.test_H6_an_fsync_that_leaves_nothing_dirty_resets_the_age_on_fuse_alone,
    ),
    (
        a_growing_file_is_like_any,
        kernels.test_G4_a_growing_file_commits_with_every_call_whatever_the_tick,
    ),
    (
        a_range_is_the_whole,
        kernels.test_H12_an_msync_of_a_part_copies_that_part_and_flushes_the_device,
    ),
)


CLOCKS = replace(
    HOST,
    tick_ns=4_000_000,
    second_phase_ns=250_000_000,
    writeback_ns=5 * 10**9,
    expire_ns=3 * 10**10,
)
EXT4 = OracleGuest(ext4=True, access="dax")
CACHED = OracleGuest(access="cached")
LARGE = OracleDevice(8, ((Write(0, 8), Sync()),), folio="auto")
TWICE = OracleDevice(8, ((Write(0, 8), Sync("fsync"), Write(P, 8), Sync("fsync")),))
GROWS = OracleDevice(8, ((Write(0, 8), Sync("fdatasync")),), grows=True)
RANGE = OracleDevice(8, ((Write(0, 8), Sync("fsync", 100, True)), (Write(P, 8),)))
LONE = OracleDevice(8, ((Write(0, 8, 200_000_000),),))
AFTER = OracleDevice(8, ((Write(0, 8), Sync(), Write(P, 8)),))
COMMITS = replace(CLOCKS, commit_interval_ns=5 * 10**9)
RESETS = replace(flusher(), flusher_phase="idle", fsync_resets_age=True)

HEARD_IN: tuple[tuple[Patch, OracleWorld], ...] = (
    (advice_is_not_heard, OracleWorld((LARGE,), HOST, DISK)),
    (time_stamps_are_exact, OracleWorld((TWICE,), replace(HOST, tick_ns=10_000), DISK)),
    (a_raw_device_is_dax, OracleWorld((TWICE,), HOST, DISK, CACHED)),
    (
        a_journal_never_aborts,
        OracleWorld((TWICE,), replace(HOST, fsync_errors=(0,)), DISK, EXT4),
    ),
    (
        journals_do_not_wait_for_whole_seconds,
        OracleWorld((LONE,), COMMITS, DISK, duration_ns=10**10),
    ),
    (
        the_flusher_is_always_awake,
        OracleWorld((LONE,), replace(CLOCKS, flusher_phase="idle"), DISK, duration_ns=4 * 10**10),
    ),
    (xfs_writes_as_ext4, OracleWorld((TWICE,), replace(HOST, file_system="xfs"), DISK)),
    (the_host_never_commits, OracleWorld((LONE,), COMMITS, DISK, duration_ns=10**10)),
    (no_fsync_resets_an_age, OracleWorld((AFTER,), RESETS, DISK, duration_ns=20_000)),
    (a_growing_file_is_like_any, OracleWorld((GROWS,), HOST, DISK, EXT4)),
    (a_range_is_the_whole, OracleWorld((RANGE,), HOST, DISK, CACHED)),
)


@pytest.mark.parametrize(("canary", "rule"), NOTICED)
def test_a_rules_own_test_notices_when_it_is_broken(
    canary: Patch, rule: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(monkeypatch)
    with pytest.raises(AssertionError):
        rule()


@pytest.mark.parametrize(("canary", "world"), HEARD_IN)
def test_the_oracle_notices_a_broken_rule_of_kernels(
    canary: Patch, world: OracleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not oracle_objects(world)
    canary(monkeypatch)
    assert oracle_objects(world)


def test_each_rule_of_kernels_has_a_world() -> None:
    assert [canary for canary, _ in HEARD_IN] == [canary for canary, _ in NOTICED]


@pytest.mark.parametrize("canary", [a_store_after_tagging_is_covered, no_flush_is_needed])
def test_the_two_files_notice_a_wrong_calculation(
    canary: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary(monkeypatch)
    assert any(two_files_object(world) for world in WORLDS)


def test_without_a_switch_nobody_objects() -> None:
    assert not any(oracle_objects(world) or two_files_object(world) for world in WORLDS)
