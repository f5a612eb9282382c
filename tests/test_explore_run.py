"""Exploring over processes, within a budget, and going on after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.by_function import Contained
from crashsim.checkers.retry import Confirmed
from crashsim.checkers.spec import Function
from crashsim.errors import CheckerError, NothingExplored, UsageError, WorkerDied
from crashsim.explore.budget import Budget
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.explore.survey import Exploration, explore, unseen_share
from crashsim.explore.workers import Plans, Unit, UnitLog, UnitResult, work
from crashsim.states import HostKind, Rules
from tests.every_state import Visited, explore_in_process
from tests.explore_support import Flush, Item, Judge, Mark, Write, target

ROOT = Path(__file__).parents[1]


def items() -> list[Item]:
    """Three epochs: 9 sectors, then 9 others, then 2 of them again."""
    first: list[Item] = [Write(512 * n, bytes([n + 1]) * 512) for n in range(9)]
    second: list[Item] = [Write(8192 + 512 * n, bytes([n + 100]) * 512) for n in range(9)]
    third: list[Item] = [Write(512 * n, bytes([n + 200]) * 512) for n in range(2)]
    return [*first, Flush(), Mark("one"), *second, Flush(), Mark("two"), *third]


def judge(image: memoryview, acks: Acks) -> str:
    """The second of two neighbours in the second epoch needs the first."""
    for n in range(0, 8, 2):
        if image[8192 + 512 * (n + 1)] and not image[8192 + 512 * n]:
            return "second without first"
    return "" if image[0] or acks.count == 0 else "nothing"


def fine(image: memoryview, acks: Acks) -> str:
    return ""


def found_by(one: Target, states: int = 600, workers: int = 1, **more: object) -> Exploration:
    return explore(one, Budget(states), 7, workers, **more)  # type: ignore[arg-type]


def counting(judge: Judge) -> tuple[Judge, list[int]]:
    asked: list[int] = []

    def count(image: memoryview, acks: Acks) -> str:
        asked.append(1)
        return judge(image, acks)

    return count, asked


def test_what_is_found_does_not_depend_on_the_number_of_workers() -> None:
    one = target(items(), judge)
    alone = found_by(one)
    assert alone.findings and alone.result.checked == 600
    assert [found_by(one, workers=count) for count in (2, 3)] == [alone, alone]
    assert multiprocessing.active_children() == []


def test_another_seed_draws_other_states() -> None:
    one = target(items(), judge)
    assert (
        explore(one, Budget(600), 1).result.outcomes != explore(one, Budget(600), 2).result.outcomes
    )


def test_every_state_is_checked_when_the_budget_has_room_for_all() -> None:
    found = found_by(target(items(), judge), 5000)
    assert [epoch.checked for epoch in found.result.epochs] == [512, 512, 4]
    assert found.result.checked == found.result.images == found.result.choices == 1028
    assert found.result.failing == 512 - 2 * 3**4  # four pairs of which one of four states is bad
    assert found.result.reached and found.result.exit_code == 1
    (finding,) = found.findings
    assert finding.states == found.result.failing and finding.epochs == 1


def test_the_share_of_images_that_can_still_be_bad_follows_from_the_random_part_alone() -> None:
    assert unseen_share(2**50, 300, 0) == 1.0
    drawn = unseen_share(2**50, 300, 300)
    assert drawn == pytest.approx(3 / 300, rel=0.01)  # the rule of three
    assert unseen_share(300, 300, 0) == 0.0


def test_acknowledgements_of_the_epoch_accompany_its_states() -> None:
    seen = set()

    def look(image: memoryview, acks: Acks) -> str:
        seen.add(acks.labels)
        return ""

    found_by(target(items(), look))
    assert seen == {(), ("one",), ("one", "two")}


def test_a_checker_may_not_write_to_the_image() -> None:
    def write(image: memoryview, acks: Acks) -> str:
        with pytest.raises(TypeError):
            image[0] = 1
        return ""

    assert found_by(target(items(), write), 10).result.checked == 10


def test_a_checker_is_told_what_has_changed_since_it_looked_last() -> None:
    copy = bytearray(16 * 4096)
    told = []

    class Copying:
        def check(
            self, image: memoryview, acks: Acks, changed: Sequence[tuple[int, int]] | None = None
        ) -> Verdict:
            if changed is None:
                copy[:] = image
            else:
                told.append(sum(end - start for start, end in changed))
                for start, end in changed:
                    copy[start:end] = image[start:end]
            assert copy == image
            return Verdict("ok")

        def close(self) -> None:
            """Nothing is held."""

    one = replace(target(items(), fine), make_checker=Copying)
    assert found_by(one).result.failing == 0
    assert max(told) <= 512 * 20 and len(told) >= 598
    with StateRunner(one) as runner:  # back and forth
        for epoch in (2, 0, 1, 2, 1):
            runner.enter(epoch)
            runner.check(())
            runner.check(((0, 1), (1, 1)))


# Budgets


def after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_time_that_runs_out_leaves_the_ends_of_every_epoch_checked() -> None:
    # Asked once before each state, and once after each unit.
    found = explore(target(items(), fine), Budget(600, after(10)), 1)
    assert all(epoch.kinds.keys() >= {"none", "all"} for epoch in found.result.epochs)
    assert not found.result.reached and found.result.exit_code == 4
    assert 6 <= found.result.checked <= 10


def test_time_that_does_not_run_out_changes_nothing() -> None:
    one = target(items(), judge)
    assert explore(one, Budget(600, lambda: False), 7) == found_by(one)


def test_a_budget_that_does_not_reach_the_ends_of_every_epoch_is_not_enough() -> None:
    found = found_by(target(items(), fine), 5)
    assert found.result.checked == 5 and not found.result.reached and found.result.exit_code == 4
    assert found_by(target(items(), fine), 6).result.exit_code == 0


def test_nothing_to_explore_is_an_error_of_its_own() -> None:
    with pytest.raises(NothingExplored):
        found_by(target([Flush()], fine))
    with pytest.raises(NothingExplored):
        found_by(target(items(), fine), 0)


# Checkers that are of no use


def test_a_checker_that_fails_without_a_crash_is_reported_as_such_first() -> None:
    with pytest.raises(CheckerError, match="does not accept the image without a cut"):
        found_by(target(items(), lambda image, acks: "always"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_checker_that_cannot_run_ends_the_exploration(workers: int) -> None:
    class Broken:
        def check(self, image: memoryview, acks: Acks, changed: object = None) -> Verdict:
            return Verdict("ok") if image[0] else Verdict("broken", "", "no such command")

        def close(self) -> None:
            """Nothing is held."""

    one = replace(target(items(), fine), make_checker=Broken)
    with pytest.raises(CheckerError, match="no such command"):
        found_by(one, workers=workers)
    assert multiprocessing.active_children() == []


def test_a_checker_that_ends_its_process_is_told_apart() -> None:
    def leave(image: memoryview, acks: Acks) -> str:
        if not image[0]:
            os._exit(3)
        return ""

    with pytest.raises(WorkerDied, match="of epoch 0: the process that worked on it ended with 3"):
        found_by(target(items(), leave), workers=2)


def test_workers_that_are_killed_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit's process is killed once, in the midst of it."""
    one = target(items(), judge)
    alone = found_by(one)

    def deadly(
        runner: StateRunner, plans: Plans, unit: Unit, expired: Callable[[], bool] | None
    ) -> UnitResult:
        place = tmp_path / f"{unit.epoch}-{unit.low}"
        if not place.exists():
            place.touch()
            work(runner, plans, replace(unit, high=unit.low + 5), expired)
            os.kill(os.getpid(), signal.SIGKILL)
        return work(runner, plans, unit, expired)

    monkeypatch.setattr("crashsim.explore.workers.work", deadly)
    assert found_by(one, workers=2) == alone
    assert len(list(tmp_path.iterdir())) >= alone.result.checked // 64
    assert multiprocessing.active_children() == []


