"""Which blocks a mount could show anything of, and whether all that leads to them is in order.

Contract: *structure* is what has to be read to know that: the superblock, the descriptors, bitmaps
and inode tables of the block groups as far as they were ever used, extents, directories, extended
attributes. *Data* is the content of files and symlinks, as far as it was written and a name leads
to it. What is left out cannot be noticed, however the files are used, also by writing to them:

- the journal, which is empty after recovery;
- free blocks, and blocks that were promised to a file and not written (unwritten extents): whoever
  gets them sees zeros or what it writes;
- the content of files without a name that were open (orphans): the mount deletes them;
- in the last block of a file, what is behind its end: no read gives it, and the kernel clears it
  before the file grows over it. Who maps the file and looks there sees it, and is told nowhere that
  it may;
- inodes that were never used, copies of the superblock, blocks kept for growing.

All is what recovery leaves. Orphans with a name are truncated by the mount; both lists of orphans,
that of inodes and the orphan file, are structure.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from crashsim.engine.streams import I64
from crashsim.ext4.inode import Extent, Inode, entries, xattrs
from crashsim.ext4.superblock import (
    Geometry,
    Group,
    NotReadable,
    bitmap_sum,
    crc32c,
    read_groups,
    read_super,
    super_of,
)

ROOT = 2
_ORPHAN_MAGIC = 0x0B10CA04
_LONGEST_FAST = 60
_MOST_NAMES = 1 << 13  # with more of them a mount is sooner done than a look
_KINDS = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)


class Volume:
    """A file system as recovery leaves it: `read` gives a block of it. `structure`: blocks that
    were read."""

    def __init__(self, geometry: Geometry, read: Callable[[int], bytes]) -> None:
        self.geometry = geometry
        self.structure: dict[int, bytes] = {}
        self.groups: list[Group] = []
        self.last_orphan = 0
        self._read = read
        self._inode_bitmaps: list[bytes] = []

    def open(self) -> None:
        """Read what is to be known first. NotReadable unless the superblock is of that geometry
        and what the groups say of themselves is in order."""
        one = self.geometry
        head = read_super(super_of(one, self.block(one.super_block)))
        if head.geometry != one:
            raise NotReadable("recovery changes what kind of file system it is")
        self.last_orphan = head.last_orphan
        self.groups = read_groups(one, b"".join(map(self.block, one.descriptor_blocks)))
        self._inode_bitmaps = [self._bitmaps(group) for group in self.groups]

    def content(self, number: int) -> bytes:
        """Of a block that is data."""
        return self._read(number)

    def block(self, number: int) -> bytes:
        """Its content, which is structure."""
        content = self.structure.get(number)
        if content is None:
            content = self.structure[number] = self._read(number)
        return content

    def inode(self, number: int) -> Inode:
        """One that is in use. NotReadable when it is none."""
        one = self.geometry
        group, at = divmod(number - 1, one.group_inodes)
        if not 0 < number <= one.inodes or at >= self.groups[group].used_inodes:
            raise NotReadable(f"there is no inode {number}")
        if not self._inode_bitmaps[group][at // 8] >> at % 8 & 1:
            raise NotReadable(f"inode {number} is not in use")
        place, start = divmod(at * one.inode_bytes, one.block_bytes)
        raw = self.block(self.groups[group].inode_table + place)
        return Inode(one, number, raw[start : start + one.inode_bytes])

    def fixed(self) -> Iterator[tuple[int, int]]:
        """Blocks [start, end) that have their place by the layout of the file system."""
        one = self.geometry
        table = one.group_inodes * one.inode_bytes // one.block_bytes
        yield one.super_block, one.descriptor_blocks.stop
        for group in self.groups:
            for at, length in zip(group.places, (1, 1, table), strict=True):
                yield at, at + length

    def read_tables(self) -> None:
        """All of the inode tables that was ever used is structure."""
        one = self.geometry
        for group in self.groups:
            for number in range(-(-group.used_inodes * one.inode_bytes // one.block_bytes)):
                self.block(group.inode_table + number)

    def _bitmaps(self, group: Group) -> bytes:
        """That of the inodes; both are held against their checksums."""
        one = self.geometry
        if group.block_sum is not None:
            found = bitmap_sum(one, self.block(group.block_bitmap), one.group_blocks)
            if found != group.block_sum:
                raise NotReadable("the checksum of a block bitmap is wrong")
        if group.inode_sum is None:
            return bytes(one.block_bytes)
        bitmap = self.block(group.inode_bitmap)
        if bitmap_sum(one, bitmap, one.group_inodes) != group.inode_sum:
            raise NotReadable("the checksum of an inode bitmap is wrong")
        return bitmap


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """Something in the tree: `path` from its root on, without it; `extents` of its content."""

    path: bytes
    inode: Inode
    extents: list[Extent]


def tree(volume: Volume) -> Iterator[TreeEntry]:
    """Every name in the tree, folders before what is in them."""
    folders: set[int] = set()
    names = 0
    todo = [(b"", ROOT, ROOT)]
    while todo:
        path, number, parent = todo.pop()
        names += 1
        if names > _MOST_NAMES:
            raise NotReadable("there are more files than it is worth reading")
        inode = volume.inode(number)
        if stat.S_IFMT(inode.mode) not in _KINDS or not inode.links:
            raise NotReadable(f"inode {number} has a name and is not in use")
        extents = inode.extents(volume.geometry, volume.block)
        yield TreeEntry(path, inode, extents)
        if not stat.S_ISDIR(inode.mode):
            continue
        if number in folders:
            raise NotReadable(f"directory {number} has two names")
        folders.add(number)
        below = dict(_names(volume, inode, extents))
        if below.pop(b".", 0) != number or below.pop(b"..", 0) != parent:
            raise NotReadable(f"directory {number} does not know where it is")
        prefix = path + b"/" if path else b""
        todo += [(prefix + name, child, number) for name, child in below.items()]


def _names(volume: Volume, inode: Inode, extents: list[Extent]) -> Iterator[tuple[bytes, int]]:
    yield from entries(
        inode, [volume.block(place) for place in dense_blocks(volume.geometry, inode, extents)]
    )


def content_blocks(
    geometry: Geometry, inode: Inode, extents: list[Extent]
) -> Iterator[tuple[int, int]]:
    """Blocks of the content up to its end, by their number in it, and where they are; the others
    are zeros."""
    count = -(-inode.size // geometry.block_bytes)
    for one in extents:
        if one.written:
            end = min(count, one.first + one.length)
            length = max(0, end - one.first)
            places = range(one.place, one.place + length)
            yield from zip(range(one.first, end), places, strict=True)


def dense_blocks(one: Geometry, inode: Inode, extents: list[Extent]) -> tuple[int, ...]:
    """Where the blocks of a file without holes are, in order."""
    blocks = list(content_blocks(one, inode, extents))
    if inode.size != len(blocks) * one.block_bytes:
        raise NotReadable(f"inode {inode.number} has holes")
    return tuple(place for _, place in blocks)


@dataclass(frozen=True, slots=True)
class Reach:
    """`blocks`: structure and data, ascending, of each the first `lengths` bytes. `truncated`:
    inodes that the mount truncates, so that their times are those of the mount."""

    blocks: I64
    lengths: I64
    truncated: frozenset[int]


def reach(
    volume: Volume, journal: frozenset[int], places: tuple[tuple[int, int, int], ...]
) -> Reach:
    """NotReadable unless all is in order. `journal`: its blocks. `places`: where the parts of the
    groups were before recovery."""
    volume.open()
    if tuple(group.places for group in volume.groups) != places:
        raise NotReadable("recovery moves parts of block groups")
    taken = np.zeros(volume.geometry.blocks, dtype=bool)
    for start, end in volume.fixed():
        if taken[start:end].any():
            raise NotReadable("parts of the file system lie upon each other")
        taken[start:end] = True
    taken[sorted(journal)] = True
    volume.read_tables()
    shown = np.zeros(len(taken), dtype=np.int64)  # bytes of each block
    seen: set[int] = set()
    for named in tree(volume):
        if named.inode.number not in seen:
            seen.add(named.inode.number)
            _check(volume, named.inode, named.extents, taken)
            _show(volume.geometry, named, shown)
    truncated = frozenset(_orphans(volume, seen, taken))
    shown[list(volume.structure)] = volume.geometry.block_bytes
    blocks = np.flatnonzero(shown)
    return Reach(blocks, shown[blocks], truncated)


def _show(geometry: Geometry, named: TreeEntry, shown: I64) -> None:
    """Take in what is written of a file; `shown`: bytes of each block that are taken."""
    size = geometry.block_bytes
    last, rest = divmod(named.inode.size, size)
    for one in named.extents:
        if not one.written:
            continue
        here = shown[one.place : one.place + one.length]
        before = here.copy()
        here[:] = size
        if rest and one.first <= last < one.first + one.length:
            here[last - one.first] = max(rest, before[last - one.first])


def _check(
    volume: Volume,
    inode: Inode,
    extents: list[Extent],
    taken: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> None:
    if any(taken[one.place : one.place + one.length].any() for one in extents):
        raise NotReadable(f"inode {inode.number} has blocks of the file system's own")
    xattrs(volume.geometry, inode, volume.block)
    if stat.S_ISLNK(inode.mode):
        longest = volume.geometry.block_bytes if inode.is_mapped else _LONGEST_FAST - 1
        whole = 0 < inode.size <= longest and target(volume, inode, extents)
        if not whole or len(whole) < inode.size or b"\0" in whole:  # the kernel would cut it there
            raise NotReadable(f"symlink {inode.number} is damaged")


def target(volume: Volume, inode: Inode, extents: list[Extent]) -> bytes:
    """Of a symlink."""
    if not inode.is_mapped:
        return inode.body[: inode.size]
    blocks = content_blocks(volume.geometry, inode, extents)
    return b"".join(volume.block(place) for _, place in blocks)[: inode.size]


def _orphans(
    volume: Volume,
    seen: set[int],
    taken: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Iterator[int]:
    """Those with a name; what the mount reads of the others is read too."""
    met: set[int] = set()
    listed = volume.last_orphan
    in_file = list(_orphan_file(volume))
    while listed or in_file:
        number = listed or in_file.pop()
        inode = volume.inode(number)
        if number in met or number < volume.geometry.first_inode:
            raise NotReadable("the list of orphans is damaged")
        met.add(number)
        listed = inode.next_orphan if listed else 0
        if inode.links:
            if number not in seen:
                raise NotReadable(f"orphan {number} is to be truncated and has no name")
            yield number
        else:
            _check(volume, inode, inode.extents(volume.geometry, volume.block), taken)


def _orphan_file(volume: Volume) -> Iterator[int]:
    """Inodes in the orphan file, if there is one."""
    one = volume.geometry
    if not one.orphan_inode:
        return
    file = volume.inode(one.orphan_inode)
    for place in dense_blocks(one, file, file.extents(one, volume.block)):
        raw = volume.block(place)
        magic, own = struct.unpack_from("<II", raw, len(raw) - 8)
        identity = crc32c(file.seed, struct.pack("<Q", place))
        if magic != _ORPHAN_MAGIC or crc32c(identity, raw[:-8]) != own:
            raise NotReadable("the orphan file is damaged")
        yield from (number for (number,) in struct.iter_unpack("<I", raw[:-8]) if number)
