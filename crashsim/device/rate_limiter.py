"""Firecracker's rate limiter of operations (Rule V3).

Contract: a bucket of tokens that fills up evenly, full at first, and a burst of more that are used
first and never come back. Who finds no token waits for a fixed time, however soon the next one
comes: so Firecracker's timer does.
"""

from __future__ import annotations

STOPPED_NS = 100_000_000


class TokenBucket:
    """`ops` tokens, all of which come back within `refill_ns`."""

    __slots__ = ("_burst", "_ops", "_refill_ns", "_since_ns", "_tokens")

    def __init__(self, ops: int, refill_ns: int, burst: int) -> None:
        self._ops = ops
        self._refill_ns = refill_ns
        self._burst = burst
        self._tokens = ops
        self._since_ns = 0  # up to when what was gained is in the bucket

    def take(self, now_ns: int) -> bool:
        """A token, if there is one; instants never go back."""
        if self._burst:
            self._burst -= 1
            return True
        gained = (now_ns - self._since_ns) * self._ops // self._refill_ns
        self._tokens += gained
        if self._tokens >= self._ops:
            self._tokens, self._since_ns = self._ops, now_ns
        else:
            self._since_ns += -(-gained * self._refill_ns // self._ops)
        if not self._tokens:
            return False
        self._tokens -= 1
        return True
