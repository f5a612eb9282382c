"""What has been checked, line by line, so that a killed exploration goes on where it was.

Contract: the file begins with what it belongs to; one of other inputs is refused. A line is a
CRC-32 of the rest of it, a space, and JSON. Lines are only appended, and what is behind the last
whole line (a kill in mid-write) is cut off. Finished units go to the disk every so many and at the
end, so a power cut takes some work, never truth.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

from crashsim.errors import OutputError, UsageError
from crashsim.explore.workers import Unit, UnitResult

FORMAT = 1
_UNITS_BETWEEN_SYNCS = 64


class UnitLog:
    """Answers by unit, kept in a file; without a path, nowhere."""

    def __init__(self, path: Path | None, identity: str) -> None:
        """`identity` stands for everything that the answers depend on. UsageError when the file
        belongs to something else or is in use, OutputError when it cannot be written."""
        self._path = path
        self._answers: dict[tuple[int, int, int], UnitResult] = {}
        self._unsynced = 0
        self._begun = False
        self._file = None
        if path is None:
            return
        try:
            self._file = path.open("a+b")
            # Of the process: workers do not inherit it, so it ends with this process at once.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(identity)
        except BlockingIOError:
            raise UsageError(f"{path}: another exploration is writing to it") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
        finally:
            if self._file is not None and not self._begun:
                self._file.close()

    def __len__(self) -> int:
        """Units that are known."""
        return len(self._answers)

    def known(self, unit: Unit) -> UnitResult | None:
        """The answer of an earlier run."""
        return self._answers.get((unit.epoch, unit.low, len(unit.states)))

    def add(self, unit: Unit, answer: UnitResult) -> None:
        """Keep a whole unit, if it is new; one that time cut short will be done again."""
        if self._file is None or answer.done < len(unit.states) or self.known(unit) is not None:
            return
        tally = [[*key, count] for key, count in answer.tally.items()]
        self._write(_line([unit.epoch, unit.low, answer.done, tally, answer.bad]))
        self._unsynced += 1
        if self._unsynced == _UNITS_BETWEEN_SYNCS:
            self._sync()

    def close(self) -> None:
        """Everything to the disk."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def _begin(self, identity: str) -> None:
        assert self._file is not None
        head = _line({"crashsim-journal": FORMAT, "of": identity})
        self._file.seek(0)
        lines = self._file.readlines()
        if not lines or (len(lines) == 1 and head.startswith(lines[0]) and lines[0] != head):
            self._file.truncate(0)  # new, or killed while it was begun
            self._write(head)
            self._begun = True
            return
        if lines[0] != head:
            told = _content(lines[0])
            if not isinstance(told, dict) or "crashsim-journal" not in told:
                raise UsageError(f"{self._path}: not a journal of crashsim; nothing was changed")
            raise UsageError(
                f"{self._path}: belongs to another exploration (other experiment, recording, "
                "rules, checker or budget); remove it, or name another file"
            )
        whole = len(head)
        for line in lines[1:]:
            content = _content(line)
            if content is None:
                break
            whole += len(line)
            epoch, low, done, tally, bad = content
            counted = {(kind, outcome): count for kind, outcome, count in tally}
            found = [(place, kind, outcome) for place, kind, outcome in bad]
            self._answers[epoch, low, done] = UnitResult(done, counted, found)
        self._file.truncate(whole)
        self._begun = True

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            message = f"{self._path}: cannot be written: {error.strerror or error}"
            raise OutputError(message) from None

    def _sync(self) -> None:
        assert self._file is not None
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            message = f"{self._path}: cannot be written: {error.strerror or error}"
            raise OutputError(message) from None
        self._unsynced = 0

    def __enter__(self) -> UnitLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _line(content: Any) -> bytes:
    text = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> Any:
    """What a line says; None unless it is whole."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)
