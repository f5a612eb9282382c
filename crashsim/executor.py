"""Units of work, here or over several processes, answered in order.

Contract: a *unit* is small and can be pickled: it says what to make, and is no data. What units are
worked on with is a `Job`, begun once by whoever works. Answers depend neither on the kind of
executor nor on its number of workers, nor on how these are started: they are forked, and inherit
the job, so that it is never copied, unless whoever calls us chose another way
(`multiprocessing.set_start_method`); then it travels by value, once to each.

Each process has a pipe of its own: one that is killed, even halfway through an answer, cuts off
nobody else's. Its unit is given to a new one once more; if that dies too, WorkerDied names the unit
when its turn comes. Whatever ends the caller ends the workers, and a worker whose parent was killed
ends itself.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from crashsim.errors import WorkerDied

Task = TypeVar("Task")
Answer = TypeVar("Answer")
_AHEAD = 16  # units for each worker that may be done before one that is slow
_TRIES = 2
_PATIENCE_S = 5.0  # for a worker to close what it has begun
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Job(Generic[Task, Answer]):
    """`begin` is entered once by each worker and gives what answers a unit there; `name` tells a
    unit to people; `waiting` is told before each wait whose turn it is, and how many are done."""

    begin: Callable[[], AbstractContextManager[Callable[[Task], Answer]]]
    name: Callable[[Task], str]
    waiting: Callable[[Task, int], None] = lambda unit, done: None


class Executor(Protocol):
    """Where units are worked on."""

    def run(self, job: Job[Task, Answer], units: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Every unit with its answer, in order; what a unit raises is raised when its turn comes.
        Interrupted, or with a unit that killed two workers (WorkerDied), it gives what else is done
        before it raises; nobody works on."""


def executor(workers: int) -> Executor:
    """So many workers, on this machine."""
    return Processes(workers) if workers > 1 else Serial()


