"""The verdict says what was asked for, not what was waited for, and whom the loss concerns."""

from __future__ import annotations

import re
from dataclasses import replace

from crashsim.report.standing import headline
from crashsim.report.standing import sentences as verdict
from crashsim.results import CaseResult, Spread
from tests import report_explored as explorations
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
    more = replace(lost, name="more", uncovered_acknowledgements=Spread(9, 0, 0))
    recorded = replace(lost, name="recorded", recorded=True)
    assert "up to 7 had no flush behind them." in verdict(fixtures.results(more, recorded))[-1]
    unsynced = replace(more, name="none", syncs=False)
    lines = verdict(fixtures.results(large, lost, unsynced))
    assert "would be lost" not in lines[0]  # of `none`: the headline says it
    assert "up to 7 would be lost ('lost')." in lines[1]
    assert "No acknowledged record is lost" in verdict(fixtures.results(large, unsynced))[-1]


def test_what_the_headline_says_is_not_said_again() -> None:
    """Of one case: acknowledgements, broken promises and how much was rejected."""
    lying = fixtures.lying_disk()
    assert "reported success" in headline(fixtures.results(lying))
    assert "reported success" not in " ".join(verdict(fixtures.results(lying)))
    rejected = fixtures.results(explorations.bad())
    assert "rejects 30 of 104" in headline(rejected)
    assert verdict(rejected)[0] == "What the checker rejects has 1 cause."
    nothing = fixtures.results(fixtures.case("empty", writes=0))
    assert "nothing was written" in headline(nothing)
    assert "written" not in " ".join(verdict(nothing))


def test_a_sentence_about_one_of_several_cases_quotes_its_name() -> None:
    long = fixtures.with_sync(100, name="sync=call:fdatasync+every:100 records" * 3)
    other = fixtures.without_sync()
    said = " ".join(
        [headline(fixtures.results(long, other)), *verdict(fixtures.results(long, other))]
    )
    names = re.findall(r"\('(.*?)'", said)
    assert names and all(len(name) <= 60 for name in names) and f"({other.name}" not in said
    assert other.name not in " ".join(verdict(fixtures.results(other)))


def test_the_least_loss_is_of_a_case_that_is_worth_its_price() -> None:
    """The cheapest of about the same loss, as in the table and the picture."""

    def synced(name: str, loss: int, records: int) -> CaseResult:
        return fixtures.case(name, at_risk_bytes=Spread(loss, 0, 0), acknowledged=records)

    cases = [synced("much", 10**6, 900), synced("cheap", 1000, 500), synced("dear", 990, 400)]
    (line,) = verdict(fixtures.results(*cases))
    assert "The least loss that is worth its price is 1000 B ('cheap'" in line
    assert "dear" not in line


def test_causes_that_are_all_known_are_called_that() -> None:
    def first(*known: str) -> str:
        found = [explorations.finding(known=why) for why in known]
        document = explorations.exploration(explorations.epoch(0, 8, 8, 8), findings=found)
        case = replace(explorations.bad(), exploration=document)
        return verdict(fixtures.results(case))[0]

    assert first("so it is") == "What the checker rejects has 1 known cause."
    assert first("so it is", "") == "What the checker rejects has 2 causes, 1 of them known."
