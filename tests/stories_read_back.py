"""Every sentence of a finding's story, read back and held against the History, the slow way.

Nothing here knows accounts, remedies or atoms' choices. A sentence that no pattern knows fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from crashsim.checkers import Verdict, acknowledgements
from crashsim.engine.history import History
from crashsim.engine.units import format_bytes, parse_duration
from crashsim.explore.grouping import Cause
from crashsim.explore.outcomes import normal, outcome_of
from crashsim.explore.picture import picture
from crashsim.explore.saved import locate, saved
from crashsim.explore.selection import as_choices
from crashsim.explore.state_runner import StateRunner, Target
from crashsim.guest.content import Content
from crashsim.states import Space
from tests.states_slowly import Slowly

_OF = r"(?:(?P<part>\S+ \S+) of w|W)rite (?P<write>\d+) \((?P<length>[^()]+) at offset "
_WRITE = _OF + r"(?P<offset>\d+), made at (?P<made>[^()]+)\) (?P<fate>survived|was lost)"
_MARKS = (
    r"(?:; it was made (?:after mark '(?P<behind>.*?)'|before any mark)"
    r"(?:, before '(?P<next>.*)')?)?"
)
PATTERNS = {
    "head": r"A power cut at (?P<cut>.+) \(epoch (?P<epoch>\d+) of (?P<epochs>\d+)\), after "
    r"(?P<acks>\d+) acknowledgements?, leaves an image of which the checker says: (?P<said>.*)\.",
    "write": _WRITE + _MARKS + r"\.",
    "more": r"So (?P<did>did|were) (?P<more>\d+) more\.",
    "held": r"(?:Something of write (?P<one>\d+)|Of (?P<count>\d+) writes from (?P<first>\d+) to "
    r"(?P<last>\d+) something) was still in the host's memory, and is lost with it\.",
    "rest": r"All (?P<other>else )?that (?P<there>had reached the disk|was stored|the host had "
    r"begun to write) by then survived(?:; it fails as well when of what was undecided "
    r"(?P<only>only that|nothing) survives)?\.",
    "ack": r"That breaks acknowledgement (?:'(?P<label>.*)'|of writes? (?P<low>\d+)"
    r"(?: to (?P<high>\d+))?), given at (?P<given>.+)\.",
    "flush": r"(?P<what>A flush of the device|An fsync in the guest) after write (?P<after>\d+) "
    r"and completed before (?:write (?P<before>\d+)|that acknowledgement) would have forbidden it"
    r"(?P<keeps> on a host that keeps its promises)?"
    r"(?:; the one submitted at (?P<submit>.+) was acknowledged at (?P<late>.+), too late)?\.",
    "early": r"What was acknowledged rests on write (?P<on>\d+), which (?P<how>was made only after "
    r"that|was not complete then): the acknowledgement has to wait for it, .*",
    "torn": r"Write (?P<torn>\d+) is torn: .*",
    "any disk": r"No flush forbids it: with all kept that was made before write (?P<cut_at>\d+) "
    r"and nothing after, it fails, too\. .*",
    "unknown": r"Whether a flush forbids it is not known: it goes wrong when write (?P<odd>\d+) is "
    r"lost, but not when nothing was made from write \d+ on\.",
    "promise": r"A flush that covers write (?P<covered>\d+) was acknowledged at (?P<promised>.+): "
    r"this host does not keep what it promised, and no further flush would help\.",
    "held all": r"It fails although all was kept that the host had begun to write; .*",
    "kept all": r"It fails even with everything kept that was stored: no flush would help\.",
    "in guest": r"If recovery is right, what was acknowledged was still in the guest's memory: .*",
    "either": r"Either recovery is wrong, or it needs what was still in the guest's memory, .*",
    "more shrinking": r"Less may do: it was not shrunk further after \d+ checks\.",
}
LAST = (
    "flush",
    "early",
    "torn",
    "any disk",
    "unknown",
    "promise",
    "held all",
    "kept all",
    "in guest",
    "either",
)


@dataclass(frozen=True)
class Given:
    """Content as `Slowly` asks for it."""

    content: Content
    history: History

    def of(self, write: int, start: int, end: int) -> bytes:
        length = int(self.history.store_length[self.history.store_write == write].sum())
        columns = (np.array([n], dtype=np.int64) for n in (write, start, end, length))
        return bytes(next(iter(self.content.parts(*columns))))


def read(line: str) -> tuple[str, dict[str, str | None]]:
    """The pattern of a sentence, and what it says."""
    for name, pattern in PATTERNS.items():
        found = re.fullmatch(pattern, line, re.DOTALL)
        if found:
            return name, found.groupdict()
    raise AssertionError(f"nobody reads this back: {line}")


class Reader:
    """Holds the stories of a target's findings against its History."""

    def __init__(self, target: Target, space: Space, content: Content, before: bytes) -> None:
        """`space`: made anew, `before`: what the device held."""
        history, self.rules = target.history, target.space.rules
        self.target, self.space, self.history = target, space, history
        given = Given(content, history)
        unit = self.rules.unit_bytes
        self.slowly = Slowly(history, given, before, target.device, unit)  # type: ignore[arg-type]
        self.first_byte = history.devices[target.device].first_byte
        self.acks = acknowledgements(history, target.device)
        mine = history.ack_device == target.device
        self.ack_ns = history.ack_t_ns[mine]
        rows = history.rows_of(target.device).tolist()
        self.row_of = {id(s): row for s, row in zip(self.slowly.stores, rows, strict=True)}
        self.seen: set[str] = set()

    def hold(self, finding: Cause) -> None:
        """AssertionError when a sentence, or the picture, is not of the finding's state."""
        _Held(self, finding).everything()


