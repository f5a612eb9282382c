"""Workers that are killed: nothing hangs, nothing that was done is lost, what kills them is
named."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashsim.errors import WorkerDied
from crashsim.executor import Job, Processes, executor

LARGE = 1 << 20  # bytes of an answer: a kill comes in the midst of some


def job(work: Callable[[int], object]) -> Job[int, object]:
    @contextmanager
    def begin() -> Iterator[Callable[[int], object]]:
        yield work

    return Job(begin, lambda unit: f"unit {unit}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def given_by(
    work: Callable[[int], object], units: range, workers: int = 2
) -> tuple[list[object], Exception | None]:
    """The answers, and what ended them."""
    given: list[object] = []
    try:
        for _, answer in Processes(workers).run(job(work), units):
            given.append(answer)
    except (ValueError, WorkerDied) as error:
        return given, error
    return given, None


def first_time(folder: Path, unit: int) -> bool:
    try:
        (folder / str(unit)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_answers_are_in_order(workers: int) -> None:
    found = executor(workers).run(job(lambda unit: unit * unit), range(200))
    assert list(found) == [(n, n * n) for n in range(200)]
    assert multiprocessing.active_children() == []


def test_each_task_may_kill_one_worker(tmp_path: Path) -> None:
    def work(unit: int) -> int:
        if first_time(tmp_path, unit):
            die()
        return unit

    assert given_by(work, range(30)) == (list(range(30)), None)
    assert multiprocessing.active_children() == []


def test_a_task_that_kills_two_is_named_and_what_others_did_is_kept(tmp_path: Path) -> None:
    def work(unit: int) -> int:
        if unit == 3:
            while len(list(tmp_path.iterdir())) < 5:
                time.sleep(0.001)
            die()
        (tmp_path / str(unit)).touch()
        return unit

    given, error = given_by(work, range(6))
    assert given == [0, 1, 2, 4, 5]
    assert isinstance(error, WorkerDied) and error.exit_code == 3
    assert str(error).startswith("unit 3: the process that worked on it was killed by signal 9")
    assert multiprocessing.active_children() == []


def test_what_a_task_raises_is_raised_when_its_turn_comes() -> None:
    def work(unit: int) -> int:
        if unit == 2:
            raise ValueError("two")
        return unit

    given, error = given_by(work, range(9))
    assert given == [0, 1]
    assert isinstance(error, ValueError) and str(error) == "two"


def test_an_exception_that_cannot_travel_is_told() -> None:
    def work(unit: int) -> int:
        class Local(Exception):
            pass

        raise Local("far away")

    with pytest.raises(RuntimeError, match="Local: far away"):
        list(Processes(2).run(job(work), range(2)))


def test_a_worker_that_ends_by_itself_has_died_too() -> None:
    with pytest.raises(WorkerDied, match="ended with 7"):
        list(Processes(2).run(job(lambda unit: os._exit(7)), [1]))


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_neither_hang_nor_lose_anything(seed: int) -> None:
    """One kill for each stretch of units: no unit meets two."""

    def work(unit: int) -> bytes:
        return bytes([unit]) * LARGE

    draws = random.Random(seed)

    def kill() -> None:
        victims = multiprocessing.active_children()
        if victims:
            draws.choice(victims).kill()

    for _ in range(5):
        found = Processes(3).run(job(work), range(20))
        first = next(found)
        killer = threading.Timer(draws.random() * 0.03, kill)
        killer.start()
        assert [first, *found] == [(unit, work(unit)) for unit in range(20)]
        killer.join()
    assert multiprocessing.active_children() == []


def test_many_kills_end_in_all_answers_or_in_a_name() -> None:
    def work(unit: int) -> bytes:
        return bytes([unit]) * LARGE

    draws, ended = random.Random(1), threading.Event()

    def kill() -> None:
        while not ended.wait(draws.random() * 0.02):
            for victim in multiprocessing.active_children()[:1]:
                victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        given, error = given_by(work, range(60), 3)
    finally:
        ended.set()
        killer.join()
    units = [answer[0] for answer in given if isinstance(answer, bytes)]
    assert given == [work(unit) for unit in units]
    if error is None:
        assert units == list(range(60))
    else:
        assert isinstance(error, WorkerDied)
        dead = int(error.task.removeprefix("unit "))
        assert units == sorted({*units}) and units[:dead] == list(range(dead))
        assert dead not in units
    assert multiprocessing.active_children() == []
