"""A file system's tree spelt out, from the image and from a mounted folder: the same, if the reader
is right.

Contract: for every name a line: what `stat` tells but for the device, the target of a symlink,
extended attributes, and a digest of the content, in which holes are zeros. Access lists are named
only, since ext4 keeps them in another form than it shows them in. Times of a file that the mount
truncates are the mount's, and left out on both sides.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

import xxhash

from crashsim.ext4.inode import Inode, xattrs
from crashsim.ext4.reach import TreeEntry, Volume, content_blocks, target, tree

Listing = dict[bytes, tuple[object, ...]]  # by the path
_PIECE = 1 << 16  # bytes that are read at once
_ACCESS_LIST = "system.posix_acl_"


def read_listing(volume: Volume, truncated: Collection[int]) -> Listing:
    """From the image. `truncated`: inodes whose times are not told."""
    return {
        named.path: _read(volume, named, named.inode.number in truncated) for named in tree(volume)
    }


def folder_listing(folder: Path, truncated: Collection[int]) -> Listing:
    """Of a mounted file system."""
    root = os.fsencode(folder)
    found: Listing = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        place = os.path.join(root, path) if path else root
        told = os.lstat(place)
        found[path] = _seen(place, told, told.st_ino in truncated)
        if stat.S_ISDIR(told.st_mode):
            todo += [os.path.join(path, name) if path else name for name in os.listdir(place)]
    return found


def difference(read: Listing, seen: Listing) -> str:
    """The first path at which they differ, with both; empty when there is none."""
    for path in sorted(read.keys() | seen.keys()):
        if read.get(path) != seen.get(path):
            name = os.fsdecode(b"/" + path)
            return f"{name}: read as {read.get(path)}, mounted as {seen.get(path)}"
    return ""


def _read(volume: Volume, named: TreeEntry, truncated: bool) -> tuple[object, ...]:
    inode = named.inode
    device = 0
    content: object = None
    if stat.S_ISREG(inode.mode):
        content = _digest(named.inode.size, _blocks(volume, named))
    elif stat.S_ISLNK(inode.mode):
        content = target(volume, inode, named.extents)
    elif stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
        device = _device(inode)
    attributes = xattrs(volume.geometry, inode, volume.block)
    uid, gid = inode.owner
    times = None if truncated else inode.times_ns
    about = inode.number, inode.mode, inode.links, uid, gid, device
    sectors = None if truncated else inode.sectors(volume.geometry)
    return about, inode.size, sectors, times, _told(attributes), content


def _seen(place: bytes, told: os.stat_result, truncated: bool) -> tuple[object, ...]:
    content: object = None
    if stat.S_ISREG(told.st_mode):
        content = _digest(told.st_size, _pieces(place))
    elif stat.S_ISLNK(told.st_mode):
        content = os.readlink(place)
    names = os.listxattr(place, follow_symlinks=False)
    attributes = {name: os.getxattr(place, name, follow_symlinks=False) for name in names}
    times = None if truncated else (told.st_atime_ns, told.st_mtime_ns, told.st_ctime_ns)
    device = told.st_rdev if stat.S_ISCHR(told.st_mode) or stat.S_ISBLK(told.st_mode) else 0
    about = told.st_ino, told.st_mode, told.st_nlink, told.st_uid, told.st_gid, device
    sectors = None if truncated else told.st_blocks
    return about, told.st_size, sectors, times, _told(attributes), content


def _told(attributes: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return sorted(
        (name, b"" if name.startswith(_ACCESS_LIST) else value)
        for name, value in attributes.items()
    )


def _digest(size: int, pieces: Iterator[tuple[int, bytes]]) -> str:
    """Of a content of that size and its pieces, by their offsets; zeros count as holes."""
    whole = xxhash.xxh3_128()
    for start, piece in pieces:
        shown = piece[: max(0, size - start)].rstrip(b"\0")
        if shown:
            whole.update(struct.pack("<QQ", start, len(shown)))
            whole.update(shown)
    return whole.hexdigest()


def _pieces(place: bytes) -> Iterator[tuple[int, bytes]]:
    """Of a file, page by page, as far as they are no holes."""
    with open(place, "rb", buffering=0) as file:
        start = 0
        while True:
            try:
                start = os.lseek(file.fileno(), start, os.SEEK_DATA) // _PIECE * _PIECE
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                raise
            piece = os.pread(file.fileno(), _PIECE, start)
            yield start, piece
            start += _PIECE


def _blocks(volume: Volume, named: TreeEntry) -> Iterator[tuple[int, bytes]]:
    """The same of a file in the image."""
    size = volume.geometry.block_bytes
    blocks = content_blocks(volume.geometry, named.inode, named.extents)
    pieces = groupby(blocks, lambda block: block[0] * size // _PIECE)
    for number, inside in pieces:
        piece = bytearray(_PIECE)
        for block, place in inside:
            start = block * size - number * _PIECE
            piece[start : start + size] = volume.content(place)
        yield number * _PIECE, bytes(piece)


def _device(inode: Inode) -> int:
    old, new = struct.unpack_from("<II", inode.body)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
