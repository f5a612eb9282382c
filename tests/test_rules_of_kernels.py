"""Rules of clocks, journals and ways to the device, with numbers worked out by hand.

As in `tests/test_rules.py`: a fault costs 10 ns, a page 100 ns on the way to the disk, a FLUSH 1000
ns; a one-word write that begins at `b` has its vCPU free at b+1. Clocks have no ticks unless said.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from crashsim.engine.folios import Folios
from crashsim.engine.history import NEVER, History, Reason
from crashsim.engine.streams import Stream
from crashsim.engine.timers import Stamps, Ticks
from crashsim.experiment.applications import Fill
from crashsim.experiment.backing import Backing, Device, FolioPart
from crashsim.experiment.linux import EarlyWriteback, Guest, Host
from crashsim.experiment.model import Experiment
from crashsim.experiment.sync_calls import CALLS
from crashsim.pagecache.cache import PageCache
from tests.oracle import GroupSync, Sync, Write
from tests.oracle.cases import P
from tests.oracle.inputs import Item
from tests.played import STORE_AND_SYNC, Changes, acked, flushes, play, safe

MS = 1_000_000
SECOND = 1000 * MS
TICK = 4 * MS
CLOCK = {"tick": TICK, "second_phase": 250 * MS}
EXT4 = {"file_system": "ext4", "access": "dax"}


# --- clocks ---------------------------------------------------------------------------------------


def test_H6_timers_fire_late_and_the_later_the_coarser() -> None:
    ticks = Ticks(TICK, 0)
    assert ticks.timer_ns(0, 1) == 2 * TICK  # 1 tick, never early
    assert ticks.timer_ns(0, 62 * TICK) == 63 * TICK
    assert ticks.timer_ns(0, 63 * TICK) == 64 * TICK  # in steps of 8 from here on
    assert ticks.timer_ns(TICK, 63 * TICK) == 72 * TICK
    assert ticks.timer_ns(0, 5 * SECOND) == 5120 * MS  # 1250 ticks, in steps of 64
    assert ticks.timer_ns(5120 * MS, 5 * SECOND) == 10240 * MS
    assert Ticks(0, 0).timer_ns(7, 5) == 12


def test_G6_a_journals_timer_rounds_up_to_whole_seconds_first() -> None:
    ticks = Ticks(TICK, 250 * MS)
    assert ticks.commit_ns(0, 5 * SECOND) == 5376 * MS  # 5.25 s, in steps of 256 ms
    assert ticks.commit_ns(250 * MS - 1, 5 * SECOND) == 5376 * MS
    assert ticks.commit_ns(252 * MS, 5 * SECOND) == 6400 * MS  # a whole second does not do
    assert ticks.commit_ns(0, 0) == NEVER
    assert Ticks(0, 0).commit_ns(7, 5) == 12


def happened(stamps: Stamps, t_ns: int) -> None:
    stamps.happened(t_ns if t_ns >= stamps.bar_ns else None, t_ns)


def test_G4_an_event_in_the_tick_of_the_last_one_before_a_commit_changes_no_time_stamp() -> None:
    stamps = Stamps(10)
    happened(stamps, 12)
    assert stamps.since_ns == 12
    happened(stamps, 17)
    stamps.clear()
    happened(stamps, 19)
    assert stamps.since_ns is None
    happened(stamps, 20)
    assert stamps.since_ns == 20


def syncs_of(gap_ns: int, **host: Any) -> History:
    """Two stores with an fsync each on the host, the second `gap_ns` after the first's return."""
    program: list[Item] = [*STORE_AND_SYNC, Write(0, 8, gap_ns), Sync()]
    return play(program, host=host)


def test_H11_within_one_tick_of_the_last_commit_a_sync_does_not_commit() -> None:
    assert [t for t, _ in acked(syncs_of(0))] == [2411, 2411 + 10 + 1 + 2400]
    assert [t for t, _ in acked(syncs_of(0, tick=TICK))] == [2411, 2411 + 10 + 1 + 100 + 1000]
    late = [t for t, _ in acked(syncs_of(TICK, tick=TICK))]
    assert late == [2411, 2411 + TICK + 10 + 1 + 2400]


def test_G4_within_one_tick_of_the_last_commit_an_fsync_of_the_guest_makes_one_flush() -> None:
    program = [Write(0, 8), Sync("fsync"), Write(0, 8, 10), Sync("fsync")]
    coarse = play(program, guest=EXT4 | {"tick": TICK})
    assert coarse.flush_vcpu.size == 3
    assert play(program, guest=EXT4).flush_vcpu.size == 4


