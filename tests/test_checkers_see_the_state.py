"""Every checker is shown the state that is checked, to the byte, whatever it saw before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from crashsim.checkers import Acks, Checker, Verdict
from crashsim.checkers.builtin import RuleName, built_in
from crashsim.checkers.by_command import CommandChecker
from crashsim.checkers.spec import Command, Function, Rule, Spec
from crashsim.checkers.verdict import Ranges
from crashsim.errors import UsageError
from crashsim.experiment.loader import load
from crashsim.experiment.model import Experiment
from crashsim.explore.selection import plan
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.runs.session import Session
from crashsim.simulate.inputs import Inputs, make_inputs
from crashsim.simulate.stack import simulate
from crashsim.states import Choices, Epoch, HostKind, Rebuilt, Rules, Space, Walker
from tests.cli_support import Program
from tests.explore_support import open_target
from tests.random_experiments import experiments

HOSTS: tuple[HostKind, ...] = ("this-host", "any-host")
RULES: tuple[RuleName, ...] = ("records", "prefix", "acknowledged", "atomic")
MORE = os.environ.get("CRASHSIM_EXAMPLES")
# What is guaranteed was never undecided before: a real NVDIMM persists each store at once (V9).
AT_ONCE = """
device: {size: 64KiB, type: real-nvdimm}
guest: {file_system: none, access: direct}
workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}
sync: {call: fsync}
"""
DIGEST = """sh -c 'echo outcome: $(sha256sum < "$1")' - {image}"""


def digest(image: memoryview | bytes | bytearray) -> str:
    return hashlib.sha256(image).hexdigest()


def judge(image: memoryview, acks: Acks) -> str:
    """The checker that a function is; what the command above says."""
    return f"{digest(image)} -"


# One experiment, each kind of checker


def opened(folder: Path, text: str, spec: Spec, rules: Rules) -> Session:
    path = folder / "experiment.yaml"
    path.write_text(text)
    (case,) = load(path).cases
    return open_target(case.experiment, spec, rules)


@pytest.mark.parametrize(
    "spec",
    [
        Command(DIGEST),
        Function("tests.test_checkers_see_the_state:judge"),
    ],
    ids=["command", "function"],
)
def test_what_became_certain_without_ever_being_undecided_is_shown(
    tmp_path: Path, spec: Spec
) -> None:
    one = opened(tmp_path, AT_ONCE, spec, Rules("this-host")).target
    shown = []
    with StateRunner(one) as runner:
        for epoch in one.space.epochs():
            runner.enter(epoch.number)
            for step in islice(plan(epoch, one.history.store_write, 9, seed=1), 9):
                told = runner.check(step.choices).outcome
                assert told == f"{digest(runner.lay(step.choices))} -"
                shown.append(told)
    assert len(set(shown)) == 7


def test_a_rule_finds_what_became_certain_without_ever_being_undecided(tmp_path: Path) -> None:
    spec = Rule("acknowledged")
    one = opened(tmp_path, AT_ONCE, spec, Rules("this-host")).target
    with StateRunner(one) as runner:
        for number in range(len(one.space)):
            runner.enter(number)
            assert runner.check(()).kind == "ok"


# Random experiments, all kinds of checkers at once


@dataclass
class Everyone:
    """All checkers in the place of one: those that read bytes say which, and a rule says what one
    says that has seen no state before."""

    command: CommandChecker
    rules: list[tuple[Checker, Callable[[], Checker]]]

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        for rule, fresh in self.rules:
            assert rule.check(image, acks, changed) == fresh().check(image, acks)
        told = self.command.check(image, acks, changed)
        assert told.outcome == judge(image, acks)
        return told

    def close(self) -> None:
        self.command.close()


def rules_of(
    experiment: Experiment, target: Target, inputs: Inputs, before: memoryview
) -> list[Callable[[], Checker]]:
    """Those that mean something for the device's workload."""
    kind = experiment.resolved_devices()[target.device][1].kind

    def maker(rule: RuleName) -> Callable[[], Checker]:
        return lambda: built_in(
            rule, kind, target.history, inputs.programs, target.device, inputs.content, before
        )

    found = []
    for rule in RULES:
        make = maker(rule)
        try:
            make()
        except UsageError:
            continue
        found.append(make)
    return found