def test_a_unit_says_what_to_make_and_holds_none_of_it() -> None:
    many: list[Item] = [Write(512 * n, bytes([1]) * 512) for n in range(120)]
    one, asked = target(many, fine), Unit(0, 128, 192, 600)
    assert len(pickle.dumps(asked)) < 200
    plans, epoch = Plans(one, 7), one.space.epoch(0)
    whole = list(plans.whole(epoch, 600))
    for unit in (asked, replace(asked, low=320, high=330), asked):  # forward and back
        assert plans.stretch(epoch, unit) == whole[unit.low : unit.high]


AT_ONCE = """
import os

def check(image, acks):
    held = sum(map(bool, image[8192 : 8192 + 4096 : 512]))
    if image[8192] and held == 3:
        os._exit(5)
    assert held != 4, "four"
    return f"{held} held" if held % 2 else None
"""


def test_states_checked_at_once_get_what_each_gets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the function does with one of them: it says no, or dies."""
    (tmp_path / "check.py").write_text(AT_ONCE)
    spec = Function("check.py:check", folder=tmp_path)
    one = replace(target(items(), fine), make_checker=lambda: Confirmed(spec.checker()))
    together: list[int] = []
    ask = Contained.ask_images

    def asked(self: Contained, images: Sequence[memoryview], acks: Acks) -> list[Verdict]:
        found = ask(self, images, acks)
        together.append(len(found))
        return found

    monkeypatch.setattr(Contained, "ask_images", asked)
    monkeypatch.setattr(Contained, "at_once", lambda self, size: 16)
    with StateRunner(one) as runner:
        epoch = runner.enter(1)
        steps = list(Plans(one, 1).whole(epoch, 60))
        found = list(runner.check_all([step.versions for step in steps]))
        assert found == [runner.check(step.choices) for step in steps]
    assert sum(together) > 50 and max(together) == 16 and min(together) < 16
    assert {one.kind for one in found} == {"ok", "finding", "crash"}


# The journal


def test_what_a_journal_knows_is_not_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    judged, asked = counting(judge)
    one = target(items(), judged)
    whole = found_by(one, journal=path, identity="x")
    first = len(asked)
    again = found_by(one, journal=path, identity="x")
    assert again == whole
    assert len(asked) - first == first - 600  # the self test, and the shrinking


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_journal_cut_off_anywhere_goes_on_where_it_was(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    one = target(items(), judge)
    whole = found_by(one, journal=path, identity="x")
    kept = path.read_bytes()
    path.write_bytes(kept[:-cut])
    assert found_by(one, journal=path, identity="x") == whole
    assert path.read_bytes() == kept


def test_a_journal_with_a_damaged_line_is_believed_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one = target(items(), judge)
    whole = found_by(one, journal=path, identity="x")
    kept = path.read_bytes()
    path.write_bytes(kept[:200] + bytes([kept[200] ^ 1]) + kept[201:])
    assert found_by(one, journal=path, identity="x") == whole
    assert path.read_bytes() == kept


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one = target(items(), fine)
    found_by(one, journal=path, identity="x")
    kept = path.read_bytes()
    with pytest.raises(UsageError, match="another exploration"):
        found_by(one, journal=path, identity="y")
    with pytest.raises(UsageError, match="another exploration"):
        found_by(one, 601, journal=path, identity="x")
    assert path.read_bytes() == kept
    other = tmp_path / "notes"
    other.write_text("my notes\n")
    with pytest.raises(UsageError, match="not a journal"):
        found_by(one, journal=other, identity="x")
    assert other.read_text() == "my notes\n"


def test_two_explorations_do_not_write_to_one_journal(tmp_path: Path) -> None:
    code = KILLED.format(calls=0, victim=0, workers=1)
    with closing(UnitLog(tmp_path / "journal", "x")):
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "journal"],
            cwd=ROOT,
            check=False,
            capture_output=True,
        )
    assert b"UsageError" in other.stderr and b"another exploration is writing" in other.stderr


KILLED = """
import sys, os, signal
from pathlib import Path
from tests.test_explore_run import items, judge, found_by
from tests.explore_support import target
asked = 0
def dying(image, acks):
    global asked
    asked += 1
    if asked == {calls}:
        os.kill({victim}, signal.SIGKILL)
    return judge(image, acks)
