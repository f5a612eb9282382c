"""The files of a file system in an image, for `{mnt}`.

Contract: there are two ways, and both change only the private copy of the image, as a computer that
starts again after a power cut would:

- `loop`: the kernel mounts the copy, read-write, so it replays the journal. Needs root. The mount
  is in a mount namespace of the helper process (`helper.py`) and its loop device lets go of the
  copy when nobody uses it: both are gone with that process, however it ends.
- `debugfs`: `e2fsck -fy` replays the journal and repairs, `debugfs` unpacks into a folder. Needs no
  privilege; ext2, ext3 and ext4 only. What had to be repaired is told.

A file system that cannot be mounted or repaired is a finding.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crashsim.checkers.helper import Helper
from crashsim.checkers.mounts import our_own
from crashsim.checkers.scratch import empty
from crashsim.checkers.spawn import Ended
from crashsim.checkers.verdict import Verdict, verdict
from crashsim.errors import CrashsimError, HelperDied, UsageError

if TYPE_CHECKING:
    from crashsim.checkers.image_session import Sandbox

How = Literal["auto", "loop", "debugfs"]
SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_ENVIRONMENT = {b"PATH": os.fsencode(SYSTEM_PATH), b"LC_ALL": b"C"}
_OPTIONS = {"xfs": "nouuid"}  # copies of one file system may be mounted at the same time
_OURS = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOMEM, errno.ENODEV, errno.EMFILE)
_E2FSCK_REPAIRED = 3  # 1: repaired, 2: a mounted one would need a reboot
_PATIENCE_S = 1.0


def choose(how: How, sandbox: Sandbox, needs: Sequence[Path]) -> Way:
    """A way that works here for the image that is laid out; `needs`: files and folders that the
    checker must be able to see. UsageError when there is none."""
    if how == "debugfs":
        return Unpacked()
    try:
        return LoopMount(sandbox, needs)
    except OSError as error:
        reason = f"loop devices cannot be mounted here ({error.strerror})"
    if how == "loop":
        raise UsageError(f"{{mnt}}: {reason}")
    try:
        return Unpacked()
    except UsageError as error:
        raise UsageError(f"{{mnt}}: {reason}, and {error}") from None


class LoopMount:
    """Mounts by the kernel, all through one loop device."""

    name = "loop"

    def __init__(self, sandbox: Sandbox, needs: Sequence[Path]) -> None:
        """OSError where it is not allowed."""
        self._helper: Helper = sandbox.helper
        self._helper.own_mounts([*map(str, needs), str(sandbox.files), *our_own()])
        self._kind = _kind_of(sandbox)
        self._helper.ask("attach", sandbox.image.path)

    def lay_out(self, sandbox: Sandbox) -> str | Verdict:
        """The files into `sandbox.files`: what there is to tell, or why there are none."""
        sandbox.touched = True
        try:
            options = _OPTIONS.get(self._kind, "")
            self._helper.ask("mount", sandbox.files, self._kind, options)
        except OSError as error:
            told = f"mounting the {self._kind or 'file system'} fails: {error.strerror}"
            if error.errno in _OURS:
                return verdict("broken", message=told)
            return verdict("finding", "file system does not mount", told)
        return ""

    def clear(self, sandbox: Sandbox) -> None:
        """CrashsimError when somebody still uses the files; they are gone from the folder then."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._helper.ask("unmount", sandbox.files)
                return
            except OSError as error:
                if error.errno == errno.EINVAL:  # it is not mounted
                    return
                if error.errno != errno.EBUSY:
                    raise
            if time.monotonic() > end:
                self._helper.ask("unmount_lazily", sandbox.files)
                raise CrashsimError("the checker keeps files of the image open")
            time.sleep(0.005)

    def close(self) -> None:
        self._helper.ask("detach")


class Unpacked:
    """Repaired and unpacked without any privilege."""

    name = "debugfs"

    def __init__(self) -> None:
        """UsageError when a program that it needs is missing."""
        self._e2fsck, self._debugfs = _program("e2fsck"), _program("debugfs")

    def lay_out(self, sandbox: Sandbox) -> str | Verdict:
        image = str(sandbox.image.path)
        ended = sandbox.run([self._e2fsck, "-fy", image], _ENVIRONMENT)
        # Where the private copy is, is another place each time.
        ended = replace(ended, output=ended.output.replace(image.encode(), b"/image"))
        if ended.status is None or ended.timed_out or not 0 <= ended.status <= _E2FSCK_REPAIRED:
            return _not_repaired(ended)
        dump = [self._debugfs, "-R", f"rdump / {sandbox.files}", image]
        unpacked = sandbox.run(dump, _ENVIRONMENT)
        if unpacked.status != 0:
            return verdict("broken", message=f"debugfs: {_said(unpacked)}")
        return _repaired(ended) if ended.status else ""

    def clear(self, sandbox: Sandbox) -> None:
        empty(sandbox.files)

    def close(self) -> None: ...


Way = LoopMount | Unpacked  # how files come out of an image


def _program(name: str) -> str:
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise UsageError(f"{name} is not installed")
    return path


def _kind_of(sandbox: Sandbox) -> str:
    """The kernel's name of the file system. OSError when nobody knows it."""
    words = [_program_or_error("blkid"), "-p", "-o", "value", "-s", "TYPE", str(sandbox.image.path)]
    kind = sandbox.run(words, _ENVIRONMENT).output.decode("ascii", "replace").strip()
    if not kind:
        raise OSError(errno.EINVAL, "there is no file system in the image")
    return kind


def _program_or_error(name: str) -> str:
    try:
        return _program(name)
    except UsageError as error:
        raise OSError(errno.ENOENT, str(error)) from None


def _not_repaired(ended: Ended) -> Verdict:
    if ended.status is None:
        return verdict("broken", message=f"e2fsck cannot be started: {ended.error}")
    if ended.timed_out:
        return verdict("hang", "e2fsck hangs", _said(ended))
    if ended.status < 0:
        return verdict("crash", "e2fsck crashes", f"{_said(ended)}\nsignal {-ended.status}")
    # The last line is what stories say; e2fsck's own is the end of its advice.
    told = f"{_said(ended)}\ne2fsck ends with {ended.status}"
    return verdict("finding", "file system cannot be repaired", told)


def _repaired(ended: Ended) -> str:
    """What e2fsck found, without what it always says."""
    always = ("e2fsck ", "Pass ", "Fix? ", "/")
    lines = [line.strip() for line in _said(ended).splitlines()]
    told = [line for line in lines if line and not line.startswith(always) and "***" not in line]
    return f"e2fsck ends with {ended.status}: {'; '.join(told)}"


def _said(ended: Ended) -> str:
    return ended.output.decode("utf-8", "replace").strip()


def close_quietly(way: Way | None) -> None:
    if way is not None:
        with suppress(OSError, HelperDied):
            way.close()