# --- the host's file system -----------------------------------------------------------------------


def test_H11_xfs_flushes_writes_one_kibibyte_of_journal_and_flushes() -> None:
    history = play(STORE_AND_SYNC, host={"file_system": "xfs"}, disk={"fua": False})
    # W until 111, F until 1111, J (1024 B: 25 ns) until 1136, F until 2136
    assert flushes(history) == [111, 1136]
    assert acked(history) == [(2136, 0)]
    assert history.info.metadata_bytes == 1024
    assert safe(history) == [1111]
    fua = play(STORE_AND_SYNC, host={"file_system": "xfs"}, disk={"fua": True})
    assert (flushes(fua), acked(fua)) == ([111], [(2136, 0)])


def test_H13_on_xfs_a_new_extent_is_safe_with_the_second_flush() -> None:
    sparse = {"backing": Backing(extents="sparse")}
    history = play(STORE_AND_SYNC, device=sparse, host={"file_system": "xfs"}, disk={"fua": False})
    assert safe(history) == [2136]


def own(**host: Any) -> History:
    settings = {"commit_interval": 5 * SECOND, "dirty_writeback": SECOND} | host
    return play(
        [Write(0, 8)], host=settings, disk={"fua": False}, until=20 * SECOND, guest={"tick": 0}
    )


def test_H16_ext4_commits_by_itself_what_the_flusher_left_in_the_disks_cache_is_safe_then() -> None:
    history = own(dirty_expire=2 * SECOND)
    commit = 5 * SECOND + 10
    # J 200 ns, F 1000, C 100, F
    assert flushes(history) == [commit + 200, commit + 1300]
    assert history.batch_reason.tolist() == [Reason.FLUSHER]
    assert safe(history) == [commit + 1200]
    assert safe(own(dirty_expire=2 * SECOND, file_system="xfs")) == [NEVER]
    assert flushes(own(commit_interval=0)) == []
    assert flushes(own(**CLOCK))[0] == 5376 * MS + 200


def test_H16_a_commit_of_a_sync_is_not_repeated() -> None:
    history = play(
        STORE_AND_SYNC, host={"commit_interval": 5 * SECOND}, disk={"fua": False}, until=9 * SECOND
    )
    assert len(flushes(history)) == 2


def test_H16_it_covers_new_extents() -> None:
    history = play(
        [Write(0, 8)],
        device={"backing": Backing(extents="unwritten")},
        host={
            "commit_interval": 5 * SECOND,
            "dirty_writeback": SECOND,
            "dirty_expire": 2 * SECOND,
        },
        disk={"fua": False},
        until=9 * SECOND,
    )
    commit = 5 * SECOND + 10
    assert safe(history) == [commit + 1300 + 1000]


def test_H6_an_fsync_that_leaves_nothing_dirty_resets_the_age_on_fuse_alone() -> None:
    program: list[Item] = [*STORE_AND_SYNC, Write(0, 8, 2 * SECOND)]
    for resets, first in ((False, 3 * SECOND), (True, 5 * SECOND)):
        history = play(
            program,
            host={
                "dirty_writeback": SECOND,
                "dirty_expire": 2 * SECOND + 500 * MS,
                "fsync_resets_age": resets,
            },
            until=9 * SECOND,
        )
        assert history.batch_t_ns.tolist() == [11, first], resets


def test_H6_an_idle_flusher_wakes_from_the_first_store_on() -> None:
    for phase, written in (("idle", 2 * SECOND + 310 * MS), ("busy", 3 * SECOND)):
        history = play(
            [Write(0, 8, 310 * MS - 10)],
            host={
                "dirty_writeback": SECOND,
                "dirty_expire": 2 * SECOND,
                "flusher_phase": phase,
            },
            until=9 * SECOND,
        )
        assert history.batch_t_ns.tolist() == [written], phase


# --- folios ---------------------------------------------------------------------------------------


def sizes(folios: Folios) -> list[int]:
    pages = folios.pages(np.arange(folios.first, folios.end, dtype=np.int64))
    return [int(each) for each in pages]


