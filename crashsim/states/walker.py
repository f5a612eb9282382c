"""One image in memory that is patched from state to state.

Contract: a step costs what differs, not the image. The image is the walker's own: others see it
through `view`, and every byte that is written to it goes through `_lay`, so `written` names all of
them, whatever they were written for. The digest is that of the difference from what the device held
before the run, so equal images have equal digests in all epochs and in all processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from crashsim.engine.shared import SharedImage
from crashsim.states.atoms import Atom
from crashsim.states.digest import PRIME, digest
from crashsim.states.numbers import gray
from crashsim.states.space import Epoch, Space

Choices = tuple[tuple[int, int], ...]  # (atom, version) of atoms not at version 0, ascending
Range = tuple[int, int]  # bytes [start, end)


class Walker:
    """Of `space.size_bytes` bytes, in memory that can be shared. Enter an epoch first."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._image = memoryview(SharedImage(space.size_bytes))
        self._written: set[Range] = set()
        self._base = -1  # the epoch whose guaranteed content lies below; -1: before the run
        self._base_digest = 0
        self._atoms: tuple[Atom, ...] = ()
        self._versions: list[tuple[bytes, ...]] = []  # of each atom, and where they go
        self._starts: list[int] = []
        self._version: dict[int, int] = {}  # of atoms not at version 0
        self._difference: int | None = 0  # of the digest; None: to be worked out
        self._changes: dict[int, tuple[int, ...]] = {}
        for start, content in space.before():
            self._lay(start, content)

    @property
    def view(self) -> memoryview:
        """The image as it is, now and after every step; read-only."""
        return self._image.toreadonly()

    def written(self) -> set[Range]:
        """Where bytes were written since this was last asked (at first: since it was made): outside
        of these ranges the image is what it was then."""
        written, self._written = self._written, set()
        return written

    @property
    def digest(self) -> int:
        """Of the image as it is."""
        if self._difference is None:
            self._difference = sum(self._changes_of(a)[v] for a, v in self._version.items())
        return (self._base_digest + self._difference) % PRIME

    @property
    def choices(self) -> Choices:
        """The state that the image is in."""
        return tuple(sorted(self._version.items()))

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
        self._versions = [atom.versions for atom in epoch.atoms]
        self._starts = [atom.start for atom in epoch.atoms]
        self._changes.clear()

    def move_to(self, choices: Iterable[tuple[int, int]]) -> None:
        """Go to a state of the epoch."""
        wanted = {atom: version for atom, version in choices if version}
        moved = sorted({atom for atom, _ in wanted.items() ^ self._version.items()})
        lay, starts, versions, version_of = self._lay, self._starts, self._versions, wanted.get
        for atom in moved:
            lay(starts[atom], versions[atom][version_of(atom, 0)])
        if moved:
            self._version, self._difference = wanted, None

    def restore(self) -> None:
        """Every atom at version 0."""
        self.move_to(())

    def enumerate_all(self, first: int = 0, last: int | None = None) -> Iterator[int]:
        """Visit all states of the epoch, each once, one atom changing from one to the next; yields
        the digest.

        With bounds: the states with the numbers [first, last) of the Gray code over all atoms
        (`numbers.gray`). Move the walker only after the last."""
        atoms, lay = self._atoms, self._lay
        radices = [len(atom.versions) for atom in atoms]
        total = math.prod(radices)
        last = total if last is None else min(last, total)
        if first >= last:
            return
        at, direction = gray(first, radices)
        self.move_to(enumerate(at))
        held = self._version
        ends = [(radix - 1, 0) for radix in radices]
        starts, versions = self._starts, self._versions
        changes = [self._changes_of(number) for number in range(len(atoms))]
        yield self.digest
        difference = self._difference or 0
        for _ in range(last - first - 1):
            moving = 0
            # A digit at its end turns round, and the next one moves.
            while at[moving] == ends[moving][direction[moving] < 0]:
                direction[moving] = -direction[moving]
                moving += 1
            old = at[moving]
            at[moving] = new = old + direction[moving]
            lay(starts[moving], versions[moving][new])
            self._difference = difference = difference + changes[moving][new] - changes[moving][old]
            if new:
                held[moving] = new
            else:
                del held[moving]
            yield (self._base_digest + difference) % PRIME

    def _lay(self, start: int, content: bytes | memoryview) -> None:
        """The one place that writes to the image."""
        end = start + len(content)
        self._image[start:end] = content
        self._written.add((start, end))

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
