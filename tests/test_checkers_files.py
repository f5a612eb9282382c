"""Files of a file system in an image: two ways that give the same, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from crashsim.checkers import Verdict
from crashsim.checkers.filesystem import How
from crashsim.checkers.scratch import base_folder, sweep
from crashsim.checkers.spec import Command, Files
from crashsim.errors import UsageError
from tests.checkers_support import (
    ACKS,
    after_requests,
    caller,
    empty_ext4,
    entries,
    image_of,
    loops,
    own_prefix,
    processes_with,
    python,
)

RECORDED = "sqlite-wal-full"
SOME_REQUESTS = 400


def loops_work() -> bool:
    """Tried in a process of its own: it changes its mounts."""
    code = (
        "import pathlib, tempfile; from crashsim.checkers.mounts import attach_loop;"
        "from crashsim.checkers.mounts import our_own, own_mounts;"
        "own_mounts(our_own()); file = tempfile.NamedTemporaryFile(); file.truncate(1 << 20);"
        "attach_loop(pathlib.Path(file.name))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


has_loops = pytest.mark.skipif(not loops_work(), reason="loop devices cannot be mounted here")
has_e2fsprogs = pytest.mark.skipif(
    shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin") is None,
    reason="e2fsprogs is not installed",
)
both_ways = pytest.mark.parametrize(
    "how", [pytest.param("loop", marks=has_loops), pytest.param("debugfs", marks=has_e2fsprogs)]
)


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    return own_prefix(monkeypatch)


@pytest.fixture(autouse=True)
def no_loop_device_and_no_mount_stays(prefix: str) -> Iterator[None]:
    before = caller()
    yield
    assert caller() == before
    assert not loops(prefix)
    assert prefix not in Path("/proc/mounts").read_text()
    assert not list(base_folder().glob(f"{prefix}*"))


def first_requests(command: str, how: How, image: memoryview | None = None) -> Verdict:
    """The verdict of a command on the disk after some requests."""
    checker = Command(command, how=how, time_limit=5).checker()
    try:
        given = after_requests(RECORDED, SOME_REQUESTS)[0] if image is None else image
        return checker.check(given, ACKS)
    finally:
        checker.close()


TREE = python(
    "import hashlib, os, sys; root = sys.argv[1]\n"
    "for folder, _, names in sorted(os.walk(root)):\n"
    "    print(os.path.relpath(folder, root))\n"
    "    for name in sorted(names):\n"
    "        if not name.endswith('-shm'):\n"
    "            data = open(folder + '/' + name, 'rb').read()\n"
    "            print(name, len(data), hashlib.sha256(data).hexdigest())"
)


@has_loops
@has_e2fsprogs
def test_both_ways_give_the_same_files() -> None:
    """But for SQLite's index of its log, whose content is not kept over a start."""
    mounted = first_requests(f"{TREE} {{mnt}}", "loop").message
    unpacked = first_requests(f"{TREE} {{mnt}}", "debugfs").message
    files = [line for line in unpacked.splitlines() if not line.startswith("e2fsck")]
    assert mounted.splitlines() == files
    assert any(line.startswith("app.db-wal ") for line in files)


@both_ways
def test_the_journal_is_replayed(how: How) -> None:
    """Without that the empty file system of before the recording would be seen."""
    assert first_requests("/bin/ls {mnt}/app.db", how).kind == "ok"
    empty = image_of(empty_ext4(), 32 << 20)
    assert first_requests("/bin/ls {mnt}/app.db", how, empty).kind == "finding"


@both_ways
def test_what_it_writes_to_the_files_reaches_neither_the_image_nor_the_next_state(
    how: How,
) -> None:
    spoil = "/bin/sh -c 'ls $0; echo new > $0/new; rm -r $0/app.db $0/lost+found' {mnt}"
    image = after_requests(RECORDED, SOME_REQUESTS)[0]
    before = bytes(image)
    checker = Command(spoil, how=how).checker()
    first = checker.check(image, ACKS)
    assert first.kind == "ok" and "app.db" in first.message
    assert checker.way == how
    assert checker.check(image, ACKS, ()) == first
    assert bytes(image) == before
    checker.close()


@both_ways
def test_the_next_state_is_seen_through_all_caches(how: How) -> None:
    """Each state differs from the last in what the hint says and in nothing else."""
    checker = Command("/usr/bin/stat -c %n:%s {mnt}/app.db-wal", how=how).checker()
    image = image_of(empty_ext4(), 32 << 20)
    changed: list[tuple[int, int]] | None = None
    sizes = []
    for number, entry in enumerate(entries(RECORDED)):
        end = entry.offset + len(entry.content)
        image[entry.offset : end] = entry.content
        if changed is not None:
            changed.append((entry.offset, end))
        if number % 60 == 0:
            found = checker.check(image, ACKS, changed).message
            fresh = first_requests("/usr/bin/stat -c %n:%s {mnt}/app.db-wal", how, image).message
            assert _size(found) == _size(fresh)
            sizes.append(_size(found))
            changed = []
    checker.close()
    assert len(set(sizes)) > 5


