"""Which states a cut may leave are tried, and against what.

Contract: exactly one checker. Paths in it are relative to the experiment's file. The budget is a
number of states, or time, or both: whichever ends first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from crashsim.engine import units
from crashsim.experiment.block import Block, Contradiction
from crashsim.experiment.placeholders import unknown
from crashsim.experiment.quantities import Count, PositiveDuration, Size

SMALLEST_ATOM_BYTES = 8
LARGEST_ATOM_BYTES = 65_536


class Check(Block):
    """Who says whether a state is one that recovery can handle: exactly one of the first four."""

    rule: Literal["records", "prefix", "acknowledged", "atomic"] | None = Field(
        default=None, description="What crashsim knows of a synthetic workload."
    )
    command: str | None = Field(
        default=None,
        min_length=1,
        description="A program; {image}, {device}, {mnt} and {acks} become paths. Exit 0 is fine.",
    )
    function: str | None = Field(
        default=None,
        min_length=1,
        description="module:function or file.py:function, called with the image and the "
        "acknowledgements.",
    )
    files_function: str | None = Field(
        default=None,
        min_length=1,
        description="The same, called with a folder of the image's files.",
    )
    time_limit: PositiveDuration = Field(
        default=10_000_000_000, description="A check that takes longer is timed out."
    )
    memory: Size = Field(default=1 << 30, description="What a checker may use.")

    def contradictions(self) -> Iterator[Contradiction]:
        given = [self.rule, self.command, self.function, self.files_function]
        if sum(one is not None for one in given) != 1:
            yield Contradiction(
                (), "expected exactly one of rule, command, function and files_function"
            )
        wrong = unknown(self.command or "")
        if wrong:
            yield Contradiction(("command",), wrong)


class Explore(Block):
    """Every state that a power cut may leave, checked."""

    host: Literal["any-host", "this-host"] = Field(
        default="any-host",
        description="Whatever any host may have written by then, or what this one's caches allow.",
    )
    atom: Size | None = Field(
        default=None,
        description="What survives or not as one, such as 8B for words. Default: the disk's atom.",
    )
    states: Count = Field(default=10_000, description="Check at most so many states.")
    time: PositiveDuration | None = Field(
        default=None, description="Stop after this long. Default: when the states are checked."
    )
    device: str | None = Field(default=None, description="Which device. Default: the only one.")
    check: Check = Field(description="Who says whether a state is fine.")

    def contradictions(self) -> Iterator[Contradiction]:
        atom = self.atom
        if atom is None:
            return
        if atom & (atom - 1) or not SMALLEST_ATOM_BYTES <= atom <= LARGEST_ATOM_BYTES:
            yield Contradiction(
                ("atom",),
                f"expected a power of two from 8B to 64KiB, got {units.exact_bytes(atom)}",
            )
