"""`docs/what-you-lose.md`: what each configuration loses to each failure, from fresh results.

Contract: every figure on the page is that of a case of a shipped experiment, run when the page is
made; the words are in `what_you_lose.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from crashsim.engine.units import format_bytes, format_duration
from crashsim.errors import UsageError
from crashsim.experiment.loader import load
from crashsim.results import CaseResult
from crashsim.runs.one import run_case

ROOT = Path(__file__).resolve().parents[1]
WORDS = Path(__file__).with_suffix(".md")
EXPERIMENTS = ROOT / "experiments"
FAILURES = {
    "guest-crash": "guest panics",
    "vmm-kill": "monitor is killed",
    "vmm-quit": "monitor quits",
    "host-crash": "host crashes",
    "power-cut": "power is cut",
    "live-copy": "copied while it runs",
    "storage-snapshot": "storage snapshot",
    "migration": "migrated",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration: in the reader's words, the rules it rests on, the case that shows it."""

    label: str
    rules: str
    experiment: str
    case: str


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the page: `text` with its heading, what fails, the configurations."""

    text: str
    failures: tuple[str, ...]
    rows: tuple[Row, ...]


def _sections(words: str) -> tuple[str, tuple[Section, ...]]:
    """What comes before the first heading, and the sections. A table's first line has the failures,
    each other one a row."""
    head, *parts = re.split(r"^(?=## )", words, flags=re.MULTILINE)
    sections = []
    for part in parts:
        text, _, table = part.partition("| ")
        (_, *failures), *rows = (
            line.strip("| ").split(" | ") for line in table.strip().splitlines()
        )
        sections.append(Section(text, tuple(failures), tuple(Row(*row) for row in rows)))
    return head, tuple(sections)


HEAD, SECTIONS = _sections(WORDS.read_text(encoding="utf-8"))


def page(sections: Iterable[Section], result_of: Callable[[Row], CaseResult]) -> str:
    """The page, in Markdown."""
    return HEAD + "\n".join(_section(section, result_of) for section in sections)


def _section(section: Section, result_of: Callable[[Row], CaseResult]) -> str:
    told = ["oldest", "the guest was told", "broken promises", "rule", "experiment"]
    head = ["configuration", *(FAILURES[domain] for domain in section.failures), *told]
    lines = [head, ["---"] * len(head)]
    for row in section.rows:
        case = result_of(row)
        link = f"[{row.experiment}](../experiments/{row.experiment}.yaml)"
        cells = [_lost(case, domain) for domain in section.failures]
        broken = f"**{case.broken_promises:,}**" if case.broken_promises else "0"
        cells += [_oldest(case), _told(case), broken]
        lines.append([row.label, *cells, row.rules, link])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{section.text}{table}\n"


def _lost(case: CaseResult, domain: str) -> str:
    size, records = case.domains[domain].max, case.uncovered_by_domain[domain].max
    if not size:
        return "nothing"
    if not records:
        return format_bytes(size)
    return f"**{records:,} of {case.acknowledged:,}**, {format_bytes(size)}"


def _oldest(case: CaseResult) -> str:
    age_ns = case.recovery_point_ns.max
    return format_duration(age_ns) if age_ns else "nothing"


def _told(case: CaseResult) -> str:
    if not case.flushes:
        return "no flush was asked for"
    if not case.failed_syncs:
        return f"{case.flushes:,} flush{'es' if case.flushes > 1 else ''} succeeded"
    return f"{case.failed_syncs:,} of {case.flushes:,} flushes failed"


def fresh_page() -> str:
    """The page from results made now. UsageError outside of a checkout."""
    return page(SECTIONS, _results().__getitem__)


def _results() -> dict[Row, CaseResult]:
    rows = [row for section in SECTIONS for row in section.rows]
    found: dict[Row, CaseResult] = {}
    for experiment in dict.fromkeys(row.experiment for row in rows):
        file = EXPERIMENTS / f"{experiment}.yaml"
        if not file.is_file():
            raise UsageError(f"{file}: not here; run this in a checkout of crashsim")
        cases = {case.name: case for case in load(file).cases}
        for row in rows:
            if row.experiment == experiment:
                if row.case not in cases:
                    raise UsageError(f"{file}: no case {row.case!r}; there are {', '.join(cases)}")
                found[row] = run_case(cases[row.case]).figures
    return found
