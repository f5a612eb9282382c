"""What checks states: one image in memory, taken from state to state.

Contract: a checker is given an image that it may only read, where it was written since the checker
saw it last (which the walker, who alone writes, says), and the strictest acknowledgements that can
accompany the state. Moving to a state costs what differs from the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crashsim.checkers import Acks, Checker, Verdict, acknowledgements, self_test
from crashsim.checkers.retry import Confirmed, confirmed
from crashsim.engine.history import History
from crashsim.states import Choices, Epoch, Rebuilt, Space, Versions, Walker


@dataclass(frozen=True, slots=True)
class Target:
    """What is explored: one device of a run, and who judges its images (made anew in every process
    that checks). `rebuilt`: every image is held against the one made from the History alone."""

    history: History
    device: int
    space: Space
    make_checker: Callable[[], Checker]
    rebuilt: Rebuilt | None = None


class StateRunner:
    """Enter an epoch, then check states of it; any order will do, forward is cheap."""

    def __init__(self, target: Target) -> None:
        self._space = target.space
        self._rebuilt = target.rebuilt
        self._make_checker = target.make_checker
        self._made: Checker | None = None
        self._acks = acknowledgements(target.history, target.device)
        self._given: tuple[int, Acks] = (self._acks.count, self._acks)
        self._walker = Walker(target.space)
        self._walkers = [self._walker]
        self._epochs: Iterator[Epoch] = iter(())
        self._epoch: Epoch | None = None
        self._shown = False  # whether the checker knows the image but for what was written since

    @property
    def epoch(self) -> Epoch:
        """Where the runner is."""
        assert self._epoch is not None, "no epoch was entered"
        return self._epoch

    @property
    def digest(self) -> int:
        """Of the image as it is."""
        return self._walker.digest

    def enter(self, number: int) -> Epoch:
        """Go to an epoch; its state is for `lay` or `check` to say."""
        here = self._epoch
        if here is not None and here.number == number:
            return here
        if here is None or number < here.number:
            self._epochs = self._space.epochs(number)
            here = next(self._epochs)
        while here.number < number:
            here = next(self._epochs)
        self._walker.enter(here)
        self._epoch = here
        return here

    def lay(self, choices: Choices) -> memoryview:
        """The image of a state of the epoch, until the next one."""
        self._walker.move_to(choices)
        return self._proved()

    def check(self, choices: Choices, acks: int | None = None) -> Verdict:
        """The verdict on a state of the epoch; `acks`: with the first so many acknowledgements
        instead of all that the epoch can have."""
        return self._asked(self.lay(choices), acks)

    def check_held(self, versions: Versions) -> Verdict:
        """The same, by the version of every atom."""
        self._walker.go_to(versions)
        return self._asked(self._proved(), None)

    def check_all(self, states: Sequence[Versions]) -> Iterator[Verdict]:
        """The verdicts on states of the epoch, in order; several at once where that goes."""
        done = 0
        while done < len(states):
            some = self._at_once(states[done:])
            for versions, first in zip(states[done:], some, strict=False):
                ok = first.kind == "ok"
                yield first if ok else confirmed(first, self.check_held(versions))
            if not some:
                yield self.check_held(states[done])
            done += max(1, len(some))

    def _at_once(self, states: Sequence[Versions]) -> list[Verdict]:
        """Verdicts on the first of them, not confirmed; none where the checker takes one by one."""
        checker = self._checker.several if isinstance(self._checker, Confirmed) else None
        most = checker.at_once(self._space.size_bytes) if checker is not None else 1
        count = min(most, len(states))
        if checker is None or count == 1 or self._rebuilt is not None:
            return []
        while len(self._walkers) < count:
            self._walkers.append(self._walker.beside())
        for walker, versions in zip(self._walkers, states[:count], strict=False):
            if walker.epoch != self.epoch.number:
                walker.enter(self.epoch)
            walker.go_to(versions)
            walker.written()
        self._shown = False  # nobody was told where was written
        images = [walker.view for walker in self._walkers[:count]]
        return checker.ask_images(images, self._first(None))

    def _proved(self) -> memoryview:
        if self._rebuilt is not None:
            self._rebuilt.prove(self._walker.view, self.epoch, self._walker.choices)
        return self._walker.view

    def _asked(self, image: memoryview, acks: int | None) -> Verdict:
        written = self._walker.written()
        changed = written if self._shown else None
        self._shown = False  # a checker that did not answer knows nothing
        verdict = self._checker.check(image, self._first(acks), changed)
        self._shown = True
        return verdict

    def self_test(self, choices: Choices, acks: int) -> Verdict:
        """Anything but ok is about the checker: it does not accept a state that no cut made."""
        return self_test(self._checker, self.lay(choices), self._first(acks))

    def close(self) -> None:
        """The checker lets go of what it holds."""
        if self._made is not None:
            self._made.close()

    @property
    def _checker(self) -> Checker:
        """Made when it is first asked."""
        if self._made is None:
            self._made = self._make_checker()
        return self._made

    def _first(self, count: int | None) -> Acks:
        wanted = self.epoch.acks if count is None else count
        if self._given[0] != wanted:
            self._given = wanted, self._acks.first(wanted)
        return self._given[1]

    def __enter__(self) -> StateRunner:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
