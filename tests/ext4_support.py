"""Random states of ext4 images: file systems made in several ways, what somebody did to them, and
what the kernel shows of an image when it mounts it.

Contract: a state holds, of every block or sector that a moment of the work changed, what was there
before or after it, each as likely; so journals are cut, torn and partly reused, and what they cover
has reached its place or not. The same seed gives the same work and the same choices; what the
kernel writes of it, and when, is the kernel's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.checkers.helper import Helper
from crashsim.checkers.mounts import our_own
from crashsim.checkers.spawn import Limits
from crashsim.ext4.jbd2 import MAGIC
from crashsim.ext4.listing import Listing, folder_listing

SECTOR = 512
LAYOUTS: dict[str, tuple[str, ...]] = {
    "4KiB blocks": ("-b", "4096"),
    "1KiB blocks": ("-b", "1024", "-J", "size=1"),
    "2KiB blocks, large inodes": ("-b", "2048", "-I", "512"),
    "orphan file": ("-b", "4096", "-O", "orphan_file,metadata_csum_seed"),
    "orphan file, 1KiB": ("-b", "1024", "-O", "orphan_file", "-J", "size=1"),
    "narrow": ("-b", "1024", "-O", "^64bit", "-J", "size=1"),
    "many groups": ("-b", "1024", "-g", "1024", "-O", "^flex_bg,^resize_inode", "-J", "size=1"),
    "tables later": ("-b", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1"),
}
_SET_FLAGS, _JOURNALED, _EXTENTS = 0x40086602, 0x4000, 0x80000
_libc = ctypes.CDLL(None, use_errno=True)


def made(path: Path, options: tuple[str, ...], size_bytes: int) -> None:
    """An empty ext4 in a file, the same each time but for the time of day."""
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    fixed = (
        "-U",
        "13d2a365-1a72-4710-8f5e-6435bd302b98",
        "-E",
        "hash_seed=" + "-".join(("67b699c1", "fa3c", "4906", "aad9", "4300e4d003ec")),
    )
    extended = [word for word in options if "lazy_" in word]
    if extended:
        options = tuple(word for word in options if word not in ("-E", *extended))
        fixed = (*fixed[:3], f"{fixed[3]},{extended[0]}")
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    command = ["mkfs.ext4", "-q", "-F", *options, *fixed, str(path)]
    subprocess.run(command, check=True, env=environment, capture_output=True)


class Mounter:
    """Mounts the image that is in the file `path`, where nobody else sees it."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.path = folder / "image"
        self._point = folder / "mnt"
        self._point.mkdir()
        with open(self.path, "wb") as file:
            file.truncate(size_bytes)
        self._helper = Helper(Limits(1 << 30, 1 << 40))
        self._helper.own_mounts([str(folder), *our_own()])
        self.folder = Path(f"/proc/{self._helper.process}/root{self._point}")

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The folder with its files. OSError when it does not mount."""
        self._helper.ask("attach", self.path)
        self._helper.ask("mount", self._point, "ext4", "")
        try:
            yield self.folder
        finally:
            self._helper.ask("unmount", self._point)

    def listing(self, truncated: frozenset[int]) -> Listing:
        with self.mounted() as folder:
            return folder_listing(folder, truncated)

    def close(self) -> None:
        self._helper.close()


@dataclass
class Work:
    """What is done to the files in a folder, by a seed."""

    folder: Path
    random: random.Random
    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=lambda: [""])
    held: list[int] = field(default_factory=list)
    made: int = 0

    def step(self) -> None:
        """Some things, and mostly a sync of something."""
        actions: list[Callable[[], None]] = [
            self.write_new, self.write_new, self.overwrite, self.append, self.append, self.truncate,
            self.rename, self.unlink, self.unlink_open, self.links, self.many, self.holes,
            self.promise, self.attributes, self.make_folder, self.remove_folder, self.special,
            self.clear, self.journaled,
        ]  # fmt: skip
        for _ in range(self.random.randrange(1, 8)):
            with suppress(OSError):  # it is full, or not empty: that is work, too
                self.random.choice(actions)()
        if self.random.random() < 0.7:
            self.sync()

    def sync(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY)
        if self.random.random() < 0.5:
            os.fsync(fd)
        else:
            _libc.syncfs(fd)
        os.close(fd)

    def write_new(self) -> None:
        with open(self._new(), "wb") as file:
            file.write(self.random.randbytes(self._size()))

    def overwrite(self) -> None:
        with open(self._some(), "r+b") as file:
            file.seek(self.random.randrange(1 << 14))
            file.write(self.random.randbytes(self._size()))
            if self.random.random() < 0.5:
                os.fsync(file.fileno())

    def append(self) -> None:
        with open(self._some(), "ab") as file:
            file.write(self.random.randbytes(self.random.randrange(1, 6000)))
            os.fsync(file.fileno())

    def truncate(self) -> None:
        path = self._some()
        os.truncate(path, self.random.randrange(2 * path.stat().st_size + 1))

    def rename(self) -> None:
        old = self._some()
        target = self._some() if self.random.random() < 0.5 else self._new()
        os.replace(old, target)
        self.names.remove(str(old.relative_to(self.folder)))

    def unlink(self) -> None:
        path = self._some()
        self.names.remove(str(path.relative_to(self.folder)))
        path.unlink()

    def unlink_open(self) -> None:
        path = self._some()
        self.held.append(os.open(path, os.O_RDWR))
        self.names.remove(str(path.relative_to(self.folder)))
        path.unlink()
        if len(self.held) > 4:
            os.close(self.held.pop(0))

    def links(self) -> None:
        os.link(self._some(), self._new())
        target = b"t" * self.random.choice((5, 59, 60, 300))
        os.symlink(target, bytes(self._new(keep=False)))
        os.symlink(MAGIC + b"t" * 60, bytes(self._new(keep=False)))  # its block is escaped

    def many(self) -> None:
        inside = self.folder / self.random.choice(self.folders)
        for number in range(self.random.choice((5, 60, 60, 250) * 6 + (2500,))):
            (inside / f"{self.made:04}-{number:05}{'x' * self.random.randrange(60)}").touch()
        self.made += 1

    def holes(self) -> None:
        """A file with many extents."""
        with open(self._new(), "wb") as file:
            for number in range(self.random.choice((3, 20, 400))):
                file.seek(number * 3 * 4096 + self.random.randrange(4096))
                file.write(b"%d" % number)

    def promise(self) -> None:
        """Blocks that are not written, some of them then are."""
        with open(self._new(), "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 18)
            file.seek(self.random.randrange(1 << 18))
            file.write(b"in the middle")
            if self.random.random() < 0.5:
                os.fsync(file.fileno())

    def attributes(self) -> None:
        path = self._some()
        length = self.random.choice((0, 10, 300))
        os.setxattr(path, f"user.{self.random.randrange(3)}", self.random.randbytes(length))
        path.chmod(self.random.randrange(0o10000))
        os.chown(path, self.random.randrange(1 << 20), self.random.randrange(1 << 20))
        os.utime(path, ns=(self.random.randrange(1 << 62), self.random.randrange(1 << 63)))

    def make_folder(self) -> None:
        path = self._new(keep=False)
        path.mkdir()
        self.folders.append(str(path.relative_to(self.folder)))

    def remove_folder(self) -> None:
        name = self.random.choice(self.folders[1:] or ["lost+found"])
        (self.folder / name).rmdir()
        if name in self.folders:
            self.folders.remove(name)

    def clear(self) -> None:
        """Blocks of folders become those of files: they are revoked in the journal."""
        inside = self.folder / self.random.choice(self.folders)
        for path in [path for path in inside.iterdir() if path.is_dir()]:
            shutil.rmtree(path)
        kept = [name for name in self.names if (self.folder / name).exists()]
        self.names = kept
        self.folders = [name for name in self.folders if (self.folder / name).exists()]
        self.write_new()

    def journaled(self) -> None:
        """A file whose content goes through the journal, and looks like it."""
        with open(self._new(), "w+b") as file:
            fcntl.ioctl(file, _SET_FLAGS, struct.pack("l", _JOURNALED | _EXTENTS))
            file.write((MAGIC + bytes(4092)) * 3)
            file.write(self.random.randbytes(self._size()))

    def special(self) -> None:
        os.mkfifo(self._new(keep=False))
        os.mknod(self._new(keep=False), 0o60644, os.makedev(7, 300))
        os.mknod(self._new(keep=False), 0o20644, os.makedev(7, 3))

    def close(self) -> None:
        for fd in self.held:
            os.close(fd)

    def _size(self) -> int:
        return self.random.choice((1, 100, 4096, 10_000, 200_000))

    def _new(self, keep: bool = True) -> Path:
        self.made += 1
        name = os.path.join(self.random.choice(self.folders), f"f{self.made}")
        if keep:
            self.names.append(name)
        return self.folder / name

    def _some(self) -> Path:
        if not self.names:
            raise FileNotFoundError
        return self.folder / self.random.choice(self.names)


def moments(mounter: Mounter, seed: int, steps: int) -> list[np.ndarray]:
    """The image after each step of some work, as far as it had reached the disk."""
    found = [np.fromfile(mounter.path, dtype=np.uint8)]
    with mounter.mounted() as folder:
        work = Work(folder, random.Random(seed))
        try:
            for _ in range(work.random.choice((0, 0, 100))):  # on in the journal, to its end
                (folder / "first").write_bytes(b"")
                work.sync()
            for _ in range(steps):
                work.step()
                found.append(np.fromfile(mounter.path, dtype=np.uint8))
        finally:
            work.close()
    found.append(np.fromfile(mounter.path, dtype=np.uint8))
    return found


def states(taken: list[np.ndarray], seed: int, count: int) -> Iterator[np.ndarray]:
    """Random states between moments that follow each other."""
    draws = random.Random(seed)
    for _ in range(count):
        first = draws.randrange(len(taken) - 1)
        last = min(len(taken) - 1, first + draws.choice((1, 1, 1, 2, 5)))
        size = draws.choice((SECTOR, 4096))
        old, new = (taken[at].reshape(-1, size) for at in (first, last))
        differing = np.flatnonzero((old != new).any(axis=1))
        state = old.copy()
        share = draws.choice((0.05, 0.5, 0.5, 0.95, 1.0))
        chosen = [at for at in differing.tolist() if draws.random() < share]
        state[chosen] = new[chosen]
        yield state.reshape(-1)
