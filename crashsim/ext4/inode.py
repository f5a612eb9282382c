"""An inode of an ext4: what it says of itself, and where its content is.

Contract: content is mapped by extents; what is not (block maps, inline data, encryption) and what
the kernel would call corrupt is NotReadable. Block numbers are checked to be in the file
system, not that they are nobody else's (`reach.py`).

Layout: the kernel's Documentation/filesystems/ext4. All numbers are little-endian.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crashsim.ext4.superblock import Geometry, NotReadable, crc32c

ReadBlock = Callable[[int], bytes]  # as it is after recovery
INDEX, _HUGE_FILE, _EXTENTS = 0x1000, 0x40000, 0x80000
_FLAGS = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | INDEX | 0x4000 | 0x8000 | 0x10000 | 0x20000
_FLAGS |= _HUGE_FILE | _EXTENTS
_EXTENT_MAGIC = 0xF30A
_LONGEST = 1 << 15  # blocks of an extent; longer ones are not written yet
_DEEPEST = 5
_FIRST_EPOCH = 1 << 31


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` blocks of a file from the block `first` of it on are at `place`; `written`: unless
    they are to be read as zeros."""

    first: int
    length: int
    place: int
    written: bool


class Inode:
    """Number `number`, from its bytes."""

    __slots__ = (
        "flags",
        "links",
        "mode",
        "next_orphan",
        "number",
        "raw",
        "seed",
        "size",
        "xattr_block",
    )

    def __init__(self, geometry: Geometry, number: int, raw: bytes) -> None:
        """NotReadable when the checksum is wrong, or it is of a kind that is not there by
        default."""
        self.number = number
        self.raw = raw
        (self.mode,) = struct.unpack_from("<H", raw)
        (self.links,) = struct.unpack_from("<H", raw, 0x1A)
        low, self.next_orphan = self._u32(0x4), self._u32(0x14)
        self.flags = self._u32(0x20)
        self.size = low | self._u32(0x6C) << 32
        (high,) = struct.unpack_from("<H", raw, 0x76)
        self.xattr_block = self._u32(0x68) | high << 32
        (extra,) = struct.unpack_from("<H", raw, 0x80)
        identity = struct.pack("<I", number) + raw[0x64:0x68]
        self.seed = crc32c(geometry.seed, identity)
        if extra < 32 or extra % 4 or 128 + extra > len(raw):
            raise NotReadable(f"inode {number} is of an unusual size")
        blanked = raw[:0x7C] + b"\0\0" + raw[0x7E:0x82] + b"\0\0" + raw[0x84:]
        own = struct.unpack_from("<H", raw, 0x7C)[0] | struct.unpack_from("<H", raw, 0x82)[0] << 16
        if crc32c(self.seed, blanked) != own:
            raise NotReadable(f"the checksum of inode {number} is wrong")
        if self.flags & ~_FLAGS:
            raise NotReadable(f"inode {number} is of a kind that is not there by default")

    @property
    def is_mapped(self) -> bool:
        """Whether it has content in blocks."""
        if stat.S_ISLNK(self.mode):
            return bool(self.flags & _EXTENTS)
        return stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode)

    @property
    def body(self) -> bytes:
        """Of what is not mapped: a short symlink's target, a device's number."""
        return self.raw[0x28:0x64]

    @property
    def owner(self) -> tuple[int, int]:
        """uid, gid."""
        uid, gid = struct.unpack_from("<H", self.raw, 0x2)[0], self.raw[0x18:0x1A]
        high_uid, high_gid = struct.unpack_from("<HH", self.raw, 0x78)
        return uid | high_uid << 16, int.from_bytes(gid, "little") | high_gid << 16

    @property
    def times_ns(self) -> tuple[int, int, int]:
        """atime, mtime, ctime."""
        return self._time(0x8, 0x8C), self._time(0x10, 0x88), self._time(0xC, 0x84)

    def sectors(self, geometry: Geometry) -> int:
        """Of 512 bytes, as `stat` tells them."""
        (high,) = struct.unpack_from("<H", self.raw, 0x74)
        counted = self._u32(0x1C) | int(high) << 32
        return counted * (geometry.block_bytes // 512) if self.flags & _HUGE_FILE else counted

    @property
    def inside(self) -> bytes:
        """What follows its fields: extended attributes, if any."""
        (extra,) = struct.unpack_from("<H", self.raw, 0x80)
        return self.raw[128 + extra :]

    def extents(self, geometry: Geometry, read: ReadBlock) -> list[Extent]:
        """In order."""
        if not self.is_mapped:
            return []
        if not self.flags & _EXTENTS:
            raise NotReadable(f"inode {self.number} is not mapped by extents")
        found = list(self._node(geometry, read, self.body, None))
        end = 0
        for one in found:
            if one.first < end:
                raise NotReadable(f"extents of inode {self.number} overlap")
            end = one.first + one.length
        return found

    def _node(
        self, geometry: Geometry, read: ReadBlock, raw: bytes, depth: int | None
    ) -> Iterator[Extent]:
        magic, entries, most, below = struct.unpack_from("<HHHH", raw)
        room = (len(raw) - 12) // 12
        right = below <= _DEEPEST if depth is None else below == depth
        if magic != _EXTENT_MAGIC or not right or entries > most or not 0 < most <= room:
            raise NotReadable(f"the extent tree of inode {self.number} is damaged")
        if depth is not None:
            end = 12 + 12 * most
            if end + 4 > len(raw) or not entries:
                raise NotReadable(f"the extent tree of inode {self.number} is damaged")
            if crc32c(self.seed, raw[:end]) != struct.unpack_from("<I", raw, end)[0]:
                raise NotReadable(f"a checksum in the extents of inode {self.number} is wrong")
        for at in range(12, 12 + 12 * entries, 12):
            if below:
                first, low, high = struct.unpack_from("<IIH", raw, at)
                child = low | high << 32
                _inside(geometry, child, 1)
                found = list(self._node(geometry, read, read(child), below - 1))
                if found[0].first < first:
                    raise NotReadable(f"the extent tree of inode {self.number} is damaged")
                yield from found
            else:
                first, length, high, low = struct.unpack_from("<IHHI", raw, at)
                written = length <= _LONGEST
                length -= 0 if written else _LONGEST
                place = low | high << 32
                _inside(geometry, place, length)
                yield Extent(first, length, place, written)

    def _u32(self, at: int) -> int:
        found: int = struct.unpack_from("<I", self.raw, at)[0]
        return found

    def _time(self, at: int, extra_at: int) -> int:
        seconds, extra = self._u32(at), self._u32(extra_at)
        seconds -= (seconds & _FIRST_EPOCH) << 1  # signed
        return (seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2)


def _inside(geometry: Geometry, place: int, length: int) -> None:
    if not length or not geometry.first_block < place <= geometry.blocks - length:
        raise NotReadable("an extent lies outside of the file system")


def entries(inode: Inode, blocks: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Names in a directory and their inodes, with `.` and `..`, from the content of its blocks."""
    if not blocks:
        raise NotReadable(f"directory {inode.number} is empty")
    if not inode.flags & INDEX:
        for raw in blocks:
            yield from _leaf(inode, raw)
        return
    levels, leaves = blocks[0][0x1E], [0]
    if blocks[0][0x18:0x1C] != bytes(4) or blocks[0][0x1D] != 8 or levels > 1:
        raise NotReadable(f"the index of directory {inode.number} is damaged")
    yield from _records(inode, blocks[0], len(blocks[0]), {12, len(blocks[0])})
    leaves = _index(inode, blocks[0], 0x20)
    for _ in range(levels):
        below = [one for node in leaves for one in _index(inode, _of(inode, blocks, node), 8)]
        leaves = below
    if len(set(leaves)) != len(leaves):
        raise NotReadable(f"the index of directory {inode.number} is damaged")
    for leaf in leaves:
        yield from _leaf(inode, _of(inode, blocks, leaf))


def _of(inode: Inode, blocks: list[bytes], number: int) -> bytes:
    if not 0 < number < len(blocks):
        raise NotReadable(f"the index of directory {inode.number} is damaged")
    return blocks[number]


def _index(inode: Inode, raw: bytes, at: int) -> list[int]:
    """Blocks that a node of the index names."""
    most, count = struct.unpack_from("<HH", raw, at)
    tail = at + 8 * most
    if not 0 < count <= most or tail + 8 != len(raw):
        raise NotReadable(f"the index of directory {inode.number} is damaged")
    total = crc32c(crc32c(inode.seed, raw[: at + 8 * count]), raw[tail : tail + 4] + bytes(4))
    if total != struct.unpack_from("<I", raw, tail + 4)[0]:
        raise NotReadable(f"a checksum in directory {inode.number} is wrong")
    return [struct.unpack_from("<I", raw, at + 4 + 8 * n)[0] for n in range(count)]


def _leaf(inode: Inode, raw: bytes) -> Iterator[tuple[bytes, int]]:
    end = len(raw) - 12
    zero, length, name_bytes, kind, own = struct.unpack_from("<IHBBI", raw, end)
    if (zero, length, name_bytes, kind) != (0, 12, 0, 0xDE) or crc32c(inode.seed, raw[:end]) != own:
        raise NotReadable(f"a checksum in directory {inode.number} is wrong")
    yield from _records(inode, raw, end, None)


def _records(
    inode: Inode, raw: bytes, end: int, only: set[int] | None
) -> Iterator[tuple[bytes, int]]:
    """`only`: where records have to end, in the root of an index."""
    at = 0
    while at < end:
        number, length, name_bytes = struct.unpack_from("<IHB", raw, at)
        name = raw[at + 8 : at + 8 + name_bytes]
        short = length < 8 + name_bytes or length % 4 or at + length > end
        if short or (only is not None and at + length not in only):
            raise NotReadable(f"directory {inode.number} is damaged")
        at += length
        if number:
            if not name or b"/" in name or b"\0" in name:
                raise NotReadable(f"directory {inode.number} has a name that is none")
            yield name, number


_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
}
_XATTR_MAGIC = 0xEA020000


def xattrs(geometry: Geometry, inode: Inode, read: ReadBlock) -> dict[str, bytes]:
    """Extended attributes; those of access lists as ext4 keeps them."""
    found: dict[str, bytes] = {}
    inside = inode.inside
    if len(inside) >= 4 and struct.unpack_from("<I", inside)[0] == _XATTR_MAGIC:
        found.update(_attributes(inode, inside, 4, 4))
    if inode.xattr_block:
        _inside(geometry, inode.xattr_block, 1)
        raw = read(inode.xattr_block)
        total = crc32c(geometry.seed, struct.pack("<Q", inode.xattr_block))
        total = crc32c(total, raw[:0x10] + bytes(4) + raw[0x14:])
        magic, _, blocks = struct.unpack_from("<III", raw)
        if (magic, blocks, total) != (_XATTR_MAGIC, 1, struct.unpack_from("<I", raw, 0x10)[0]):
            raise NotReadable(f"the attributes of inode {inode.number} are damaged")
        found.update(_attributes(inode, raw, 32, 0))
    return found


def _attributes(inode: Inode, raw: bytes, at: int, base: int) -> Iterator[tuple[str, bytes]]:
    """`base`: where offsets of values count from."""
    while at + 4 <= len(raw) and raw[at : at + 4] != bytes(4):
        if at + 16 > len(raw):
            raise NotReadable(f"the attributes of inode {inode.number} are damaged")
        name_bytes, kind, offset, elsewhere, size, _ = struct.unpack_from("<BBHIII", raw, at)
        prefix, name = _PREFIXES.get(kind), raw[at + 16 : at + 16 + name_bytes]
        start = base + offset
        if prefix is None or elsewhere or start + size > len(raw):
            raise NotReadable(f"the attributes of inode {inode.number} are damaged")
        yield prefix + name.decode("utf-8", "surrogateescape"), raw[start : start + size]
        at += 16 + (name_bytes + 3) // 4 * 4
