"""What a checker is asked and what it answers.

Contract: a checker sees the bytes of one device after a cut and the acknowledgements that the guest
had given by then. It answers with a `Verdict` and changes nothing that anybody else sees: neither
the image it was given nor what it answers next. Offsets are those of the device.

- `ok`: recovery leaves what was promised.
- `finding`: it does not.
- `crash`: what recovers died of the state: a signal, an exception that is no assertion, an end
  without an answer.
- `hang`: it did not end in its time, so the state was not judged.
- `unstable`: asked again, it answered differently, so the state was not judged either (`retry.py`).
- `broken`: nothing was checked, because the checker could not be run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from crashsim.printable import LINES, printable

if TYPE_CHECKING:  # checkers that run as commands begin without numpy
    from crashsim.engine.history import History

VerdictKind = Literal["ok", "finding", "crash", "hang", "unstable", "broken"]
KINDS: tuple[VerdictKind, ...] = get_args(VerdictKind)
UNJUDGED: tuple[VerdictKind, ...] = ("hang", "unstable")  # they say nothing of the state
Ranges = Sequence[tuple[int, int]]

LONGEST_OUTCOME = 120  # characters
LONGEST_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` groups states (`lost acknowledged rows`); `message` is for the reader."""

    kind: VerdictKind
    outcome: str = ""
    message: str = ""


OK = Verdict("ok")


def verdict(kind: VerdictKind, outcome: str = "", message: str = "") -> Verdict:
    """A verdict whose texts are bounded and can be written anywhere."""
    return Verdict(
        kind, _bounded(" ".join(outcome.split()), LONGEST_OUTCOME), _bounded(message.strip())
    )


def _bounded(text: str, most: int = LONGEST_MESSAGE) -> str:
    text = printable(text, keep=LINES)
    return text if len(text) <= most else text[: most - 3] + "..."


@dataclass(frozen=True)
class Acks:
    """Acknowledgements of one device, in the order in which they were given.

    Acknowledgement i stands for the writes `records[i]` = [low, high), by number in the program,
    and has the label `labels[i]`: a recording's mark, '' in synthetic workloads."""

    labels: tuple[str, ...] = ()
    records: Sequence[tuple[int, int]] = ()
    whole: Acks | None = field(default=None, repr=False, compare=False)  # of which these are first

    @property
    def count(self) -> int:
        return len(self.records)

    def first(self, count: int) -> Acks:
        """Those that were given first."""
        return Acks(self.labels[:count], self.records[:count], self.whole or self)

    @cached_property
    def lines(self) -> str:
        """For a file: one line for each, its label, or `LOW HIGH` where it has none."""
        pairs = zip(self.labels, self.records, strict=True)
        texts = (" ".join(label.split()) or f"{low} {high}" for label, (low, high) in pairs)
        return "".join(f"{text}\n" for text in texts)


def acknowledgements(history: History, device: int) -> Acks:
    """All of a device's; `Epoch.acks` says how many of them a state comes with at least."""
    mine = (history.ack_device == device).nonzero()[0]
    low, high = history.ack_low[mine].tolist(), history.ack_high[mine].tolist()
    return Acks(tuple(history.ack_label[mine].tolist()), tuple(zip(low, high, strict=True)))


NO_ACKS = Acks()


class Checker(Protocol):
    """Answers for one image at a time.

    `image` is only read. `changed`: byte ranges [start, end) outside of which the image is the one
    that this checker saw last; None when nothing is known of that. It only saves time. A checker
    belongs to the process that made it; one that holds files has to be closed."""

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict: ...

    def close(self) -> None: ...


def self_test(checker: Checker, image: memoryview, acks: Acks) -> Verdict:
    """What the checker says of the image that no cut has touched.

    Anything but ok is about the checker, not about a cut: nothing it says of other states can be
    trusted, and it has to be told first."""
    found = checker.check(image, acks)
    if found.kind == "ok":
        return found
    told = f"the checker does not accept the image without a cut ({found.kind})"
    return verdict("broken", found.outcome, f"{told}\n{found.message}")