def test_H2_folios_are_powers_of_two_at_multiples_of_themselves() -> None:
    assert sizes(Folios(0, 8, [(4 * P, 8 * P)])) == [4, 4]
    assert sizes(Folios(0, 7, [(4 * P, 7 * P)])) == [4, 2, 1]
    several = Folios(16, 24, [(2 * P, 3 * P), (8 * P, 22 * P), (P, 24 * P)])
    assert sizes(several) == [2, 1, 1, 4, 8, 4, 2, 1, 1]
    numbers = np.arange(several.first, several.end, dtype=np.int64)
    first = several.first_page(numbers)
    assert first.tolist() == [16, 18, 19, 20, 24, 32, 36, 38, 39]
    assert np.array_equal(several.of_pages(first), numbers)
    assert np.array_equal(several.of_pages(first + several.pages(numbers) - 1), numbers)


def test_H2_several_sizes_lie_in_one_file() -> None:
    parts = (
        FolioPart(size=P, until=2 * P),
        FolioPart(size=2 * P, until=4 * P),
        FolioPart(size=4 * P),
    )
    items = [Write(0, 8), Write(2 * P, 8), Write(3 * P, 8), Write(7 * P, 8), Sync()]
    history = play(items, device={"backing": Backing(folio=parts)})
    # faults for page 0, for 2 and 3 together, for 4 to 7; one page, two and four are written
    assert history.store_t_ns.tolist() == [10, 21, 22, 33]
    pages = list(zip(history.io_first_page.tolist(), history.io_pages.tolist(), strict=True))
    assert pages == [(0, 1), (2, 6)]


def auto(device: Changes | None = None, vmm: str = "qemu", **host: Any) -> int:
    experiment = Experiment(
        device=Device(size=4 << 20, backing=Backing(folio="auto"), **(device or {})),
        workload=Fill(),
        vmm=vmm,
        host=Host(**host),
    )
    found = experiment.resolved_devices()[0][0]
    return experiment.folio_parts(found)[0][0]


def test_H2_auto_is_what_monitor_kernel_and_file_system_make_of_it() -> None:
    huge = 2 << 20
    assert auto() == auto(kernel="6.16") == huge
    assert auto(kernel="6.15") == P
    assert auto(file_system="xfs", kernel="5.18") == huge
    assert auto(file_system="xfs", kernel="5.17") == P
    assert auto(thp="never") == auto(thp="always") == huge
    assert auto(thp="none") == P
    assert auto(vmm="crosvm") == P
    assert auto({"type": "nvdimm"}) == huge
    assert auto({"type": "virtio-blk"}) == P


# --- the guest ------------------------------------------------------------------------------------


def test_G6_a_commit_writes_the_guests_own_journal_too() -> None:
    program = [Write(0, 8), Sync("fsync")]
    plain, journal = (
        play(program, guest=EXT4 | {"journal_pages": n}, disk={"fua": False}) for n in (0, 4)
    )
    # The first call writes four pages before the data: 400 ns.
    assert acked(journal)[0][0] == acked(plain)[0][0] + 400
    assert journal.info.metadata_bytes == plain.info.metadata_bytes + 4 * P
    large = {"backing": Backing(folio=8 * P)}
    history = play(program, guest=EXT4 | {"journal_pages": 4}, device=large, disk={"fua": False})
    assert history.info.metadata_bytes == plain.info.metadata_bytes + 8 * P


def aborted(reaction: str, *others: list[Item], call: str = "fsync") -> History:
    first: list[Item] = [Write(0, 8, ends_record=True), Sync(call)]
    first += [Write(P, 8, 5000, ends_record=True), Sync(call), Write(0, 8), Sync(call)]
    return play(
        first,
        *others,
        guest=EXT4 | {"on_sync_error": reaction},
        host={"fsync_errors": (4000,)},
        disk={"fua": False},
        until=SECOND,
    )


@pytest.mark.parametrize("reaction", ["give-up", "retry", "rewrite"])
def test_G9_a_failed_flush_of_a_commit_ends_the_program(reaction: str) -> None:
    history = aborted(reaction)
    # The second fsync's first flush fails; its second is made, and nothing after it.
    assert [result for _, result in acked(history)] == [0, 0, 1, 0]
    assert history.store_write.tolist() == [0, 1]
    assert history.ack_low.tolist() == [0]
    assert history.info.journal_aborted_ns == (acked(history)[2][0],)
    assert history.info.failed_syncs == 1


