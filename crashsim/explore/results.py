"""An exploration as plain data for programs: the content of `exploration.json` (documented in
`docs/exploring.md`).

Contract: everything is an object, array, string, boolean or number of JSON. Counts of states are
exact integers, however long; `..._text` says the same for people. The same exploration gives the
same bytes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from crashsim.explore.grouping import Cause
from crashsim.explore.picture import picture
from crashsim.explore.state_runner import Target
from crashsim.explore.story import Involved
from crashsim.explore.survey import EpochReport, Exploration
from crashsim.states import power_of_ten

SCHEMA = 2
LARGEST_DIGITS = 300  # longer numbers are given as text alone: few readers of JSON take them


def to_json(found: Exploration, target: Target) -> dict[str, Any]:
    """The document; `target` is what was explored."""
    return {
        "schema": SCHEMA,
        "device": found.device,
        "host": found.host,
        "atom_bytes": found.atom_bytes,
        "seed": found.seed,
        "budget_states": found.states,
        **_large("choices", found.choices),
        **_large("images", found.images),
        "planned": found.planned,
        "checked": found.checked,
        "failing": found.failing,
        "timed_out": found.timed_out,
        "unstable": found.unstable,
        "ungrouped": found.ungrouped,
        "outcomes": found.outcomes,
        "reached": found.reached,
        "all_epochs": found.all_epochs,
        "interrupted": found.interrupted,
        "exit_code": found.exit_code,
        "findings": [_finding(one) | {"picture": picture(one, target)} for one in found.findings],
        "epochs": [_epoch(one) for one in found.epochs],
    }


def _large(name: str, number: int) -> dict[str, Any]:
    short = number < 10**LARGEST_DIGITS
    return {name: number if short else None, f"{name}_text": power_of_ten(number)}


def _epoch(one: EpochReport) -> dict[str, Any]:
    return {
        "number": one.number,
        "first_ns": one.first_ns,
        "cut_ns": one.cut_ns,
        "acks": one.acks,
        "atoms": one.atoms,
        **_large("choices", one.choices),
        **_large("images", one.images),
        "planned": one.planned,
        "checked": one.checked,
        "kinds": one.kinds,
        "verdicts": one.verdicts,
        "outcomes": one.outcomes,
        "unseen_share": one.unseen_share,
    }


def _finding(one: Cause) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "outcome": one.outcome,
        "message": one.message,
        "states": one.states,
        "epochs": one.epochs,
        "story": list(one.story),
        "epoch": one.epoch,
        "first_ns": one.first_ns,
        "cut_ns": one.cut_ns,
        "acks": one.acks,
        "acknowledgement": one.ack,
        "changes": [list(pair) for pair in one.changes],
        "minimal": one.minimal,
        "kept": [_involved(part) for part in one.kept],
        "lost": [_involved(part) for part in one.lost],
        "remedy": asdict(one.remedy),
        "digest": f"{one.digest:x}",
        "original": asdict(one.original),
    }


def _involved(part: Involved) -> dict[str, Any]:
    return {
        "offset": part.offset,
        "start": part.start,
        "length": len(part.content),
        "kept_write": part.kept_write,
        "lost_write": part.lost_write,
    }
