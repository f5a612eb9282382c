"""The digest of an image: the image as a number, little-endian, modulo a fixed prime of 128 bits.

Equal images have equal digests. Two different images of n bytes have the same one only if the prime
divides their difference, which has at most n / 16 factors of that size among 10^36 primes. The
digest of a change depends on the bytes that changed alone, whatever stretch was looked at, so it is
kept up by addition.
"""

from __future__ import annotations

# The first prime from the first 16 bytes of SHA-256 of "crashsim image digest" with the top bit on.
PRIME = 0xD1B87E82AFC36ADF4AD84AC883A1ABBF


def digest(start: int, content: bytes | memoryview) -> int:
    """Of an image of zeros but for the bytes from `start`."""
    return int.from_bytes(content, "little") * pow(256, start, PRIME) % PRIME
