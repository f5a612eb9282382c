"""The files of an ext2, ext3 or ext4 image, told apart, and the image without one of them.

Contract: all is done on a private copy, by `e2fsck` and `debugfs`, without any privilege. Two files
are the same if they have the same inode and generation: a name that was deleted and made again is
another file. What a repair puts into `lost+found` is left out. Where there is no such file system,
more than `MOST_FILES`, a name that is not plain, or no e2fsprogs, nothing is known (None).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.checkers.image_session import ImageSession, Sandbox
from crashsim.checkers.verdict import NO_ACKS, OK, Verdict, verdict
from crashsim.errors import UsageError

MOST_FILES = 64
LARGEST_BYTES = 1 << 30
_ENVIRONMENT = {b"PATH": os.fsencode(SYSTEM_PATH), b"LC_ALL": b"C"}
_PLAIN = re.compile(r"[A-Za-z0-9._/+@=-]+")
_INODE = re.compile(rb"Inode: (\d+).*?Generation: (\d+)", re.DOTALL)
_REPAIRED = 3  # e2fsck: all is well now


@dataclass(frozen=True, slots=True)
class TreeFile:
    """`identity`: inode and generation; `digest`: of the content."""

    identity: tuple[int, int]
    size: int
    digest: str


Tree = dict[str, TreeFile]  # path from the root -> file


class FileTrees:
    """Looks into images, one after another."""

    def __init__(self) -> None:
        self._session = ImageSession("debugfs")
        self._debugfs = shutil.which("debugfs", path=SYSTEM_PATH) or ""
        self._e2fsck = shutil.which("e2fsck", path=SYSTEM_PATH) or ""

    def of(self, image: memoryview) -> Tree | None:
        """None: not known."""
        found: Tree = {}

        def ask(sandbox: Sandbox) -> Verdict:
            lost = sandbox.files / "lost+found"
            paths = [path for path in sorted(sandbox.files.rglob("*")) if path.is_file()]
            paths = [path for path in paths if not path.is_relative_to(lost)]
            if len(paths) > MOST_FILES:
                return verdict("broken")
            for path in paths:
                name = str(path.relative_to(sandbox.files))
                file = self._file(sandbox, path, name)
                if file is None:
                    return verdict("broken")
                found[name] = file
            return OK

        return found if self._asked(image, ask) else None

    def without(self, image: memoryview, path: str) -> memoryview | None:
        """The image after recovery, with that file removed."""
        less: list[bytes] = []

        def ask(sandbox: Sandbox) -> Verdict:
            copy = str(sandbox.image.path)
            sandbox.touched = True
            sandbox.run([self._debugfs, "-w", "-R", f"rm /{path}", copy], _ENVIRONMENT)
            ended = sandbox.run([self._e2fsck, "-fy", copy], _ENVIRONMENT)
            if ended.status is None or not 0 <= ended.status <= _REPAIRED:
                return verdict("broken")
            less.append(sandbox.image.path.read_bytes())
            return OK

        return memoryview(less[0]) if _plain(path) and self._asked(image, ask) else None

    def _asked(self, image: memoryview, ask: Callable[[Sandbox], Verdict]) -> bool:
        if not (self._debugfs and self._e2fsck) or image.nbytes > LARGEST_BYTES:
            return False
        try:
            return self._session.check(image, NO_ACKS, None, ask).kind == "ok"
        except UsageError:
            return False

    def _file(self, sandbox: Sandbox, path: Path, name: str) -> TreeFile | None:
        if not _plain(name) or path.is_symlink():
            return None
        words = [self._debugfs, "-R", f"stat /{name}", str(sandbox.image.path)]
        told = _INODE.search(sandbox.run(words, _ENVIRONMENT).output)
        if told is None:
            return None
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return TreeFile((int(told[1]), int(told[2])), len(content), digest)

    def __enter__(self) -> FileTrees:
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()


def _plain(name: str) -> bool:
    """A name that `debugfs` takes for nothing else."""
    return _PLAIN.fullmatch(name) is not None
