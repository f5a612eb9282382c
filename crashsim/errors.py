"""Every exception that crashsim raises on purpose, and the exit code that it means.

CrashsimError             its text is for the user                  exit 3
├── ExperimentError       a wrong or contradictory experiment       exit 2
├── CommandLineError      a wrong command line of a monitor         exit 2
├── UnitError             text that is not the quantity expected    exit 2
├── NoSuchPath            a key through what has no keys            exit 2
├── TraceError            a missing, truncated or corrupt trace     exit 2
├── UsageError            a wrong argument or run folder            exit 2
├── OutputError           results cannot be written                 exit 2
├── StaleFinding          a saved finding that is not possible now  exit 2
├── CheckerError          a checker that is of no use               exit 2
├── NothingExplored       zero writes or zero cuts: never green     exit 5
├── ReplayMismatch        two computations of a loss disagree       exit 3
├── WorkerDied            what works was killed, twice              exit 3
└── HelperDied            what runs checkers' programs was killed   exit 3

All of them can be pickled. A fault that the simulation injects (an EIO that the guest sees) is data
in the History, never one of these and never an `OSError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class CommandLineError(CrashsimError):
    """All mistakes of a command line, of an XML file or of a timeline of monitor commands.
    `mistakes`: each with a `place`, which may be None, and a `message`."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[Any]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


class UnitError(CrashsimError, ValueError):
    """Text that is not the quantity that was expected; the message says what was."""

    exit_code = 2


class NoSuchPath(CrashsimError):
    """A dotted key through something that is neither a mapping nor a list with that index."""

    exit_code = 2


class TraceError(CrashsimError):
    """A trace that cannot be read; `offset` is the byte at which it went wrong."""

    exit_code = 2

    def __init__(self, file: str, offset: int, message: str) -> None:
        super().__init__(file, offset, message)
        self.file = file
        self.offset = offset
        self.message = message

    def __str__(self) -> str:
        return f"{self.file}: byte {self.offset}: {self.message}"


class UsageError(CrashsimError):
    """A wrong argument, or something that is not there; the message says what was expected."""

    exit_code = 2


class OutputError(CrashsimError):
    """Results cannot be written, or something is in their place."""

    exit_code = 2


class StaleFinding(CrashsimError):
    """A saved finding that the run or the rules no longer make possible."""

    exit_code = 2


class CheckerError(CrashsimError):
    """The checker cannot be used: it cannot run, or fails without a crash."""

    exit_code = 2


class NothingExplored(CrashsimError):
    """Nothing was written, or no cut can be made: that is never green."""

    exit_code = 5


class ReplayMismatch(CrashsimError):
    """Two computations that must agree do not: a fault of crashsim."""


class WorkerDied(CrashsimError):
    """`task`: what a process worked on when it died, and another one after it; `status`: how the
    last one ended, an exit code or minus a signal."""

    def __init__(self, task: str, status: int) -> None:
        super().__init__(task, status)
        self.task = task
        self.status = status

    def __str__(self) -> str:
        killed = self.status < 0
        ended = f"was killed by signal {-self.status}" if killed else f"ended with {self.status}"
        return (
            f"{self.task}: the process that worked on it {ended}, and so it went when it was tried "
            "once more; if memory ran out, --workers 1 needs the least"
        )


class HelperDied(CrashsimError):
    """Somebody killed the process that runs a checker's programs."""
