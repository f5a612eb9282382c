"""The superblock and the block groups of an ext4, with their checksums.

Contract: `mkfs.ext4` sets these features by default, today or since a few years: has_journal,
ext_attr, resize_inode, dir_index, orphan_file, filetype, extent, 64bit, flex_bg,
metadata_csum_seed, sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum. Of
these has_journal, filetype, extent and metadata_csum have to be there, and no others may be. What
the kernel would refuse or complain of when it mounts is `NotReadable`, as is a file system with
noted errors.

Layout: the kernel's Documentation/filesystems/ext4. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import google_crc32c

MAGIC = 0xEF53
SUPER_AT, SUPER_BYTES = 1024, 1024
_HAS_JOURNAL, _ORPHAN_FILE = 0x4, 0x1000
_COMPAT = 0x8 | 0x10 | 0x20 | _HAS_JOURNAL | _ORPHAN_FILE
_FILETYPE, _RECOVER, _EXTENTS, _64BIT, _CSUM_SEED = 0x2, 0x4, 0x40, 0x80, 0x2000
_INCOMPAT = _FILETYPE | _RECOVER | _EXTENTS | _64BIT | 0x200 | _CSUM_SEED
_METADATA_CSUM, _ORPHAN_PRESENT = 0x400, 0x10000
_RO_COMPAT = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | _METADATA_CSUM | _ORPHAN_PRESENT
_ERROR_STATES = 0x2 | 0x4  # errors were found; orphans were being cleared
_INODE_UNINIT, _BLOCK_UNINIT = 0x1, 0x2
_OPTIONS = (0x3C, 0x3E), (0x50, 0x54), (0xEC, 0x104), (0x160, 0x164), (0x174, 0x175), (0x200, 0x240)
_LARGEST_BLOCK_LOG = 2  # 4 KiB: the kernel's page
_MASK = 0xFFFFFFFF


class NotReadable(Exception):
    """Only a mount can tell what is in there; the text says why."""


def crc32c(seed: int, content: bytes | memoryview) -> int:
    """CRC-32C as ext4 and jbd2 use it: without the inversions at both ends."""
    found: int = google_crc32c.extend(seed ^ _MASK, bytes(content))
    return found ^ _MASK


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a mount takes from the superblock before recovery, and recovery does not change."""

    uuid: bytes
    block_bytes: int
    blocks: int
    first_block: int
    group_blocks: int
    group_inodes: int
    inodes: int
    inode_bytes: int
    first_inode: int
    descriptor_bytes: int
    seed: int  # of its checksums
    journal_inode: int
    orphan_inode: int  # of the orphan file; 0: none
    features: tuple[int, int, int]
    options: bytes  # of mounts, and of how names are hashed

    @property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_block) // self.group_blocks)

    @property
    def super_block(self) -> int:
        """The number of the block that the superblock is in."""
        return SUPER_AT // self.block_bytes

    @property
    def descriptor_blocks(self) -> range:
        first = self.first_block + 1
        return range(first, first - (-self.groups * self.descriptor_bytes // self.block_bytes))


@dataclass(frozen=True, slots=True)
class Super:
    """A superblock: `geometry`, and what changes."""

    geometry: Geometry
    needs_recovery: bool
    last_orphan: int


@dataclass(frozen=True, slots=True)
class Group:
    """A block group: where its parts are, and how much of its inode table was ever used. A bitmap's
    checksum is None where the bitmap is not made yet."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    used_inodes: int
    block_sum: int | None
    inode_sum: int | None

    @property
    def places(self) -> tuple[int, int, int]:
        return self.block_bitmap, self.inode_bitmap, self.inode_table


def read_super(raw: bytes) -> Super:
    """From its 1024 bytes."""
    u32 = struct.Struct("<I").unpack_from
    u16 = struct.Struct("<H").unpack_from
    if u16(raw, 0x38)[0] != MAGIC:
        raise NotReadable("there is no ext4")
    compat, incompat, ro_compat = struct.unpack_from("<III", raw, 0x5C)
    wanted = compat & _HAS_JOURNAL and incompat & _FILETYPE and incompat & _EXTENTS
    if not (wanted and ro_compat & _METADATA_CSUM):
        raise NotReadable("a feature that is always there by default is missing")
    if compat & ~_COMPAT or incompat & ~_INCOMPAT or ro_compat & ~_RO_COMPAT:
        raise NotReadable("it has features that are not there by default")
    if raw[0x175] != 1 or crc32c(_MASK, raw[:0x3FC]) != u32(raw, 0x3FC)[0]:
        raise NotReadable("the superblock's checksum is wrong")
    if u16(raw, 0x3A)[0] & _ERROR_STATES or u32(raw, 0x194)[0]:
        raise NotReadable("errors are noted in the superblock")
    log = u32(raw, 0x18)[0]
    odd = log > _LARGEST_BLOCK_LOG or u32(raw, 0x1C)[0] != log or u32(raw, 0x4C)[0] != 1
    if odd or u32(raw, 0xE4)[0] or u32(raw, 0x48)[0]:
        raise NotReadable("its blocks, its revision or its journal are of an unusual kind")
    wide = bool(incompat & _64BIT)
    uuid = raw[0x68:0x78]
    seeded = bool(incompat & _CSUM_SEED)
    geometry = Geometry(
        uuid=uuid,
        block_bytes=1024 << log,
        blocks=u32(raw, 0x4)[0] | (u32(raw, 0x150)[0] << 32 if wide else 0),
        first_block=u32(raw, 0x14)[0],
        group_blocks=u32(raw, 0x20)[0],
        group_inodes=u32(raw, 0x28)[0],
        inodes=u32(raw, 0x0)[0],
        inode_bytes=u16(raw, 0x58)[0],
        first_inode=u32(raw, 0x54)[0],
        descriptor_bytes=u16(raw, 0xFE)[0] if wide else 32,
        seed=u32(raw, 0x270)[0] if seeded else crc32c(_MASK, uuid),
        journal_inode=u32(raw, 0xE0)[0],
        orphan_inode=u32(raw, 0x280)[0] if compat & _ORPHAN_FILE else 0,
        features=(compat, incompat & ~_RECOVER, ro_compat & ~_ORPHAN_PRESENT),
        options=b"".join(raw[start:end] for start, end in _OPTIONS),
    )
    _check(geometry)
    return Super(geometry, bool(incompat & _RECOVER), u32(raw, 0xE8)[0])


def super_of(one: Geometry, block: bytes) -> bytes:
    """The superblock in the block that it is in."""
    at = SUPER_AT % one.block_bytes
    return block[at : at + SUPER_BYTES]


def _check(one: Geometry) -> None:
    sizes = one.inode_bytes in (256, 512, 1024) and one.descriptor_bytes in (32, 64)
    per_block = one.block_bytes // max(1, one.inode_bytes)
    whole = per_block and one.group_inodes and one.group_inodes % per_block == 0
    fits = 0 < one.group_blocks <= 8 * one.block_bytes and one.group_inodes <= 8 * one.block_bytes
    placed = one.first_block == (1 if one.block_bytes == 1024 else 0) < one.blocks
    if not (sizes and whole and fits and placed):
        raise NotReadable("the superblock's sizes do not go together")
    if one.inodes != one.groups * one.group_inodes or one.first_inode != 11:
        raise NotReadable("the superblock's sizes do not go together")


def read_groups(one: Geometry, raw: bytes) -> list[Group]:
    """From the blocks that their descriptors are in."""
    found = []
    for number in range(one.groups):
        at = number * one.descriptor_bytes
        found.append(_group(one, number, raw[at : at + one.descriptor_bytes]))
    return found


def _group(one: Geometry, number: int, raw: bytes) -> Group:
    bb, ib, it, _, _, _, flags, _, bb_sum, ib_sum, unused, own = struct.unpack_from("<3I4HI4H", raw)
    total = crc32c(crc32c(crc32c(one.seed, struct.pack("<I", number)), raw[:0x1E]), b"\0\0")
    if len(raw) > 32:
        total = crc32c(total, raw[0x20:])
        high = struct.unpack_from("<3I4HI2H", raw, 0x20)
        bb, ib, it = (low | above << 32 for low, above in zip((bb, ib, it), high, strict=False))
        unused |= high[6] << 16
        bb_sum, ib_sum = bb_sum | high[8] << 16, ib_sum | high[9] << 16
    if total & 0xFFFF != own:
        raise NotReadable(f"the checksum of block group {number} is wrong")
    table = one.group_inodes * one.inode_bytes // one.block_bytes
    last = one.first_block, one.blocks
    if not all(last[0] < at <= last[1] - n for at, n in ((bb, 1), (ib, 1), (it, table))):
        raise NotReadable(f"block group {number} has parts outside of the file system")
    empty = bool(flags & _INODE_UNINIT)
    if unused > one.group_inodes:
        raise NotReadable(f"block group {number} has fewer inodes than it does not use")
    return Group(
        block_bitmap=bb,
        inode_bitmap=ib,
        inode_table=it,
        used_inodes=0 if empty else one.group_inodes - unused,
        block_sum=None if flags & _BLOCK_UNINIT else bb_sum,
        inode_sum=None if empty else ib_sum,
    )


def bitmap_sum(one: Geometry, bitmap: bytes, bits: int) -> int:
    """The checksum of a bitmap, as many bits of it as the group's descriptor has."""
    total = crc32c(one.seed, bitmap[: bits // 8])
    return total if one.descriptor_bytes > 32 else total & 0xFFFF
