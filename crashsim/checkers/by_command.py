"""Any program as a checker.

Contract: the command is split into words as a shell would and run without one. `{image}`,
`{device}`, `{acks}` and `{mnt}` in a word become paths (an unknown placeholder is refused), which
the program also finds in its environment as `CRASHSIM_IMAGE` and so on; words that name files are
made absolute, because the program runs in an empty folder of its own. `{mnt}` is a folder with the
files of the file system in the image (`filesystem.py`). `python3` is the one that crashsim runs in.

| it ends with | verdict |
|---|---|
| exit code 0 | ok |
| exit code 126 or 127, or it cannot be started | broken |
| any other exit code | finding |
| a signal | crash |
| the end of its time | hang |

The last line `outcome: ...` that it prints is the outcome; what it prints first is the message.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crashsim.checkers.filesystem import SYSTEM_PATH
from crashsim.checkers.image_session import ImageSession, Sandbox
from crashsim.checkers.spawn import Ended, Environment, signal_name
from crashsim.checkers.verdict import OK, Acks, Ranges, Verdict, verdict
from crashsim.errors import UsageError
from crashsim.experiment.trial import filled, named, unknown

if TYPE_CHECKING:
    from crashsim.checkers.spec import Command

_PATH = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
_CANNOT_RUN = (126, 127)  # what shells answer for a program that cannot be run, or found
_OUTCOME = re.compile(r"^outcome:(.*)$", re.MULTILINE)


class CommandChecker:
    """Runs a program for each image."""

    def __init__(self, spec: Command, device: str, paranoid: bool) -> None:
        """`device`: the guest's name of the device, for `{device}`. UsageError for a command that
        is none."""
        where = Path(spec.folder).absolute()
        self._words = _words(spec.line, where)
        self._time_limit_s = spec.time_limit_s
        wants_files = any("mnt" in named(word) for word in self._words)
        needs = [where, *(Path(word) for word in self._words if word.startswith(os.sep))]
        how, limits = spec.how if wants_files else None, (spec.time_limit_s, spec.memory_bytes)
        self.session = ImageSession(how, device, *limits, paranoid, needs)
        self._filled: tuple[Sandbox, list[str], Environment] | None = None

    @property
    def way(self) -> str | None:
        """How `{mnt}` is made, `loop` or `debugfs`, once an image was checked."""
        return self.session.way

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self.session.check(image, acks, changed, self._ask)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self.session.renew()
        return self.session.check(image, acks, None, self._ask, patience)

    def close(self) -> None:
        self.session.close()
        self._filled = None

    def _ask(self, sandbox: Sandbox) -> Verdict:
        if self._filled is None or self._filled[0] is not sandbox:
            self._filled = sandbox, *self._fill(sandbox)
        _, words, environment = self._filled
        return self._judge(sandbox.run(words, environment), self._time_limit_s * sandbox.patience)

    def _fill(self, sandbox: Sandbox) -> tuple[list[str], Environment]:
        paths = {
            "image": str(sandbox.image.path),
            "device": str(sandbox.device),
            "acks": str(sandbox.acks),
            "mnt": str(sandbox.files),
        }
        words = filled(self._words, paths)
        environment = {f"CRASHSIM_{name.upper()}": path for name, path in paths.items()}
        work = str(sandbox.work)
        environment |= {"PATH": _PATH, "HOME": work, "TMPDIR": work}
        return words, {os.fsencode(k): os.fsencode(v) for k, v in environment.items()}

    def _judge(self, ended: Ended, time_s: float) -> Verdict:
        if ended.status == 0 and not ended.timed_out and not ended.output:
            return OK
        text = ended.output.decode("utf-8", "replace")
        outcomes = _OUTCOME.findall(text)
        outcome = outcomes[-1] if outcomes else ""
        if ended.status is None:
            return verdict("broken", message=f"{self._words[0]} cannot be started: {ended.error}")
        if ended.timed_out:
            late = "stopped" if ended.stopped else "timed out"
            told = "it was stopped" if ended.stopped else f"not ended after {time_s:g} s"
            return verdict("hang", outcome or late, f"{told}\n{text}")
        if ended.status == 0:
            return verdict("ok", outcome, text)
        if ended.status < 0:
            name = signal_name(-ended.status)
            return verdict("crash", outcome or f"died: {name}", f"killed by {name}\n{text}")
        told = f"exit code {ended.status}\n{text}"
        return verdict("broken" if ended.status in _CANNOT_RUN else "finding", outcome, told)


def _words(template: str, folder: Path) -> list[str]:
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise UsageError(f"{template!r} is no command: {error}") from None
    if not words:
        raise UsageError("the checker's command is empty")
    wrong = unknown(template)
    if wrong:
        raise UsageError(wrong)
    if os.sep not in words[0]:
        words[0] = shutil.which(words[0], path=_PATH) or words[0]
    return [str(folder / word) if os.path.isfile(folder / word) else word for word in words]
