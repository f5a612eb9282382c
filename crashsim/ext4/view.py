"""The number of what is in sight in an image, kept up as the image changes.

Contract: two images of one file system that have the same view mount cleanly and show the same,
whatever is then read or written there: all blocks that `reach.py` takes are equal after recovery.
The view is the sum of 128-bit digests of these blocks with their numbers (XXH3, not made to
withstand who wants to deceive it). None: only a mount can tell, and `reason` says why. The image is
only read.

A step costs what changed: digests of blocks are kept, the log is walked again when a block of it
changed, and what is in reach is looked up by the digest of all blocks that ever were structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import xxhash

from crashsim.engine.streams import I64, U64
from crashsim.ext4.inode import Inode
from crashsim.ext4.jbd2 import MAGIC, Log, Overlay
from crashsim.ext4.listing import Listing, read_listing
from crashsim.ext4.reach import Reach, Volume, dense_blocks, reach
from crashsim.ext4.superblock import (
    SUPER_AT,
    SUPER_BYTES,
    Geometry,
    Group,
    NotReadable,
    read_groups,
    read_super,
)

_KEPT = 1 << 12  # that many states of the structure are remembered,
_MOST_HELD = 1 << 22  # with so many blocks
_HALF = 64
_LOW = (1 << _HALF) - 1


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a mount looks at before recovery. `journal`: blocks of the log in its order; `blocks`:
    all that this was read from."""

    geometry: Geometry
    places: tuple[tuple[int, int, int], ...]
    journal: tuple[int, ...]
    needs_recovery: bool
    blocks: frozenset[int]


