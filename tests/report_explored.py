"""Explorations as runs would give them, for the tests of the reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crashsim.results import CaseResult, Expectation
from crashsim.results.discovery import (
    BrokenAck,
    EpochResult,
    ExplorationResult,
    FindingResult,
    LeftOut,
    Original,
    Remedy,
    WriteFates,
    WriteRow,
)
from tests import report_fixtures as fixtures

FILE = "findings/case-1.crashsim-finding"
MILLISECOND = fixtures.MILLISECOND
STORY = [
    "A power cut at 2 ms (epoch 1 of 2), after 1 acknowledgement, leaves an image of which the "
    "checker says: hole.",
    "Write 2 (1.5 KiB at offset 3072, made at 3us) survived.",
    "512 B of write 1 (1.5 KiB at offset 1536, made at 2us) was lost.",
    "That breaks acknowledgement 'one', given at 1 ms.",
    "A flush of the device after write 1 and completed before write 2 would have forbidden it.",
]


def row(write: int, runs: list[list[int]], taken: bool = False) -> WriteRow:
    """A row of one write of 1536 bytes."""
    kept, length = sum(run[2] for run in runs), sum(run[1] for run in runs)
    fate = (int(kept == length), int(kept == 0), int(0 < kept < length))
    return WriteRow(write, write, *fate, 1000 * (write + 1), 1536 * write, 1536, taken, runs)


def whole(write: int, kept: bool, taken: bool = False) -> WriteRow:
    """A row of a write that is kept or lost altogether."""
    return row(write, [[1536 * write, 1536, 1536 * kept]], taken)


def rest(first: int, last: int, kept: int, lost: int) -> LeftOut:
    """A row of writes that are left out."""
    return LeftOut(first, last, kept, lost, 0)


def picture() -> WriteFates:
    """Four writes with a row of their own, 500 without."""
    torn = row(1, [[1536, 512, 512], [2048, 512, 0], [2560, 512, 512]], True)
    rows: list[WriteRow | LeftOut] = [
        whole(0, True),
        torn,
        whole(2, True, True),
        rest(3, 502, 400, 100),
        whole(503, False),
    ]
    return WriteFates(504, rows, BrokenAck(MILLISECOND + 24, "one", 0, 1, 2))


def finding(**changed: Any) -> FindingResult:
    """A hole."""
    plain: dict[str, Any] = {
        "kind": "finding",
        "outcome": "hole",
        "message": "exit code 1\nrecord 1 is not there, record 2 is",
        "states": 30,
        "epochs": 1,
        "story": STORY,
        "epoch": 0,
        "first_ns": 0,
        "cut_ns": 2 * MILLISECOND + 345,
        "acks": 1,
        "acknowledgement": 0,
        "changes": [[4, 0]],
        "minimal": True,
        "kept": [],
        "lost": [],
        "remedy": Remedy("flush-before-write", 1, 2, 2200, 3000),
        "digest": "ab12",
        "original": Original(0, 3, "pair", 6, 9),
        "picture": picture(),
    }
    return FindingResult(**(plain | changed))


def epoch(number: int, images: int, checked: int, bad: int = 0, **changed: Any) -> EpochResult:
    """An epoch of a millisecond; `bad` of the states that were checked are holes."""
    huge = images >= 10**300
    text = str(images) if images < 10**15 else f"1.0e+{len(str(images)) - 1}"
    text += f" (10^{len(str(images)) - 1})" if images >= 10**15 else ""
    counts = {"ok": checked - bad, "finding": bad}
    plain: dict[str, Any] = {
        "number": number,
        "first_ns": number * MILLISECOND,
        "cut_ns": (number + 1) * MILLISECOND,
        "acks": number,
        "atoms": images.bit_length() - 1,
        "choices": None if huge else images,
        "choices_text": text,
        "images": None if huge else images,
        "images_text": text,
        "planned": checked,
        "checked": checked,
        "kinds": {"none": 1, "all": 1, "random": checked - 2} if checked > 2 else {"none": 1},
        "verdicts": {name: count for name, count in counts.items() if count},
        "outcomes": {"ok": checked - bad, **({"hole": bad} if bad else {})},
        "unseen_share": 0.0 if checked >= images else 0.03,
    }
    return EpochResult(**(plain | changed))


def exploration(*epochs: EpochResult, **changed: Any) -> ExplorationResult:
    """The document of these epochs."""
    outcomes: dict[str, int] = {}
    for one in epochs:
        for name, count in one.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    images = sum(one.images or 10**400 for one in epochs)
    large = epoch(0, images, 1)
    plain: dict[str, Any] = {
        "schema": 2,
        "device": "pmem0",
        "host": "any-host",
        "atom_bytes": 512,
        "seed": 1,
        "budget_states": 1000,
        **{
            key: getattr(large, key) for key in ("choices", "choices_text", "images", "images_text")
        },
        "planned": sum(one.planned for one in epochs),
        "checked": sum(one.checked for one in epochs),
        "failing": sum(one.verdicts.get("finding", 0) for one in epochs),
        "timed_out": 0,
        "unstable": 0,
        "ungrouped": 0,
        "outcomes": outcomes,
        "reached": True,
        "all_epochs": len(epochs),
        "interrupted": False,
        "exit_code": 0,
        "findings": [],
        "epochs": list(epochs),
    }
    return ExplorationResult(**(plain | changed))


def clean(name: str = "clean") -> CaseResult:
    """Everything was checked and accepted."""
    return replace(
        fixtures.case(name),
        expectations=[Expectation("findings", "== 0", 0, "", True)],
        exploration=exploration(epoch(0, 8, 8), epoch(1, 4, 4)),
    )


def bad(name: str = "case", findings: int = 1) -> CaseResult:
    """Some states are rejected."""
    found = [finding() for _ in range(findings)]
    return replace(
        fixtures.case(name),
        expectations=[Expectation("findings", "== 0", findings, "", False)],
        exploration=exploration(
            epoch(0, 512, 100, 30), epoch(1, 4, 4), findings=found, exit_code=1
        ),
        findings=[f"findings/{name}-{n + 1}.crashsim-finding" for n in range(findings)],
    )


def vast(epochs: int, name: str = "vast") -> CaseResult:
    """More epochs and more images than anybody could look at."""
    found = [epoch(n, 1 << (20 + n % 2000), 30, 5 * (n == 700)) for n in range(epochs)]
    return replace(fixtures.case(name), exploration=exploration(*found))
