"""The reader of ext4 images shows what the kernel's mount shows, or says that it cannot tell.

States are random (`ext4_support.py`): a few hundred, or `CRASHSIM_EXAMPLES` of them.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.explore.selection import plan
from crashsim.explore.state_runner import StateRunner
from crashsim.ext4 import reach
from crashsim.ext4.listing import difference
from crashsim.ext4.superblock import SUPER_AT
from crashsim.ext4.view import View
from tests.ext4_support import LAYOUTS, SECTOR, Mounter, made, moments, states
from tests.sqlite_truth import NAMES, cases, subject_of
from tests.test_checkers_files import has_e2fsprogs, has_loops

MORE = os.environ.get("CRASHSIM_EXAMPLES")
SOURCES = len(LAYOUTS) + len(NAMES)
SIZE = 16 << 20
STEPS = 24
ALL = (1 << 32) - 1

pytestmark = has_e2fsprogs


def share_of(examples: int) -> int:
    """States of one of the sources."""
    return -(-int(MORE or examples) // SOURCES)


class Both:
    """The reader and the kernel on one image that changes."""

    def __init__(self, mounter: Mounter, size_bytes: int) -> None:
        self.image = memoryview(mmap.mmap(-1, size_bytes))
        self.bytes = np.frombuffer(self.image, dtype=np.uint8)
        self.agreed = self.refused = self.unread = self.truncated = 0
        self._mounter = mounter
        self._view = View()
        self._shown = False

    def compare(self, state: np.ndarray) -> int | None:
        """Its view, once the tree that was read is the one that is mounted."""
        differing = self.bytes.reshape(-1, SECTOR) != state.reshape(-1, SECTOR)
        sectors = np.flatnonzero(differing.any(axis=1)).tolist()
        self.bytes[:] = state
        changed = [(at * SECTOR, (at + 1) * SECTOR) for at in sectors] if self._shown else None
        self._shown = True
        view = self._view.of(self.image.toreadonly(), changed)
        assert view == View().of(self.image.toreadonly(), None), self._view.reason
        assert (self.bytes == state).all()
        self._mounter.path.write_bytes(self.image)
        if view is None:
            assert self._view.reason
            try:
                self._mounter.listing(frozenset())
                self.unread += 1
            except OSError:
                self.refused += 1
            return None
        read, truncated = self._view.listing()
        assert not difference(read, self._mounter.listing(truncated))
        self.agreed += 1
        self.truncated += bool(truncated)
        return view


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Callable[[int], Mounter]]:
    opened: list[Mounter] = []

    def one(size_bytes: int) -> Mounter:
        opened.append(Mounter(tmp_path, size_bytes))
        return opened[-1]

    yield one
    for each in opened:
        each.close()


@has_loops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_states_are_read_as_they_are_mounted(
    layout: str, mounter: Callable[[int], Mounter]
) -> None:
    here = mounter(SIZE)
    left, seed = share_of(160), 1
    while left > 0:
        made(here.path, LAYOUTS[layout], SIZE)
        both = Both(here, SIZE)
        taken = moments(here, seed, STEPS)
        for state in states(taken, seed, min(left, 100)):
            both.compare(state)
        assert both.agreed > both.refused + both.unread
        left, seed = left - 100, seed + 1


@has_loops
@pytest.mark.parametrize("name", NAMES)
def test_states_of_the_recordings_are_read_as_they_are_mounted(
    name: str, mounter: Callable[[int], Mounter]
) -> None:
    target = subject_of(cases(name)[0])
    both = Both(mounter(target.space.size_bytes), target.space.size_bytes)
    wanted = share_of(160)
    few = -(-wanted // min(wanted, len(target.space)))
    with StateRunner(target) as runner:
        step = max(1, len(target.space) * few // wanted)
        for number in range(0, len(target.space), step):
            epoch = runner.enter(number)
            for chosen in plan(epoch, target.history.store_write, few, seed=1):
                both.compare(np.frombuffer(runner.lay(chosen.choices), dtype=np.uint8))
    assert both.agreed > both.refused + both.unread


# What a default file system does not have, and what is not in order.


@pytest.mark.parametrize(
    "features",
    [
        "inline_data",
        "bigalloc",
        "fast_commit",
        "casefold",
        "encrypt",
        "ea_inode",
        "large_dir",
        "meta_bg,^resize_inode",
        "mmp",
        "project",
        "quota",
        "sparse_super2,^sparse_super,^resize_inode",
        "verity",
        "^metadata_csum",
        "^metadata_csum,uninit_bg",
        "^extent,^64bit",
        "^has_journal",
        "^filetype",
    ],
)
def test_what_is_not_there_by_default_is_left_to_the_kernel(features: str, tmp_path: Path) -> None:
    made(tmp_path / "image", ("-b", "4096", "-O", features), SIZE)
    view = View()
    assert view.of(memoryview((tmp_path / "image").read_bytes()), None) is None
    assert "default" in view.reason or "missing" in view.reason


@pytest.mark.parametrize("content", [b"", bytes(SIZE), b"XFSB" + bytes(4092), os.urandom(1 << 16)])
def test_what_is_no_ext4_is_left_to_the_kernel(content: bytes) -> None:
    view = View()
    assert view.of(memoryview(content), None) is None
    assert view.reason


def fresh(tmp_path: Path, *commands: str, layout: str = "4KiB blocks") -> bytearray:
    """An ext4 with a file `a` of 10,240 bytes, a folder `d` and a symlink, after commands of
    debugfs."""
    image = tmp_path / "image"
    made(image, LAYOUTS[layout], SIZE)
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40)
    debugfs(image, f"write {tmp_path / 'a'} a", "mkdir d", f"symlink s {'t' * 80}", *commands)
    return bytearray(image.read_bytes())


def debugfs(image: Path, *commands: str) -> str:
    """What it says."""
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    words = ["debugfs", "-w", "-f", "-", str(image)]
    told = "\n".join(commands)
    ended = subprocess.run(words, input=told, text=True, capture_output=True, env=environment)
    assert ended.returncode == 0
    return ended.stdout


def view_of(image: bytes | bytearray) -> int | None:
    return View().of(memoryview(image), None)


def place_of(image: Path, name: str) -> int:
    """The first byte of a file's content."""
    return int(debugfs(image, f"blocks {name}").split("\n")[1].split()[0]) * 4096


