"""Units of work, each over a stretch of an epoch's plan, wherever they are done; and their log.

Contract: a unit says what to check, and holds none of it: whoever works makes the plan again, and
goes on in it where the last unit ended.

The log is what has been checked, line by line, so that a killed exploration goes on where it was.
It begins with what it belongs to; one of other inputs is refused. A line is a CRC-32 of the rest of
it, a space, and JSON. Lines are only appended, and what is behind the last whole line (a kill in
mid-write) is cut off. Finished units go to the disk every so many and at the end, so a power cut
takes some work, never truth.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from crashsim.errors import CheckerError, OutputError, UsageError
from crashsim.executor import Job
from crashsim.explore.outcomes import outcome_of
from crashsim.explore.selection import Step, plan
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.states import Epoch

Expired = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Unit:
    """States [low, high) of an epoch's plan of so many."""

    epoch: int
    low: int
    high: int
    planned: int


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What came of a unit. `done`: states that were checked before time ran out; `kinds`: of them;
    `tally`: (kind, outcome) -> states; `bad`: (place in the plan, kind, outcome) of those that are
    not ok."""

    done: int
    kinds: dict[str, int]
    tally: dict[tuple[str, str], int]
    bad: list[tuple[int, str, str]]


class Plans:
    """Stretches of epochs' plans; going on in one costs no more than the stretch."""

    def __init__(self, target: Target, seed: int) -> None:
        self._store_write = target.history.store_write
        self._seed = seed
        self._of = (-1, -1)  # epoch and size of the plan that is at `_place`
        self._place = 0
        self._steps: Iterator[Step] = iter(())

    def whole(self, epoch: Epoch, planned: int) -> Iterator[Step]:
        """All states of one."""
        return plan(epoch, self._store_write, planned, self._seed)

    def stretch(self, epoch: Epoch, unit: Unit) -> list[Step]:
        """Those of a unit, which is of that epoch."""
        if self._of != (unit.epoch, unit.planned) or unit.low < self._place:
            self._of, self._place = (unit.epoch, unit.planned), 0
            self._steps = self.whole(epoch, unit.planned)
        steps = list(islice(self._steps, unit.low - self._place, unit.high - self._place))
        self._place = unit.high
        return steps


def job(target: Target, seed: int, expired: Expired | None) -> Job[Unit, UnitResult]:
    """What units are answered with. CheckerError when the checker cannot run."""

    @contextmanager
    def begin() -> Iterator[Callable[[Unit], UnitResult]]:
        plans = Plans(target, seed)
        with StateRunner(target) as runner:
            yield lambda unit: work(runner, plans, unit, expired)

    def name(unit: Unit) -> str:
        return f"states {unit.low} to {unit.high - 1} of epoch {unit.epoch}"

    return Job(begin, name)


def work(runner: StateRunner, plans: Plans, unit: Unit, expired: Expired | None) -> UnitResult:
    """Check a unit's states one after another."""
    kinds: Counter[str] = Counter()
    tally: Counter[tuple[str, str]] = Counter()
    bad: list[tuple[int, str, str]] = []
    steps = plans.stretch(runner.enter(unit.epoch), unit)
    verdicts = runner.check_all([step.versions for step in steps])
    for place, step in enumerate(steps, start=unit.low):
        if expired is not None and expired():
            break
        verdict = next(verdicts)
        if verdict.kind == "broken":
            raise CheckerError(f"the checker cannot run: {verdict.message}")
        outcome = outcome_of(verdict)
        kinds[step.kind] += 1
        tally[verdict.kind, outcome] += 1
        if verdict.kind != "ok":
            bad.append((place, verdict.kind, outcome))
    return UnitResult(kinds.total(), dict(kinds), dict(tally), bad)


FORMAT = 2
_UNITS_BETWEEN_SYNCS = 64


class UnitLog:
    """Answers by unit, kept in a file; without a path, nowhere."""

    def __init__(self, path: Path | None, identity: str) -> None:
        """`identity` stands for everything that the answers depend on. UsageError when the file
        belongs to something else or is in use, OutputError when it cannot be written."""
        self._path = path
        self._answers: dict[Unit, UnitResult] = {}
        self._unsynced = 0
        self._file = None
        if path is None:
            return
        with self._reported():
            self._file = path.open("a+b")
            try:
                # Of the process: workers do not inherit it, so it ends with this process at once.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._begin(identity)
            except BaseException:  # whatever it is, the file is left as it was
                self._file.close()
                raise

    def known(self, unit: Unit) -> UnitResult | None:
        """The answer of an earlier run."""
        return self._answers.get(unit)

    def add(self, unit: Unit, answer: UnitResult) -> None:
        """Keep a whole unit, if it is new; one that time cut short will be done again."""
        if self._file is None or answer.done < unit.high - unit.low or unit in self._answers:
            return
        tally = [[*key, count] for key, count in answer.tally.items()]
        self._write(_line([*astuple(unit), answer.kinds, tally, answer.bad]))
        self._unsynced += 1
        if self._unsynced == _UNITS_BETWEEN_SYNCS:
            self._sync()

    def close(self) -> None:
        """Everything to the disk."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def _begin(self, identity: str) -> None:
        assert self._file is not None
        head = _line({"crashsim-journal": FORMAT, "of": identity})
        self._file.seek(0)
        lines = self._file.readlines()
        if not lines or (len(lines) == 1 and head.startswith(lines[0]) and lines[0] != head):
            self._file.truncate(0)  # new, or killed while it was begun
            self._write(head)
            return
        if lines[0] != head:
            told = _content(lines[0])
            if not isinstance(told, dict) or "crashsim-journal" not in told:
                raise UsageError(f"{self._path}: not a journal of crashsim; nothing was changed")
            raise UsageError(
                f"{self._path}: belongs to another exploration (other experiment, recording, "
                "rules, checker or budget); remove it, or name another file"
            )
        whole = len(head)
        for line in lines[1:]:
            content = _content(line)
            if content is None:
                break
            whole += len(line)
            *unit, kinds, tally, bad = content
            known = Unit(*unit)
            counted = {(kind, outcome): count for kind, outcome, count in tally}
            found = [(place, kind, outcome) for place, kind, outcome in bad]
            self._answers[known] = UnitResult(known.high - known.low, kinds, counted, found)
        self._file.truncate(whole)

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        with self._reported():
            self._file.write(line)
            self._file.flush()

    def _sync(self) -> None:
        assert self._file is not None
        with self._reported():
            os.fsync(self._file.fileno())
        self._unsynced = 0

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise UsageError(f"{self._path}: another exploration is writing to it") from None
        except OSError as error:
            message = f"{self._path}: cannot be written: {error.strerror or error}"
            raise OutputError(message) from None


def _line(content: Any) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> Any:
    """What a line says; None unless it is whole."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)
