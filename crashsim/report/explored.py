"""What was explored, in words: how much of what there is, what came of it, each finding's story.

Contract: a pure function of results. Numbers of states are exact; how far they speak for the rest
is said with them.
"""

from __future__ import annotations

from typing import Any

from rich.text import Text

from crashsim.experiment.units import format_bytes
from crashsim.report.terminal import Speaker, console_for
from crashsim.report.words import printable
from crashsim.results import CaseResult, Results

Document = dict[str, Any]
_HOSTS = {"any-host": "any host", "this-host": "this host"}


def headline(one: Document) -> str:
    """How much was explored."""
    host = _HOSTS[one["host"]]
    atom = format_bytes(one["atom_bytes"])
    return (
        f"{one['device']}: {one['checked']:,} of {one['images_text']} images that a cut may leave "
        f"on {host} were checked ({len(one['epochs']):,} epochs, atoms of {atom})"
    )


def coverage(one: Document) -> str:
    """What the states that were checked say about the others."""
    unseen = [epoch["unseen_share"] for epoch in one["epochs"]]
    whole = sum(share == 0 for share in unseen)
    if whole == len(unseen):
        return "every image of every epoch was checked"
    drawn = [share for share in unseen if 0 < share < 1]
    text = f"every image was checked in {whole:,} of {len(unseen):,} epochs"
    if drawn:
        text += (
            f"; in {len(drawn):,} at most {max(drawn):.1%} of the images can be bad unseen "
            "(95 % confidence, each epoch by itself)"
        )
    rest = len(unseen) - whole - len(drawn)
    if rest:
        text += f"; in {rest:,} only the ends and the structured states"
    return text


def verdict(one: Document) -> str:
    """What came of it."""
    outcomes = ", ".join(f"{printable(name)} {count:,}" for name, count in one["outcomes"].items())
    causes = len(one["findings"])
    if not one["failing"]:
        return f"all were fine ({outcomes})"
    text = f"{one['failing']:,} were rejected, for {causes:,} cause{'s' if causes != 1 else ''}"
    if one["ungrouped"]:
        text += f" ({one['ungrouped']:,} states are in none of them)"
    return f"{text}; outcomes: {outcomes}"


def story(finding: Document, number: int, file: str, folder: str) -> list[str]:
    """One finding, and how to see it again."""
    outcome = f": {finding['outcome']}" if finding["outcome"] else ""
    minimal = "" if finding["minimal"] else ", not shrunk to the end"
    head = (
        f"Finding {number} ({finding['kind']}{outcome}; {finding['states']:,} states in "
        f"{finding['epochs']:,} epochs{minimal})"
    )
    lines = [head, *(f"  {line}" for line in finding["story"])]
    if file:
        lines.append(f"  Again: crashsim replay {folder}/{file}")
    return [printable(line) for line in lines]


def lines_of(case: CaseResult, folder: str) -> list[str]:
    """All that is said of a case's exploration on a terminal."""
    one = case.exploration
    if one is None:
        return []
    lines = [f"{printable(case.name)}: explored {headline(one)}"]
    lines += [f"  {verdict(one)}", f"  {coverage(one)}"]
    for number, finding in enumerate(one["findings"], start=1):
        file = case.findings[number - 1] if number <= len(case.findings) else ""
        lines += [f"  {line}" for line in story(finding, number, file, folder)]
    return lines


def print_explored(results: Results, folder: str) -> None:
    """The explorations of a run."""
    say = Speaker(console_for())
    for case in results.cases:
        for line in lines_of(case, folder):
            say(line)


def print_outcomes(runs: list[Results]) -> None:
    """Explorations side by side, when there are several."""
    rows = [
        _row(_label(results, case), case.exploration)
        for results in runs
        for case in results.cases
        if case.exploration is not None
    ]
    if len(rows) < 2:
        return
    headings = ["case", "images", "checked", "rejected", "findings", "outcomes"]
    say = Speaker(console_for())
    say("")
    say.table(headings, [[Text(cell) for cell in row] for row in rows])


def _label(results: Results, case: CaseResult) -> str:
    return results.experiment if len(results.cases) == 1 else f"{results.experiment}: {case.name}"


def _row(name: str, one: Document) -> list[str]:
    total = max(1, one["checked"])
    outcomes = ", ".join(
        f"{printable(outcome)} {count / total:.0%}" for outcome, count in one["outcomes"].items()
    )
    counts = [f"{one[key]:,}" for key in ("checked", "failing")]
    return [printable(name), one["images_text"], *counts, str(len(one["findings"])), outcomes]
