"""Where a sync is missing and which are redundant: programs of which the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from crashsim.advise import missing_syncs as advise_syncs
from crashsim.advise.evidence import Trials, toll
from crashsim.advise.missing_syncs import (
    Places,
    Spare,
    before_marks,
    ranges,
    redundant,
)
from crashsim.engine.streams import I64
from crashsim.experiment.loader import Case, plan
from crashsim.guest.program import Op, Program
from crashsim.runs.one import Run

LOG = """
device: {size: 1MiB}
workload: {kind: append-log, records: 60, rate: 2000/s}
sync: {call: fdatasync}
guest: {file_system: none}
"""
WAL = """
device: {size: 1MiB}
workload: {kind: write-ahead-log, records: 40, table_size: 64KiB, checkpoint_every: 10}
sync: {call: fdatasync}
guest: {file_system: none}
"""
BUFFER = """
device: {size: 1MiB}
workload: {kind: double-buffer, records: 3, body_size: 8KiB}
sync: {call: fdatasync}
guest: {file_system: none}
"""


def of(text: str) -> Run:
    return Run(plan(text, "x.yaml").cases[0])


def doing(run: Run, *programs: Program) -> Run:
    return Run(run.case, inputs=replace(run.inputs, programs=[*programs]))


def operations(program: Program, *which: tuple[int, Op, int]) -> Program:
    """The program with other operations: position, kind, argument."""
    at, kind, argument = (np.array(column, dtype=np.int64) for column in zip(*which, strict=True))
    return replace(
        program, op_at=at, op_kind=kind, op_argument=argument, op_delay_ns=np.zeros_like(at)
    )


def syncs_at(program: Program, positions: Sequence[int] | I64) -> Program:
    return operations(program, *[(int(at), Op.SYNC, 0) for at in positions])


def removals(run: Run) -> tuple[Spare | None, Spare | None]:
    idle, ordering = redundant(Trials(), run)
    return idle, None if ordering is None else ordering[0]


# --- missing ------------------------------------------------------------------------------------


def test_numbers_are_told_as_ranges() -> None:
    assert ranges([7]) == "7"
    assert ranges([2, 1, 5, 1]) == "1-2, 5"
    assert ranges([1, 3, 5, 7, 9]) == "1, 3, 5, 7, 9"
    assert ranges(range(0, 12, 2)) == "0, 2, 4, ... 10"


def marked(*which: tuple[int, Op, int]) -> Run:
    """A recording of three writes."""
    run = of(LOG.replace("records: 60", "records: 3"))
    (program,) = run.inputs.programs
    none = program.record_low[:0]
    program = replace(program, record_low=none, record_high=none, labels=("one", "two", "three"))
    return doing(run, operations(program, *which))


def test_of_a_recording_that_forgot_one_flush_exactly_that_is_found() -> None:
    run = marked(
        (1, Op.FLUSH, 1), (1, Op.MARK, 0), (2, Op.MARK, 1), (3, Op.FLUSH, 1), (3, Op.MARK, 2)
    )
    found = before_marks(Trials(), run)
    assert found is not None
    assert found[0] == Places((1,), "after write 1 (before the mark 'two')")
    after = toll(found[1])
    assert after.safe and after.flushes == 3


# --- redundant ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Op.SYNC, Op.FLUSH])
def test_of_a_program_with_one_redundant_sync_exactly_that_is_found(kind: Op) -> None:
    run = of(LOG)
    (program,) = run.inputs.programs
    syncs = [(int(at), Op.SYNC, 0) for at in program.op_at]
    twice = operations(program, *syncs[:18], (18, kind, 1), *syncs[18:])
    idle, ordering = removals(doing(run, twice))
    assert idle is not None and ordering is None
    assert idle.places == Places((17,), "after write 17 (record 17)")
    assert idle.before == toll(doing(run, twice))
    assert idle.after == toll(run)
    assert idle.after.flushes == idle.before.flushes - 1


def test_no_sync_that_acknowledges_a_record_is_redundant() -> None:
    for text in (LOG, LOG.replace("fdatasync", "fdatasync, every: 7 records")):
        assert removals(of(text)) == (None, None)


def test_a_barrier_directly_behind_a_sync_is_redundant_and_one_of_its_own_orders_writes() -> None:
    run = of(WAL)
    (program,) = run.inputs.programs
    idle, ordering = removals(run)
    assert idle is not None and ordering is not None
    assert idle.places.words == "after the last write of 4 of 40 records: 9, 19, 29, 39"
    barriers = np.diff(program.record_low) > 1  # a table is written between two records
    last = np.append(program.record_low[1:][barriers], program.offset.size) - 1
    assert ordering.places.after_writes == tuple(last.tolist())
    assert ordering.before == idle.after
    assert idle.after.flushes == idle.before.flushes - 4 == ordering.after.flushes + 4
    assert ordering.after.safe and ordering.after.acknowledged == 40


def test_the_barrier_between_body_and_header_only_orders_them() -> None:
    idle, ordering = removals(of(BUFFER))
    assert idle is None and ordering is not None
    assert ordering.places == Places((0, 2, 4), "after write 0, after write 2, after write 4")


def test_a_recordings_last_flush_before_a_mark_is_needed_and_those_before_order_writes() -> None:
    run = marked(
        (1, Op.FLUSH, 1), (2, Op.FLUSH, 1), (2, Op.MARK, 0), (3, Op.FLUSH, 1), (3, Op.MARK, 1)
    )
    idle, ordering = removals(run)
    assert idle is None and ordering is not None
    assert ordering.places == Places((0,), "after write 0")


def test_of_a_recording_that_acknowledges_nothing_no_flush_is_called_redundant() -> None:
    run = marked((1, Op.FLUSH, 1), (2, Op.FLUSH, 1), (3, Op.FLUSH, 1))
    assert removals(run) == (None, None)


def test_a_mark_between_two_flushes_makes_the_second_one_needed() -> None:
    run = marked(
        (3, Op.FLUSH, 1), (3, Op.MARK, 0), (3, Op.FLUSH, 1), (3, Op.MARK, 1), (3, Op.FLUSH, 1)
    )
    assert removals(run) == (None, None)


def test_a_sync_that_seems_redundant_stays_if_the_run_without_it_loses_more() -> None:
    run = with_a_failing_sync()
    idle, _ = removals(run)
    assert (run.history.flush_result != 0).nonzero()[0].tolist() == [6]
    assert idle is not None
    assert idle.places.after_writes == (10,)
    assert idle.after.acknowledged == idle.before.acknowledged == 60


def test_what_is_not_settled_within_the_bound_on_runs_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advise_syncs, "MOST_REMOVALS", 2)
    # The third run would find one.
    assert removals(with_a_failing_sync())[0] is None


def with_a_failing_sync() -> Run:
    """Two idle syncs, of which the first fails: the one of a record would, if it were not there."""
    run = of(LOG)
    (program,) = run.inputs.programs
    twice = doing(run, syncs_at(program, np.sort(np.append(program.op_at, [6, 11]))))
    errors = (int(twice.history.flush_ack_ns[6]),)
    host = run.experiment.host.model_copy(update={"fsync_errors": errors})
    failing = run.experiment.model_copy(update={"host": host})
    return Run(Case("failing", failing, {}), inputs=twice.inputs)


def test_nothing_is_said_to_order_writes_while_acknowledgements_are_lost() -> None:
    text = WAL.replace("records: 40", "records: 40, acknowledge: before-sync")
    idle, ordering = removals(of(text))
    assert not toll(of(text)).safe
    assert idle is not None and ordering is None
