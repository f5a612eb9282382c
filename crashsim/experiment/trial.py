"""Which states a cut may leave are tried, and against what.

Contract: exactly one checker. In its command a placeholder is a name in braces; `${name}` belongs
to a shell and is none, and `{{name}}` stands for `{name}` as it is. A name that is not known is a
mistake, never passed on. Paths in it are relative to the experiment's file. The budget is a
number of states, or time, or both: whichever ends first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field

from crashsim.engine import units
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import Count, PositiveDuration, Size

TIME_LIMIT_NS, MEMORY_BYTES = 10_000_000_000, 1 << 30  # of a check, unless told otherwise
SMALLEST_ATOM_BYTES = 8
LARGEST_ATOM_BYTES = 65_536
PLACEHOLDERS = ("image", "device", "acks", "mnt")
_WRITTEN = re.compile(r"\{(\{[A-Za-z_]\w*\})\}|(?<!\$)\{([A-Za-z_]\w*)\}")


def named(text: str) -> list[str]:
    """The placeholders in a text, as they stand in it."""
    return [match[2] for match in _WRITTEN.finditer(text) if match[2]]


def unknown(text: str) -> str:
    """What is wrong with the placeholders of a command; empty if nothing is."""
    for name in named(text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            return (
                f"unknown placeholder {{{name}}}: the known ones are {known}; a {{{name}}} that is "
                f"none is written {{{{{name}}}}}"
            )
    return ""


def filled(words: Iterable[str], paths: Mapping[str, str]) -> list[str]:
    """Words with paths in place of placeholders; what a path holds is not looked at again."""
    return [_WRITTEN.sub(lambda match: match[1] or paths[match[2]], word) for word in words]


class Check(Block):
    """Who says whether a state is one that recovery can handle: exactly one of the first four."""

    rule: Literal["records", "prefix", "acknowledged", "atomic"] | None = Key(
        None, "What crashsim knows of a synthetic workload."
    )
    command: str | None = Key(
        None,
        "A program; {image}, {device}, {mnt} and {acks} become paths. Exit 0 is fine.",
        min_length=1,
    )
    function: str | None = Key(
        None,
        "module:function or file.py:function, called with the image and the acknowledgements.",
        min_length=1,
    )
    files_function: str | None = Key(
        None, "The same, called with a folder of the image's files.", min_length=1
    )
    time_limit: PositiveDuration = Key(TIME_LIMIT_NS, "A check that takes longer is timed out.")
    memory: Size = Key(MEMORY_BYTES, "What a checker may use.")

    def contradictions(self) -> Iterator[Clash]:
        given = [self.rule, self.command, self.function, self.files_function]
        if sum(one is not None for one in given) != 1:
            yield Clash((), "expected exactly one of rule, command, function and files_function")
        wrong = unknown(self.command or "")
        if wrong:
            yield Clash(("command",), wrong)


class Explore(Block):
    """Every state that a power cut may leave, checked."""

    host: Literal["any-host", "this-host"] = Key(
        "any-host", "Whatever any host may have written by then, or what this one's caches allow."
    )
    atom: Size | None = Key(
        None, "What survives or not as one, such as 8B for words. Default: the disk's atom."
    )
    states: Count = Key(10_000, "Check at most so many states.")
    time: PositiveDuration | None = Key(
        None, "Stop after this long. Default: when the states are checked."
    )
    device: str | None = Key(None, "Which device. Default: the only one.")
    check: Check = Field(description="Who says whether a state is fine.")

    def contradictions(self) -> Iterator[Clash]:
        atom = self.atom
        if atom is None:
            return
        if atom & (atom - 1) or not SMALLEST_ATOM_BYTES <= atom <= LARGEST_ATOM_BYTES:
            yield Clash(
                ("atom",),
                f"expected a power of two from 8B to 64KiB, got {units.exact_bytes(atom)}",
            )
