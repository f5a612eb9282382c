"""The schedule of a broken promise, in words and as a picture."""

from __future__ import annotations

import io
from dataclasses import replace

from crashsim.report.html import html_report
from crashsim.report.moments import first_schedule, moments
from crashsim.report.plots import draw
from crashsim.report.terminal import print_results
from crashsim.results import Schedule, ScheduleSpan
from tests import report_fixtures as fixtures

REUSED = Schedule(
    "pmem0",
    7,
    1_000,
    2_000,
    [
        ScheduleSpan("store", "write 7, 8 B at offset 4096", 500, 2_000),
        ScheduleSpan("flush", "vCPU 0", 100, 1_000),
        ScheduleSpan("flush", "vCPU 1", 501, 1_000),
        ScheduleSpan("call", "for vCPU 0", 100, 1_000),
        ScheduleSpan("writeback", "before this write", 100, 200),
        ScheduleSpan("disk-flush", "", 200, 1_000),
    ],
)


def test_what_happened_is_told_in_order_from_the_first_instant_on() -> None:
    assert [(moment.at, moment.what) for moment in moments(REUSED)] == [
        ("+0 ns", "vCPU 0 submits a flush"),
        ("+0 ns", "the host call for vCPU 0 begins"),
        ("+0 ns", "the host writes pages back, before this write"),
        ("+100 ns", "the disk has these pages"),
        ("+100 ns", "the disk begins a FLUSH"),
        ("+400 ns", "write 7, 8 B at offset 4096, is stored"),
        ("+401 ns", "vCPU 1 submits a flush"),
        ("+900 ns", "the FLUSH ends"),
        ("+900 ns", "the host call for vCPU 0 returns"),
        ("+900 ns", "the flush of vCPU 0 is acknowledged with success"),
        ("+900 ns", "the flush of vCPU 1 is acknowledged with success"),
        ("+1.9 µs", "write 7 is durable"),
    ]


def test_only_the_flush_asked_for_after_the_store_breaks_a_promise() -> None:
    broken = [moment.what for moment in moments(REUSED) if moment.broken]
    assert broken == ["the flush of vCPU 1 is acknowledged with success"]


def test_what_takes_no_time_ends_after_it_began() -> None:
    spans = [ScheduleSpan("flush", "vCPU 0", 9, 9), ScheduleSpan("call", "for vCPU 0", 9, 9)]
    told = [moment.what for moment in moments(replace(REUSED, spans=spans))]
    assert told == [
        "vCPU 0 submits a flush",
        "the host call for vCPU 0 begins",
        "the host call for vCPU 0 returns",
        "the flush of vCPU 0 is acknowledged with success",
    ]


def test_a_write_that_is_never_durable_is_told_last() -> None:
    last = moments(fixtures.never_durable())[-1]
    assert (last.at, last.what) == ("never", "write 0 is durable")


def test_a_failed_writeback_is_not_told_as_arrived() -> None:
    failed = ScheduleSpan("writeback", "with this write's page, failed", 600, 700)
    told = [moment.what for moment in moments(replace(REUSED, spans=[failed]))]
    assert told[-1] == "this writeback fails"


def test_a_flush_that_failed_made_no_promise() -> None:
    failed = ScheduleSpan("flush", "vCPU 1, failed", 600, 700)
    told = moments(replace(REUSED, spans=[REUSED.spans[0], failed]))
    assert "the flush of vCPU 1 fails: the guest is told once" in [m.what for m in told]
    assert not any(moment.broken for moment in told)


def test_terminal_and_page_tell_the_schedule_and_a_picture_shows_it() -> None:
    results = fixtures.results(fixtures.with_sync(), fixtures.lying_disk())
    stream = io.StringIO()
    print_results(results, stream)
    said = stream.getvalue()
    assert "How a promise was broken: disk=ignores-flush, from 100ms on" in said
    assert "+1.01 ms  the flush of vCPU 0 is acknowledged with success, but write 0 is not" in said
    plots = draw(results)
    assert plots[1].name == "schedule"
    assert "but write 0 is not durable" in html_report(results, plots, "crashsim run x.yaml")


def test_where_every_promise_is_kept_there_is_none() -> None:
    results = fixtures.story()
    assert first_schedule(results.cases) is None
    stream = io.StringIO()
    print_results(results, stream)
    assert "promise was broken" not in stream.getvalue()
