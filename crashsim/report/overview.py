"""The table of cases: its columns, and what has to be said below it.

Contract: every report that shows the table shows these columns, in this order: whether a case is
safe, and each figure that has a `Column`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crashsim.report.standing import standing
from crashsim.report.words import amount
from crashsim.results import FIGURES, RECORDING, CaseResult, Column, Figure, Results


@dataclass(frozen=True, slots=True)
class CaseColumn:
    """A column with its cells; `bad` ones are written in red."""

    column: Column
    cell: Callable[[CaseResult], str]
    bad: Callable[[CaseResult], bool]

    @property
    def heading(self) -> str:
        """Group and title on one line."""
        return f"{self.column.group} {self.column.title}".strip()


_SAFE = {True: "yes", False: "no", None: "?"}


def _shown(figure: Figure, column: Column) -> CaseColumn:
    return CaseColumn(
        column,
        lambda case: amount(figure.of(case), figure.unit),
        lambda case: column.red and figure.of(case) > 0,
    )


COLUMNS: tuple[CaseColumn, ...] = (
    CaseColumn(
        Column(1, "", "safe", 12),
        lambda case: _SAFE[standing(case).safe],
        lambda case: standing(case).safe is False,
    ),
    *sorted(
        (_shown(figure, figure.column) for figure in FIGURES.values() if figure.column),
        key=lambda one: one.column.place,
    ),
)


def notes(results: Results) -> list[str]:
    """What the reader of the table has to know."""
    lines = [
        "Safe: it is shown that nothing acknowledged is lost. \u2713, \u2717: as expected, or not."
    ]
    recorded = sum(case.recorded for case in results.cases)
    if recorded:
        which = "" if recorded == len(results.cases) else f" of {recorded:,} cases"
        lines.append(
            f"{RECORDING}: at risk, recovery point, holes and torn{which} are of the former, and "
            "an acknowledgement is uncovered when it had no flush behind it."
        )
    return lines
