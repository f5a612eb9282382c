"""The oracle's losses against cases worked out by hand, and what must hold in every small world."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.oracle import (
    Mark,
    OracleGuest,
    OracleWorld,
    Outcome,
    Sync,
    Write,
    run,
)
from tests.oracle.cases import DISK, HOST, P, play
from tests.oracle.loss import DOMAINS, loss, uncovered_marks
from tests.oracle.worlds import worlds

SYNCED = OracleGuest(acknowledge="synced")


def test_P5_bytes_at_risk_end_with_the_flush_that_covers_their_io() -> None:
    # store 10, L4 at 111, FLUSH 311..1311
    lost = loss(play([Write(0, 8), Sync()]))
    assert lost.at_risk == [(0, 0), (10, 8), (1311, 0)]
    assert lost.unsaved == [(0, 0), (10, 1), (1311, 0)]
    assert lost.recovery == [(0, None), (10, 10), (1311, None)]


def test_each_domain_keeps_what_its_layer_holds() -> None:
    outcome = play([Write(0, 8), Sync()])
    ends = {domain: loss(outcome, domain).at_risk for domain in DOMAINS}
    nothing = [(0, 0)]
    assert ends["program-kill"] == ends["guest-crash"] == ends["vmm-kill"] == nothing
    assert ends["host-crash"] == [(0, 0), (10, 8), (111, 0)]
    assert loss(outcome, "host-crash-in-flight-kept").at_risk == [(0, 0), (10, 8), (11, 0)]
    assert loss(outcome, "host-crash-cache-lost").at_risk == ends["power-cut"]


def test_P2_without_dax_a_guest_crash_loses_what_was_not_copied() -> None:
    outcome = play([Write(0, 8, 5), Sync(delay_ns=20)], guest=OracleGuest(access="cached"))
    assert loss(outcome, "program-kill").at_risk == [(0, 0)]
    assert loss(outcome, "guest-crash").at_risk == [(0, 0), (5, 8), (26, 0)]


def test_D4_with_power_loss_protection_a_completed_write_is_safe() -> None:
    outcome = play([Write(0, 8), Sync()], disk=replace(DISK, plp=True))
    assert loss(outcome).at_risk == [(0, 0), (10, 8), (111, 0)]


def test_only_the_latest_value_of_a_byte_is_at_risk() -> None:
    # bytes 0..15, then 8..23: 24 distinct bytes
    assert loss(play([Write(0, 16), Write(8, 16)])).at_risk == [(0, 0), (10, 16), (12, 24)]


def test_an_overwritten_store_is_safe_with_its_successor() -> None:
    lost = loss(play([Write(0, 8), Write(0, 8), Sync()]))
    assert lost.unsaved == [(0, 0), (10, 1), (11, 2), (1312, 0)]


def test_an_acknowledged_record_is_uncovered_until_it_is_safe() -> None:
    program = [Write(0, 8, 0, True), Sync()]
    assert loss(play(program)).uncovered == [(0, 0), (10, 1), (1311, 0)]
    assert loss(play(program, guest=SYNCED)).uncovered == [(0, 0)]


def test_a_later_write_that_survives_an_earlier_one_makes_a_hole() -> None:
    # Page 0 is in flight 11..111, dirtied again at 30 (write 1); page 1 is dirtied at 40 (write 2).
    # The sync at 50 takes page 1 at once, L4 at 211, and page 0 at 111, behind the first fsync's
    # journal (to 411), L4 at 511. The first FLUSH, issued at 411, covers write 2 and not write 1.
    programs = [Write(0, 8), Sync()], [Write(8, 8, 20)], [Write(P, 8, 30)]
    outcome = play(*programs, [Sync(delay_ns=50)])
    lost = loss(outcome)
    assert lost.holes == {1}
    assert lost.recovery == [(0, None), (10, 10), (1411, 30), (2411, None)]
    # without that sync neither is written
    assert loss(play(*programs)).holes == set()


def test_a_write_across_two_pages_is_torn_when_one_is_safe_before_the_other() -> None:
    # Page 1 is under writeback (11..111) when the write across pages 0 and 1 begins at 40; the sync
    # at 50 takes page 0 now and page 1 at 111; the FLUSH between the two leaves half a write.
    programs = [Write(P + 64, 8), Sync()], [Write(P - 8, 16, 20)], [Sync(delay_ns=50)]
    assert loss(play(*programs)).torn == {1}
    assert loss(play([Write(P - 8, 16), Sync()])).torn == set()


def test_a_divided_write_is_torn_and_unsaved_until_its_rest_is_safe() -> None:
    outcome = play([Write(0, 80), Sync(delay_ns=5000)], [Sync(delay_ns=13)])
    lost = loss(outcome)
    assert lost.torn == {0}
    # first part 10 (32 bytes), safe with FLUSH 313..1313; rest 24; the sync at 5030: FLUSH to 6330
    assert lost.at_risk == [(0, 0), (10, 32), (24, 80), (1313, 48), (6330, 0)]
    assert lost.unsaved == [(0, 0), (10, 1), (6330, 0)]


def test_a_disk_that_ignores_flush_breaks_each_promise() -> None:
    liar = replace(DISK, ignores_flush=True)
    assert loss(play([Sync(), Write(0, 8), Sync(), Sync()], disk=liar)).broken == [1, 2]
    assert loss(play([Sync(), Write(0, 8), Sync(), Sync()])).broken == []


def test_a_failed_flush_promised_nothing() -> None:
    host = replace(HOST, fsync_errors=(0,))
    disk = replace(DISK, ignores_flush=True)
    assert loss(play([Write(0, 8), Sync()], disk=disk, host=host)).broken == []


def test_a_mark_is_covered_by_the_first_flush_submitted_after_the_one_before() -> None:
    # The flush runs 12..2412. Mark a at 11 is the first: any flush does, so it is open until 2412,
    # when mark b comes, for which a flush submitted at 12 is one after a. Mark c has none after b.
    program = [Write(0, 8), Mark("a"), Sync(delay_ns=1), Mark("b"), Mark("c", 100)]
    outcome = play(program)
    assert uncovered_marks(outcome) == [(0, 0), (11, 1), (2412, 0), (2512, 1)]


def test_a_failed_flush_covers_no_mark() -> None:
    host = replace(HOST, fsync_errors=(0,))
    outcome = play([Write(0, 8), Sync(), Mark("a"), Sync(), Mark("b")], host=host)
    # the sync 11..2411 fails; the next, 2411..3411, covers a and b
    assert uncovered_marks(outcome) == [(0, 0), (2411, 1), (3411, 0)]


def test_a_mark_without_any_later_flush_stays_uncovered() -> None:
    outcome = play([Write(0, 8), Sync(), Mark("a"), Write(0, 8), Mark("b")])
    # a at 2411: the flush submitted at 11 (from 0 on) covers it; b: none from 2411 on
    assert uncovered_marks(outcome) == [(0, 0), (2422, 1)]


def test_a_view_shows_a_layer_at_any_instant() -> None:
    outcome = play([Write(0, 8), Write(4, 8), Sync()])
    assert outcome.layers.view(9, "L2") == {}
    assert outcome.layers.view(11, "L2") == {
        **dict.fromkeys(range(4), 0),
        **dict.fromkeys(range(4, 12), 1),
    }
    assert outcome.layers.view(10, "L2") == dict.fromkeys(range(8), 0)


def everything(outcome: Outcome) -> object:
    lists = {name: getattr(outcome, name) for name in Outcome.__slots__ if name != "layers"}
    return lists, outcome.layers.changes


SMALL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SMALL
@given(worlds())
def test_the_same_world_gives_the_same_outcome(world: OracleWorld) -> None:
    assert everything(run(world)) == everything(run(world))


@SMALL
@given(worlds())
def test_an_honest_stack_below_a_dax_guest_breaks_no_promise(world: OracleWorld) -> None:
    guest = replace(world.guest, access="direct")
    world = replace(world, guest=guest, disk=replace(world.disk, ignores_flush=False))
    outcome = run(world)
    lost = loss(outcome)
    assert lost.broken == []
    if world.guest.acknowledge == "synced":
        assert all(count == 0 or calls_in_vain(world) for _, count in lost.uncovered)


def calls_in_vain(world: OracleWorld) -> bool:
    """Whether some call succeeds without a flush, as it does in reality."""
    items = [item for device in world.devices for program in device.vcpus for item in program]
    calls = {getattr(item, "call", "") for item in items}
    return bool(calls & {"msync-async", "sync_file_range"}) or (
        "sync" in calls and not world.guest.ext4
    )


@SMALL
@given(worlds())
def test_a_deeper_layer_never_holds_what_a_higher_one_does_not(world: OracleWorld) -> None:
    outcome = run(world)
    losses = [loss(outcome, domain) for domain in DOMAINS]
    for higher, deeper in pairwise(losses):
        peak = [max(value for _, value in lost.at_risk) for lost in (higher, deeper)]
        assert peak[0] <= peak[1]
    assert losses[0].at_risk == [(0, 0)]
    for write in outcome.writes:
        stored = sum(store.length for store in outcome.stores if store.write == write.number)
        assert stored <= write.length


def test_the_random_worlds_reach_every_corner() -> None:
    reached: Counter[str] = Counter()

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(worlds())
    def look(world: OracleWorld) -> None:
        outcome = run(world)
        reached.update({batch.reason for batch in outcome.batches})
        lost = loss(outcome)
        facts = {
            "pause": outcome.pauses,
            "copy": outcome.copies,
            "journal commit": [r for r in outcome.flush_requests if r.vcpu == -1],
            "held back": [r for r in outcome.flush_requests if (r.submitted or 0) > r.asked],
            "failed": [r for r in outcome.flush_requests if r.result == 1],
            "mark": [ack for ack in outcome.acknowledgements if ack.label],
            "record": [ack for ack in outcome.acknowledgements if not ack.label],
            "divided": len(outcome.stores) > len({store.write for store in outcome.stores}),
            "hole": lost.holes,
            "torn": lost.torn,
            "broken": lost.broken,
            "saved again": len([value for _, value in lost.at_risk if value == 0]) > 2,
        }
        reached.update(name for name, fact in facts.items() if fact)

    look()
    rare = {
        "background",
        "flusher",
        "early",
        "fsync",
        "pause",
        "copy",
        "journal commit",
        "held back",
    }
    rare |= {"failed", "mark", "record", "divided", "hole", "torn", "broken", "saved again"}
    assert rare <= set(reached), rare - set(reached)


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "oracle").glob("*.py")))
def test_the_oracle_imports_nothing_of_the_simulator(path: Path) -> None:
    text = path.read_text()
    assert "crashsim" not in text and "numpy" not in text
