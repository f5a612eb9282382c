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
from crashsim.executor import Crew

LARGE = 1 << 20  # bytes of an answer: a kill comes in the midst of some


def crew(work: Callable[[int], object], workers: int = 2) -> Crew[int, object]:
    @contextmanager
    def begin() -> Iterator[Callable[[int], object]]:
        yield work

    return Crew(workers, begin, lambda task: f"task {task}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def given_by(one: Crew[int, object], tasks: range) -> tuple[list[object], Exception | None]:
    """The answers, and what ended them."""
    given: list[object] = []
    try:
        for _, answer in one.work_off(tasks):
            given.append(answer)
    except (ValueError, WorkerDied) as error:
        return given, error
    return given, None


def first_time(folder: Path, task: int) -> bool:
    try:
        (folder / str(task)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_answers_are_in_order(workers: int) -> None:
    with crew(lambda task: task * task, workers) as one:
        assert list(one.work_off(range(200))) == [(n, n * n) for n in range(200)]
    assert multiprocessing.active_children() == []


def test_each_task_may_kill_one_worker(tmp_path: Path) -> None:
    def work(task: int) -> int:
        if first_time(tmp_path, task):
            die()
        return task

    with crew(work) as one:
        assert list(one.work_off(range(30))) == [(n, n) for n in range(30)]
    assert multiprocessing.active_children() == []


def test_a_task_that_kills_two_is_named_and_what_others_did_is_kept(tmp_path: Path) -> None:
    def work(task: int) -> int:
        if task == 3:
            while len(list(tmp_path.iterdir())) < 5:
                time.sleep(0.001)
            die()
        (tmp_path / str(task)).touch()
        return task

    with crew(work) as one:
        given, error = given_by(one, range(6))
        assert given == [0, 1, 2]
        assert [answer for _, answer in one.left()] == [4, 5]
    assert isinstance(error, WorkerDied) and error.exit_code == 3
    assert str(error).startswith("task 3: the process that worked on it was killed by signal 9")
    assert multiprocessing.active_children() == []


def test_what_a_task_raises_is_raised_when_its_turn_comes() -> None:
    def work(task: int) -> int:
        if task == 2:
            raise ValueError("two")
        return task

    with crew(work) as one:
        given, error = given_by(one, range(9))
    assert given == [0, 1]
    assert isinstance(error, ValueError) and str(error) == "two"


def test_an_exception_that_cannot_travel_is_told() -> None:
    def work(task: int) -> int:
        class Local(Exception):
            pass

        raise Local("far away")

    with crew(work) as one, pytest.raises(RuntimeError, match="Local: far away"):
        list(one.work_off(range(2)))


def test_a_worker_that_ends_by_itself_has_died_too() -> None:
    with crew(lambda task: os._exit(7)) as one, pytest.raises(WorkerDied, match="ended with 7"):
        list(one.work_off([1]))


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_neither_hang_nor_lose_anything(seed: int) -> None:
    """One kill for each stretch of tasks: no task meets two."""

    def work(task: int) -> bytes:
        return bytes([task]) * LARGE

    draws = random.Random(seed)
    with crew(work, 3) as one:
        for _ in range(5):
            victim = draws.choice(multiprocessing.active_children())
            killer = threading.Timer(draws.random() * 0.03, victim.kill)
            killer.start()
            assert list(one.work_off(range(20))) == [(task, work(task)) for task in range(20)]
            killer.join()
    assert multiprocessing.active_children() == []


def test_many_kills_end_in_all_answers_or_in_a_name() -> None:
    def work(task: int) -> bytes:
        return bytes([task]) * LARGE

    draws, ended = random.Random(1), threading.Event()

    def kill() -> None:
        while not ended.wait(draws.random() * 0.02):
            for victim in multiprocessing.active_children()[:1]:
                victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with crew(work, 3) as one:
            given, error = given_by(one, range(60))
    finally:
        ended.set()
        killer.join()
    assert given == [work(task) for task in range(len(given))]
    assert len(given) == 60 or (
        isinstance(error, WorkerDied) and error.task == f"task {len(given)}"
    )
    assert multiprocessing.active_children() == []
