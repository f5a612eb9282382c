"""What a disk gets wrong (Rule D4).

`DISK_FAULTS` is the one table of it: the keys of `disk.faults` and their descriptions, which faults
were to come and never did, and which states can be explored follow from its entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crashsim.engine.history import NEVER
from crashsim.engine.injector import Effects, Injector
from crashsim.engine.streams import Stream


class IgnoredFlush(Injector):
    description = "A FLUSH that does nothing."

    def mark(self, effects: Effects) -> None:
        effects.flush_ignored |= self.hit_flushes(effects)


class Shorn(Injector):
    description = "A write whose last page never reaches the media."

    def mark(self, effects: Effects) -> None:
        effects.io_shorn |= self.hit_ios(effects)


class Corrupted(Injector):
    description = "A write whose last page arrives damaged: what was there before is lost, too."
    of_this_host = False

    def mark(self, effects: Effects) -> None:
        effects.io_corrupted |= self.hit_ios(effects)


class Dead(Injector):
    """At an instant, or at the end of a batch that is drawn."""

    description = "The disk dies, at an instant or with a write: all that it held is lost."
    of_this_host = False
    final = True

    def __init__(self, at: Sequence[int], share: tuple[int, int], stream: Stream) -> None:
        super().__init__(at, share, stream)
        self.dead_ns = min(at, default=NEVER)

    def quiet_until_ns(self) -> int:
        return 0 if self.share[0] else self.dead_ns

    def fails(self, batch: int, end_ns: int) -> bool:
        if end_ns < self.dead_ns and self.by_chance(np.array([batch], dtype=np.int64))[0]:
            self.dead_ns = end_ns
        return end_ns >= self.dead_ns

    def fails_sync(self, now_ns: int) -> bool:
        return now_ns >= self.dead_ns

    def mark(self, effects: Effects) -> None:
        effects.dead_ns = min(effects.dead_ns, self.dead_ns)
        effects.flush_ignored |= effects.flush_end_ns >= self.dead_ns

    def not_fired(self, end_ns: int) -> list[int]:
        return [min(self.at, default=end_ns)] if self.dead_ns > end_ns else []


DISK_FAULTS: dict[str, type[Injector]] = {
    "ignored_flush": IgnoredFlush,
    "shorn": Shorn,
    "corrupted": Corrupted,
    "dead": Dead,
}