def test_G9_an_aborted_journal_takes_no_store_of_anybody() -> None:
    other: list[Item] = [Write(2 * P, 8, 1000) for _ in range(20)]
    history = aborted("give-up", other)
    assert history.store_t_ns.max() <= history.info.journal_aborted_ns[0]
    assert 3 < history.store_t_ns.size < 22


def test_G9_an_msync_that_fails_aborts_nothing() -> None:
    history = aborted("retry", call="msync")
    assert history.info.journal_aborted_ns == (None,)
    assert history.store_write.tolist() == [0, 1, 2]


def test_G9_a_raw_device_has_no_journal_to_abort() -> None:
    program = [Write(0, 8), Sync("fsync"), Write(0, 8), Sync("fsync")]
    history = play(program, host={"fsync_errors": (0,)})
    assert history.store_write.tolist() == [0, 1]
    assert [result for _, result in acked(history)] == [1, 0]


def test_G2_a_character_device_has_no_fsync() -> None:
    history = play(STORE_AND_SYNC, guest={"access": "devdax"})
    assert history.flush_vcpu.size == 0
    assert history.info.failed_syncs == 1
    assert history.ack_t_ns.size == 0


def test_G2_a_raw_device_is_reached_through_the_guests_page_cache_unless_told_otherwise() -> None:
    assert Guest().access == "dax"
    assert Guest(file_system="none").access == "cached"


def ranged(call: str, **program: Any) -> History:
    """vCPU 0 writes page 0 and syncs its range; vCPU 1 has written page 1 before."""
    return play(
        [Write(0, 8, 500, ends_record=True), Sync()],
        [Write(P, 8)],
        guest={"access": "cached"},
        program={"call": CALLS[call], "ranged": True, **program},
        until=SECOND,
    )


def test_H12_an_msync_of_a_part_copies_that_part_and_flushes_the_device() -> None:
    history = ranged("msync")
    assert history.copy_page.tolist() == [0]
    assert history.flush_vcpu.size == 1
    assert play(
        [Write(0, 8, 500), Sync()], [Write(P, 8)], guest={"access": "cached"}, until=SECOND
    ).copy_page.tolist() == [0, 1]


def test_H11_sync_file_range_writes_and_does_not_flush() -> None:
    history = ranged("sync_file_range")
    assert history.copy_page.tolist() == [0]
    assert history.flush_vcpu.size == 0
    assert history.ack_t_ns.size == 1
    with_dax = play(STORE_AND_SYNC, program={"call": CALLS["sync_file_range"], "ranged": True})
    assert (with_dax.flush_vcpu.size, with_dax.ack_t_ns.tolist()) == (0, [11])


def test_G4_a_growing_file_commits_with_every_call_whatever_the_tick() -> None:
    program = [Write(0, 8), Sync("fdatasync"), Write(8, 8), Sync("fdatasync")]
    growing = play(program, guest=EXT4 | {"tick": TICK}, program={"grows": True})
    assert growing.flush_vcpu.size == 4
    assert play(program, guest=EXT4 | {"tick": TICK}).flush_vcpu.size == 2


def test_G4_sync_flushes_once_on_ext4_and_not_at_all_on_a_raw_device() -> None:
    changed: Changes = {"call": CALLS["sync"]}
    assert play(STORE_AND_SYNC, guest=EXT4, program=changed).flush_vcpu.size == 1
    assert play(STORE_AND_SYNC, program=changed).flush_vcpu.size == 0


def test_G4_a_group_waits_its_delay_for_a_call_that_makes_no_flush_too() -> None:
    alone = play([GroupSync(1000, "sync"), Write(0, 8)])
    assert alone.store_t_ns.tolist() == [1010]
    assert alone.info.guest_wait_ns == 1000
    # The second joins at 411 and waits for the first one's call, at 1000.
    both = play([GroupSync(1000, "sync")], [Write(0, 8, 400), GroupSync(1000, "sync")])
    assert (both.end_ns, both.info.guest_wait_ns) == (1000, 1000 + 589)
    refused = play([GroupSync(1000)], guest={"access": "devdax"})
    assert (refused.end_ns, refused.info.failed_syncs) == (1000, 1)


def test_H1_a_page_that_is_cleaned_while_a_group_waits_costs_its_fault_again() -> None:
    program: list[Item] = [Write(0, 8), GroupSync(5000, "sync"), Write(0, 8)]
    flusher = {"dirty_writeback": 1000, "dirty_expire": 500}
    assert play(program, host=flusher).store_t_ns.tolist() == [10, 5011 + 10]
    assert play(program).store_t_ns.tolist() == [10, 5011]


