"""What is told of an epoch's writes in a finding's state is true of its image, and bounded."""

from __future__ import annotations

import random
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest

from crashsim.checkers import Acks
from crashsim.explore.budget import Budget
from crashsim.explore.picture import MOST_ROWS, MOST_RUNS, picture
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.survey import explore
from tests.explore_support import Flush, Item, Judge, Mark, Write, target

SECTOR = 512


def log(records: int, sectors: int = 1) -> list[Item]:
    """A log of records of so many sectors, one behind the other, each byte its number."""
    size = sectors * SECTOR
    return [Write(size * n, bytes([n % 250 + 1]) * size) for n in range(records)]


def needs(later: int, earlier: int) -> Judge:
    """A sector that must not be there without another."""

    def judge(image: memoryview, acks: Acks) -> str:
        return "hole" if image[later * SECTOR] and not image[earlier * SECTOR] else ""

    return judge


def pictures(one: Target, states: int = 400) -> list[dict[str, Any]]:
    return [asdict(picture(finding, one)) for finding in explore(one, Budget(states), 1).findings]


def test_few_writes_have_a_row_each_in_the_order_of_time() -> None:
    (found,) = pictures(target(log(9), needs(7, 2)))
    assert found["writes"] == 9
    assert [row["first"] for row in found["rows"]] == list(range(9))
    assert [row["first"] for row in found["rows"] if row["taken"]] == [2, 7]
    by_write = {row["first"]: row for row in found["rows"]}
    assert by_write[7]["kept"] == by_write[2]["lost"] == 1
    assert by_write[2]["runs"] == [[2 * SECTOR, SECTOR, 0]]
    assert by_write[7]["runs"] == [[7 * SECTOR, SECTOR, SECTOR]]
    assert found["acknowledgement"] is None


def test_of_thousands_of_writes_those_of_the_finding_and_their_neighbours_are_told() -> None:
    (found,) = pictures(target(log(3000), needs(2000, 1000), pages=400), 60)
    rows = found["rows"]
    assert len(rows) <= MOST_ROWS and found["writes"] == 3000
    assert sum(row["kept"] + row["lost"] + row["torn"] for row in rows) == 3000
    alone = [row["first"] for row in rows if "runs" in row]
    assert alone == [0, *range(998, 1003), *range(1998, 2003), 2999]
    ends = [(row["first"], row["last"]) for row in rows]
    assert [b[0] - a[1] for a, b in pairwise(ends)] == [1] * (len(rows) - 1)


def test_a_torn_write_is_told_in_runs_of_its_parts() -> None:
    def torn(image: memoryview, acks: Acks) -> str:
        return "torn" if image[0] and not image[3 * SECTOR] else ""

    (found,) = pictures(target(log(2, sectors=4), torn))
    row = found["rows"][0]
    assert (row["kept"], row["lost"], row["torn"]) == (0, 0, 1)
    assert row["length"] == 4 * SECTOR
    assert row["runs"] == [[0, 3 * SECTOR, 3 * SECTOR], [3 * SECTOR, SECTOR, 0]]


def test_a_write_in_many_pieces_is_told_in_a_bounded_number_of_runs() -> None:
    """Every second sector of a large write is there."""

    def comb(image: memoryview, acks: Acks) -> str:
        there = [bool(image[SECTOR * n]) for n in range(100)]
        return "comb" if there == [n % 2 == 0 for n in range(100)] else ""

    one = target([Write(0, b"x" * 100 * SECTOR)], comb)
    (found,) = pictures(one)  # a plan with all pairs has this state
    (row,) = found["rows"]
    assert row["torn"] == 1 and len(row["runs"]) <= MOST_RUNS
    assert sum(run[1] for run in row["runs"]) == 100 * SECTOR
    assert sum(run[2] for run in row["runs"]) == 50 * SECTOR


def test_the_acknowledgement_stands_between_what_was_written_before_and_after_it() -> None:
    def lost(image: memoryview, acks: Acks) -> str:
        return "lost" if acks.count and not image[0] else ""

    items = log(6)
    (found,) = pictures(target([*items[:2], Mark("two"), *items[2:]], lost))
    ack = found["acknowledgement"]
    assert (ack["label"], ack["behind"]) == ("two", 2)


def test_what_is_guaranteed_is_not_told() -> None:
    items = log(8)
    (found,) = pictures(target([*items[:5], Flush(), *items[5:]], needs(7, 6)))
    assert [row["first"] for row in found["rows"]] == [5, 6, 7]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_as_kept_is_in_the_image_and_what_is_told_as_lost_is_not(seed: int) -> None:
    drawn = random.Random(seed)
    writes = [
        Write(64 * drawn.randrange(200), bytes([n + 1]) * 64 * drawn.randint(1, 40))
        for n in range(12)
    ]
    early = drawn.randrange(11)  # what is written last is seen at the end

    def judge(image: memoryview, acks: Acks) -> str:
        there = set(image)
        return "odd" if early + 1 in there and 12 not in there else ""

    one = target(writes, judge)
    for finding in explore(one, Budget(300), seed).findings:
        told = asdict(picture(finding, one))
        with StateRunner(one) as runner:
            runner.enter(finding.epoch)
            image = bytes(runner.lay(finding.choices))
        covered: set[int] = set()
        for row in reversed(told["rows"]):  # the newest that was kept is what is seen
            for offset, length, kept in row["runs"]:
                mine = set(range(offset, offset + length)) - covered
                if kept == length:
                    assert {image[at] for at in mine} <= {row["first"] + 1}
                    covered |= mine
                elif kept == 0:
                    assert row["first"] + 1 not in {image[at] for at in mine}
