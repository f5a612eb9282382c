"""The verdict says what was asked for, not what was waited for, and whom the loss concerns."""

from __future__ import annotations

from dataclasses import replace

from crashsim.report.verdict import sentences as verdict
from crashsim.results import Spread
from tests import report_fixtures as fixtures


def test_a_sync_that_returns_at_once_is_a_sync_all_the_same() -> None:
    at_once = replace(fixtures.lying_disk(), guest_wait_ns=0)
    assert verdict(fixtures.results(at_once))[-1].startswith("With syncs, ")


def test_a_writer_that_is_slowed_down_has_not_synced() -> None:
    slowed = replace(fixtures.without_sync(), guest_wait_ns=3_000_000_000)
    line = verdict(fixtures.results(slowed))[-1]
    assert line.startswith("Without a sync, ")
    assert "The price: 3 s of waiting, 2,000 records acknowledged a second." in line


def test_acknowledged_records_are_counted_where_most_are_lost() -> None:
    large = fixtures.case("large", at_risk_bytes=Spread(9000, 0, 0))
    lost = fixtures.case(
        "lost",
        at_risk_bytes=Spread(8000, 0, 0),
        uncovered_acknowledgements=Spread(7, 0, 0),
    )
    assert "up to 7 would be lost (lost)." in verdict(fixtures.results(large, lost))[-1]
    assert "No acknowledged record is lost" in verdict(fixtures.results(large))[-1]
