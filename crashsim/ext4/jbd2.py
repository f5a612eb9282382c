"""What replaying the journal would put where, without putting it there.

Contract: the log is walked as the kernel's recovery does: from `s_start` with the sequence number
`s_sequence`, block after block, round the end; a transaction counts when its commit block is
there. A block in the log that is none, or of another sequence number, is the end. A descriptor or
revoke block with a wrong checksum may be left over from an earlier round: it is the end as well,
unless a commit block of its transaction follows. Later copies of a block win; a copy is left out
when its own or a later transaction revokes it. An escaped block begins with the journal's magic
number, which is zero in the log. Any other wrong checksum, a noted error, and features that are not
set by default (fast commits, asynchronous commits, checksums of version 1) are NotReadable.

Layout: the kernel's Documentation/filesystems/ext4/journal.rst. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from crashsim.ext4.superblock import Geometry, NotReadable, crc32c

MAGIC = b"\xc0\x3b\x39\x98"
_DESCRIPTOR, _COMMIT, _SUPER, _REVOKE = 1, 2, 4, 5
_64BIT, _CSUM2, _CSUM3 = 0x2, 0x8, 0x10
_INCOMPAT = 0x1 | _64BIT | _CSUM2 | _CSUM3  # 0x1: revoke blocks
_ESCAPE, _SAME_UUID, _LAST = 1, 2, 8
_TAIL_BYTES = 4
_ALL = 0xFFFFFFFF
_CRC32C = 4

Overlay = dict[int, tuple[int, bool]]  # block -> (block of the log that has it, is it escaped)
ReadBlock = Callable[[int], bytes]  # of the image as it is


@dataclass(frozen=True, slots=True)
class _Head:
    """The journal's superblock. `seed`: of its checksums; None: there are none."""

    first: int
    end: int
    sequence: int
    start: int
    is_wide: bool
    version: int
    seed: int | None

    @property
    def tag_bytes(self) -> int:
        if self.version == 3:
            return 16
        return (12 if self.is_wide else 8) + (2 if self.version == 2 else 0)


@dataclass(frozen=True, slots=True)
class _Tag:
    """A block that is in the log."""

    block: int
    flags: int
    total: int


@dataclass(frozen=True, slots=True)
class _Block:
    """What a block of the log says. `sound`: its checksum is right; `tags` of a descriptor,
    `revoked` of a revoke block, `second` of a commit."""

    kind: int
    sequence: int
    sound: bool
    tags: tuple[_Tag, ...] = ()
    revoked: tuple[int, ...] = ()
    second: int = 0


_NOTHING = _Block(0, -1, True)


