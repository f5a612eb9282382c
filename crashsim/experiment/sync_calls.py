"""The calls by which a program asks for durability (Rules G4, H12): all that depends on which it
is.

`CALLS` is the one table of them. The choices of `sync.call`, what a call does in the guest's kernel
(`guest/syscalls.py`), which programs are told to sync and by what, follow from its entries; an
entry added to it is a call like the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SyncCall:
    """What a call does. `flushes` the device: never, always, or only below a file system with a
    `journal`. `commits` the guest's journal when time stamps are dirty: never, always, or those of
    a `growing` file. One that neither `writes` the guest's own page cache nor flushes does nothing
    and takes no time. `ranged`: it is always for what was written since the last one. `made`:
    there is a call at all."""

    flushes: Literal["never", "journal", "always"]
    commits: Literal["never", "growing", "always"] = "never"
    writes: bool = True
    ranged: bool = False
    made: bool = True


CALLS: dict[str, SyncCall] = {
    "none": SyncCall("never", writes=False, made=False),
    "msync-async": SyncCall("never", writes=False),
    "msync": SyncCall("always", "growing"),
    "fdatasync": SyncCall("always", "growing"),
    "fsync": SyncCall("always", "always"),
    "sync": SyncCall("journal"),
    "sync_file_range": SyncCall("never", ranged=True),
}