class View:
    """Of one image at a time."""

    def __init__(self) -> None:
        self.reason = ""
        self._image = memoryview(b"")
        self._ground: _Ground | None = None
        self._dirty: set[int] = set()  # blocks of the image that are still to be looked at

    def of(self, image: memoryview, changed: Iterable[tuple[int, int]] | None) -> int | None:
        """`changed`: byte ranges outside of which the image is the one that was looked at last;
        None: unknown."""
        try:
            self._look(image, changed)
            return self._view(self._in_reach())
        except NotReadable as error:
            self.reason = str(error)
            return None

    def listing(self) -> tuple[Listing, frozenset[int]]:
        """All that is in sight in an image that has a view, and the inodes that a mount
        truncates."""
        assert self._ground is not None, "it has a view"
        truncated = self._in_reach().truncated
        volume = Volume(self._ground.geometry, self._block)
        volume.open()
        return read_listing(volume, truncated), truncated

    def _look(self, image: memoryview, changed: Iterable[tuple[int, int]] | None) -> None:
        """Whatever may be raised, `_dirty` keeps what is still to be done."""
        if changed is None or self._ground is None or image.nbytes != self._image.nbytes:
            self._image, self._ground = image, None
            self._begin(self._found())
            return
        self._image = image
        dirty, size = self._dirty, self._size
        for start, end in changed:
            dirty.update(range(start // size, -(-end // size)))
        if not dirty.isdisjoint(self._ground.blocks):
            found = self._found()
            before = self._ground
            if (found.geometry, found.places, found.journal) != (
                before.geometry,
                before.places,
                before.journal,
            ):
                self._ground = None
                self._begin(found)
                return
            self._ground = found
        self._recover()

    def _begin(self, ground: _Ground) -> None:
        """Nothing is known but this."""
        blocks, self._size = ground.geometry.blocks, ground.geometry.block_bytes
        self._log = Log(ground.geometry, ground.journal, self._raw)
        self._overlay: Overlay = {}
        self._digested = np.zeros(blocks, dtype=np.int64)  # so many bytes of each
        self._low: U64 = np.zeros(blocks, dtype=np.uint64)
        self._high: U64 = np.zeros(blocks, dtype=np.uint64)
        self._structure: I64 = np.empty(0, dtype=np.int64)  # blocks that ever were
        self._reaches: dict[tuple[int, int], Reach | str] = {}
        self._dirty = set(self._log.blocks)
        self._ground = ground
        self._recover()

    def _recover(self) -> None:
        """Bring the overlay up to date, and forget the digests of blocks that are others now."""
        assert self._ground is not None, "it was found"
        dirty, log, old = self._dirty, self._log, self._overlay
        logged = dirty & log.blocks
        affected = dirty - logged
        if logged or not dirty.isdisjoint(self._ground.blocks):
            log.forget(logged)
            recovered = log.recovered()
            self._overlay = recovered if self._ground.needs_recovery else {}
        new = self._overlay
        affected.difference_update(new)
        if logged or old is not new:
            affected.update(block for block, _ in old.items() ^ new.items())
            affected.update(block for block, (place, _) in new.items() if place in logged)
        self._digested[sorted(affected)] = 0
        dirty.clear()

    def _in_reach(self) -> Reach:
        """NotReadable when something is not in order."""
        assert self._ground is not None, "it was looked at"
        found = self._reaches.get(self._sum(self._structure, None)) if self._reaches else None
        if found is None:
            found = self._reach_anew(self._ground)
        if isinstance(found, str):
            raise NotReadable(found)
        return found

    def _reach_anew(self, ground: _Ground) -> Reach | str:
        volume = Volume(ground.geometry, self._block)
        found: Reach | str
        try:
            found = reach(volume, self._log.blocks, ground.places)
        except NotReadable as error:
            found = str(error)
        structure = np.union1d(self._structure, np.fromiter(volume.structure, dtype=np.int64))
        held = 0 if isinstance(found, str) else len(self._reaches) * len(found.blocks)
        full = len(self._reaches) >= _KEPT or held > _MOST_HELD
        if full or len(structure) > len(self._structure):
            self._structure = structure
            self._reaches.clear()
        self._reaches[self._sum(self._structure, None)] = found
        return found

    def _view(self, found: Reach) -> int:
        low, high = self._sum(found.blocks, found.lengths)
        return low | high << _HALF

    def _sum(self, blocks: I64, lengths: I64 | None) -> tuple[int, int]:
        """Of the digests of their first bytes; None: of all of each."""
        wanted = np.int64(self._size) if lengths is None else lengths
        stale = self._digested[blocks] != wanted
        if stale.any():
            some = blocks[stale]
            sizes = np.full(len(some), self._size) if lengths is None else lengths[stale]
            digests = [
                xxhash.xxh3_128_intdigest(self._block(block)[:size], seed=block)
                for block, size in zip(some.tolist(), sizes.tolist(), strict=True)
            ]
            self._low[some] = [digest & _LOW for digest in digests]
            self._high[some] = [digest >> _HALF for digest in digests]
            self._digested[some] = sizes
        return int(self._low[blocks].sum()), int(self._high[blocks].sum())

    def _block(self, number: int) -> bytes:
        """As recovery leaves it."""
        place, escaped = self._overlay.get(number, (number, False))
        raw = self._raw(place)
        return MAGIC + raw[len(MAGIC) :] if escaped else raw

    def _raw(self, number: int) -> bytes:
        """As it is in the image."""
        size = self._size
        return bytes(self._image[number * size : (number + 1) * size])

    def _found(self) -> _Ground:
        """What is there before recovery."""
        image = self._image
        if image.nbytes < SUPER_AT + SUPER_BYTES:
            raise NotReadable("there is no ext4")
        head = read_super(bytes(image[SUPER_AT : SUPER_AT + SUPER_BYTES]))
        one = head.geometry
        if one.blocks * one.block_bytes > image.nbytes:
            raise NotReadable("the file system is larger than the image")
        read: dict[int, bytes] = {}

        def block(number: int) -> bytes:
            start = number * one.block_bytes
            return read.setdefault(number, bytes(image[start : start + one.block_bytes]))

        block(one.super_block)
        groups = read_groups(one, b"".join(map(block, one.descriptor_blocks)))
        journal = _journal(one, groups, block)
        places = tuple(group.places for group in groups)
        return _Ground(one, places, journal, head.needs_recovery, frozenset(read))


def _journal(one: Geometry, groups: list[Group], block: Callable[[int], bytes]) -> tuple[int, ...]:
    """The blocks of the log."""
    group, at = divmod(one.journal_inode - 1, one.group_inodes)
    if not 0 < one.journal_inode < one.first_inode:
        raise NotReadable("the journal is of an unusual kind")
    place, start = divmod(at * one.inode_bytes, one.block_bytes)
    raw = block(groups[group].inode_table + place)[start : start + one.inode_bytes]
    inode = Inode(one, one.journal_inode, raw)
    return dense_blocks(one, inode, inode.extents(one, block))
