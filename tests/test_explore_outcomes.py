"""What a state is called and counted by, whatever its checker says."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.spec import Command, Function
from crashsim.explore.budget import Budget
from crashsim.explore.outcomes import normal, outcome_of
from crashsim.explore.survey import explore
from tests.explore_support import Flush, Item, Judged, Mark, Write, target

IMAGE = memoryview(bytes(4096))


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("exit code 1\nchecking\nrow 12 at 0x7f3a is lost\n", "row N at N is lost"),
        ("exit code 3", "exit code N"),
        ("3 rows of 100 lost\ncheck.py:12, check", "N rows of N lost"),
        ("assert image[0] == 49\ncheck.py:12, check", "assertion failed at check.py:N, check"),
        ("", ""),
    ],
)
def test_what_a_checker_says_last_is_the_outcome_without_what_varies(
    message: str, outcome: str
) -> None:
    assert outcome_of(Verdict("finding", "", message)) == outcome


def test_an_outcome_that_the_checker_gives_is_its_own_and_ok_needs_none() -> None:
    assert outcome_of(Verdict("finding", "lost 3", "whatever")) == "lost 3"
    assert outcome_of(Verdict("ok", "", "7 rows")) == outcome_of(Verdict("hang", "", "slow")) == ""
    assert normal("page 12 of 0xdeadbeef at 1,024") == "page N of N at N"


def test_the_text_of_a_bare_assertion_is_no_outcome(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(
        "def bare(image, acks):\n    assert image[0] == 49\n"
        "def told(image, acks):\n    assert image[0] == 49, f'byte {image[0]} is wrong'\n"
    )
    outcomes = {"bare": "assertion failed at check.py:N, bare", "told": "byte N is wrong"}
    for name, outcome in outcomes.items():
        checker = Function(f"check.py:{name}", folder=tmp_path).checker()
        assert outcome_of(checker.check(IMAGE, Acks())) == outcome
        checker.close()


def test_a_program_is_quoted_with_its_last_line(tmp_path: Path) -> None:
    checker = Command(
        "sh -c 'echo opening; echo 5 rows are gone >&2; exit 1'", folder=tmp_path
    ).checker()
    assert outcome_of(checker.check(IMAGE, Acks())) == "N rows are gone"
    checker.close()


def test_corruptions_of_one_kind_are_one_finding_whatever_their_numbers() -> None:
    """Four pages, each written in two halves that nobody keeps together."""
    items: list[Item] = [Write(4096 * n, bytes([n + 1]) * 1024) for n in range(4)]

    class Numbered(Judged):
        def check(self, image: memoryview, acks: Acks, changed: object = None) -> Verdict:
            torn = [n for n in range(4) if image[4096 * n] != image[4096 * n + 1023]]
            told = f"page {torn[0]} is damaged" if torn else ""
            return Verdict("finding", "", f"exit code 1\n{told}") if torn else Verdict("ok")

    one = target(items, lambda image, acks: "")
    one = type(one)(one.history, one.device, one.space, lambda: Numbered(lambda i, a: ""))
    found = explore(one, Budget(1000), 1)
    assert [finding.outcome for finding in found.findings] == ["page N is damaged"]
    assert found.findings[0].states == found.result.failing == 256 - 2**4
    assert set(found.result.outcomes) == {"ok", "page N is damaged"}


def test_states_that_one_flush_would_forbid_are_one_finding() -> None:
    """Records of several kinds, none flushed before it is acknowledged."""
    sizes = [512, 1024, 1536, 512, 2048, 1024]
    items: list[Item] = []
    for n, size in enumerate(sizes):
        items += [Write(4096 * n, bytes([n + 1]) * size), Mark(f"record {n}")]

    def judge(image: memoryview, acks: Acks) -> str:
        lost = [n for n in range(acks.count) if image[4096 * n] != n + 1]
        return "lost acknowledged record" if lost else ""

    found = explore(target([*items, Flush()], judge), Budget(3000), 1)
    (finding,) = found.findings
    assert finding.states == found.result.failing > 100 and found.result.ungrouped == 0
    assert finding.remedy.why == "flush-before-acknowledgement"


def test_two_missing_flushes_are_two_findings_of_one_outcome() -> None:
    """The second pair is written when a flush has made the first safe."""
    first: list[Item] = [Write(0, b"1" * 512), Write(4096, b"2" * 1024)]
    second: list[Item] = [Write(8192, b"3" * 1536), Write(12288, b"4" * 2048)]

    def judge(image: memoryview, acks: Acks) -> str:
        early = (image[4096] and not image[0]) or (image[12288] and not image[8192])
        return "out of order" if early else ""

    found = explore(target([*first, Flush(), *second], judge), Budget(3000), 1)
    assert [finding.remedy.after for finding in found.findings] == [0, 2]
    assert sum(finding.states for finding in found.findings) == found.result.failing


def test_what_is_torn_in_one_place_is_one_finding_whatever_was_written_with_it() -> None:
    """A header of two sectors, written alone, then with what is behind it."""
    first, second = Write(0, b"1" * 1024), Write(0, b"2" * 1024 + b"x" * 3072)
    items: list[Item] = [first, Flush(), second, Flush()]
    judge = lambda image, acks: "torn header" if image[0] != image[512] else ""  # noqa: E731
    found = explore(target(items, judge), Budget(1000), 1)
    (finding,) = found.findings
    assert (finding.remedy.why, finding.epochs, finding.states) == ("torn", 2, found.result.failing)
