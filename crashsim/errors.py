"""Every exception that crashsim raises on purpose.

CrashsimError
├── ExperimentError   a wrong or contradictory experiment     exit 2
├── TraceError        a missing, truncated or corrupt trace   exit 2
├── UsageError        a wrong argument or run folder          exit 2
├── OutputError       results cannot be written               exit 2
├── ReplayMismatch    two computations of a loss disagree     exit 3
├── WorkerDied        what works was killed, twice            exit 3
└── NothingExplored   zero writes or zero cuts: never green   exit 5

A fault that the simulation injects (an EIO that the guest sees) is data in the History, never one
of these and never an `OSError`.
"""

from __future__ import annotations

from dataclasses import dataclass


class CrashsimError(Exception):
    """Base of all: its text is meant for the user, `exit_code` for the shell."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an experiment file; `line` and `column` count from 1, 0 means the whole
    file."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class ExperimentError(CrashsimError):
    """All mistakes of an experiment at once."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[ExperimentError], tuple[list[Problem]]]:
        return type(self), (self.problems,)  # errors cross process borders


class TraceError(CrashsimError):
    """A trace that cannot be read; `offset` is the byte at which it went wrong."""

    exit_code = 2

    def __init__(self, file: str, offset: int, message: str) -> None:
        super().__init__(f"{file}: byte {offset}: {message}")
        self.file = file
        self.offset = offset
        self.message = message

    def __reduce__(self) -> tuple[type[TraceError], tuple[str, int, str]]:
        return type(self), (self.file, self.offset, self.message)


class UsageError(CrashsimError):
    exit_code = 2


class OutputError(CrashsimError):
    exit_code = 2


class ReplayMismatch(CrashsimError):
    exit_code = 3


class WorkerDied(CrashsimError):
    """`task`: what a process worked on when it died, and another one after it; `status`: how the
    last one ended, an exit code or minus a signal."""

    exit_code = 3

    def __init__(self, task: str, status: int) -> None:
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        super().__init__(
            f"{task}: the process that worked on it {ended}, and so it went when it was tried once "
            "more; if memory ran out, --workers 1 needs the least"
        )
        self.task = task
        self.status = status

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, int]]:
        return type(self), (self.task, self.status)


class NothingExplored(CrashsimError):
    exit_code = 5
