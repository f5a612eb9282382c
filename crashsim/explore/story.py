"""What happened, in the guest's terms: which write was lost, which survived, what that broke, and
which flush was missing.

Contract: every sentence is about one state, the finding's, which the checker judged; its writes are
those of the state's account, so of its image. What survived and is enough for it to fail was judged
with nothing else kept, and that is said. A flush that is named forbids the state on every host (V2:
what landed before it was submitted is durable when it completes): of the lost writes the one that
landed first would be durable before the last of what survived and is enough was made, or before the
acknowledgement was given. So no cut up to the finding's leaves the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crashsim.checkers import Verdict
from crashsim.engine.history import History
from crashsim.engine.pages import words
from crashsim.engine.streams import I64
from crashsim.engine.units import exact_instant, format_bytes
from crashsim.explore.account import RowsOf, Told, first_choice, last_choice
from crashsim.explore.outcomes import said
from crashsim.results.discovery import Remedy
from crashsim.states import Atom, Epoch, HostKind

_MOST_WRITES = 12  # told one by one: more are not shrunk to the end
_LONGEST_SAID = 200


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


def kept_atom(atom: Atom, version: int, store_write: I64) -> Involved:
    """An atom that survived as far as this version: any store of its bytes will do."""
    return _involved(atom, version, first_choice(atom, version), store_write)


def lost_atom(atom: Atom, version: int, store_write: I64) -> Involved:
    """An atom of which everything after this version was lost."""
    return _involved(atom, version, last_choice(atom, version), store_write)


def _involved(atom: Atom, version: int, choice: int, store_write: I64) -> Involved:
    kept = atom.stores[choice - 1] if choice else -1
    lost = atom.stores[choice] if choice < len(atom.stores) else -1
    return Involved(
        atom.offset,
        atom.start,
        atom.versions[version],
        int(store_write[kept]) if kept >= 0 else -1,
        kept,
        int(store_write[lost]) if lost >= 0 else -1,
        lost,
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """A finding's state. `account`: its writes; `enough`: with nothing else kept it fails, too;
    `ack`: the number of the acknowledgement without which it is fine, -1: it never is."""

    epoch: Epoch
    epochs: int
    verdict: Verdict
    account: tuple[Told, ...]
    enough: tuple[Involved, ...]
    ack: int

    @property
    def lost(self) -> list[Told]:
        """Writes of which the state lacks something that may have been there."""
        return [one for one in self.account if any(not part.held_back for part in one.lost)]

    @property
    def held_back(self) -> list[Told]:
        """Writes of which this host had not begun to write something."""
        return [one for one in self.account if any(part.held_back for part in one.parts)]


class Narrator:
    """Tells of states of one device."""

    def __init__(self, history: History, device: int, host: HostKind) -> None:
        self._history = history
        self._host = host
        self._first_byte = history.devices[device].first_byte
        self._dax = history.info.dax[device]
        self._acks = np.flatnonzero(history.ack_device == device)
        self._ack_ns = history.ack_t_ns[self._acks]
        mine = (history.flush_device == device) & (history.flush_result == 0)
        self._flushes = np.flatnonzero(mine)
        self._rows = RowsOf(history)

    def story(self, scene: Scene, remedy: Remedy) -> tuple[str, ...]:
        """A line each."""
        epoch = scene.epoch
        given = f"{epoch.acks} acknowledgements" if epoch.acks != 1 else "1 acknowledgement"
        lines = [
            f"A power cut at {exact_instant(epoch.cut_ns)} (epoch {epoch.number + 1} of "
            f"{scene.epochs}), after {given}, leaves an image of which the checker says: "
            f"{_told(scene.verdict)}."
        ]
        lines += self._survivors(scene.enough)
        lines += self._losses(scene.lost)
        lines += self._rest(scene)
        if scene.ack >= 0:
            lines.append(f"That breaks {self._acknowledgement(scene.ack)}.")
        lines.append(self.cure(scene, remedy))
        return tuple(lines)

    def remedy(self, scene: Scene, fails_before: Callable[[int], bool]) -> Remedy:
        """What would have forbidden the state. `fails_before`: whether it fails, without any
        acknowledgement, with all stores before a row kept and no others."""
        broken = [
            (part.promised_ns, one.write)
            for one in scene.account
            for part in one.lost
            if part.promised_ns <= scene.epoch.cut_ns
        ]
        if broken:
            promised_ns, write = min(broken)
            return Remedy("promise", write, last_ns=promised_ns)
        if not scene.lost:
            return self._for_held_back(scene)
        flush = self._flush(scene.lost, scene)
        if flush is not None:
            return flush
        first = min(scene.lost, key=lambda one: self._landed_ns(one.write))
        if scene.ack >= 0:
            return Remedy("early-acknowledgement", first.write)
        if fails_before(first.row):
            return Remedy("any-disk", first.write)
        torn = [one.write for one in scene.lost if one.fate == "torn"]
        return Remedy("torn", torn[0]) if torn else Remedy("unknown", first.write)

    def _for_held_back(self, scene: Scene) -> Remedy:
        """What this host had not begun to write is all that was lost: a flush that covers all of it
        that there was by then."""
        ack_ns = int(self._ack_ns[scene.ack]) if scene.ack >= 0 else -1
        landed = [(self._landed_ns(one.write), one.write) for one in scene.held_back]
        before = [entry for entry in landed if entry[0] <= ack_ns]
        if not before:
            return Remedy("nothing-lost")
        first_ns, write = max(before)
        return Remedy("flush-before-acknowledgement", write, -1, first_ns, ack_ns)

    def _flush(self, lost: Sequence[Told], scene: Scene) -> Remedy | None:
        """One that is complete when the state first becomes possible."""
        first_ns, after = min((self._landed_ns(one.write), one.write) for one in lost)
        ack_ns = int(self._ack_ns[scene.ack]) if scene.ack >= 0 else -1
        begun = ((self._begun_ns(one.kept_write), one.kept_write) for one in scene.enough)
        last_ns, before = max(begun, default=(-1, -1))
        if ack_ns >= max(first_ns, last_ns):
            return Remedy("flush-before-acknowledgement", after, -1, first_ns, ack_ns)
        if last_ns >= first_ns:
            return Remedy("flush-before-write", after, before, first_ns, last_ns)
        return None

    def _survivors(self, enough: Sequence[Involved]) -> list[str]:
        sizes: dict[int, int] = {}
        for one in enough:
            sizes[one.kept_write] = sizes.get(one.kept_write, 0) + len(one.content)
        lines = [
            f"{self._write(write, sizes[write])} survived" + self._between(write)
            for write in sorted(sizes, key=self._row)[:_MOST_WRITES]
        ]
        return lines + ([f"So did {len(sizes) - len(lines)} more."] if len(sizes) > 12 else [])

    def _losses(self, lost: Sequence[Told]) -> list[str]:
        lines = [
            f"{self._write(one.write, one.lost_bytes)} was lost" + self._between(one.write)
            for one in lost[:_MOST_WRITES]
        ]
        return lines + ([f"So were {len(lost) - len(lines)} more."] if len(lost) > 12 else [])

    def _rest(self, scene: Scene) -> list[str]:
        """All the others: what of them survived, and what of that it takes."""
        lines = []
        if held := scene.held_back:
            some = f"Of {len(held)} writes from {held[0].write} to {held[-1].write} something"
            text = f"Something of write {held[0].write}" if len(held) == 1 else some
            lines.append(f"{text} was still in the host's memory, and is lost with it.")
        all_of = "All else that" if scene.lost or held else "All that"
        text = f"{all_of} {self._stored} survived"
        if not scene.epoch.atoms:
            return [*lines, f"{text}."]
        only = "only that" if scene.enough else "nothing"
        return [*lines, f"{text}; it fails as well when of what was undecided {only} survives."]

    @property
    def _stored(self) -> str:
        if self._host == "this-host":
            return "the host had begun to write by then"
        if self._history.info.recorded:
            return "had reached the disk by then"
        return "was stored by then"

    def cure(self, scene: Scene, remedy: Remedy) -> str:
        """A remedy in words, the story's end."""
        write = f"write {remedy.after}"
        match remedy.why:
            case "promise":
                return (
                    f"A flush that covers {write} was acknowledged at "
                    f"{exact_instant(remedy.last_ns)}: this host does not keep what it promised, "
                    "and no further flush would help."
                )
            case "flush-before-write" | "flush-before-acknowledgement":
                return self._missing(scene, remedy)
            case "early-acknowledgement":
                ack_ns = int(self._ack_ns[scene.ack])
                late = self._begun_ns(remedy.after) >= ack_ns
                made = "was made only after that" if late else "was not complete then"
                return (
                    f"What was acknowledged rests on {write}, which {made}: the acknowledgement "
                    "has to wait for it, and for a flush behind it."
                )
            case "torn":
                return (
                    f"Write {remedy.after} is torn: no flush keeps a write together that is larger "
                    "than what the disk writes as one; a checksum over it would tell."
                )
            case "any-disk":
                return (
                    f"No flush forbids it: with all kept that was made before {write} and nothing "
                    "after, it fails, too. Every disk may be cut there, and the program has to "
                    "recover from it."
                )
            case "unknown":
                return (
                    f"Whether a flush forbids it is not known: it goes wrong when {write} is lost, "
                    f"but not when nothing was made from {write} on."
                )
            case "nothing-lost":
                return self._nothing_lost(scene)

    def _missing(self, scene: Scene, remedy: Remedy) -> str:
        flush = "A flush of the device" if self._dax else "An fsync in the guest"
        before = f"write {remedy.before}" if remedy.before >= 0 else "that acknowledgement"
        host = " on a host that keeps its promises" if self._host == "this-host" else ""
        begun = self._unfinished(remedy.first_ns, remedy.last_ns)
        return (
            f"{flush} after write {remedy.after} and completed before {before} would have "
            f"forbidden it{host}{begun}."
        )

    def _nothing_lost(self, scene: Scene) -> str:
        if scene.held_back:
            return (
                "It fails although all was kept that the host had begun to write; a flush would "
                "have brought the rest to the disk, too."
            )
        if not self._history.info.recorded:
            return "It fails even with everything kept that was stored: no flush would help."
        if scene.ack >= 0:
            return (
                "If recovery is right, what was acknowledged was still in the guest's memory: "
                "no flush of the device helps, only an fsync in the guest (of the file, or of its "
                "directory) before that acknowledgement."
            )
        return (
            "Either recovery is wrong, or it needs what was still in the guest's memory, which "
            "only an fsync there orders before what came to the disk."
        )

    def _acknowledgement(self, number: int) -> str:
        """The device's acknowledgement of that number."""
        ack = self._acks[number]
        label = str(self._history.ack_label[ack])
        low, high = int(self._history.ack_low[ack]), int(self._history.ack_high[ack])
        of = f"write {low}" if high == low + 1 else f"writes {low} to {high - 1}"
        name = f"'{label}'" if label else f"of {of}"
        return f"acknowledgement {name}, given at {exact_instant(int(self._ack_ns[number]))}"

    def _unfinished(self, landed_ns: int, until_ns: int) -> str:
        """A flush that was asked for in time, but was not waited for."""
        history, mine = self._history, self._flushes
        submit, done = history.flush_submit_ns[mine], history.flush_ack_ns[mine]
        late = np.flatnonzero((submit >= landed_ns) & (submit <= until_ns) & (done > until_ns))
        if not late.size:
            return ""
        return (
            f"; the one submitted at {exact_instant(int(submit[late[0]]))} was acknowledged at "
            f"{exact_instant(int(done[late[0]]))}, too late"
        )

    def _write(self, write: int, size: int) -> str:
        history, rows = self._history, self._rows(write)
        offset = int(history.store_offset[rows[0]]) - self._first_byte
        length = int(history.store_length[rows].sum())
        part = f"{format_bytes(size)} of " if size < length else ""
        return (
            f"{part}{'w' if part else 'W'}rite {write} ({format_bytes(length)} at offset "
            f"{offset}, made at {exact_instant(int(history.store_t_ns[rows[0]]))})"
        )

    def _between(self, write: int) -> str:
        """Between which marks it was made."""
        if not self._history.info.recorded:
            return "."
        t = int(self._history.store_t_ns[self._row(write)])
        behind = int(np.searchsorted(self._ack_ns, t, "right"))
        labels = self._history.ack_label[self._acks]
        before = f"after mark '{labels[behind - 1]}'" if behind else "before any mark"
        after = f", before '{labels[behind]}'" if behind < labels.size else ""
        return f"; it was made {before}{after}."

    def _row(self, write: int) -> int:
        return int(self._rows(write)[0])

    def _begun_ns(self, write: int) -> int:
        return int(self._history.store_t_ns[self._row(write)])

    def _landed_ns(self, write: int) -> int:
        """When its last word had landed."""
        history, rows = self._history, self._rows(write)
        count = words(history.store_offset[rows], history.store_length[rows])
        return int((history.store_t_ns[rows] + count - 1).max())


def _told(verdict: Verdict) -> str:
    """What the checker said, and its outcome."""
    line = said(verdict)
    line = line if len(line) <= _LONGEST_SAID else line[: _LONGEST_SAID - 3] + "..."
    outcome = verdict.outcome or ("" if line else verdict.kind)
    if not line or line == outcome:
        return outcome
    return f"{outcome}: {line}" if outcome else line