found_by(target(items(), dying), workers={workers}, journal=Path(sys.argv[1]), identity="x")
"""


@pytest.mark.parametrize(
    ("workers", "calls", "victim"), [(1, 400, "os.getpid()"), (2, 300, "os.getppid()")]
)
def test_a_killed_exploration_goes_on_and_ends_alike(
    tmp_path: Path, workers: int, calls: int, victim: str
) -> None:
    path = tmp_path / "journal"
    code = KILLED.format(calls=calls, victim=victim, workers=workers)
    killed = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    lines = len(path.read_bytes().splitlines())
    judged, asked = counting(judge)
    one = target(items(), judged)
    again = found_by(one, journal=path, identity="x")
    went_on = len(asked)
    asked.clear()
    assert again == found_by(one)
    assert workers > 1 or (lines > 1 and went_on < len(asked))


def test_an_interrupted_exploration_says_what_it_has_done() -> None:
    calls = iter(range(300))

    def interrupting(image: memoryview, acks: Acks) -> str:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return judge(image, acks)

    found = found_by(target(items(), interrupting))
    assert found.result.interrupted and found.result.exit_code == 130
    assert 0 < found.result.checked < 300


# In one process, and results


def test_in_process_every_image_is_visited_once() -> None:
    one = target(items(), judge)
    no_acks = Acks()
    visited = explore_in_process(one.space, lambda image: judge(image, no_acks) == "")
    assert visited == Visited(1028, 512 - 2 * 3**4)
    seen: list[bytes] = []

    def look(image: memoryview) -> bool:
        seen.append(bytes(image))
        return True

    assert explore_in_process(one.space, look, 700) == Visited(700, 0)
    assert len(seen) == 700 and len(set(seen[:512])) == 512


def test_results_are_plain_data_with_exact_counts() -> None:
    many: list[Item] = [Write(512 * n, bytes([1]) * 512) for n in range(120)]
    one = target([*many, Mark("end")], fine)
    text = json.dumps(asdict(found_by(one, 300).result))
    assert json.loads(text)["images"] == 2**120
    assert json.loads(text)["images_text"] == "1.3e+36 (10^36)"
    assert json.loads(text)["checked"] == 300
    one = target([*many, Mark("end")], fine, Rules(atom_bytes=8))
    words = asdict(found_by(one, 300).result)
    assert words["images"] is None and json.dumps(words)


def test_results_of_findings_are_plain_data() -> None:
    one = target(items(), judge)
    document = json.loads(json.dumps(asdict(found_by(one).result)))
    (finding,) = document["findings"]
    assert finding["states"] == document["failing"]
    assert finding["story"] and finding["lost"][0]["length"] == 512


def test_without_causes_the_same_states_are_counted_and_none_is_shrunk() -> None:
    with_causes, asked = found_by(target(items(), judge)), counting(judge)
    without = found_by(target(items(), asked[0]), causes=False)
    assert (
        without.rejected == with_causes.rejected == {"second without first": without.result.failing}
    )
    assert (without.findings, without.result.ungrouped) == ((), without.result.failing)
    assert with_causes.findings and len(asked[1]) == without.result.checked + 1  # the self-test


def test_an_instant_is_in_the_epoch_that_covers_it() -> None:
    space = target(items(), fine).space
    for epoch in space.epochs():
        inside = {epoch.first_ns, (epoch.first_ns + epoch.cut_ns) // 2, epoch.cut_ns}
        assert {space.at(t_ns) for t_ns in inside} == {epoch.number}
    assert space.at(epoch.cut_ns + 1) == len(space) - 1


@pytest.mark.parametrize("host", ["this-host", "any-host"])
def test_a_checker_is_tried_on_all_that_was_stored_though_the_host_wrote_nothing(
    host: HostKind,
) -> None:
    """Nobody synced, so all is lost to a cut: that is not the checker's fault."""
    one = target([Write(0, b"x" * 512)], lambda image, _: "" if image[0] else "empty", Rules(host))
    (finding,) = found_by(one).findings
    assert finding.outcome == "empty"
