"""The command line of a running process, and its files as it sees them.

Contract: `read_process` gives the words and a `Look` through the process's own working directory
and root, or a `UsageError` that says what is in the way: no such process, no permission, or
another program than a monitor.
"""

from __future__ import annotations

import os
from pathlib import Path

from crashsim.errors import UsageError
from crashsim.printable import printable
from crashsim.vmm.monitors import known, monitor_of
from crashsim.vmm.probe import Look, Read, looker, reader


def read_process(process_id: int, proc: Path = Path("/proc")) -> tuple[list[str], Look, Read]:
    """The words of a monitor's command line, what it sees of the host, and its files."""
    own = proc / str(process_id)
    try:
        raw = (own / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise UsageError(f"there is no process {process_id}") from None
    except PermissionError:
        raise UsageError(f"process {process_id}: no permission to read its command line") from None
    except OSError as error:
        raise UsageError(f"process {process_id}: {error.strerror}") from None
    words = [os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")]
    if not raw:
        raise UsageError(f"process {process_id} has no command line: a kernel thread or a zombie")
    if monitor_of(words[0]) is None:
        raise UsageError(
            f"process {process_id} is none of {known()}: it runs {printable(words[0])}"
        )
    return words, looker(own / "cwd", own / "root"), reader(own / "cwd", own / "root")
