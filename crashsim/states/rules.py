"""What a cut may leave undecided.

`any-host`: whatever a host may do between the guarantees it gives (Rules V2, H8, D2). `this-host`:
what the caches of the simulated run held. An atom is what a cut never tears: the logical sector
(D3), a drive's larger power-fail atom, or a word where pages are not stable under I/O (Rule H4,
G10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crashsim.engine.pages import PAGE_BYTES
from crashsim.errors import UsageError

HostKind = Literal["this-host", "any-host"]
SMALLEST_ATOM_BYTES, LARGEST_ATOM_BYTES = 8, 65536


@dataclass(frozen=True, slots=True)
class Rules:
    """UsageError when the atom is no power of two from 8 bytes to 64 KiB."""

    host: HostKind = "any-host"
    atom_bytes: int = 512

    def __post_init__(self) -> None:
        size = self.atom_bytes
        if not SMALLEST_ATOM_BYTES <= size <= LARGEST_ATOM_BYTES or size & (size - 1):
            raise UsageError(f"an atom is a power of two from 8 to 65536 bytes, not {size}")

    @property
    def unit_bytes(self) -> int:
        """What is kept or lost as one: hosts write page by page, so at most a page."""
        return min(self.atom_bytes, PAGE_BYTES)
