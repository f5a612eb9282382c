"""The head of the page says what the results say: what is lost, what it costs not to, to which
failure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crashsim.engine.units import format_bytes, format_duration
from crashsim.report import grids, standing
from crashsim.report.grids import Grid
from crashsim.report.html import html_report
from crashsim.report.plots import draw
from crashsim.results import CaseResult, Spread
from tests import report_explored as explorations
from tests import report_fixtures as fixtures
from tests.test_report_html import Reader


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def cells(table: Grid, row: int) -> dict[str, str]:
    return {cell.heading: plain(cell.text) for cell in table.rows[row].cells}


def test_one_case_is_answered_by_what_it_loses_and_what_it_pays() -> None:
    case = replace(
        fixtures.with_sync(100, "log"), uncovered_acknowledgements=Spread(7, 0, 0), end_ns=10**10
    )
    table = grids.answer([case])
    assert [title for title, _ in table.groups] == [
        "What do I lose?",
        "What does it cost not to?",
    ]
    assert sum(span for _, span in table.groups) == len(table.headings) == len(table.rows[0].cells)
    assert [row.name for row in table.rows] == ["log"]
    assert cells(table, 0) == {
        "at worst": format_bytes(case.at_risk_bytes.max),
        "acknowledged records": "7",
        "work up to": format_duration(case.recovery_point_ns.max),
        "records/s": f"{case.acknowledged // 10:,}",
        "waiting": format_duration(case.guest_wait_ns),
        "flushes": f"{case.flushes:,}",
    }
    assert [cell.heading for cell in table.rows[0].cells if cell.bad] == ["acknowledged records"]
    assert not table.rest


def test_of_many_cases_those_worth_their_price_are_told_the_cheapest_first_and_the_worst() -> None:
    cases = fixtures.sweep_of_twenty().cases
    table = grids.answer(cases)
    worth = [case for case, is_worth in zip(cases, standing.best(cases), strict=True) if is_worth]
    worst = max(cases, key=lambda case: case.uncovered_acknowledgements.max)
    told = {row["at worst"] for row in (cells(table, k) for k in range(len(table.rows)))}
    assert {format_bytes(case.at_risk_bytes.max) for case in worth} <= told
    assert format_bytes(worst.at_risk_bytes.max) in told
    rates = [float(cells(table, k)["records/s"].replace(",", "")) for k in range(len(table.rows))]
    assert rates == sorted(rates, reverse=True)
    assert "other cases below" in table.rest


def test_cases_of_one_price_and_about_the_same_loss_share_a_row_with_both_figures() -> None:
    first = fixtures.case("d=a", at_risk_bytes=Spread(10_000, 0, 0))
    other = replace(first, name="d=b", at_risk_bytes=Spread(10_200, 0, 0))
    table = grids.answer([first, other])
    assert [row.name for row in table.rows] == ["d=a / b"]
    assert cells(table, 0)["at worst"] == "9.77 KiB to 9.96 KiB"


def test_what_a_checker_rejected_is_part_of_what_is_lost() -> None:
    table = grids.answer([explorations.bad(), explorations.clean()])
    found = [explorations.bad().exploration, explorations.clean().exploration]
    rejected = sorted({one.failing for one in found if one})
    told = " to ".join(f"{number:,}" for number in rejected)
    assert told in {cells(table, k)["states rejected"] for k in range(len(table.rows))} or {
        cells(table, k)["states rejected"] for k in range(len(table.rows))
    } == {f"{number:,}" for number in rejected}


def by_failure(name: str, **taken: int) -> CaseResult:
    domains = {key.replace("_", "-"): Spread(value, 0, 0) for key, value in taken.items()}
    return fixtures.case(name, domains=domains)


def test_failures_and_cases_are_one_table_that_is_darker_the_more_is_lost() -> None:
    table = grids.failures(
        [
            by_failure("s=a,d=x", guest_crash=0, host_crash=100, power_cut=1_000_000),
            by_failure("s=a,d=y", guest_crash=0, host_crash=100, power_cut=1_000_000),
            by_failure("s=b,d=x", guest_crash=0, host_crash=100, power_cut=10_000),
        ]
    )
    assert table is not None
    assert [row.name for row in table.rows] == ["a, x / y", "b, x"]
    assert cells(table, 1) == {
        "guest-crash": "0",
        "host-crash": "100 B",
        "power-cut": format_bytes(10_000),
    }
    shades = [[cell.shade for cell in row.cells] for row in table.rows]
    assert shades == [[0, 1, 5], [0, 1, 3]]


def test_failures_that_take_the_same_share_a_column_and_one_alone_is_no_table() -> None:
    table = grids.failures([by_failure("a", guest_crash=0, vmm_kill=0, power_cut=1)])
    assert table is not None
    assert table.headings == ["guest-crash, vmm-kill", "power-cut"]
    assert grids.failures([by_failure("a", power_cut=1)]) is None


@pytest.mark.parametrize(
    ("cases", "leading"),
    [
        (fixtures.story().cases, "Loss against price"),
        ([explorations.bad()], "What became of the states"),
        ([fixtures.without_sync()], "What a power cut would take, instant by instant"),
    ],
    ids=["several", "explored", "one"],
)
def test_the_answer_stands_before_the_table_of_cases_beside_one_picture(
    cases: list[CaseResult], leading: str
) -> None:
    results = fixtures.results(*cases)
    text = Reader(html_report(results, draw(results), "crashsim run x.yaml")).text
    head = text[: text.index(" Cases ")]
    assert "What do I lose?" in head
    assert "What does it cost not to?" in head
    assert text.count(f"{leading}.") == 1
    assert f"{leading}." in head


def test_on_a_narrow_screen_each_figure_has_its_heading_beside_it() -> None:
    results = fixtures.story()
    reader = Reader(html_report(results, [], "crashsim run x.yaml"))
    labels = [value for name, value in reader.attributes if name == "data-label"]
    for heading in ("at worst", "records/s", "at risk worst", "flushes", "host-crash, power-cut"):
        assert heading in labels
    assert "content: attr(data-label)" in html_report(results, [], "x")