def everyone(
    experiment: Experiment, device: int, rules: Rules, before: memoryview
) -> tuple[Target, Rebuilt]:
    inputs = make_inputs(experiment)
    history = simulate(experiment, inputs.programs)
    of_device = (history, inputs.content, before, device, rules)

    def make() -> Everyone:
        makers = rules_of(experiment, target, inputs, before)
        return Everyone(Command(DIGEST).checker(), [(make(), make) for make in makers])

    target = Target(history, device, Space(*of_device), make)
    return target, Rebuilt(*of_device)


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Experiment, Rules]:
    host = draw(st.sampled_from(HOSTS))
    return draw(experiments(host)), Rules(host, draw(st.sampled_from((8, 64, 512, 4096, 65536))))


def journey(random: Random, target: Target) -> Iterator[tuple[Epoch, Choices]]:
    """Some states of some epochs, mostly forward."""
    epochs = list(target.space.epochs())
    numbers = sorted(random.choices(range(len(epochs)), k=4))
    numbers.append(random.randrange(len(epochs)))
    for number in numbers:
        steps = plan(epochs[number], target.history.store_write, 40, seed=1)
        states = [step.choices for step in steps]
        for choices in random.choices(states, k=random.randint(1, 3)):
            yield epochs[number], choices


@given(drawn(), st.integers(0, 1 << 32))
@settings(
    max_examples=int(MORE or 40),
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_checker_is_given_the_state_that_the_history_alone_gives(
    world: tuple[Experiment, Rules], seed: int
) -> None:
    experiment, rules = world
    random, before = Random(seed), memoryview(bytes(range(1, 200)) * 50)
    for device in range(len(experiment.resolved_devices())):
        target, rebuilt = everyone(experiment, device, rules, before)
        event(f"{rules.host}, epochs: {min(len(target.space), 3)}")
        with StateRunner(target) as runner:
            for epoch, choices in journey(random, target):
                runner.enter(epoch.number)
                if random.random() < 0.2:
                    runner.lay(())  # seen by nobody
                told = runner.check(choices, random.choice((None, None, 0)))
                assert told.outcome == f"{digest(rebuilt.image(epoch, choices))} -"


# The comparison that users can ask for


@pytest.mark.parametrize("check", [{"command": "true {image}"}, {"rule": "records"}])
@pytest.mark.parametrize("host", HOSTS)
def test_paranoid_explorations_of_what_is_right_say_nothing(
    program: Program, check: dict[str, str], host: HostKind
) -> None:
    text = f"{AT_ONCE}explore: {{host: {host}, states: 30, check: {json.dumps(check)}}}"
    assert program.run(text, "--paranoid").code in (0, 1)


@pytest.mark.parametrize("check", [{"command": "true {image}"}, {"rule": "records"}])
def test_paranoid_is_an_internal_error_when_a_checker_was_shown_something_older(
    program: Program, check: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{AT_ONCE}explore: {{host: this-host, states: 30, check: {json.dumps(check)}}}"
    monkeypatch.setattr(Walker, "written", lambda _walker: set())
    assert program.run(text).code in (0, 1)
    answer = program.run(text, "--paranoid")
    assert answer.code == 3
    assert "not the state's" in answer.err


def test_paranoid_is_an_internal_error_when_a_state_is_not_that_of_the_history(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{AT_ONCE}explore: {{host: this-host, states: 30, check: {{rule: records}}}}"
    monkeypatch.setattr(Space, "guaranteed", lambda *_: iter(()))
    answer = program.run(text, "--paranoid")
    assert answer.code == 3
    assert "not the one that the History alone gives: byte 0 differs" in answer.err