@pytest.mark.parametrize(
    "where",
    ["superblock", "group", "block bitmap", "inode bitmap", "root inode", "root", "extents", "s"],
)
def test_a_wrong_bit_in_what_has_a_checksum_is_left_to_the_kernel(
    where: str, tmp_path: Path
) -> None:
    whole = fresh(tmp_path, *(["punch a 1 1"] if where == "extents" else []))
    assert view_of(whole) is not None
    bitmap, inodes, table = struct.unpack_from("<III", whole, 4096)
    places = {
        "superblock": SUPER_AT + 0x20,
        "group": 4096 + 0x10,
        "block bitmap": bitmap * 4096 + 3,
        "inode bitmap": inodes * 4096 + 1,
        "root inode": table * 4096 + 256 + 0x10,
        "root": place_of(tmp_path / "image", "/") + 8,
        "extents": table * 4096 + 11 * 256 + 0x28 + 20,
        "s": table * 4096 + 13 * 256 + 0x7C,
    }
    whole[places[where]] ^= 4
    view = View()
    assert view.of(memoryview(whole), None) is None
    assert "checksum" in view.reason or "damaged" in view.reason


def test_a_noted_error_is_left_to_the_kernel(tmp_path: Path) -> None:
    assert view_of(fresh(tmp_path, "ssv state 2")) is None
    assert view_of(fresh(tmp_path, "ssv error_count 1")) is None


def test_every_byte_of_a_file_is_in_the_view_and_free_blocks_are_not(tmp_path: Path) -> None:
    image = fresh(tmp_path)
    before, place = view_of(image), place_of(tmp_path / "image", "a")
    free = image.rfind(bytes(8192))
    for at in (place, place + 4096, place + 9999):
        image[at] ^= 1
        assert view_of(image) not in (before, None)
        image[at] ^= 1
    image[free + 4096] = 1
    assert view_of(image) == before


