"""Exact arithmetic on very large numbers of states."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

_FEW = 64
_SHORT = 10**15


def product(factors: Sequence[int]) -> int:
    """The exact product, of many factors by powers of equal ones."""
    if len(factors) <= _FEW:
        return math.prod(factors)
    return math.prod(factor**count for factor, count in sorted(Counter(factors).items()))


def power_of_ten(number: int) -> str:
    """`1024`, `1.3e+4711 (10^4711)`: exact below 10^15, then rounded down to two digits."""
    if abs(number) < _SHORT:
        return str(number)
    sign = "-" if number < 0 else ""
    number = abs(number)
    # The logarithm of the top bits is near enough to know the exponent but for one.
    shift = max(0, number.bit_length() - 64)
    exponent = int(math.log10(number >> shift) + shift * math.log10(2))
    lead = number * 10 // 10**exponent
    if lead >= 100:
        exponent += 1
        lead //= 10
    elif lead < 10:
        exponent -= 1
        lead = number * 10 // 10**exponent
    return f"{sign}{lead // 10}.{lead % 10}e+{exponent} (10^{exponent})"
