"""Every checker is shown the state that is checked, to the byte, whatever it saw before."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.experiment.loader import load
from crashsim.explore.bench import Bench
from crashsim.explore.plan import plan
from crashsim.explore.wiring import CheckerSpec, Opened, open_subject
from crashsim.states import Rules
from tests.checkers_support import python

# What is guaranteed was never undecided before: a real NVDIMM persists each store at once (V9).
AT_ONCE = """
device: {size: 64KiB, type: real-nvdimm}
guest: {file_system: none}
workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}
sync: {call: fsync}
"""
DIGEST = python(
    "import sys, hashlib;"
    "print('outcome: ' + hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
)


def digest(image: memoryview, acks: Acks) -> Verdict:
    """The checker that a function is; what the command above says."""
    return Verdict("ok", hashlib.sha256(image).hexdigest())


def opened(folder: Path, text: str, spec: CheckerSpec, rules: Rules) -> Opened:
    path = folder / "experiment.yaml"
    path.write_text(text)
    (case,) = load(path).cases
    return open_subject(case.experiment, spec, rules)


@pytest.mark.parametrize(
    "spec",
    [
        CheckerSpec(command=f"{DIGEST} {{image}}"),
        CheckerSpec(function="tests.test_checkers_see_the_state:digest"),
    ],
    ids=["command", "function"],
)
def test_what_became_certain_without_ever_being_undecided_is_shown(
    tmp_path: Path, spec: CheckerSpec
) -> None:
    one = opened(tmp_path, AT_ONCE, spec, Rules("this-host")).subject
    shown = []
    with Bench(one) as bench:
        for epoch in one.space.epochs():
            bench.enter(epoch.number)
            for step in islice(plan(epoch, one.history.store_write, 9, seed=1), 9):
                told = bench.check(step.choices).outcome
                assert told == hashlib.sha256(bench.lay(step.choices)).hexdigest()
                shown.append(told)
    assert len(set(shown)) == 7


def test_a_rule_finds_what_became_certain_without_ever_being_undecided(tmp_path: Path) -> None:
    spec = CheckerSpec(rule="acknowledged")
    one = opened(tmp_path, AT_ONCE, spec, Rules("this-host")).subject
    with Bench(one) as bench:
        for number in range(len(one.space)):
            bench.enter(number)
            assert bench.check(()).kind == "ok"
