"""One image in memory that is patched from state to state.

Contract: a step costs what differs, not the image. The image is the walker's own: others see it
through `view`. Every byte that is written to it goes through `_lay` or `_lay_units`, so `written`
names all of them, whatever they were written for. The digest is that of the difference from what
the device held before the run, so equal images have equal digests in all epochs and processes.

The digest of an image is the image as a number, little-endian, modulo a fixed prime of 128 bits.
Two different images of n bytes have the same one only if the prime divides their difference, which
has at most n / 16 factors of that size among 10^36 primes. The digest of a change depends on the
bytes that changed alone, whatever stretch was looked at, so it is kept up by addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from crashsim.engine.pages import unique_sorted
from crashsim.engine.shared import SharedImage
from crashsim.engine.streams import I64
from crashsim.states.atoms import Atom
from crashsim.states.space import Epoch, Space

Choices = tuple[tuple[int, int], ...]  # (atom, version) of atoms not at version 0, ascending
Versions = npt.NDArray[np.uint32]  # of every atom
Range = tuple[int, int]  # bytes [start, end)

# The first prime from the first 16 bytes of SHA-256 of "crashsim image digest" with the top bit on.
PRIME = 0xD1B87E82AFC36ADF4AD84AC883A1ABBF
_FEW = 16  # atoms that are laid one by one: a table of all versions would cost more
_MOST_TABLE_BYTES = 1 << 26


class Written(Sequence[Range]):
    """Ranges of bytes, ascending, worked out when somebody looks: not every checker does."""

    def __init__(self, unit_bytes: int) -> None:
        self._unit_bytes = unit_bytes
        self.laid: list[Range] = []
        self.units: list[I64] = []

    @cached_property
    def _ranges(self) -> list[Range]:
        ranges = dict.fromkeys(self.laid)
        if self.units:
            numbers = unique_sorted(np.concatenate(self.units))
            begin = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
            last = np.append(begin[1:], numbers.size) - 1
            ends = numbers[begin] * self._unit_bytes, (numbers[last] + 1) * self._unit_bytes
            ranges |= dict.fromkeys(zip(*(column.tolist() for column in ends), strict=True))
        return sorted(ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: Any) -> Any:
        return self._ranges[index]


class Walker:
    """Of `space.size_bytes` bytes, in memory that can be shared. Enter an epoch first."""

    def __init__(self, space: Space, tables: dict[int, _Table] | None = None) -> None:
        """`tables`: those of a walker of the same space."""
        self._space = space
        self._image = memoryview(SharedImage(space.size_bytes))
        self._unit_bytes = space.rules.unit_bytes
        self._units = np.frombuffer(self._image, dtype=f"V{self._unit_bytes}")
        self._written = Written(self._unit_bytes)
        self._base = -1  # the epoch whose guaranteed content lies below; -1: before the run
        self._base_digest = 0
        self._atoms: tuple[Atom, ...] = ()
        self._held: Versions = np.zeros(0, dtype=np.uint32)
        self._tables = {} if tables is None else tables  # by epoch, of one: made when needed
        self._table_fits = False
        self._difference: int | None = 0  # of the digest; None: to be worked out
        self._changes: dict[int, tuple[int, ...]] = {}
        for start, content in space.before():
            self._lay(start, content)

    @property
    def view(self) -> memoryview:
        """The image as it is, now and after every step; read-only."""
        return self._image.toreadonly()

    def written(self) -> Written:
        """Where bytes were written since this was last asked (at first: since it was made): outside
        of these ranges the image is what it was then."""
        written, self._written = self._written, Written(self._unit_bytes)
        return written

    @property
    def digest(self) -> int:
        """Of the image as it is."""
        if self._difference is None:
            self._difference = sum(self._changes_of(a)[v] for a, v in self.choices)
        return (self._base_digest + self._difference) % PRIME

    @property
    def choices(self) -> Choices:
        """The state that the image is in."""
        atoms = np.flatnonzero(self._held)
        return tuple(zip(atoms.tolist(), self._held[atoms].tolist(), strict=True))

    def beside(self) -> Walker:
        """Another one, with an image of its own."""
        return Walker(self._space, self._tables)

    @property
    def epoch(self) -> int:
        """The number of the epoch that it is in, -1 before the first."""
        return self._base

    def enter(self, epoch: Epoch) -> None:
        """Go to an epoch, every atom at version 0."""
        self.restore()
        if epoch.number < self._base:
            for start, end in self._space.changed(-1, self._base):
                self._lay(start, self._space.held_before(start, end))
            self._base, self._base_digest = -1, 0
        changed = self._space.changed(self._base, epoch.number)
        self._base_digest -= self._digest_of(changed)
        for start, content in self._space.guaranteed(self._base, epoch.number):
            self._lay(start, content)
        self._base_digest += self._digest_of(changed)
        self._base = epoch.number
        self._atoms = epoch.atoms
        self._held = np.zeros(len(epoch.atoms), dtype=np.uint32)
        versions = sum(len(atom.versions) for atom in epoch.atoms)
        self._table_fits = versions * self._unit_bytes <= _MOST_TABLE_BYTES
        self._changes.clear()

    def move_to(self, choices: Iterable[tuple[int, int]]) -> None:
        """Go to a state of the epoch."""
        wanted = np.zeros_like(self._held)
        for atom, version in choices:
            wanted[atom] = version
        self.go_to(wanted)

    def go_to(self, wanted: Versions) -> None:
        """The same, with the version of every atom. The array is kept."""
        moved = np.flatnonzero(self._held != wanted)
        if not moved.size:
            return
        if moved.size <= _FEW or not self._table_fits:
            for atom, version in zip(moved.tolist(), wanted[moved].tolist(), strict=True):
                self._lay(self._atoms[atom].start, self._atoms[atom].versions[version])
        else:
            table = self._tables.get(self._base)
            if table is None:
                self._tables.clear()
                table = self._tables[self._base] = _Table(
                    self._atoms, self._units, self._unit_bytes
                )
            self._lay_units(table.unit[moved], table.content(moved, wanted[moved]))
        self._held, self._difference = wanted, None

    def restore(self) -> None:
        """Every atom at version 0."""
        self.go_to(np.zeros_like(self._held))

    def _lay(self, start: int, content: bytes | memoryview) -> None:
        end = start + len(content)
        self._image[start:end] = content
        self._written.laid.append((start, end))

    def _lay_units(self, numbers: I64, content: npt.NDArray[Any]) -> None:
        self._units[numbers] = content
        self._written.units.append(numbers)

    def _digest_of(self, ranges: list[tuple[int, int]]) -> int:
        return sum(digest(start, self._image[start:end]) for start, end in ranges)

    def _changes_of(self, atom: int) -> tuple[int, ...]:
        """What the digest gains by each version of the atom."""
        changes = self._changes.get(atom)
        if changes is None:
            here = self._atoms[atom]
            digests = [digest(here.start, version) for version in here.versions]
            changes = tuple(other - digests[0] for other in digests)
            self._changes[atom] = changes
        return changes


class _Table:
    """All versions of an epoch's atoms, each as the whole unit that it lies in: what of a unit is
    not in its atom is the same in all states."""

    def __init__(self, atoms: Sequence[Atom], units: npt.NDArray[Any], unit_bytes: int) -> None:
        """`units`: the image, in any state of the epoch."""
        counts = [len(atom.versions) for atom in atoms]
        self.unit = np.array([atom.offset // unit_bytes for atom in atoms], dtype=np.int64)
        self._first = np.array([0, *accumulate(counts)][:-1], dtype=np.int64)
        rows = bytearray(np.repeat(units[self.unit], counts).tobytes())
        at = 0
        for atom in atoms:
            inside = atom.start - atom.offset
            for version in atom.versions:
                rows[at + inside : at + inside + len(version)] = version
                at += unit_bytes
        self._rows = np.frombuffer(rows, dtype=units.dtype)

    def content(self, atoms: I64, versions: Versions) -> npt.NDArray[Any]:
        """The units of these atoms at these versions."""
        rows: npt.NDArray[Any] = self._rows[self._first[atoms] + versions]
        return rows


def digest(start: int, content: bytes | memoryview) -> int:
    """Of an image of zeros but for the bytes from `start`."""
    return int.from_bytes(content, "little") * pow(256, start, PRIME) % PRIME
