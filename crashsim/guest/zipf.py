"""Zipf-distributed ranks, exactly the same on every machine.

Weights `rank ** -theta` with theta in 64ths are made of square roots, products and quotients only:
operations that IEEE 754 defines to the last bit, unlike `pow`. They are rounded to integers once,
and from there all is integer arithmetic. Drawing uses an alias table (Walker, "An efficient method
for generating discrete random variables with general distributions", ACM TOMS 3(3), 1977), built in
bulk by laying what light ranks lack and heavy ranks have too much along one line.
"""

from __future__ import annotations

import numpy as np

from crashsim.engine.streams import I64, Stream

_SCALE = 1 << 30
_STEPS = 64


def weights(ranks: int, theta_64ths: int) -> I64:
    """Integer weights of ranks 1..n, the largest about 2**30, none 0."""
    rank = np.arange(1, ranks + 1, dtype=np.float64)
    power = np.ones(ranks, dtype=np.float64)
    for _ in range(theta_64ths // _STEPS):
        power *= rank
    root = rank
    bit = _STEPS >> 1
    while bit:  # rank ** (theta mod 1), binary digit by digit
        root = np.sqrt(root)
        if theta_64ths & bit:
            power *= root
        bit >>= 1
    return np.maximum(np.floor(_SCALE / power), 1).astype(np.int64)


class AliasTable:
    """Draws ranks 0..n-1 with probability proportional to integer weights, to within 2**-32 of each
    weight's share."""

    __slots__ = ("_alias", "_keep", "_ranks")

    def __init__(self, weight: I64) -> None:
        n = int(weight.size)
        total = int(weight.sum())
        scaled = weight * n  # each cell holds `total`
        light = np.flatnonzero(scaled < total)
        heavy = np.flatnonzero(scaled >= total)
        lack_end = np.cumsum(total - scaled[light])
        lack_start = lack_end - (total - scaled[light])
        spare_end = np.cumsum(scaled[heavy] - total)
        keep = scaled.copy()
        alias = np.arange(n, dtype=np.int64)
        if light.size:
            # A light rank is filled by the heavy one at which its part of the line starts; what
            # that one gives too much of itself, the next heavy one makes good.
            alias[light] = heavy[np.searchsorted(spare_end, lack_start, "right")]
            reach = np.searchsorted(lack_end, spare_end, "left")
            over = np.minimum(lack_end[np.minimum(reach, light.size - 1)] - spare_end, total)
            over = np.maximum(over, 0)
            started = lack_start[np.minimum(reach, light.size - 1)] < spare_end
            over[~started] = 0
            keep[heavy] = total - over
            alias[heavy[:-1]] = heavy[1:]
        self._ranks = n
        self._alias = alias
        # The share of the cell that stays with its rank, as a 32-bit fraction.
        whole, rest = np.divmod(keep, total)
        self._keep = (whole << 32) + (rest << 22) // (total >> 10 or 1)
        np.minimum(self._keep, 1 << 32, out=self._keep)

    def draw(self, stream: Stream, n: I64) -> I64:
        """Ranks for the draws numbered `n`: the high half of a draw picks the cell, the low half
        the side."""
        draws = stream.draws(n)
        side = (draws & np.uint64(0xFFFFFFFF)).view(np.int64)
        draws >>= np.uint64(32)
        draws *= np.uint64(self._ranks)
        draws >>= np.uint64(32)
        cell = draws.view(np.int64)
        move = np.flatnonzero(side >= self._keep[cell])
        cell[move] = self._alias[cell[move]]
        return cell
