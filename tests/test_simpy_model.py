"""The SimPy model that crashsim is compared with, on cases small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import simpy_model
from benchmarks.simpy_ledger import Ledger
from benchmarks.simpy_model import SimpyOutcome, SimpyParameters, simulate

# One byte takes one nanosecond on its way to the disk: a page 4096 ns.
HOST = SimpyParameters(
    fault_ns=2400,
    flush_ns=1000,
    bandwidth=10**9,
    plp=False,
    fua=False,
    writeback_ns=0,
    expire_ns=0,
    seed=1,
)
Write = tuple[int, int, int]


def run(writes: list[Write], every_records: int, host: SimpyParameters) -> SimpyOutcome:
    offsets, lengths, thinks = map(list, zip(*writes, strict=True))
    return simulate(offsets, lengths, thinks, every_records, host)


def steps(outcome: SimpyOutcome) -> dict[int, int]:
    return dict(zip(outcome.instants, outcome.values, strict=True))


def test_a_synced_store_is_safe_when_the_flush_after_its_page_and_journal_ends() -> None:
    outcome = run([(0, 8, 10)], 1, HOST)
    # due 10, fault until 2410, one word; page until 6507, journal 14699, FLUSH 15699,
    # commit 19795, FLUSH 20795
    assert outcome == SimpyOutcome(
        instants=[2410, 15699],
        values=[8, 0],
        flushes=1,
        bytes_written=4096 + 8192 + 4096,
        end_ns=20795,
        guest_wait_ns=20795 - 2411,
        recovery_point_max_ns=15699 - 2410,
        broken_promises=0,
    )


def test_a_fua_commit_takes_its_write_and_the_flush_time_but_asks_for_no_flush() -> None:
    assert run([(0, 8, 10)], 1, replace(HOST, fua=True)) == run([(0, 8, 10)], 1, HOST)


def test_power_loss_protection_makes_a_page_safe_when_its_write_completes() -> None:
    outcome = run([(0, 8, 10)], 1, replace(HOST, plp=True))
    assert steps(outcome) == {2410: 8, 6507: 0}
    assert outcome.end_ns == 20795


def test_without_a_sync_everything_stays_at_risk_and_the_oldest_write_only_ages() -> None:
    outcome = run([(0, 8, 0), (4, 8, 0), (8192, 100, 5)], 0, HOST)
    # the second write is on a dirty page: no fault; 13 words of the third begin at 2403 + 5 + 2400
    assert steps(outcome) == {2400: 8, 2401: 12, 4808: 112}
    assert (outcome.end_ns, outcome.flushes, outcome.bytes_written) == (4821, 0, 0)
    assert outcome.recovery_point_max_ns == 4821 - 2400


def test_a_write_faults_on_each_clean_page_it_touches() -> None:
    outcome = run([(4090, 8196, 0)], 0, HOST)
    assert steps(outcome) == {3 * 2400: 8196}
    assert outcome.end_ns == 7200 + 1025


def test_the_flusher_leaves_its_pages_in_the_volatile_cache() -> None:
    host = replace(HOST, fault_ns=0, writeback_ns=100, expire_ns=150)
    outcome = run([(0, 8, 0), (8192, 8, 9000)], 0, host)
    assert (
        outcome.bytes_written == 4096
    )  # taken at 200, done at 4296; the second write ends at 9002
    assert steps(outcome) == {0: 8, 9001: 16}
    assert steps(run([(0, 8, 0), (8192, 8, 9000)], 0, replace(host, plp=True))) == {
        0: 8,
        4296: 0,
        9001: 8,
    }


def test_a_store_in_progress_at_a_snapshot_is_divided_and_its_rest_faults_again() -> None:
    host = replace(HOST, fault_ns=30, writeback_ns=100, expire_ns=50)
    outcome = run([(0, 4096, 0)], 0, host)
    # 71 words have landed at 100; the rest is due at 101 and begins after its own fault
    assert steps(outcome) == {30: 71 * 8, 131: 4096}
    assert outcome.end_ns == 131 + 512 - 71
    assert outcome.recovery_point_max_ns == outcome.end_ns - 30


def test_the_rest_of_a_divided_store_that_waits_for_its_fault_survives_another_snapshot() -> None:
    host = replace(
        HOST, fault_ns=300, writeback_ns=100, expire_ns=50, bandwidth=5_120_000_000
    )  # a page takes 800 ns
    page_9 = 9 * 4096
    outcome = run([(page_9, 8, 0), (page_9 + 8, 8, 120), (0, 4096, 0)], 0, host)
    # page 9 is under writeback 400..1200 and dirty again from 721; page 0 is taken at 1100, when
    # 79 words have landed; page 9 is taken at 1200, while the rest waits for its fault
    assert steps(outcome) == {300: 8, 721: 16, 1022: 16 + 79 * 8, 1401: 16 + 4096}
    assert outcome.end_ns == 1401 + 512 - 79
    assert outcome.bytes_written == 3 * 4096


def test_a_write_not_yet_begun_at_a_snapshot_is_planned_again() -> None:
    host = replace(HOST, fault_ns=200, writeback_ns=600, expire_ns=100)
    outcome = run([(0, 8, 0), (8, 8, 500)], 0, host)
    assert steps(outcome) == {200: 8, 901: 16}


def test_what_becomes_safe_while_a_store_is_in_progress_is_counted_at_its_instant() -> None:
    host = replace(HOST, fault_ns=0, writeback_ns=1000, expire_ns=0, plp=True)
    outcome = run([(0, 8, 0), (8192, 4096, 5000)], 0, host)
    assert steps(outcome) == {0: 8, 5001: 4104, 5096: 4096}


def test_fsync_waits_for_a_page_under_writeback_and_then_writes_it_again() -> None:
    host = replace(HOST, fault_ns=0, writeback_ns=100, expire_ns=50)
    outcome = run([(0, 8, 0), (8, 8, 149)], 2, host)
    # first batch 100..4196, second ..8292, journal ..16484, FLUSH ..17484, commit, FLUSH
    assert steps(outcome) == {0: 8, 150: 16, 17484: 0}
    assert outcome.end_ns == 22580
    assert outcome.bytes_written == 2 * 4096 + 8192 + 4096


def test_neighbouring_pages_are_one_io_of_at_most_256_pages() -> None:
    pages = [*range(300), 400, 402, 403]
    runs = simpy_model._merge(pages)
    assert [(io[0], len(io)) for io in runs] == [(0, 256), (256, 44), (400, 1), (402, 2)]


def test_ios_of_one_batch_complete_in_the_order_of_their_draws() -> None:
    outcome = run([(0, 8, 0), (5 * 4096, 16, 0)], 2, replace(HOST, plp=True))
    draw = simpy_model._draws(HOST.seed, "disk-order")
    left = 16 if draw(0) >> 32 < draw(5) >> 32 else 8
    begin_ns = 4801 + 2  # the second write's two words end here
    assert steps(outcome) == {2400: 8, 4801: 24, begin_ns + 4096: left, begin_ns + 8192: 0}


def test_the_draws_are_those_of_splitmix64() -> None:
    assert simpy_model._mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 200), st.integers(1, 99)),
            st.integers(0, 9),
        ),
        max_size=30,
    )
)
def test_the_ledger_counts_the_same_bytes_as_a_dictionary_of_bytes(
    moves: list[tuple[int, int] | int],
) -> None:
    ledger, latest, store = Ledger(), dict[int, int](), 0
    for now_ns, move in enumerate(moves):
        if isinstance(move, int):
            watermark = max(0, store - move)
            ledger.settle()
            ledger.safe(now_ns, [0, 1], watermark)
            latest = {byte: by for byte, by in latest.items() if by > watermark}
        else:
            store += 1
            offset = 4000 + move[0]
            ledger.begin(now_ns, store - 1, store, offset, move[1])
            ledger.settle()
            latest |= dict.fromkeys(range(offset, offset + move[1]), store)
        assert (ledger.values[-1] if ledger.values else 0) == len(latest)
        assert ledger.anything_unsaved() == bool(latest)