def _size(message: str) -> str:
    return message.partition("app.db-wal:")[2].partition("\n")[0]


@has_e2fsprogs
def test_what_e2fsck_repaired_is_told() -> None:
    told = first_requests("/bin/true {mnt}", "debugfs").message
    assert told.startswith("e2fsck ends with 1: Free blocks count wrong")
    clean = image_of(empty_ext4(), 32 << 20)
    assert first_requests("/bin/true {mnt}", "debugfs", clean) == Verdict("ok")


@both_ways
def test_a_file_system_that_is_none_any_more_is_a_finding(how: How) -> None:
    image = after_requests(RECORDED, SOME_REQUESTS)[0]
    checker = Command("/bin/true {mnt}", how=how).checker()
    assert checker.check(image, ACKS).kind == "ok"
    image[: 32 << 20] = bytes(32 << 20)
    found = checker.check(image, ACKS)
    assert found.kind == "finding"
    assert found.outcome in ("file system does not mount", "file system cannot be repaired")
    checker.close()


@both_ways
@pytest.mark.parametrize(
    "command",
    [
        "/bin/sh -c 'cd $0; exec sleep 1000.125' {mnt}",
        "/bin/sh -c 'cd $0; setsid sleep 1000.125 & exit 0' {mnt}",
        "/bin/sh -c 'cd $0; kill -9 $$' {mnt}",
    ],
)
def test_nothing_keeps_the_files_after_a_check(how: How, command: str) -> None:
    image = after_requests(RECORDED, SOME_REQUESTS)[0]
    checker = Command(command, how=how, time_limit=0.5).checker()
    for _ in range(2):
        found = checker.check(image, ACKS)
        assert found.kind in ("hang", "ok", "crash")
        assert processes_with("1000.125") == []
    checker.close()


_kept_open: list[BinaryIO] = []


def keeps_a_file_open(folder: Path, acks: object) -> None:
    """A checker that forgets to close what it opened."""
    _kept_open.append((folder / "app.db").open("rb"))


@both_ways
def test_a_function_that_keeps_files_open_does_not_stop_the_next_state(how: How) -> None:
    image = after_requests(RECORDED, SOME_REQUESTS)[0]
    checker = Files("tests.test_checkers_files:keeps_a_file_open", how=how).checker()
    for _ in range(2):
        assert checker.check(image, ACKS).kind == "ok"
    checker.close()
    while _kept_open:
        _kept_open.pop().close()


@has_loops
def test_a_killed_process_leaves_no_mount_and_no_loop_device(prefix: str) -> None:
    code = (
        "import sys, crashsim.checkers.scratch as folder; folder._PREFIX = sys.argv[1]\n"
        "from crashsim.checkers.spec import Files\n"
        "from tests.checkers_support import ACKS, after_requests\n"
        "checker = Files('tests.test_checkers_files:kills_its_user', how='loop').checker()\n"
        "checker.check(after_requests('sqlite-wal-full', 400)[0], ACKS)\n"
    )
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code, prefix], cwd=root, check=False)
    assert ended.returncode == -9
    for _ in range(500):  # the kernel unmounts when it has time
        if not loops(prefix):
            break
        subprocess.run(["/bin/sleep", "0.01"], check=True)
    assert not loops(prefix)
    assert list(base_folder().glob(f"{prefix}*"))
    sweep()


def kills_its_user(folder: Path, acks: object) -> None:
    """Who asks dies in the middle of a check, with everything mounted."""
    assert (folder / "app.db").exists()
    keeper = Path(f"/proc/{os.getppid()}/stat").read_text()
    os.kill(int(keeper.rpartition(")")[2].split()[1]), 9)


def test_where_there_is_no_way_to_the_files_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checker = Command("/bin/true {mnt}").checker()
    monkeypatch.setattr("crashsim.checkers.filesystem.SYSTEM_PATH", "/nowhere")
    with pytest.raises(UsageError, match="loop devices cannot be mounted"):
        checker.check(image_of(), ACKS)
    checker.close()


@has_e2fsprogs
def test_without_privileges_files_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(helper: object, needs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("crashsim.checkers.helper.Helper.own_mounts", refused)
    checker = Command("/bin/ls {mnt}/app.db").checker()
    assert checker.way is None
    assert checker.check(after_requests(RECORDED, SOME_REQUESTS)[0], ACKS).kind == "ok"
    assert checker.way == "debugfs"
    checker.close()
