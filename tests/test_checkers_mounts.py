"""Other people's mounts while states are mounted: theirs to unmount, and nobody pins them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crashsim.checkers.mounts import Mount, _can_go
from tests.test_checkers_files import has_loops

ROOT = Path(__file__).parents[1]


@has_loops
@pytest.mark.parametrize("propagation", ["private", "shared"])
def test_a_user_unmounts_rewrites_and_mounts_again_while_states_are_mounted(
    tmp_path: Path, propagation: str
) -> None:
    """In a mount namespace whose mounts are told of to others, as systemd has it, or are not, as
    in containers."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    words = ["unshare", "--mount", f"--propagation={propagation}", sys.executable, "-c", USER]
    ended = subprocess.run(
        [*words, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("old\nnew\n", 0), ended.stderr


USER = '''
import multiprocessing, subprocess, sys, time
from contextlib import closing
from pathlib import Path
from crashsim.checkers.spec import Command
from crashsim.checkers.spec import Files
from tests.checkers_support import ACKS, after_requests

def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

def explore(checker, ready, stop):
    """Checks states for as long as the user wants."""
    image = after_requests("sqlite-wal-full", 400)[0]
    with closing(checker):
        while True:
            found = checker.check(image, ACKS, None)
            assert found.kind == "ok", found
            ready.set()
            if stop.is_set():
                return

def lay(content):
    (work / "source").mkdir(exist_ok=True)
    (work / "source" / "data").write_text(content)
    (work / "image").unlink(missing_ok=True)
    with open(work / "image", "wb") as file:
        file.truncate(4 << 20)
    run("mkfs.ext4", "-q", "-F", "-d", str(work / "source"), str(work / "image"))

def loops():
    return [f for f in Path("/sys/block").glob("loop*/loop/backing_file")
            if f.read_text().startswith(str(work))]

work = Path(sys.argv[1])
mounted = work / "mounted"
mounted.mkdir()
lay("old")
run("mount", "-o", "loop", str(work / "image"), str(mounted))
print((mounted / "data").read_text())
context = multiprocessing.get_context("fork")
stop = context.Event()
workers = []
for checker in (Command("/bin/ls {mnt}/app.db", how="loop").checker(),
                Files("tests.test_checkers_mounts:has_database", how="loop").checker()):
    ready = context.Event()
    worker = context.Process(target=explore, args=(checker, ready, stop), daemon=True)
    worker.start()
    workers.append(worker)
    assert ready.wait(100)
assert "crashsim-checker" not in Path("/proc/self/mounts").read_text()
run("umount", str(mounted))
for _ in range(1000):
    if not loops():
        break
    time.sleep(0.01)  # the kernel lets go of a loop device when it has time
assert not loops(), "somebody keeps the image mounted"
lay("new")
run("mount", "-o", "loop", str(work / "image"), str(mounted))
print((mounted / "data").read_text())
run("umount", str(mounted))
stop.set()
for worker in workers:
    worker.join()
    assert worker.exitcode == 0
'''


def has_database(folder: Path, acks: object) -> bool:
    return (folder / "app.db").exists()


@pytest.mark.parametrize(
    ("mount", "goes"),
    [
        (Mount("/", "/mnt/x", False, "/dev/loop3"), True),
        (Mount("/", "/mnt/x", True, "/dev/loop3"), False),  # its unmounting reaches us
        (Mount("/volumes/x", "/mnt/x", False, "/dev/sda1"), False),  # a container's volume
        (Mount("/", "/mnt/x", False, "tmpfs"), False),
        (Mount("/", "/mnt", False, "/dev/sdb1"), False),  # the checker is on it
        (Mount("/", "/mnt/user", False, "/dev/sdb1"), False),
        (Mount("/", "/mnt/user/check.py.d", False, "/dev/sdb1"), True),
        (Mount("/", "/mnt/us", False, "/dev/sdb1"), True),
        (Mount("/", "/", False, "/dev/vda"), False),
    ],
)
def test_only_file_systems_that_nobody_needs_are_let_go_of(mount: Mount, goes: bool) -> None:
    assert _can_go(mount, {"/mnt/user"}) is goes
