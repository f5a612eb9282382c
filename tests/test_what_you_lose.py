"""docs/what-you-lose.md is what the experiments give now."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from crashsim.errors import UsageError
from crashsim.results import CaseResult, Spread
from tests import report_fixtures as fixtures
from tools import what_you_lose
from tools.rule_table import ROOT, TITLES
from tools.what_you_lose import SECTIONS, Row, Section, fresh_page, page

PAGE = ROOT / "docs" / "what-you-lose.md"

ROWS = [row for section in SECTIONS for row in section.rows]
ONE = Row("a device", "V2", "some", "case")


def page_of(case: CaseResult) -> list[str]:
    """The cells of the only line."""
    section = Section("## Title\n\nText.\n\n", ("power-cut",), (ONE,))
    line = page([section], lambda row: case).strip().splitlines()[-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


def lossy(records: int, size_bytes: int) -> CaseResult:
    return fixtures.case(
        domains={"power-cut": Spread(size_bytes, 0, 0)},
        uncovered_by_domain={"power-cut": Spread(records, 0, 0)},
        acknowledged=1000,
        flushes=1000,
    )


def test_the_page_is_what_the_experiments_give_now() -> None:
    assert fresh_page() == PAGE.read_text(encoding="utf-8"), "make docs"


def test_a_cell_tells_acknowledged_loss_from_work_in_progress_and_from_nothing() -> None:
    assert page_of(lossy(0, 0))[1] == "nothing"
    assert page_of(lossy(0, 256))[1] == "256 B"
    assert page_of(lossy(1000, 1024))[1] == "**1,000 of 1,000**, 1 KiB"


def test_a_line_says_what_the_guest_was_told_and_links_the_experiment() -> None:
    label, _, oldest, told, broken, rule, link = page_of(lossy(0, 0))
    assert (label, oldest, told, broken, rule) == (
        "a device",
        "nothing",
        "1,000 flushes succeeded",
        "0",
        "V2",
    )
    assert link == "[some](../experiments/some.yaml)"
    failing = replace(lossy(0, 0), failed_syncs=1, broken_promises=3)
    assert page_of(failing)[3:5] == ["1 of 1,000 flushes failed", "**3**"]
    assert page_of(replace(failing, flushes=0))[3] == "no flush was asked for"


def test_every_rule_of_the_page_is_one() -> None:
    named = {rule for row in ROWS for rule in row.rules.split(", ")}
    assert named
    assert named <= set(TITLES)


def test_the_honest_line_comes_first() -> None:
    text = PAGE.read_text(encoding="utf-8")
    tables = re.findall(r"^\| ---.*\n(\|.*)$", text, re.MULTILINE)
    assert len(tables) == len(SECTIONS)
    honest = [line for line in tables if "**" not in line]
    # Without a sync, or migrated, nothing is honest.
    assert len(honest) == len(SECTIONS) - 2


def test_no_line_is_said_twice() -> None:
    assert len({(row.experiment, row.case) for row in ROWS}) == len(ROWS)


def test_outside_of_a_checkout_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_you_lose, "EXPERIMENTS", tmp_path)
    with pytest.raises(UsageError, match="run this in a checkout"):
        fresh_page()


def test_a_case_that_is_gone_is_told_with_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = replace(ROWS[0], case="vmm=none")
    section = replace(SECTIONS[0], rows=(row,))
    monkeypatch.setattr(what_you_lose, "SECTIONS", (section,))
    with pytest.raises(UsageError, match="no case 'vmm=none'; there are vmm=qemu,kind=file,"):
        fresh_page()
