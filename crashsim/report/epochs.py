"""What the page shows of each exploration: coverage by epoch, outcomes, and findings.

Contract: nothing here is escaped, the template does that. Of very many epochs those in which
something was rejected and those that were covered least are shown, and how many are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crashsim.printable import printable
from crashsim.report.causes import (
    TELLING,
    bad_outcomes,
    coverage,
    headline,
    percent,
    pictured,
    rejected,
    replay_command,
    seen_in,
    states_text,
    title,
    told_findings,
    verdict,
)
from crashsim.report.words import count, not_held, worst_first
from crashsim.results import CaseResult, Results
from crashsim.results.discovery import EpochResult, ExplorationResult, FindingResult

OVERVIEW = ("states", "outcomes")  # plots of all cases
MOST_CASES = 40
MOST_EPOCHS = 200
OPEN_EPOCHS = 24  # a longer table is folded up
MOST_OUTCOMES = 50


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One line of the table of epochs; times ns."""

    number: int
    first_ns: int
    cut_ns: int
    acks: str
    atoms: str
    images: str
    checked: str
    share: str
    plans: str
    rejected: int
    unseen: str


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One line of the table of outcomes."""

    name: str
    states: str
    share: str
    bad: bool


@dataclass(frozen=True, slots=True)
class FindingPart:
    """One finding; `svg` is empty when it is not drawn."""

    title: str
    seen: str
    story: list[str]
    message: list[str]
    command: str
    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """One case's exploration. `not_held`: of a recording what is missing in its pictures."""

    name: str
    not_held: str
    lines: list[str]
    failing: bool
    outcomes: list[OutcomeRow]
    epochs: list[EpochRow]
    all_epochs: int
    findings: list[FindingPart]


def is_shown(plot: str) -> bool:
    """Whether a plot of that name belongs to this part of the page."""
    return plot in OVERVIEW or plot.startswith("finding-")


def sections(results: Results, drawn: Mapping[str, str]) -> list[Section]:
    """Of each case that was explored, the worst first; `drawn`: name of a plot -> its SVG."""
    places = {
        (case.name, place): drawn.get(f"finding-{number}", "")
        for number, (case, place) in enumerate(pictured(results.cases), start=1)
    }
    cases = [case for case in worst_first(results.cases) if case.exploration]
    return [_section(case, places) for case in cases[:MOST_CASES]]


def _section(case: CaseResult, places: Mapping[tuple[str, int], str]) -> Section:
    one = case.exploration
    assert one is not None, "asked for those that were explored"
    return Section(
        printable(case.name),
        f" {not_held([case])}" if case.recorded else "",
        [f"{text}." for text in (headline(one), _sentence(verdict(one)), _sentence(coverage(one)))],
        bool(one.failing),
        _outcomes(one),
        [_epoch(epoch) for epoch in _shown(one.epochs)],
        len(one.epochs),
        [
            _finding(finding, file, places.get((case.name, place), ""))
            for place, (finding, file) in enumerate(told_findings(case))
        ],
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _finding(finding: FindingResult, file: str, svg: str) -> FindingPart:
    return FindingPart(
        title(finding),
        seen_in(finding),
        [printable(line) for line in finding.story],
        [printable(line) for line in finding.message.splitlines()],
        printable(replay_command(file)) if file else "",
        svg,
    )


def _outcomes(one: ExplorationResult) -> list[OutcomeRow]:
    bad, total = bad_outcomes(one), max(1, one.checked)
    return [
        OutcomeRow(printable(name), count(states), percent(states, total), name in bad)
        for name, states in list(one.outcomes.items())[:MOST_OUTCOMES]
    ]


def _shown(epochs: list[EpochResult]) -> list[EpochResult]:
    if len(epochs) <= MOST_EPOCHS:
        return epochs
    worst = sorted(epochs, key=lambda one: (-rejected(one), -one.unseen_share, one.number))
    return sorted(worst[:MOST_EPOCHS], key=lambda one: one.number)


def _epoch(one: EpochResult) -> EpochRow:
    images = states_text(one.images, one.images_text).rpartition(" ")[0]
    return EpochRow(
        one.number + 1,
        one.first_ns,
        one.cut_ns,
        count(one.acks),
        count(one.atoms),
        images,
        count(one.checked),
        "under 0.01 %" if one.images is None else percent(one.checked, one.images),
        ", ".join(f"{kind} {number:,}" for kind, number in one.kinds.items()),
        rejected(one),
        "" if rejected(one) else _unseen(one.unseen_share),
    )


def _unseen(share: float) -> str:
    if share == 0:
        return "none"
    return f"{100 * share:.2g} %" if share <= TELLING else "unknown"
