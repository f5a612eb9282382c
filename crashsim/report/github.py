"""What a GitHub workflow is told: annotations on the experiment's lines, and a step summary.

Contract: workflow commands end at a newline and take `%`, `:` and `,` for their own; text from the
user's files is escaped so that it can end none and start none.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from crashsim.errors import OutputError
from crashsim.report.causes import story, told_findings
from crashsim.report.words import UNCOVERED, expectation_line, failed, uncovered
from crashsim.results import FIGURES, CaseResult, Expectation, Results

# GitHub shows at most ten errors of a step; the last place is kept for saying so.
_MOST = 10


def error_annotations(results: Results, file: str, lines: Mapping[str, int]) -> list[str]:
    """An `::error` for each failed expectation, at its metric's line of `file` (1 if unknown)."""
    found = []
    for case in results.cases:
        if case.writes == 0:
            found.append(_error(file, 1, case.name, "nothing was written: nothing was explored"))
        if uncovered(case):
            found.append(_error(file, lines.get("explore", 1), case.name, UNCOVERED))
        for expectation in failed(case):
            found.append(_unexpected(file, lines, case, expectation))
    if results.interrupted or not results.cases:
        found.insert(0, _error(file, 1, results.experiment, "not every case ran"))
    if len(found) > _MOST:
        rest = len(found) - _MOST + 1
        message = f"{rest} more failures: see the summary"
        found[_MOST - 1 :] = [_error(file, 1, results.experiment, message)]
    return found


def lines_of(file: str) -> dict[str, int]:
    """Line of the first mention of each metric, and of what is explored."""
    found: dict[str, int] = {}
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), start=1):
        key = line.strip().partition(":")[0]
        if key in (*FIGURES, "known", "explore"):
            found.setdefault(key, number)
    return found


def _unexpected(
    file: str, lines: Mapping[str, int], case: CaseResult, expectation: Expectation
) -> str:
    """With findings comes the first one's story; no findings are expected without a line, too."""
    told = [expectation_line(case, expectation)]
    line = lines.get(expectation.metric, 1)
    if expectation.metric == "findings":
        line = lines.get("findings", lines.get("explore", 1))
        for finding, where in islice(told_findings(case), 1):
            told += story(finding, 1, where, "")
    return _error(file, line, case.name, "\n".join(told))


def _error(file: str, line: int, title: str, message: str) -> str:
    place = f"file={_property(file)},line={line},title={_property(title)}"
    return f"::error {place}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def append_step_summary(markdown: str, environment: Mapping[str, str]) -> bool:
    """Add to the step's summary where a workflow gives one; whether it did. OutputError."""
    target = environment.get("GITHUB_STEP_SUMMARY", "")
    if not target:
        return False
    try:
        with Path(target).open("a", encoding="utf-8") as summary:
            summary.write(markdown + "\n")
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
    return True