@has_loops
def test_what_lies_behind_the_end_of_a_file_is_not_seen_even_if_it_grows(
    tmp_path: Path, mounter: Callable[[int], Mounter]
) -> None:
    """So it is no part of a view."""
    here = mounter(SIZE)
    image = fresh(tmp_path)
    before, end = view_of(image), place_of(tmp_path / "image", "a") + 10_240
    image[end : end + 100] = b"behind the end".ljust(100, b"!")
    assert view_of(image) == before
    grown: list[Callable[[int], object]] = [
        lambda fd: os.ftruncate(fd, 20_000),
        lambda fd: os.pwrite(fd, b"x", 11_000),
        lambda fd: os.pwrite(fd, b"x", 15_000),
        lambda fd: os.posix_fallocate(fd, 0, 20_000),
    ]
    for grow in grown:
        here.path.write_bytes(image)
        with here.mounted() as folder:
            fd = os.open(folder / "a", os.O_WRONLY)
            grow(fd)
            os.close(fd)
            content = (folder / "a").read_bytes()
        assert len(content) > 10_240
        assert not content[10_240:].strip(b"\0x")


@has_loops
def test_files_that_the_mount_truncates_or_deletes(
    tmp_path: Path, mounter: Callable[[int], Mounter]
) -> None:
    """Both lists of orphans: a truncated file ends where its inode says, and one without a name is
    gone."""
    both = Both(mounter(SIZE), SIZE)
    for commands, truncated in (
        (["sif a size 5000", "ssv last_orphan 12"], True),
        (["unlink a", "sif <12> links_count 0", "ssv last_orphan 12"], False),
        (["unlink a", "sif <12> links_count 0", "sif <12> dtime 15", "ssv last_orphan 12"], None),
    ):
        image = fresh(tmp_path, *commands)
        view = both.compare(np.frombuffer(image, dtype=np.uint8))
        assert (view is None) == (truncated is None)
    assert both.truncated == 1


def test_a_list_of_orphans_that_goes_in_a_circle_is_left_to_the_kernel(tmp_path: Path) -> None:
    image = fresh(tmp_path, "sif a dtime 12", "ssv last_orphan 12")
    assert view_of(image) is None


@has_loops
def test_an_image_of_another_file_system_is_looked_at_anew(
    tmp_path: Path, mounter: Callable[[int], Mounter]
) -> None:
    """Though the same reader is told where the images differ."""
    both = Both(mounter(SIZE), SIZE)
    views = set()
    for layout in ("4KiB blocks", "1KiB blocks", "orphan file", "4KiB blocks"):
        made(tmp_path / "one", LAYOUTS[layout], SIZE)
        views.add(both.compare(np.fromfile(tmp_path / "one", dtype=np.uint8)))
    both.compare(np.zeros(SIZE, dtype=np.uint8))
    assert None not in views
    assert both.refused == 1


def test_more_files_than_it_is_worth_reading_are_left_to_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = fresh(tmp_path)
    for most, sees in ((5, True), (4, False)):  # the root, `lost+found`, `a`, `d` and `s`
        monkeypatch.setattr(reach, "_MOST_NAMES", most)
        assert (view_of(image) is not None) == sees


@pytest.mark.parametrize("field", ["errors 2", "default_mount_opts 0x20", "def_resuid 7"])
def test_what_a_mount_takes_from_the_superblock_before_recovery_is_part_of_the_view(
    field: str, tmp_path: Path
) -> None:
    view = View()
    first = fresh(tmp_path)
    before = view.of(memoryview(first), None)
    debugfs(tmp_path / "image", f"ssv {field}")
    second = (tmp_path / "image").read_bytes()
    assert view.of(memoryview(second), [(0, 4096)]) not in (None, before)
    assert view.of(memoryview(first), [(0, 4096)]) == before


def test_a_symlink_that_the_kernel_would_cut_is_left_to_it(tmp_path: Path) -> None:
    image = fresh(tmp_path)
    assert view_of(image) is not None
    place = image.index(b"t" * 80)
    image[place + 20] = 0
    assert view_of(image) is None
