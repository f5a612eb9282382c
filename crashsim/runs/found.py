"""What exploring a run comes to, for who calls it from Python.

Contract: typed to the end. A finding is saved with everything that is needed to see it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crashsim.explore.grouping import Cause
from crashsim.explore.session import Session, keep_finding
from crashsim.explore.survey import Exploration
from crashsim.runs.new_file import new_file


@dataclass(frozen=True, slots=True)
class FoundState:
    """One cause: a state that the checker rejects, told and kept."""

    finding: Cause
    opened: Session

    @property
    def outcome(self) -> str:
        """What the checker called it."""
        return self.finding.outcome or self.finding.kind

    @property
    def states(self) -> int:
        """How many of the states that were checked have this cause."""
        return self.finding.states

    @property
    def story(self) -> str:
        """What was kept and lost, what that breaks, and what would have forbidden it."""
        return "\n".join(self.finding.story)

    def save(self, path: str | Path) -> Path:
        """As a new file for `crashsim replay`. OutputError when something is there already, or it
        cannot be written."""
        with new_file(Path(path)) as working:
            keep_finding(self.finding, self.opened, working)
        return Path(path)


@dataclass(frozen=True, slots=True)
class Found:
    """What was explored, in `exploration` (counts, exact, and coverage), and what was found."""

    exploration: Exploration
    findings: tuple[FoundState, ...]

    @property
    def checked(self) -> int:
        """States that were checked."""
        return self.exploration.checked

    @property
    def outcomes(self) -> dict[str, int]:
        """States by what the checker said, the most frequent first."""
        return self.exploration.outcomes

    def __repr__(self) -> str:
        return (
            f"<Found {len(self.findings)} causes in {self.exploration.failing} of "
            f"{self.checked} states>"
        )