class Log:
    """The journal of one file system, whose blocks are `places`; `forget` what has changed before
    `recovered`."""

    def __init__(self, geometry: Geometry, places: tuple[int, ...], read: ReadBlock) -> None:
        self._geometry = geometry
        self._places = places
        self.blocks = frozenset(places)
        self._read = read
        self._head: tuple[bytes, _Head] | None = None
        self._said: dict[int, _Block] = {}  # by the block of the image
        self._sums: dict[int, tuple[int, int]] = {}  # (sequence, checksum) of a copy

    def forget(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self._said.pop(block, None)
            self._sums.pop(block, None)

    def recovered(self) -> Overlay:
        """What recovery puts where."""
        head = self._heading()
        if not head.start:
            return {}
        transactions = list(self._transactions(head))
        revoked: dict[int, int] = {}  # block -> the last transaction that revokes it
        for number, (_, blocks) in enumerate(transactions):
            for _, said in blocks:
                revoked.update(dict.fromkeys(said.revoked, number))
        overlay: Overlay = {}
        for number, (sequence, blocks) in enumerate(transactions):
            for places, said in blocks:
                for place, tag in zip(places, said.tags, strict=True):
                    if revoked.get(tag.block, -1) < number:
                        self._prove(head, place, sequence, tag)
                        overlay[tag.block] = place, bool(tag.flags & _ESCAPE)
        if not overlay.keys().isdisjoint(self.blocks):
            raise NotReadable("the journal has blocks of itself")
        return overlay

    def _heading(self) -> _Head:
        raw = self._read(self._places[0])[:1024]
        if self._head is None or self._head[0] != raw:
            self._head = raw, _read_head(raw, self._geometry.block_bytes, len(self._places))
            self._said.clear()
            self._sums.clear()
        return self._head[1]

    def _transactions(self, head: _Head) -> Iterator[tuple[int, list[tuple[list[int], _Block]]]]:
        """Those that were committed: their sequence numbers, and their descriptor and revoke blocks
        with the places of the copies."""
        sequence, at, wrap = head.sequence, head.start, head.end - head.first
        blocks: list[tuple[list[int], _Block]] = []
        sound, last_second, steps = True, 0, 0
        while True:
            said = self._block(head, at)
            steps += 1 + len(said.tags)
            if steps > 2 * head.end:
                raise NotReadable("the journal goes round in circles")
            if said.kind not in (_DESCRIPTOR, _COMMIT, _REVOKE) or said.sequence != sequence:
                return
            at = at + 1 if at + 1 < head.end else at + 1 - wrap
            if said.kind == _COMMIT:
                if not sound or not said.sound:
                    if said.second < last_second:
                        return  # left over from an earlier round
                    raise NotReadable(f"transaction {sequence} of the journal has a wrong checksum")
                yield sequence, blocks
                last_second, blocks = said.second, []
                sequence = sequence + 1 & _ALL
                continue
            sound &= said.sound
            places = []
            for _ in said.tags:
                places.append(self._places[at])
                at = at + 1 if at + 1 < head.end else at + 1 - wrap
            blocks.append((places, said))

    def _block(self, head: _Head, at: int) -> _Block:
        place = self._places[at]
        said = self._said.get(place)
        if said is None:
            said = self._said[place] = _said(head, self._read(place))
        return said

    def _prove(self, head: _Head, place: int, sequence: int, tag: _Tag) -> None:
        if not self._geometry.first_block <= tag.block < self._geometry.blocks:
            raise NotReadable("the journal has blocks outside of the file system")
        if head.seed is None:
            return
        known = self._sums.get(place)
        if known is None or known[0] != sequence:
            total = crc32c(crc32c(head.seed, struct.pack(">I", sequence)), self._read(place))
            known = self._sums[place] = sequence, total
        if known[1] & (_ALL if head.version == 3 else 0xFFFF) != tag.total:
            raise NotReadable(f"a block in transaction {sequence} of the journal is not whole")


def _read_head(raw: bytes, block_bytes: int, blocks: int) -> _Head:
    kind, _, size, end, first, sequence, start, errno = struct.unpack_from(">8I", raw, 4)
    compat, incompat, ro_compat = struct.unpack_from(">3I", raw, 0x24)
    if raw[:4] != MAGIC or kind != _SUPER or size != block_bytes or end > blocks:
        raise NotReadable("the journal's superblock is damaged")
    if compat or ro_compat or incompat & ~_INCOMPAT:
        raise NotReadable("the journal has features that are not there by default")
    if errno:
        raise NotReadable("an error is noted in the journal")
    if not 0 < first < end or (start and not first <= start < end):
        raise NotReadable("the journal's superblock is damaged")
    version = {0: 0, _CSUM2: 2, _CSUM3: 3}.get(incompat & (_CSUM2 | _CSUM3))
    seed = None
    if version is None:
        raise NotReadable("the journal has two kinds of checksums")
    if version:
        own = struct.unpack_from(">I", raw, 0xFC)[0]
        if raw[0x50] != _CRC32C or crc32c(_ALL, raw[:0xFC] + bytes(4) + raw[0x100:]) != own:
            raise NotReadable("the checksum of the journal's superblock is wrong")
        seed = crc32c(_ALL, raw[0x30:0x40])
    return _Head(first, end, sequence, start, bool(incompat & _64BIT), version, seed)


def _said(head: _Head, raw: bytes) -> _Block:
    """A block of the log, taken by itself."""
    if raw[:4] != MAGIC:
        return _NOTHING
    kind, sequence = struct.unpack_from(">II", raw, 4)
    if kind == _COMMIT:
        sound = _is_sound(head, raw, 0x10)
        return _Block(kind, sequence, sound, second=struct.unpack_from(">Q", raw, 0x30)[0])
    if kind not in (_DESCRIPTOR, _REVOKE):
        return _NOTHING
    end = len(raw) if head.seed is None else len(raw) - _TAIL_BYTES
    sound = _is_sound(head, raw, len(raw) - _TAIL_BYTES)
    if kind == _DESCRIPTOR:
        return _Block(kind, sequence, sound, tags=tuple(_tags(head, raw, end)))
    return _Block(kind, sequence, sound, revoked=_revoked(head, raw, end) if sound else ())


def _is_sound(head: _Head, raw: bytes, at: int) -> bool:
    """Whether the checksum at that place is right."""
    if head.seed is None:
        return True
    (own,) = struct.unpack_from(">I", raw, at)
    return crc32c(head.seed, raw[:at] + bytes(4) + raw[at + 4 :]) == int(own)


def _tags(head: _Head, raw: bytes, end: int) -> Iterator[_Tag]:
    at, size = 12, head.tag_bytes
    while at + size <= end:
        low, total, flags = struct.unpack_from(">IHH", raw, at)
        high = struct.unpack_from(">I", raw, at + 8)[0] if head.is_wide else 0
        if head.version == 3:
            (total,) = struct.unpack_from(">I", raw, at + 12)
        yield _Tag(low | high << 32, flags, total)
        at += size if flags & _SAME_UUID else size + 16
        if flags & _LAST:
            return


def _revoked(head: _Head, raw: bytes, end: int) -> tuple[int, ...]:
    (used,) = struct.unpack_from(">I", raw, 12)
    if not 16 <= used <= end:
        raise NotReadable("a revoke block of the journal is damaged")
    form = ">Q" if head.is_wide else ">I"
    whole = (used - 16) // struct.calcsize(form) * struct.calcsize(form)
    return tuple(block for (block,) in struct.iter_unpack(form, raw[16 : 16 + whole]))