class Serial(Executor):
    """This process."""

    def run(self, job: Job[Task, Answer], units: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        with job.begin() as work:
            for done, unit in enumerate(units):
                job.waiting(unit, done)
                yield unit, work(unit)


@dataclass(frozen=True, slots=True)
class Processes(Executor):
    """So many of our own."""

    workers: int

    def run(self, job: Job[Task, Answer], units: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        with closing(_Crew(self.workers, job)) as crew:
            try:
                yield from crew.work_off(units)
            except (KeyboardInterrupt, WorkerDied):
                yield from crew.left()
                raise


@dataclass(slots=True, eq=False)
class _Worker:
    """A process at the other end of a pipe; `unit`: the number of what it works on."""

    process: BaseProcess
    pipe: Connection
    unit: int = -1


class _Crew(Generic[Task, Answer]):
    """The workers of one job."""

    def __init__(self, workers: int, job: Job[Task, Answer]) -> None:
        self._job = job
        chosen = multiprocessing.get_start_method(allow_none=True)  # asked so, it chooses nothing
        self._context: Any = multiprocessing.get_context(chosen or "fork")
        self._workers: list[_Worker] = []
        self._tries: dict[int, int] = {}
        self._waiting: deque[tuple[int, Task]] = deque()  # handed out and not yet given back
        self._answers: dict[int, Answer | Exception] = {}
        self._answered = 0  # also those that were given back
        try:
            for _ in range(workers):
                self._workers.append(self._hired())
        except BaseException:  # whatever it is, no worker goes on
            self.close()
            raise

    def work_off(self, units: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        for number, unit in enumerate(units):
            while True:
                idle = next((worker for worker in self._workers if worker.unit < 0), None)
                if idle is not None and len(self._waiting) <= _AHEAD * len(self._workers):
                    break
                yield from self._ready()
            self._waiting.append((number, unit))
            self._give(idle, number, unit)
        while self._waiting:
            yield from self._ready()

    def left(self) -> Iterator[tuple[Task, Answer]]:
        """What was answered and not given back when `work_off` ended early, in order."""
        for number, unit in self._waiting:
            answer = self._answers.get(number)
            if answer is not None and not isinstance(answer, Exception):
                yield unit, answer

    def close(self) -> None:
        """No worker goes on."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.pipe.close()  # who caught what ends it has nobody to answer
        for worker in self._workers:
            _buried(worker.process)

    def _hired(self) -> _Worker:
        mine, theirs = self._context.Pipe()
        begin: Callable[[], Any] = self._job.begin
        others = [mine, *(worker.pipe for worker in self._workers)]
        if self._context.get_start_method() != "fork":
            begin, others = _Sent(begin), []  # it inherits nothing
        # Workers inherit the mask: none sees a Ctrl-C, or its end, before it is set up for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            process = self._context.Process(
                target=_serve, args=(begin, theirs, others, before), daemon=True
            )
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(process, mine)

    def _give(self, worker: _Worker, number: int, unit: Task) -> None:
        worker.unit = number
        with suppress(ConnectionError):  # it has died: its pipe says so
            worker.pipe.send(unit)

    def _ready(self) -> Iterator[tuple[Task, Answer]]:
        """Wait for answers, or deaths; then what has its turn."""
        self._job.waiting(self._waiting[0][1], self._answered)
        busy = {worker.pipe: worker for worker in self._workers if worker.unit >= 0}
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection), "workers answer through pipes"
            worker = busy[pipe]
            try:
                self._answers[worker.unit] = pipe.recv()
                self._tries.pop(worker.unit, None)
                worker.unit = -1
                self._answered += 1
            except (EOFError, OSError):
                self._died(worker)
        while self._waiting and self._waiting[0][0] in self._answers:
            number, unit = self._waiting.popleft()
            answer = self._answers.pop(number)
            if isinstance(answer, Exception):
                raise answer
            yield unit, answer

    def _died(self, worker: _Worker) -> None:
        """Another takes its place, and its unit, unless that killed two."""
        worker.pipe.close()
        worker.process.terminate()  # who closed its pipe is of no use either
        _buried(worker.process)
        number = worker.unit
        self._workers.remove(worker)
        new = self._hired()
        self._workers.append(new)
        self._tries[number] = self._tries.get(number, 0) + 1
        unit = next(unit for waiting, unit in self._waiting if waiting == number)
        if self._tries[number] < _TRIES:
            self._give(new, number, unit)
        else:
            self._answers[number] = WorkerDied(self._job.name(unit), worker.process.exitcode or 0)


class _Sent:
    """What travels by value, also what cannot be found by its name; loaded where it is called."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        import cloudpickle

        self._code: bytes = cloudpickle.dumps(begin)

    def __call__(self) -> Any:
        return pickle.loads(self._code)()


def _buried(process: BaseProcess) -> None:
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()


def _serve(
    begin: Callable[[], AbstractContextManager[Callable[[Any], Any]]],
    parent: Connection,
    others: list[Connection],
    mask: Iterable[int],
) -> None:
    """A worker's life. Ctrl-C reaches every process of the terminal: the parent alone answers
    it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for other in others:
        other.close()  # or a pipe would stay open when its worker or the parent is gone
    with suppress(EOFError, ConnectionError, _Ended):
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with begin() as work:
            while True:
                unit = parent.recv()
                try:
                    answer = work(unit)
                # Whatever it is, the parent raises it.
                except Exception as error:  # noqa: BLE001
                    answer = error
                parent.send(_sendable(answer))


def _sendable(answer: object) -> object:
    try:
        pickle.dumps(answer) if isinstance(answer, Exception) else None
    except Exception:  # noqa: BLE001  # an exception of somebody else's making
        return RuntimeError(f"{type(answer).__name__}: {answer}")
    return answer


class _Ended(BaseException):
    """No `SystemExit`: that is what a checker may answer with."""


def _end(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Ended  # what was begun is closed on the way out


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    main = threading.main_thread()
    if parent is not None and main.ident is not None:
        parent.join()
        signal.pthread_kill(main.ident, signal.SIGTERM)
