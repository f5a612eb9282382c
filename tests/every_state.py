"""Every image of a small space, as fast as one process can, for functions of a memoryview.

Contract: each image of each epoch is visited exactly once, one atom changing from one to the next,
and given to a function that says whether it is fine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crashsim.states import Space, Walker
from crashsim.states.walker import PRIME


def gray(number: int, radices: Sequence[int]) -> tuple[list[int], list[int]]:
    """The reflected Gray code of `number` in mixed radix, the first digit the fastest, and the
    direction (1, -1) in which each digit goes on: neighbours differ in one digit, by one."""
    code, direction = [], []
    for radix in radices:
        number, digit = divmod(number, radix)
        back = number & 1
        code.append(radix - 1 - digit if back else digit)
        direction.append(-1 if back else 1)
    return code, direction


class Enumerator(Walker):
    """One that visits them all."""

    def enumerate_all(self, first: int = 0, last: int | None = None) -> Iterator[int]:
        """Visit all states of the epoch, each once, one atom changing from one to the next; yields
        the digest.

        With bounds: the states with the numbers [first, last) of the Gray code over all atoms
        (`gray`). Move the walker only after the last."""
        atoms, lay = self._atoms, self._lay
        radices = [len(atom.versions) for atom in atoms]
        total = math.prod(radices)
        last = total if last is None else min(last, total)
        if first >= last:
            return
        at, direction = gray(first, radices)
        self.move_to(enumerate(at))
        held = self._held
        ends = [(radix - 1, 0) for radix in radices]
        starts, versions = [a.start for a in atoms], [a.versions for a in atoms]
        changes = [self._changes_of(number) for number in range(len(atoms))]
        yield self.digest
        difference = self._difference or 0
        for _ in range(last - first - 1):
            moving = 0
            # A digit at its end turns round, and the next one moves.
            while at[moving] == ends[moving][direction[moving] < 0]:
                direction[moving] = -direction[moving]
                moving += 1
            old = at[moving]
            at[moving] = new = old + direction[moving]
            lay(starts[moving], versions[moving][new])
            self._difference = difference = difference + changes[moving][new] - changes[moving][old]
            held[moving] = new
            yield (self._base_digest + difference) % PRIME


@dataclass(frozen=True, slots=True)
class Visited:
    """Images that were visited, and how many of them are not fine."""

    images: int
    bad: int


def explore_in_process(
    space: Space, fine: Callable[[memoryview], bool], most: int | None = None
) -> Visited:
    """Visit all images, or the first `most`."""
    walker = Enumerator(space)
    view = walker.view
    images = bad = 0
    for epoch in space.epochs():
        walker.enter(epoch)
        last = epoch.images if most is None else min(epoch.images, most - images)
        for _ in walker.enumerate_all(0, last):
            if not fine(view):
                bad += 1
        images += last
        if images == most:
            break
    return Visited(images, bad)
