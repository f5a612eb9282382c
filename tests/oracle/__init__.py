"""A small, slow, obviously right model of the whole stack, written from `docs/model.md` alone.

It imports nothing of the simulator, so that the two can disagree. `run(world)` gives an `Outcome`;
`loss.loss(outcome)` and its relatives say what a failure takes, byte by byte. Where the page
leaves something open, a comment that begins with `Reading:` says what was taken.
"""

from tests.oracle.inputs import (
    FlushedWrite,
    GroupSync,
    Mark,
    OracleDevice,
    OracleDisk,
    OracleFault,
    OracleGuest,
    OracleHost,
    OracleLimiter,
    OracleWorld,
    Sync,
    SyncIfDue,
    Write,
)
from tests.oracle.outcome import Outcome
from tests.oracle.world import run

__all__ = [
    "FlushedWrite",
    "GroupSync",
    "Mark",
    "OracleDevice",
    "OracleDisk",
    "OracleFault",
    "OracleGuest",
    "OracleHost",
    "OracleLimiter",
    "OracleWorld",
    "Outcome",
    "Sync",
    "SyncIfDue",
    "Write",
    "run",
]
