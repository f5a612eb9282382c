"""Units of work over several processes, answered in order.

Contract: answers do not depend on the number of workers. Workers inherit what is explored, so it is
never copied; each has a bench of its own. Whatever ends the exploration ends the workers, and a
worker whose parent was killed ends itself.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, NoReturn

from crashsim.errors import CrashsimError
from crashsim.explore.bench import Bench, Subject
from crashsim.explore.outcomes import outcome_of
from crashsim.states import Choices

_AHEAD = 16  # units for each worker that may be done before one that is slow
Expired = Callable[[], bool]


class CheckerError(CrashsimError):
    """The checker cannot be used: it cannot run, ended its process, or fails without a crash."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """States [low, low + len(states)) of an epoch's plan."""

    epoch: int
    low: int
    states: tuple[Choices, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a unit. `done`: states that were checked before time ran out; `tally`: (kind,
    outcome) -> states; `bad`: (place in the plan, kind, outcome) of those that are not ok."""

    done: int
    tally: dict[tuple[str, str], int]
    bad: list[tuple[int, str, str]]


def answers(
    subject: Subject, units: Iterable[Unit], workers: int, expired: Expired | None
) -> Iterator[tuple[Unit, Answer]]:
    """Every unit with its answer, in order. CheckerError when the checker cannot run."""
    if workers <= 1:
        with Bench(subject) as bench:
            for unit in units:
                yield unit, work(bench, unit, expired)
        return
    crew = _Crew(subject, workers, expired)
    try:
        yield from crew.work_off(units)
    finally:  # whatever ends this, no worker goes on
        crew.end()


def work(bench: Bench, unit: Unit, expired: Expired | None) -> Answer:
    """Check a unit's states one after another."""
    tally: Counter[tuple[str, str]] = Counter()
    bad: list[tuple[int, str, str]] = []
    done = 0
    bench.enter(unit.epoch)
    for place, choices in enumerate(unit.states, start=unit.low):
        if expired is not None and expired():
            break
        verdict = bench.check(choices)
        if verdict.kind == "broken":
            raise CheckerError(f"the checker cannot run: {verdict.message}")
        outcome = outcome_of(verdict)
        tally[verdict.kind, outcome] += 1
        done += 1
        if verdict.kind != "ok":
            bad.append((place, verdict.kind, outcome))
    return Answer(done, dict(tally), bad)


class _Crew:
    """Workers, each at the other end of a pipe with one unit at a time."""

    def __init__(self, subject: Subject, workers: int, expired: Expired | None) -> None:
        context = multiprocessing.get_context("fork")  # what is explored can be large: inherit it
        self._processes: list[ForkProcess] = []
        self._idle: list[Connection] = []
        self._busy: dict[Connection, int] = {}
        self._answers: dict[int, Answer] = {}
        # Workers inherit the mask: none of them sees a Ctrl-C that comes before it is set up.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            for _ in range(workers):
                mine, theirs = context.Pipe()
                self._idle.append(mine)
                process = context.Process(
                    target=_serve, args=(subject, expired, theirs, list(self._idle)), daemon=True
                )
                self._processes.append(process)
                process.start()
                theirs.close()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def work_off(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Answer]]:
        """Hand units out as workers come free; answers in the order of the units."""
        waiting: deque[tuple[int, Unit]] = deque()
        for number, unit in enumerate(units):
            while not self._idle or len(waiting) > _AHEAD * len(self._processes):
                self._collect()
                yield from self._ready(waiting)
            worker = self._idle.pop()
            self._busy[worker] = number
            waiting.append((number, unit))
            _said(worker.send, unit)
        while waiting:
            self._collect()
            yield from self._ready(waiting)

    def end(self) -> None:
        """No worker goes on."""
        for process in self._processes:
            process.terminate()
        for pipe in [*self._idle, *self._busy]:
            pipe.close()  # a checker that caught what ends its worker has nobody to answer
        for process in self._processes:
            process.join()

    def _collect(self) -> None:
        """Wait for answers."""
        for worker in wait(list(self._busy)):
            assert isinstance(worker, Connection), "workers answer through pipes"
            answer = _said(worker.recv)
            if isinstance(answer, Exception):
                raise answer
            self._answers[self._busy.pop(worker)] = answer
            self._idle.append(worker)

    def _ready(self, waiting: deque[tuple[int, Unit]]) -> Iterator[tuple[Unit, Answer]]:
        while waiting and waiting[0][0] in self._answers:
            number, unit = waiting.popleft()
            yield unit, self._answers.pop(number)


def _said(talk: Callable[..., Any], *what: Unit) -> Any:
    """What a worker says, or is told."""
    try:
        return talk(*what)
    except (EOFError, ConnectionError):
        raise CheckerError(
            "the checker ended the process that ran it; run it as a command to contain it"
        ) from None


def _serve(
    subject: Subject, expired: Expired | None, parent: Connection, others: list[Connection]
) -> None:
    """A worker's life. Ctrl-C reaches every process of the terminal: the parent alone answers
    it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for other in others:
        other.close()  # or a pipe would stay open when the parent is gone
    gone = EOFError, ConnectionError, _Ended
    with Bench(subject) as bench, suppress(*gone):
        while True:
            unit = parent.recv()
            try:
                answer: Answer | Exception = work(bench, unit, expired)
            # Whatever it is, the parent raises it.
            except Exception as error:  # noqa: BLE001
                answer = error
            parent.send(answer)


class _Ended(BaseException):
    """No `SystemExit`: that is what a checker may answer with."""


def _end(_number: int, _frame: object) -> NoReturn:
    raise _Ended  # the bench is closed on the way out


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    main = threading.main_thread()
    if parent is not None and main.ident is not None:
        parent.join()
        signal.pthread_kill(main.ident, signal.SIGTERM)
