"""The table of cases: its columns, and what has to be said below it.

Contract: every report that shows the table shows these columns, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crashsim.report.standing import standing
from crashsim.report.words import count, duration, size
from crashsim.results import RECORDING, CaseResult, Results


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of cases; on a narrow terminal the lowest `weight` gives way first."""

    group: str
    title: str
    weight: int
    cell: Callable[[CaseResult], str]
    bad: Callable[[CaseResult], bool] = lambda case: False

    @property
    def heading(self) -> str:
        """Group and title on one line."""
        return f"{self.group} {self.title}".strip()


_SAFE = {True: "yes", False: "no", None: "?"}

COLUMNS: tuple[Column, ...] = (
    Column(
        "",
        "safe",
        12,
        lambda c: _SAFE[standing(c).safe],
        lambda c: standing(c).safe is False,
    ),
    Column("at risk", "worst", 11, lambda c: size(c.at_risk_bytes.max)),
    Column("at risk", "p50", 2, lambda c: size(c.at_risk_bytes.p50)),
    Column("at risk", "p99", 6, lambda c: size(c.at_risk_bytes.p99)),
    Column("recovery point", "max", 7, lambda c: duration(c.recovery_point_ns.max)),
    Column("recovery point", "p99", 1, lambda c: duration(c.recovery_point_ns.p99)),
    Column("acks", "uncovered", 10, lambda c: count(c.uncovered_acknowledgements.max)),
    Column("acks", "per second", 9, lambda c: count(c.acknowledged_per_second)),
    Column(
        "broken",
        "promises",
        8,
        lambda c: count(c.broken_promises),
        lambda c: c.broken_promises > 0,
    ),
    Column("", "holes", 3, lambda c: count(c.holes)),
    Column("", "torn", 0, lambda c: count(c.torn)),
    Column("", "flushes", 10, lambda c: count(c.flushes)),
    Column("", "waiting", 5, lambda c: duration(c.guest_wait_ns)),
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