def test_G2_a_virtio_blk_is_reached_through_the_guests_page_cache_on_devdax_too() -> None:
    history = play(STORE_AND_SYNC, device={"type": "virtio-blk"}, guest={"access": "devdax"})
    # The store is at 0 in L1, its copy at 1, which keeps the call for 512 ns and a fault.
    assert (history.copy_t_ns.tolist(), history.info.failed_syncs) == ([1], 0)
    assert history.flush_asked_ns.tolist() == [1 + 512 + 10]
    assert history.ack_low.tolist() == [0]


def test_H7_a_pause_that_would_begin_after_the_end_is_no_wait() -> None:
    # The limit is 0 pages, so that every write that faults pauses for 200 ms behind its last word.
    tiny = {"memory": 10 * P, "dirty_background_ratio": 5, "dirty_ratio": 6}
    for until, waited in ((10, 0), (11, 0), (12, 1), (SECOND, 200 * MS)):
        history = play([Write(0, 8)], host=tiny, until=until)
        assert history.info.guest_wait_ns == waited, until


def test_G9_what_is_in_the_guests_page_cache_when_the_journal_aborts_stays_there() -> None:
    def copied(errors: tuple[int, ...], call: str, delay_ns: int) -> History:
        return play(
            [Write(0, 8), Sync("fsync")],
            [Write(P, 8, 600), Sync(call, delay_ns)],
            guest={"file_system": "ext4", "access": "cached"},
            host={"fsync_errors": errors, "dirty_writeback": SECOND, "dirty_expire": 2 * SECOND},
            until=9 * SECOND,
        )

    by_flusher, by_call = 9 * SECOND, 5000  # the first fsync fails before either
    assert copied((), "sync_file_range", by_flusher).copy_t_ns.tolist() == [1, 2 * SECOND]
    assert copied((), "sync_file_range", by_call).copy_t_ns.tolist() == [1, 601 + by_call]
    for call, delay_ns in (("sync_file_range", by_flusher), ("sync_file_range", by_call)):
        assert copied((0,), call, delay_ns).copy_t_ns.tolist() == [1]
    assert copied((0,), "sync_file_range", by_call).info.failed_syncs == 1
    assert copied((0,), "msync", by_call).info.failed_syncs == 2


def test_H8_early_writeback_does_not_look_while_nothing_is_dirty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    really = PageCache._write_early

    def counted(cache: PageCache, _: None) -> None:
        looks.append(cache.clock.now)
        really(cache, None)

    monkeypatch.setattr(PageCache, "_write_early", counted)
    # Stores at 25 ms and, with nothing dirty before, at the very instant of a look, 50 s.
    program: list[Item] = [Write(0, 8, 25 * MS - 10), Write(P, 8, 50 * SECOND - 25 * MS - 11)]
    always = EarlyWriteback(every=10 * MS, share=(1, 1))
    history = play(program, host={"early_writeback": always}, until=100 * SECOND)
    assert history.batch_reason.tolist() == [Reason.EARLY] * 2
    assert history.batch_t_ns.tolist() == [30 * MS, 50 * SECOND]
    assert {30 * MS, 50 * SECOND} <= set(looks)
    assert len(looks) < 10


def test_H8_the_draws_of_early_writeback_are_those_of_its_instants_however_late() -> None:
    begin = 5 * SECOND
    often = EarlyWriteback(every=1, share=(1, 8))
    program = [Write(0, 8, begin - 10)]
    history = play(program, host={"early_writeback": often}, until=begin + SECOND)
    stream = Stream(1, "early-writeback")
    taken = (t for t in itertools.count(begin) if stream.draw(t << 32) * 8 < 1 << 64)
    assert history.batch_t_ns.tolist() == [next(taken)]


def test_G10_a_store_that_begins_at_a_snapshots_instant_behind_another_call_is_divided() -> None:
    history = play(
        [Write(0, 8), Sync()],
        [Write(0, 8), Sync("msync-async"), Write(0, 16)],
        guest={"access": "cached"},
        until=SECOND,
    )
    assert history.copy_t_ns.tolist() == [1]
    stores = zip(history.store_t_ns.tolist(), history.store_length.tolist(), strict=True)
    assert list(stores) == [(0, 8), (0, 8), (1, 8), (2, 8)]
