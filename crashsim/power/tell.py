"""Losses in words: which write, when, where, and in which layer it was.

Contract: what is said of an instant is made from `Teller.taken` of that instant, and the instant is
told exactly: typed again (`crashsim loss --at`, `image --at`) it gives what the sentence said. Of a
recording losses are of what reached the device; its acknowledgements are held against its flushes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES, Pieces, split
from crashsim.engine.streams import I64
from crashsim.engine.units import exact_instant, format_bytes, format_duration, roundest
from crashsim.experiment.failures import HostCrash
from crashsim.power.losses import Losses
from crashsim.power.media_loss import gone, lost_again
from crashsim.power.safety import Domain, Safety, Stage, kept_stage
from crashsim.results import RECORDING, Example

_LISTED = 10  # unsaved writes that are named one by one

_LAYERS = (
    ("L1", "the guest's page cache", Stage.IN_HOST),
    ("L2", "memory of the monitor's own", Stage.IN_FILE),
    ("L2", "the host's page cache", Stage.SUBMITTED),
    ("L3", "writeback to the disk", Stage.COMPLETED),
    ("L4", "the disk's volatile cache", Stage.DURABLE),
)


@dataclass(frozen=True, slots=True)
class LossAt:
    """What a failure at one instant takes: bytes; the positions of the writes that are not wholly
    safe, oldest first; and of the acknowledgements `given` by then those not covered."""

    t_ns: int
    size_bytes: int
    unsaved: I64
    given: int
    uncovered: int


class Teller:
    """Examples from one History."""

    def __init__(self, found: Losses) -> None:
        self._found = found
        self._history = history = found.history
        self._writes = found.writes
        self._lost_again = lost_again(history, found.safety, Stage.DURABLE)
        self._safety = {stage: Safety(history, stage) for _, _, stage in _LAYERS}

    def taken(self, t: int) -> LossAt:
        """What a failure at an instant takes."""
        found = self._found
        given = int(np.count_nonzero(self._history.ack_t_ns <= t))
        return LossAt(t, found.at_risk.at(t), found.unsaved_at(t), given, found.uncovered.at(t))

    def peak(self) -> list[Example]:
        """An instant at which most is at risk, and the oldest write that is."""
        t = self._worst_ns()
        taken = self.taken(t)
        if not taken.size_bytes:
            return []
        position = int(taken.unsaved[0])
        age = format_duration(t - int(self._writes.begin_ns[position]))
        which = "that had reached the device, " if self._history.info.recorded else ""
        text = (
            f"A power cut at {exact_instant(t)} takes {format_bytes(taken.size_bytes)} of "
            f"{_writes(taken.unsaved.size)} {which}not yet safe. "
            f"The oldest was {age} old: {self.where(position, t)}."
        )
        return [self._example("at-risk-peak", text, t, position)]

    def _worst_ns(self) -> int:
        """Of the first stretch of time in which most is at risk, the instant that is told best."""
        end_ns, (instants, values) = self._history.end_ns, self._found.at_risk
        inside = int(np.searchsorted(instants, end_ns, "right"))
        if not inside:
            return end_ns
        best = int(values[:inside].argmax())
        last = int(instants[best + 1]) - 1 if best + 1 < inside else end_ns
        return roundest(int(instants[best]), last)

    def broken_promise(self, request: int, store: int, safe_ns: int) -> Example:
        """A flush was acknowledged, a store it covers was not durable."""
        history = self._history
        t = int(history.flush_ack_ns[request])
        position = int(np.flatnonzero(self._writes.write == history.store_write[store])[0])
        until = "" if safe_ns == NEVER else f" until {exact_instant(safe_ns)}"
        submitted = exact_instant(int(history.flush_submit_ns[request]))
        text = (
            f"The flush submitted at {submitted} was acknowledged with success at "
            f"{exact_instant(t)}, yet {self.where(position, t)} and not durable{until}."
        )
        return self._example("broken-promise", text, t, position)

    def hole(self, position: int) -> Example:
        """A later write survives, this one does not."""
        writes = self._writes
        t, other = self._found.hole_at(position)
        text = (
            f"A power cut at {exact_instant(t)} keeps write {writes.write[other]} "
            f"(made at {exact_instant(int(writes.begin_ns[other]))}) but not an earlier one: "
            f"{self.where(position, t)}."
        )
        return self._example("hole", text, t, position)

    def torn(self, position: int) -> Example:
        """A part of a write survives, another does not."""
        t = self._found.torn_at(position)
        text = f"A power cut at {exact_instant(t)} keeps a part only: {self.where(position, t)}."
        return self._example("torn", text, t, position)

    def uncovered(self, ack: int, safe_ns: int) -> Example:
        """Acknowledged to the world, and not safe."""
        history = self._history
        t = int(history.ack_t_ns[ack])
        label = str(history.ack_label[ack])
        first, last = int(history.ack_low[ack]), int(history.ack_high[ack]) - 1
        writes = f"of write {first}" if first == last else f"of writes {first} to {last}"
        name = f"'{label}'" if label else writes
        until = "the end of the run" if safe_ns > history.end_ns else exact_instant(safe_ns)
        how = "had no flush behind it" if history.info.recorded else "could be lost"
        text = f"The acknowledgement {name} given at {exact_instant(t)} {how} until {until}."
        low, high = int(history.ack_low[ack]), int(history.ack_high[ack])
        mine = np.flatnonzero((self._writes.write >= low) & (self._writes.write < high))
        if not mine.size:
            return Example("uncovered", text, t, -1, -1, 0, "", "")
        return self._example("uncovered", text, t, int(mine[-1]))

    def layer(self, row: int, t: int) -> tuple[str, str]:
        """(short name, words) of the layer that holds the least safe part of a store at `t`."""
        for short, words, stage in _LAYERS:
            if self._safe_ns(row, self._safety[stage]) > t:
                return short, words
        if t >= self._history.info.dead_ns:
            return "L5", "a disk that is dead"
        if self._damaged(row, t):
            return "L5", "a page that the disk has damaged"
        return "L5", "the disk's media"

    def _damaged(self, row: int, t: int) -> bool:
        if self._lost_again is None:
            return False
        pages = self._pieces(row).page
        return bool(gone(self._lost_again, pages, t).any())

    def _safe_ns(self, row: int, safety: Safety) -> int:
        stored_ns = self._history.store_t_ns[row : row + 1]
        return int(safety.of_pieces(self._pieces(row), stored_ns).max())

    def _pieces(self, row: int) -> Pieces:
        here = slice(row, row + 1)
        return split(self._history.store_offset[here], self._history.store_length[here])

    def _row(self, position: int) -> int:
        return int(np.flatnonzero(self._history.store_write == self._writes.write[position])[-1])

    def where(self, position: int, t: int) -> str:
        """A write: what it is and which layer holds the least safe part of it."""
        history, row = self._history, self._row(position)
        device, offset = self._place(row)
        length = format_bytes(int(history.store_length[row]))
        name = f" of {device}" if len(history.devices) > 1 else ""
        _, layer = self.layer(row, t)
        return (
            f"write {self._writes.write[position]} ({length} at offset {offset}{name}, made at "
            f"{exact_instant(int(self._writes.begin_ns[position]))}) was in {layer}"
        )

    def _place(self, row: int) -> tuple[str, int]:
        offset = int(self._history.store_offset[row])
        for span in self._history.devices:
            if offset < span.end_byte:
                return span.name, offset - span.first_page * PAGE_BYTES
        raise AssertionError("a store lies beyond the last device")

    def _example(self, kind: str, text: str, t: int, position: int) -> Example:
        row = self._row(position)
        device, offset = self._place(row)
        short, _ = self.layer(row, t)
        write, length = int(self._writes.write[position]), int(self._history.store_length[row])
        return Example(kind, text, t, write, offset, length, short, device)


def _writes(number: int) -> str:
    return "1 write" if number == 1 else f"{number:,} writes"


def loss_at(history: History, domain: Domain, options: HostCrash, t: int) -> list[str]:
    """What a failure at one instant takes, in lines of words."""
    teller = Teller(Losses(history, kept_stage(domain, options)))
    taken = teller.taken(t)
    lines = [f"{domain} at {exact_instant(t)}:"]
    lines += [f"  {line}" for line in _told(taken, history.info.recorded)]
    for position in taken.unsaved[:_LISTED].tolist():
        lines.append(f"  {teller.where(position, t)}.")
    if taken.unsaved.size > _LISTED:
        lines.append(f"  ... and {taken.unsaved.size - _LISTED:,} more.")
    return lines


def _told(taken: LossAt, recorded: bool) -> list[str]:
    of_what = "of what had reached the device " if recorded else ""
    lines = [f"nothing {of_what}is lost."]
    if taken.size_bytes or taken.unsaved.size:
        size = format_bytes(taken.size_bytes)
        verb = "is" if taken.unsaved.size == 1 else "are"
        lines = [f"{size} {of_what}are lost; {_writes(taken.unsaved.size)} {verb} not wholly safe."]
    given = "1 acknowledgement" if taken.given == 1 else f"{taken.given:,} acknowledgements"
    if recorded:
        lines.append(f"Of {given} {taken.uncovered:,} had no flush behind them.")
        lines.append(f"{RECORDING}.")
    elif taken.given:
        lines.append(f"Of {given} {taken.uncovered:,} would be lost.")
    else:
        lines.append("Nothing had been acknowledged.")
    return lines
