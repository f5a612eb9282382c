"""A private folder in memory for the files of one checker.

Contract: it goes away with `close`, and when its process was killed, with the next use of this
module by anybody of the same user: whoever owns a folder holds a lock on a file in it, which ends
with the process. Nobody else's folder is touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "crashsim-checker-"
_IN_MEMORY = Path("/dev/shm")


def base_folder() -> Path:
    """Where private folders are made: in memory where there is such a place."""
    return _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Folder:
    """`path`, and in it `work/`, where checkers run."""

    def __init__(self) -> None:
        sweep()
        self.path, self._lock = _locked()
        self.work = self.path / "work"
        self.work.mkdir()

    def abandon(self) -> None:
        """Let go of it in a process that inherited it: it stays its owner's."""
        os.close(self._lock)

    def close(self) -> None:
        remove(self.path)
        self.abandon()
        sweep()  # of workers that were killed


def _locked() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base_folder()))
        with suppress(FileNotFoundError):  # swept by another process before it was locked
            lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path / "lock").exists():
                return path, lock
            os.close(lock)


def sweep() -> None:
    """Remove the folders whose owners are gone."""
    for path in sorted(base_folder().glob(f"{_PREFIX}*")):
        with suppress(OSError):  # it is in use, somebody else's, or just gone
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(lock)


def empty(folder: Path) -> None:
    """Remove all that is in a folder, also where permissions were taken away. OSError when the
    folder is not there."""
    for name in os.listdir(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            remove(path)
        else:
            path.unlink()


def remove(path: Path) -> None:
    """Remove a folder with everything in it; none is no error."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)  # top down: before its entries are listed
        shutil.rmtree(path)
