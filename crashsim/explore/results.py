"""An exploration as it is told (`crashsim.results`, `docs/exploring.md`).

Contract: the same exploration gives the same result. Counts of states are exact, and given as text
alone where few readers of JSON take a number so long.
"""

from __future__ import annotations

from crashsim.explore.grouping import Cause
from crashsim.explore.picture import picture
from crashsim.explore.state_runner import Target
from crashsim.explore.story import Involved
from crashsim.explore.survey import EpochReport, Exploration
from crashsim.results.discovery import AtomResult, EpochResult, ExplorationResult, FindingResult
from crashsim.states import power_of_ten

SCHEMA = 2
_LARGEST = 10**300


def told(found: Exploration, target: Target) -> ExplorationResult:
    """What is told of what was found in this target."""
    return ExplorationResult(
        SCHEMA,
        found.device,
        found.host,
        found.atom_bytes,
        found.seed,
        found.states,
        *_large(found.choices),
        *_large(found.images),
        found.planned,
        found.checked,
        found.failing,
        found.timed_out,
        found.unstable,
        found.ungrouped,
        found.outcomes,
        found.reached,
        found.all_epochs,
        found.interrupted,
        found.exit_code,
        [_finding(one, target) for one in found.findings],
        [_epoch(one) for one in found.epochs],
    )


def _large(number: int) -> tuple[int | None, str]:
    return number if number < _LARGEST else None, power_of_ten(number)


def _epoch(one: EpochReport) -> EpochResult:
    return EpochResult(
        one.number,
        one.first_ns,
        one.cut_ns,
        one.acks,
        one.atoms,
        *_large(one.choices),
        *_large(one.images),
        one.planned,
        one.checked,
        one.kinds,
        one.verdicts,
        one.outcomes,
        one.unseen_share,
    )


def _finding(one: Cause, target: Target) -> FindingResult:
    return FindingResult(
        one.kind,
        one.outcome,
        one.message,
        one.states,
        one.epochs,
        list(one.story),
        one.epoch,
        one.first_ns,
        one.cut_ns,
        one.acks,
        one.ack,
        [list(pair) for pair in one.changes],
        one.minimal,
        [_atom(part) for part in one.kept],
        [_atom(part) for part in one.lost],
        one.remedy,
        f"{one.digest:x}",
        one.original,
        picture(one, target),
    )


def _atom(part: Involved) -> AtomResult:
    return AtomResult(part.offset, part.start, len(part.content), part.kept_write, part.lost_write)
