"""Named random streams that give the same numbers on every machine, forever.

`draw(stream, n)` is the n-th output of splitmix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) started from a key made of the seed and the stream's
name. It is counter based: the n-th number needs no state, so arrays of draws are plain numpy
arithmetic, and two streams never disturb each other. numpy promises no stable distributions across
versions; bounded numbers are made here, from the raw bits, with exact integer arithmetic.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """The finaliser of splitmix64 on one 64-bit number."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix_array(value: U64) -> U64:
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


class Stream:
    """One named stream of 64-bit draws."""

    __slots__ = ("key",)

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        self.key = mix(seed ^ int.from_bytes(digest[:8], "little"))

    def draw(self, n: int) -> int:
        """The n-th number, `0 <= draw < 2**64`."""
        return mix((self.key + (n + 1) * _GOLDEN) & _MASK)

    def draws(self, n: I64 | U64) -> U64:
        """The draws numbered `n`, uint64, same shape."""
        counter = n.astype(np.uint64) + np.uint64(1)
        counter *= np.uint64(_GOLDEN)
        counter += np.uint64(self.key)
        return _mix_array(counter)

    def below(self, bound: int, n: I64 | U64) -> I64:
        """For each n a number in `[0, bound)`, `bound <= 2**32`: the high half of a 32 x 32 bit
        product.

        The bias is below `bound / 2**32`, the price of using one draw for one number."""
        high = self.draws(n) >> np.uint64(32)
        high *= np.uint64(bound)
        high >>= np.uint64(32)
        return high.view(np.int64)
