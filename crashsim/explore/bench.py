"""The bench on which states are checked: one image in memory, taken from state to state.

Contract: a checker is given an image that it may only read, what of it has changed since it saw it
last, and the strictest acknowledgements that can accompany the state. Moving to a state costs what
differs from the last one.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from crashsim.checkers import Acks, Checker, Verdict, acknowledgements, self_test
from crashsim.engine.history import History
from crashsim.states import Choices, Epoch, Space, Walker

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explored: one device of a run, and who judges its images (made anew in every process
    that checks)."""

    history: History
    device: int
    space: Space
    make_checker: Callable[[], Checker]


class Bench:
    """Enter an epoch, then check states of it; any order will do, forward is cheap."""

    def __init__(self, subject: Subject) -> None:
        self._space = subject.space
        self._checker = subject.make_checker()
        self._acks = acknowledgements(subject.history, subject.device)
        self._given: tuple[int, Acks] = (self._acks.count, self._acks)
        image = mmap.mmap(-1, subject.space.size_bytes)
        self._walker = Walker(subject.space, image)
        self._view = memoryview(image).toreadonly()
        self._epochs: Iterator[Epoch] = iter(())
        self._epoch: Epoch | None = None
        self._changed: list[Range] | None = None  # since the last check, ascending; None: unknown

    @property
    def epoch(self) -> Epoch:
        """Where the bench is."""
        assert self._epoch is not None, "no epoch was entered"
        return self._epoch

    @property
    def digest(self) -> int:
        """Of the image as it is."""
        return self._walker.digest

    def enter(self, number: int) -> Epoch:
        """Go to an epoch, everything undecided lost."""
        here = self._epoch
        if here is not None and here.number == number:
            return here
        self.lay(())
        if here is None or number < here.number:
            self._epochs = self._space.epochs(number)
            here, self._changed = next(self._epochs), None
        while here.number < number:
            # Whatever became guaranteed on the way was undecided in an epoch before.
            if self._changed is not None:
                spans = [(a.start, a.start + len(a.versions[0])) for a in here.atoms]
                self._changed = sorted({*self._changed, *spans})
            here = next(self._epochs)
        self._walker.enter(here)
        self._epoch = here
        return here

    def lay(self, choices: Choices) -> memoryview:
        """The image of a state of the epoch, until the next one."""
        written = self._walker.move_to(choices)
        if written and self._changed is not None:
            self._changed = sorted({*self._changed, *written}) if self._changed else written
        return self._view

    def check(self, choices: Choices, acks: int | None = None) -> Verdict:
        """The verdict on a state of the epoch; `acks`: with the first so many acknowledgements
        instead of all that the epoch can have."""
        image = self.lay(choices)
        changed, self._changed = self._changed, []
        return self._checker.check(image, self._first(acks), changed)

    def self_test(self, choices: Choices, acks: int) -> Verdict:
        """Anything but ok is about the checker: it does not accept a state that no cut made."""
        return self_test(self._checker, self.lay(choices), self._first(acks))

    def close(self) -> None:
        """The checker lets go of what it holds."""
        self._checker.close()

    def _first(self, count: int | None) -> Acks:
        wanted = self.epoch.acks if count is None else count
        if self._given[0] != wanted:
            self._given = wanted, self._acks.first(wanted)
        return self._given[1]

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
