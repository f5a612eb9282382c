"""What happened, in the guest's terms: which write survived, which did not, what that broke, and
which flush was missing.

Contract: a flush between a lost write and a kept one that was made after it forbids the state on
every host (V2): what landed before the flush was submitted is durable when it completes. Where all
kept writes came before all lost ones no flush can help: any disk may be cut there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crashsim.checkers import Verdict
from crashsim.engine.history import History
from crashsim.engine.pages import words
from crashsim.engine.streams import I64
from crashsim.experiment.units import format_bytes, format_duration
from crashsim.explore.roles import choice_of_version
from crashsim.states import Atom, Epoch

_MOST_WRITES = 12  # told one by one: more are not shrunk to the end
_TORN = (
    "Write {} is torn: no flush keeps a write together that is larger than what the disk writes as "
    "one; a checksum over it would tell."
)


@dataclass(frozen=True, slots=True)
class Involved:
    """An atom of a finding: where, the version it holds there, and the writes and rows of the
    History next to that version on both sides: the newest kept, the oldest lost; -1: none."""

    offset: int
    start: int
    content: bytes
    kept_write: int
    kept_row: int
    lost_write: int
    lost_row: int


def involved(atom: Atom, version: int, store_write: I64) -> Involved:
    """An atom at a version."""
    choice = int(choice_of_version(atom)[version])
    kept = atom.stores[choice - 1] if choice else -1
    lost = atom.stores[choice] if version != atom.newest else -1
    return Involved(
        atom.offset,
        atom.start,
        atom.versions[version],
        int(store_write[kept]) if choice else -1,
        kept,
        int(store_write[lost]) if lost >= 0 else -1,
        lost,
    )


def tell(
    history: History,
    device: int,
    epoch: Epoch,
    verdict: Verdict,
    kept: tuple[Involved, ...],
    lost: tuple[Involved, ...],
    ack: int,
    epochs: int,
) -> tuple[str, ...]:
    """The story, a line each."""
    words_of = _Words(history, device)
    given = f"{epoch.acks} acknowledgements" if epoch.acks != 1 else "1 acknowledgement"
    said = verdict.outcome or verdict.message.partition("\n")[0] or verdict.kind
    lines = [
        f"A power cut at {format_duration(epoch.cut_ns)} (epoch {epoch.number + 1} of {epochs}), "
        f"after {given}, leaves an image of which the checker says: {said}."
    ]
    lines += words_of.writes("survived", kept, "kept")
    lines += words_of.writes("was lost", lost, "lost")
    if ack >= 0:
        lines.append(f"That breaks {words_of.acknowledgement(ack)}.")
    lines.append(words_of.missing_flush(kept, lost, ack))
    return tuple(lines)


class _Words:
    """Writes and acknowledgements of one device in words."""

    def __init__(self, history: History, device: int) -> None:
        self._history = history
        self._first_byte = history.devices[device].first_byte
        self._acks = np.flatnonzero(history.ack_device == device)
        self._ack_ns = history.ack_t_ns[self._acks]
        mine = (history.flush_device == device) & (history.flush_result == 0)
        self._flushes = np.flatnonzero(mine)

    def writes(self, fate: str, parts: tuple[Involved, ...], name: str) -> list[str]:
        """One line for each of the first writes, one for the others."""
        atoms: dict[int, int] = {}
        for one in parts:
            write = one.kept_write if name == "kept" else one.lost_write
            atoms[write] = atoms.get(write, 0) + len(one.content)
        found = sorted(atoms.items(), key=lambda entry: self._row(entry[0]))
        lines = [
            f"{self._write(write, size)} {fate}" + self._between(write)
            for write, size in found[:_MOST_WRITES]
        ]
        if rest := len(found) - len(lines):
            lines.append(f"So {'did' if name == 'kept' else 'were'} {rest} more.")
        return lines

    def acknowledgement(self, number: int) -> str:
        """The device's acknowledgement of that number."""
        ack = self._acks[number]
        label = str(self._history.ack_label[ack])
        low, high = int(self._history.ack_low[ack]), int(self._history.ack_high[ack])
        of = f"write {low}" if high == low + 1 else f"writes {low} to {high - 1}"
        name = f"'{label}'" if label else f"of {of}"
        return f"acknowledgement {name}, given at {format_duration(int(self._ack_ns[number]))}"

    def missing_flush(
        self, kept: tuple[Involved, ...], lost: tuple[Involved, ...], ack: int
    ) -> str:
        """Which flush would have forbidden the state, or why none would."""
        if not lost:
            return self._stale(kept) or self._with_everything(ack)
        gone = sorted({one.lost_row for one in lost})
        there = sorted({one.kept_row for one in kept})
        if ack >= 0 and (gone[-1] < 0 or self._landed(gone[-1]) <= self._ack_ns[ack]):
            return self._before_ack(gone[-1], ack)
        torn = {one.kept_write for one in kept} & {one.lost_write for one in lost}
        ordered = [(a, b) for a in gone for b in there if a < b and self._differ(a, b)]
        if not ordered and ack >= 0:
            write = int(self._history.store_write[gone[-1]])
            return (
                f"What was acknowledged rests on write {write}, which was made only after that: "
                "the acknowledgement has to wait for it, and for a flush behind it."
            )
        if not ordered:
            if torn:
                return _TORN.format(min(torn))
            return (
                "No flush forbids it: what survived was written before what was lost, so every "
                "disk may be cut there, and the program has to recover from it."
            )
        before, after = min(ordered, key=lambda pair: (pair[1] - pair[0], pair))
        return self._between_writes(before, after)

    def _stale(self, kept: tuple[Involved, ...]) -> str:
        """Versions that are not the newest are enough, whatever the rest holds; '' if none is."""
        sizes: dict[int, int] = {}
        for one in kept:
            if one.lost_row >= 0:
                sizes[one.kept_write] = sizes.get(one.kept_write, 0) + len(one.content)
        torn = [write for write, size in sorted(sizes.items()) if size < self._stored(write)]
        if torn:
            return f"{_TORN.format(torn[0])} It fails whatever else is kept or lost."
        if sizes:
            return (
                f"It fails whatever else is kept or lost: write {min(sizes)} must not survive "
                "without the later one to the same place, and no flush between two writes to one "
                "place forbids that."
            )
        return ""

    def _with_everything(self, ack: int) -> str:
        if not self._history.facts["recorded"]:
            return "It fails even with everything kept that was stored: no flush would help."
        if ack >= 0:
            return (
                "Nothing that had reached the disk was lost: what was acknowledged was still in "
                "the guest's memory. An fsync before that acknowledgement would have forbidden it."
            )
        return (
            "It fails even with all that had reached the disk by then: either recovery is wrong, "
            "or it needs what was still in the guest's memory, which only an fsync orders before "
            "what came to the disk."
        )

    def _stored(self, write: int) -> int:
        return int(self._history.store_length[self._rows(write)].sum())

    def _before_ack(self, row: int, ack: int) -> str:
        write = int(self._history.store_write[row])
        begun = self._unfinished(self._landed(row), int(self._ack_ns[ack]))
        return (
            f"A flush of the device after write {write} and completed before that acknowledgement "
            f"would have forbidden it{begun}."
        )

    def _between_writes(self, before: int, after: int) -> str:
        a, b = (int(self._history.store_write[row]) for row in (before, after))
        begun = self._unfinished(self._landed(before), int(self._history.store_t_ns[after]))
        return (
            f"A flush of the device after write {a} and completed before write {b} would have "
            f"forbidden it{begun}."
        )

    def _unfinished(self, landed_ns: int, until_ns: int) -> str:
        """A flush that was asked for in time, but was not waited for."""
        history, mine = self._history, self._flushes
        submit, done = history.flush_submit_ns[mine], history.flush_ack_ns[mine]
        late = np.flatnonzero((submit >= landed_ns) & (submit <= until_ns) & (done > until_ns))
        if not late.size:
            return ""
        return (
            f"; the one submitted at {format_duration(int(submit[late[0]]))} was acknowledged at "
            f"{format_duration(int(done[late[0]]))}, too late"
        )

    def _write(self, write: int, size: int) -> str:
        history, rows = self._history, self._rows(write)
        if not rows.size:
            return "What was there before"
        offset = int(history.store_offset[rows[0]]) - self._first_byte
        length = int(history.store_length[rows].sum())
        part = f"{format_bytes(size)} of " if size < length else ""
        return (
            f"{part or ''}{'w' if part else 'W'}rite {write} ({format_bytes(length)} at offset "
            f"{offset}, made at {format_duration(int(history.store_t_ns[rows[0]]))})"
        )

    def _between(self, write: int) -> str:
        """Between which marks it was made."""
        rows = self._rows(write)
        if not rows.size or not self._history.facts["recorded"]:
            return "."
        t = int(self._history.store_t_ns[rows[0]])
        behind = int(np.searchsorted(self._ack_ns, t, "right"))
        labels = self._history.ack_label[self._acks]
        before = f"after mark '{labels[behind - 1]}'" if behind else "before any mark"
        after = f", before '{labels[behind]}'" if behind < labels.size else ""
        return f"; it was made {before}{after}."

    def _rows(self, write: int) -> I64:
        return np.flatnonzero(self._history.store_write == write)

    def _row(self, write: int) -> int:
        rows = self._rows(write)
        return int(rows[0]) if rows.size else -1

    def _landed(self, row: int) -> int:
        here = slice(row, row + 1)
        history = self._history
        count = words(history.store_offset[here], history.store_length[here])
        return int(history.store_t_ns[row] + count[0] - 1)

    def _differ(self, a: int, b: int) -> bool:
        return int(self._history.store_write[a]) != int(self._history.store_write[b])
