"""What a failure takes, counted from two files of stamps instant by instant: the slow truth that
sentences are held against. Nothing in here looks at `crashsim.power` but for which stage a failure
keeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import words
from crashsim.experiment.failures import HostCrash
from crashsim.power.safety import Domain, Stage, kept_stage
from crashsim.replay.comparison import KEEP
from crashsim.replay.versions import TwoFiles

DAMAGED = 0xFFFFFFFF


@dataclass(frozen=True)
class Instant:
    """`unsafe` and `partly`: rows of stores of which something, and not everything, is lost."""

    t_ns: int
    lost_bytes: int
    unsafe: frozenset[int]
    partly: frozenset[int]


class Slowly:
    """One History under one failure, at every instant at which anything happens."""

    def __init__(self, history: History, domain: Domain, options: HostCrash, folder: Path) -> None:
        self.history = history
        self.stage = kept_stage(domain, options)
        columns = [getattr(history, name) for name in history.columns() if name.endswith("_ns")]
        single = np.array([0, history.info.dead_ns, history.end_ns], dtype=np.int64)
        times = np.unique(np.concatenate([single, *columns]))
        times = times[(times >= 0) & (times <= history.end_ns)]
        self.instants: list[Instant] = []
        if self.stage is Stage.STORED:
            self.instants = [Instant(0, 0, frozenset(), frozenset())]
            return
        files = TwoFiles(history, KEEP[self.stage], folder)
        for t in times.tolist():
            lost = files.advance(t)
            rows = np.flatnonzero(history.store_t_ns <= t).tolist()
            kept = {row: self._kept(files, row) for row in rows}
            unsafe = frozenset(row for row, (some, whole) in kept.items() if not whole)
            partly = frozenset(row for row in unsafe if kept[row][0])
            self.instants.append(Instant(t, lost, unsafe, partly))
        files.close()

    def _kept(self, files: TwoFiles, row: int) -> tuple[bool, bool]:
        stamps = files.kept_of(row)
        held = (stamps > row) & (stamps != DAMAGED)
        return bool(held.any()), bool(held.all())

    def at(self, t: int) -> Instant:
        times = [instant.t_ns for instant in self.instants]
        return self.instants[int(np.searchsorted(times, t, "right")) - 1]

    def unsaved(self, t: int) -> set[int]:
        """Writes begun and not wholly safe: what of them comes later, or never, is not safe."""
        history = self.history
        begun = history.store_t_ns <= t
        writes = set(history.store_write[begun].tolist())
        later = set(history.store_write[~begun].tolist()) | set(history.info.unfinished_writes)
        return {int(history.store_write[row]) for row in self.at(t).unsafe} | (writes & later)

    def begun_ns(self, write: int) -> int:
        return int(self.history.store_t_ns[self.history.store_write == write].min())

    def given(self, t: int) -> list[int]:
        return [ack for ack, at in enumerate(self.history.ack_t_ns.tolist()) if at <= t]

    def uncovered(self, t: int) -> set[int]:
        """Acknowledgements given and not covered."""
        given = self.given(t)
        if self.history.info.recorded:
            return {ack for ack in given if not self._flushed(ack, t)}
        lost, history = self.unsaved(t), self.history
        return {
            ack
            for ack in given
            if any(history.ack_low[ack] <= write < history.ack_high[ack] for write in lost)
        }

    def _flushed(self, ack: int, t: int) -> bool:
        history = self.history
        before = history.ack_t_ns[:ack][history.ack_device[:ack] == history.ack_device[ack]]
        since = int(before[-1]) if before.size else -1
        good = (history.flush_device == history.ack_device[ack]) & (history.flush_result == 0)
        good &= (history.flush_submit_ns >= since) & (history.flush_ack_ns <= t)
        return bool(good.any())

    @cached_property
    def most_bytes(self) -> int:
        return max(instant.lost_bytes for instant in self.instants)

    @cached_property
    def most_uncovered(self) -> int:
        times = {instant.t_ns for instant in self.instants} | {self.history.end_ns}
        times |= {t for t in self.history.ack_t_ns.tolist() if t <= self.history.end_ns}
        return max(len(self.uncovered(t)) for t in times)

    @cached_property
    def oldest_ns(self) -> int:
        """The greatest age that an unsaved write comes to."""
        ends = [instant.t_ns for instant in self.instants[1:]] + [self.history.end_ns]
        ages = [0]
        for instant, end in zip(self.instants, ends, strict=True):
            ages += [end - self.begun_ns(write) for write in self.unsaved(instant.t_ns)]
        return max(ages)

    def broken(self, in_host: Slowly) -> int:
        """Flushes acknowledged with success while a store that they cover was not safe."""
        return sum(
            any(self._covers(request, row, in_host) for row in self.at(acked).unsafe)
            for request, acked in enumerate(self.history.flush_ack_ns.tolist())
            if acked != NEVER and self.history.flush_result[request] == 0
        )

    def _covers(self, request: int, row: int, in_host: Slowly) -> bool:
        history, submitted = self.history, int(self.history.flush_submit_ns[request])
        device = int(history.flush_device[request])
        offset = int(history.store_offset[row])
        if not history.devices[device].first_byte <= offset < history.devices[device].end_byte:
            return False
        here = slice(row, row + 1)
        size = int(words(history.store_offset[here], history.store_length[here])[0])
        if history.info.dax[device]:
            return int(history.store_t_ns[row]) + size - 1 <= submitted
        return int(history.store_t_ns[row]) <= submitted and row not in in_host.at(submitted).unsafe
