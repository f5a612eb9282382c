"""One budget for all epochs.

Contract: every epoch has its two ends before any has more, then every epoch its structured states,
then the rest is dealt out; each time evenly, but no epoch more than it has use for. The same
numbers give the same shares, whoever works them off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_FIRST_RANDOM = 512  # states of an epoch in the first round that goes beyond structure
_GROWTH = 8
_ENDS = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """States to be checked, and when to stop before that. `expired` is asked before each state, in
    every process."""

    states: int
    expired: Callable[[], bool] | None = None


def fill(caps: Sequence[int], total: int) -> list[int]:
    """Shares of `total`, none above its cap, as even as they can be; what cannot be divided goes
    to places spread over those with room."""
    shares = [0] * len(caps)
    left = total
    waiting = sorted((cap, number) for number, cap in enumerate(caps) if cap > 0)
    while waiting and left:
        level = left // len(waiting)
        full = [entry for entry in waiting if entry[0] <= level]
        if not full:
            order = sorted(number for _, number in waiting)
            for number in order:
                shares[number] = level
            extra = left - level * len(order)
            for one in range(extra):
                shares[order[one * len(order) // extra]] += 1
            return shares
        for cap, number in full:
            shares[number] = cap
            left -= cap
        waiting = waiting[len(full) :]
    return shares


def allot(images: Sequence[int], structured: Sequence[int], states: int) -> list[int]:
    """How many states of each epoch are checked, given how many each has."""
    shares = [0] * len(images)
    for tier in ([_ENDS] * len(images), structured, images):
        caps = [
            min(most, wanted) - share
            for most, wanted, share in zip(images, tier, shares, strict=True)
        ]
        more = fill(caps, states - sum(shares))
        shares = [share + extra for share, extra in zip(shares, more, strict=True)]
    return shares


def rounds(allowance: int, structured: int) -> list[int]:
    """Bounds of the rounds in which an epoch's plan is worked off, when time may run out: the ends
    of every epoch come before the structure of any, and that before chance."""
    bounds = [0, min(_ENDS, allowance), min(max(_ENDS, structured), allowance)]
    step = _FIRST_RANDOM
    while bounds[-1] < allowance:
        bounds.append(min(allowance, bounds[-1] + step))
        step *= _GROWTH
    return bounds
