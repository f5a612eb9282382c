"""Every image of a small space, as fast as one process can: for benchmarks and for tests of code
that can be called on a memoryview.

Contract: each image of each epoch is visited exactly once, one atom changing from one to the next,
and given to a function that says whether it is fine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crashsim.states import Space, Walker


@dataclass(frozen=True, slots=True)
class Visited:
    """Images that were visited, and how many of them are not fine."""

    images: int
    bad: int


def explore_in_process(
    space: Space, fine: Callable[[memoryview], bool], most: int | None = None
) -> Visited:
    """Visit all images, or the first `most`."""
    walker = Walker(space)
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