class _Held:
    """One finding."""

    def __init__(self, reader: Reader, finding: Cause) -> None:
        self.reader, self.finding = reader, finding
        self.slowly, self.history = reader.slowly, reader.history
        one = saved(finding, reader.target, {}, {}, {})
        epoch, choices = locate(reader.space, one)
        self.cut_ns = epoch.cut_ns
        with StateRunner(reader.target) as runner:
            runner.enter(epoch.number)
            self.image = bytes(runner.lay(choices))
            assert f"{runner.digest:x}" == one.image
            runner.lay(finding.choices)
            assert f"{runner.digest:x}" == one.image
            self.none = bytes(runner.lay(()))
        self.said = [read(line) for line in finding.story]
        self.by_name = dict(self.said)
        reader.seen |= self.by_name.keys()

    def everything(self) -> None:
        names = [name for name, _ in self.said if name != "more shrinking"]
        assert names[0] == "head" and names[-1] in LAST and names.count("head") == 1
        assert sum(name in LAST for name in names) == 1 and names.count("rest") == 1
        self.head()
        self.lost()
        self.survived()
        self.acknowledgement()
        self.last(names[-1])
        self.picture()

    def check(self, image: bytes, acks: int) -> Verdict:
        checker = self.reader.target.make_checker()
        try:
            return checker.check(memoryview(image).toreadonly(), self.reader.acks.first(acks))
        finally:
            checker.close()

    def alike(self, image: bytes, acks: int) -> bool:
        found = self.check(image, acks)
        return (found.kind, normal(outcome_of(found))) == (
            self.finding.kind,
            normal(self.finding.outcome),
        )

    # What the sentences say

    def head(self) -> None:
        groups, acks = self.by_name["head"], self.slowly.acks(self.cut_ns)
        assert parse_duration(groups["cut"] or "") == self.cut_ns
        assert groups["acks"] == str(acks) == str(self.finding.acks)
        possible = self.possible(self.cut_ns)
        for atom, contents in possible.items():
            assert self.image[atom : atom + self.slowly.unit_bytes] in contents
        found = self.check(self.image, acks)
        assert (found.kind, outcome_of(found)) == (self.finding.kind, self.finding.outcome)
        assert found.message == self.finding.message
        said = groups["said"] or ""
        assert said.startswith(found.outcome or found.message[:20] or found.kind)

    def lost(self) -> None:
        """The writes that are named as lost are those that are."""
        lost: dict[int, int] = {}
        held: set[int] = set()
        for write, start, end, kept, held_back in self.parts():
            if held_back:
                held.add(write)
            elif not kept:
                lost[write] = lost.get(write, 0) + end - start
        named = self.writes("was lost")
        more = [g["more"] for name, g in self.said if name == "more" and g["did"] == "were"]
        assert len(named) + sum(int(n or 0) for n in more) == len(lost)
        assert all(lost[write] == size for write, size in named.items())
        told = self.by_name.get("held")
        assert (told is None) == (not held)
        if told is not None and told["one"] is not None:
            assert held == {int(told["one"])}
        elif told is not None:
            order = sorted(held, key=self.row)
            assert (str(len(held)), str(order[0]), str(order[-1])) == (
                told["count"],
                told["first"],
                told["last"],
            )
        assert (self.by_name["rest"]["other"] is not None) == bool(lost or held)

    def survived(self) -> None:
        """What survived is there in the state, and enough for it to fail."""
        named = self.writes("survived")
        image = bytearray(self.none)
        sizes: dict[int, int] = {}
        kept_parts = {(w, s // self.slowly.unit_bytes) for w, s, _, kept, _ in self.parts() if kept}
        for one in self.finding.kept:
            image[one.start : one.start + len(one.content)] = one.content
            sizes[one.kept_write] = sizes.get(one.kept_write, 0) + len(one.content)
            assert (one.kept_write, one.offset // self.slowly.unit_bytes) in kept_parts
        more = [g["more"] for name, g in self.said if name == "more" and g["did"] == "did"]
        assert len(named) + sum(int(n or 0) for n in more) == len(sizes)
        assert named.items() <= sizes.items()
        only = self.by_name["rest"]["only"]
        if only is not None:
            assert (only == "only that") == bool(sizes)
            assert self.alike(bytes(image), self.finding.acks)

    def writes(self, fate: str) -> dict[int, int]:
        """Write -> bytes, of the sentences with that fate; each is as it was made."""
        found: dict[int, int] = {}
        for name, groups in self.said:
            if name != "write" or groups["fate"] != fate:
                continue
            write = int(groups["write"] or 0)
            rows = np.flatnonzero(self.history.store_write == write)
            length = int(self.history.store_length[rows].sum())
            offset = int(self.history.store_offset[rows[0]]) - self.reader.first_byte
            made = int(self.history.store_t_ns[rows[0]])
            assert (groups["length"], groups["offset"]) == (format_bytes(length), str(offset))
            assert parse_duration(groups["made"] or "") == made and made <= self.cut_ns
            labels, given = self.reader.acks.labels, int((self.reader.ack_ns <= made).sum())
            if self.history.info.recorded:
                assert groups["behind"] == (labels[given - 1] if given else None)
                assert groups["next"] == (labels[given] if given < len(labels) else None)
            found[write] = size_of(groups["part"], length, self.sizes(write, fate))
        return found

    def sizes(self, write: int, fate: str) -> int:
        if fate == "survived":
            parts = [one for one in self.finding.kept if one.kept_write == write]
            return sum(len(one.content) for one in parts)
        return sum(
            end - start
            for mine, start, end, kept, held_back in self.parts()
            if mine == write and not kept and not held_back
        )

    def acknowledgement(self) -> None:
        groups, number = self.by_name.get("ack"), self.finding.ack
        assert (groups is None) == (number < 0)
        if groups is None:
            assert not self.finding.acks or self.alike(self.image, 0)
            return
        low, high = self.reader.acks.records[number]
        label = self.reader.acks.labels[number]
        assert parse_duration(groups["given"] or "") == self.reader.ack_ns[number]
        if label:
            assert groups["label"] == label
        else:
            last = int(groups["high"] or groups["low"] or 0)
            assert (int(groups["low"] or 0), last) == (low, high - 1)
        assert number < self.finding.acks
        assert self.alike(self.image, number + 1) and not self.alike(self.image, number)

    def last(self, name: str) -> None:
        groups = self.by_name[name]
        if self.history.info.dax[self.slowly.device]:
            lost = {write for write, _, _, kept, _ in self.parts() if not kept}
            covered = [w for w in lost if self.promises(w, self.landed(w))]
            assert not covered or name == "promise"  # no flush is said to help then
        match name:
            case "flush":
                self.flush(groups)
            case "early":
                write, given = int(groups["on"] or 0), int(self.reader.ack_ns[self.finding.ack])
                assert self.landed(write) > given
                assert (self.begun(write) >= given) == (groups["how"] == "was made only after that")
                assert write in self.writes("was lost")
            case "torn":
                fates = {kept for w, _, _, kept, _ in self.parts() if w == int(groups["torn"] or 0)}
                assert fates == {True, False}
            case "any disk" | "unknown":
                write = (
                    int(groups["cut_at"] or 0) if name == "any disk" else int(groups["odd"] or 0)
                )
                assert write in self.writes("was lost")
                assert self.alike(self.prefix(self.row(write)), 0) == (name == "any disk")
            case "promise":
                write = int(groups["covered"] or 0)
                assert self.reader.rules.host == "this-host"
                assert any(w == write and not kept for w, _, _, kept, _ in self.parts())
                promised = parse_duration(groups["promised"] or "")
                assert promised in self.promises(write, self.begun(write))
            case _:
                assert not self.writes("was lost")
                recorded = self.history.info.recorded
                assert ("held" in self.by_name) == (name == "held all")
                if name != "held all":
                    assert recorded == (name in ("in guest", "either"))
                    assert self.image == self.newest() or self.reader.rules.host == "this-host"
                if recorded and name != "held all":
                    assert (self.finding.ack >= 0) == (name == "in guest")

    def flush(self, groups: dict[str, str | None]) -> None:
        """Wherever the flush is put between the two, no cut up to this one leaves the image."""
        dax = self.history.info.dax[self.reader.target.device]
        assert (groups["what"] == "A flush of the device") == bool(dax)
        assert (groups["keeps"] is not None) == (self.reader.rules.host == "this-host")
        first = self.landed(int(groups["after"] or 0))
        ack = self.finding.ack
        if groups["before"] is not None:
            last = self.begun(int(groups["before"]))
        else:
            last = int(self.reader.ack_ns[ack])
        assert first <= last <= self.cut_ns
        for submit, done in ((first, first), (first, last), (last, last)):
            for t in self.slowly.instants():
                if t <= self.cut_ns and self.slowly.acks(t) > ack:
                    assert not self.is_left(t, submit, done), (submit, done, t)
        if groups["submit"] is not None:
            h = self.history
            rows = zip(h.flush_submit_ns, h.flush_ack_ns, h.flush_result, strict=True)
            times = {
                (int(s), int(a)) for s, a, result in rows if first <= s <= last < a and result == 0
            }
            told = (groups["submit"], groups["late"])
            assert tuple(parse_duration(one or "") for one in told) in times

    def picture(self) -> None:
        """The picture shows the same fates, the same broken acknowledgement."""
        told = asdict(picture(self.finding, self.reader.target))
        fates: dict[int, set[bool]] = {}
        for write, _, _, kept, _ in self.parts():
            fates.setdefault(write, set()).add(kept)
        assert told["writes"] == len(fates)
        names = {(True,): "kept", (False,): "lost", (False, True): "torn"}
        for row in told["rows"]:
            if "runs" in row:
                fate = names[tuple(sorted(fates[row["first"]]))]
                assert [row[one] for one in ("kept", "lost", "torn")] == [
                    int(one == fate) for one in ("kept", "lost", "torn")
                ]
        total = {one: sum(row[one] for row in told["rows"]) for one in names.values()}
        assert total == {
            one: sum(names[tuple(sorted(mine))] == one for mine in fates.values())
            for one in names.values()
        }
        assert (told["acknowledgement"] is None) == (self.finding.ack < 0)

    # The slow way

    def parts(self) -> Iterator[tuple[int, int, int, bool, bool]]:
        """(write, start, end, kept, held back) of parts in question: those that are not guaranteed,
        and read otherwise in some state of this cut, or were not written by this host."""
        unit, cut_ns = self.slowly.unit_bytes, self.cut_ns
        for atom in self.slowly.atoms:
            instants, contents = self.instants(atom)
            here = self.image[atom : atom + unit]
            reached = max(n for n, content in enumerate(contents) if content == here)
            for number, store in enumerate(self.slowly.over[atom]):
                landed = self.arrives(store.landed(atom, atom + unit), atom)
                if store.landed(atom, atom + unit) > cut_ns or landed <= instants[0]:
                    continue
                start = max(atom, store.start)
                end = min(atom + unit, store.start + len(store.content))
                held_back = landed > instants[-1]
                if not held_back and len(set(contents)) == 1:
                    continue
                write = self.write_of(atom, number)
                yield write, start, end, landed <= instants[reached], held_back

    def write_of(self, atom: int, number: int) -> int:
        store = self.slowly.over[atom][number]
        return int(self.history.store_write[self.reader.row_of[id(store)]])

    def arrives(self, landed: int, atom: int) -> int:
        """When a store that landed then can be seen by the host's snapshots."""
        h, slowly = self.history, self.slowly
        if self.reader.rules.host == "any-host" or h.info.dax[slowly.device]:
            return landed
        page = atom // 4096 + slowly.first_page
        later = h.copy_t_ns[(h.copy_page == page) & (h.copy_t_ns >= landed)]
        return int(later.min()) if later.size else 1 << 62

    def instants(self, atom: int) -> tuple[list[int], list[bytes]]:
        """Instants whose content the atom may hold, ascending, and the content of each."""
        slowly, t = self.slowly, self.cut_ns
        found: list[int] = []
        held = slowly._held

        def remember(at: int, instant: int) -> bytes:
            found.append(instant)
            return held(at, instant)

        slowly._held = remember  # type: ignore[assignment,method-assign]
        try:
            if self.reader.rules.host == "any-host":
                contents = slowly._any_host(atom, slowly._flushed(t), t)
            else:
                contents = slowly._this_host(atom, t)
        finally:
            del slowly._held
        order = sorted(range(len(found)), key=found.__getitem__)
        return [found[n] for n in order], [contents[n] for n in order]

    def possible(self, t: int) -> dict[int, list[bytes]]:
        if self.reader.rules.host == "this-host":
            return self.slowly.this_host(t)
        return self.slowly.any_host(t)

    def is_left(self, t: int, submit: int, done: int) -> bool:
        """Whether a cut at t leaves the image on some host, with one flush more, of a guest that
        writes back before it."""
        slowly, unit = self.slowly, self.slowly.unit_bytes
        flushed = slowly._flushed(t)
        for atom in slowly.atoms:
            floor = flushed
            if not self.history.info.dax[slowly.device]:
                floor = slowly._copied(atom, flushed)
            if done <= t:
                floor = max(floor, submit)
            landings = [store.landed(atom, atom + unit) for store in slowly.over[atom]]
            instants = [floor, *(one for one in landings if floor < one <= t)]
            if self.image[atom : atom + unit] not in {slowly._held(atom, at) for at in instants}:
                return False
        return True

    def prefix(self, row: int) -> bytes:
        """The image with what is guaranteed, and of the rest what was stored before that row."""
        epoch = self.reader.space.epoch(self.finding.epoch)
        with StateRunner(self.reader.target) as runner:
            runner.enter(epoch.number)
            choices = as_choices(atom.before_store(row) for atom in epoch.atoms)
            return bytes(runner.lay(choices))

    def newest(self) -> bytes:
        image = bytearray(self.none)
        for atom in self.slowly.atoms:
            image[atom : atom + self.slowly.unit_bytes] = self.slowly._held(atom, self.cut_ns)
        return bytes(image)

    def promises(self, write: int, landed: int) -> list[int]:
        """When flushes were acknowledged that cover what of it had landed by then."""
        h = self.history
        rows = zip(h.flush_device, h.flush_result, h.flush_submit_ns, h.flush_ack_ns, strict=True)
        return [
            int(ack)
            for device, result, submit, ack in rows
            if device == self.slowly.device and result == 0 and submit >= landed
            if ack <= self.cut_ns
        ]

    def row(self, write: int) -> int:
        return int(np.flatnonzero(self.history.store_write == write)[0])

    def begun(self, write: int) -> int:
        return int(self.history.store_t_ns[self.row(write)])

    def landed(self, write: int) -> int:
        h = self.history
        rows = np.flatnonzero(h.store_write == write)
        return max(
            int(t + ((o + n - 1) >> 3) - (o >> 3))
            for t, o, n in zip(
                h.store_t_ns[rows], h.store_offset[rows], h.store_length[rows], strict=True
            )
        )


def size_of(part: str | None, length: int, expected: int) -> int:
    """The bytes that a sentence speaks of; the same text when it is rounded."""
    if part is None:
        assert expected >= length
        return expected
    assert part == format_bytes(expected) and expected < length
    return expected
