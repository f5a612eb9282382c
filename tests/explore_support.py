"""Small programs with bytes of their own, simulated, and checkers made of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.spec import Spec
from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.experiment.applications import Fill
from crashsim.experiment.backing import Device
from crashsim.experiment.linux import Guest
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.experiment.sync_calls import CALLS
from crashsim.explore.state_runner import Target
from crashsim.guest.program import Op, Program
from crashsim.runs.one import Run
from crashsim.runs.session import Session, open_session
from crashsim.simulate.stack import simulate
from crashsim.states import Rules, Space

PAGE = 4096
ANY_HOST = Rules()


@dataclass(frozen=True)
class Write:
    offset: int
    content: bytes


@dataclass(frozen=True)
class Flush:
    """The device's flush, waited for."""


@dataclass(frozen=True)
class Mark:
    """Something is acknowledged."""

    label: str


Item = Write | Flush | Mark
Judge = Callable[[memoryview, Acks], str]  # '' when all is well, else the outcome


class Bytes:
    """Content of writes by their number."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self._contents = contents

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        for number, low, high in zip(write.tolist(), start.tolist(), end.tolist(), strict=True):
            yield memoryview(self._contents[number])[low:high]


class Judged:
    """A checker that is a function."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def check(self, image: memoryview, acks: Acks, changed: object = None) -> Verdict:
        outcome = self._judge(image, acks)
        return Verdict("finding", outcome, f"it is {outcome}") if outcome else Verdict("ok")

    def close(self) -> None:
        """Nothing is held."""


def program(items: Sequence[Item]) -> Program:
    writes = [item for item in items if isinstance(item, Write)]
    labels = tuple(item.label for item in items if isinstance(item, Mark))
    at, kind, argument, done, marks = [], [], [], 0, 0
    for item in items:
        if isinstance(item, Write):
            done += 1
            continue
        mark = isinstance(item, Mark)
        at.append(done)
        kind.append(int(Op.MARK if mark else Op.FLUSH))
        argument.append(marks if mark else 1)
        marks += mark
    empty = np.empty(0, dtype=np.int64)
    return Program(
        device=0,
        first_write=0,
        offset=np.array([w.offset for w in writes], dtype=np.int64),
        length=np.array([len(w.content) for w in writes], dtype=np.int64),
        think_ns=np.full(len(writes), 1000, dtype=np.int64),
        record_low=empty,
        record_high=empty,
        op_at=np.array(at, dtype=np.int64),
        op_kind=np.array(kind, dtype=np.int64),
        op_delay_ns=np.zeros(len(at), dtype=np.int64),
        op_argument=np.array(argument, dtype=np.int64),
        call=CALLS["fdatasync"],
        labels=labels or ("",),
    )


def history_of(items: Sequence[Item], pages: int = 16) -> History:
    experiment = Experiment(
        device=Device(name="pmem0", size=pages * PAGE),
        workload=Fill(kind="fill"),
        guest=Guest(file_system="none", access="direct"),
    )
    return simulate(experiment, [program(items)])


def target(items: Sequence[Item], judge: Judge, rules: Rules = ANY_HOST, pages: int = 16) -> Target:
    history = history_of(items, pages)
    contents = [item.content for item in items if isinstance(item, Write)]
    space = Space(history, Bytes(contents), None, 0, rules)
    return Target(history, 0, space, lambda: Judged(judge))


def open_target(
    experiment: Experiment, spec: Spec, rules: Rules = ANY_HOST, device: str | None = None
) -> Session:
    run = Run(Case(experiment.name, experiment, {}))
    return open_session(run, spec, rules.host, rules.atom_bytes, device)
