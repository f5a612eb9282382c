"""What a disk gets wrong (Rule D4), by chance or at given instants.

Contract: which writes and FLUSHes a fault hits is a function of the seed, the streams and the
run's columns alone. Each function also says which of the instants hit nothing; a fault that comes
by chance alone and never came is reported at the run's end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crashsim.engine.history import NEVER
from crashsim.engine.streams import I64, Stream
from crashsim.experiment.backing import Fault


@dataclass(frozen=True, slots=True)
class Death:
    """When the disk dies: at an instant (NEVER: not by itself), or at the end of a batch that is
    drawn."""

    at_ns: int = NEVER
    drawn: Callable[[int], bool] | None = None


NO_DEATH = Death()


def death(fault: Fault, stream: Stream) -> Death:
    """When this fault kills the disk."""

    def drawn(batch: int) -> bool:
        return bool(_by_chance(fault, stream, np.array([batch], dtype=np.int64))[0])

    return Death(min(fault.at, default=NEVER), drawn if fault.share[0] else None)


def hit_ios(
    fault: Fault, stream: Stream, batch: I64, first_page: I64, batch_end_ns: I64, end_ns: int
) -> tuple[I64, list[int]]:
    """Which I/Os are hit, 1 or 0: by chance, or the last of the first batch that ends at or after
    an instant. `batch`, `first_page`: int64[i], ascending."""
    found = _by_chance(fault, stream, (batch << 32) + first_page)
    last = np.append(np.flatnonzero(np.diff(batch)), batch.size - 1)
    idle = []
    for t in fault.at:
        hit = int(np.searchsorted(batch_end_ns, t, "left"))  # one pipe: ends ascend
        if hit < batch_end_ns.size:
            found[last[np.searchsorted(batch[last], hit)]] = 1
        else:
            idle.append(t)
    return found, idle + _never_came(fault, found, end_ns)


def hit_flushes(fault: Fault, stream: Stream, issue_ns: I64, end_ns: int) -> tuple[I64, list[int]]:
    """Which FLUSHes are hit, 1 or 0: by chance, or the first issued at or after an instant."""
    found = _by_chance(fault, stream, np.arange(issue_ns.size, dtype=np.int64))
    idle = []
    for t in fault.at:
        hit = int(np.searchsorted(issue_ns, t, "left"))
        if hit < issue_ns.size:
            found[hit] = 1
        else:
            idle.append(t)
    return found, idle + _never_came(fault, found, end_ns)


def not_died(fault: Fault, dead_ns: int, end_ns: int) -> list[int]:
    """Instants at which the disk was to die, and did not before the run's end."""
    return [min(fault.at, default=end_ns)] if fault.configured and dead_ns > end_ns else []


def alive(dead_ns: int, t_ns: I64) -> I64:
    """Instants at which the disk was alive; NEVER for the others."""
    return np.where(t_ns < dead_ns, t_ns, NEVER)


def _never_came(fault: Fault, found: I64, end_ns: int) -> list[int]:
    return [end_ns] if fault.share[0] and not fault.at and not found.any() else []


def _by_chance(fault: Fault, stream: Stream, counter: I64) -> I64:
    numerator, denominator = fault.share
    if not numerator:
        return np.zeros(counter.size, dtype=np.int64)
    bar = min((numerator << 64) // denominator, (1 << 64) - 1)
    return (stream.draws(counter) < np.uint64(bar)).astype(np.int64)
