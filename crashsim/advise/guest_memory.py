"""What a recording's guest had promised and still held in its own memory.

Contract: a recording has what came to the device. Of a mark everything that was written before it
is laid down, nothing lost, and the checker is asked with the acknowledgements up to that mark. If
it says no, then no disk and no flush of the device ends that loss. If it says yes without any
acknowledgement, what was promised had not come to the device: it came later, or never. When it came
is found by laying down more writes in their order: with one of them the checker says yes, without
it no. What that write changed among the files is told by `file_trees.py`, and a file is
said to be in the way only if the checker says yes once that file alone is removed.

At most `MOST_MARKS` marks are tried, evenly spread; files are looked at for `MOST_SHOWN` of those
that fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from crashsim.advise.file_trees import FileTrees, Tree, TreeFile
from crashsim.checkers import Verdict, acknowledgements
from crashsim.checkers.verdict import UNJUDGED
from crashsim.engine.pages import PAGE_BYTES, words
from crashsim.explore.state_runner import Target
from crashsim.runs.one import Run

MOST_MARKS = 128
MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that fails though nothing is lost, and what the checker says."""

    number: int
    label: str
    given_ns: int
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """The write with which the checker accepts what `mark` promised. `files`: what it changed."""

    mark: Mark
    write: int
    t_ns: int
    offset: int
    length: int
    behind: str  # the last mark before it
    files: tuple[str, ...]
    renamed: tuple[str, str] | None  # that, from and to, is all that it changed


@dataclass(frozen=True, slots=True)
class Removed:
    """A file without which the checker accepts: of `shown` failing marks at `accepted`."""

    path: str
    shown: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """Marks that fail with everything kept that had come to the device: `failing` for what they
    promise, `damaged` whatever was acknowledged. `first`: of the former, if there is one."""

    marks: int
    tried: int
    failing: int
    damaged: int
    outcomes: dict[str, int]
    first: Mark | None
    arrival: Arrival | None
    removed: Removed | None


class _Device:
    """A device with all that was written before some write and nothing else, nothing lost; what its
    checker says of that."""

    def __init__(self, run: Run, target: Target) -> None:
        self.run = run
        self.number = target.device
        self.acks = acknowledgements(run.history, self.number)
        # Of each mark: writes before this number were made before it.
        high = [high for _, high in self.acks.records]
        self.at_mark: list[int] = np.maximum.accumulate(high).tolist() if high else []
        self._checker = target.make_checker()
        self._last = -1, memoryview(b"")  # that was asked for

    def image(self, high: int) -> memoryview:
        if self._last[0] != high:
            self._last = high, self._laid(high)
        return self._last[1]

    def _laid(self, high: int) -> memoryview:
        history, span = self.run.history, self.run.history.devices[self.number]
        rows = history.rows_of(self.number)
        rows = rows[history.store_write[rows] < high]
        if not rows.size:
            before = self.run.inputs.before[self.number]
            return memoryview(bytes(span.pages * PAGE_BYTES)) if before is None else before
        count = words(history.store_offset[rows], history.store_length[rows])
        landed = int((history.store_t_ns[rows] + count - 1).max())
        with self.run.image(landed, domain="program-kill", device=span.name) as image:
            return image.data

    def says(self, high: int, acks: int) -> Verdict:
        """With the first acknowledgements."""
        return self.of(self.image(high), acks)

    def of(self, image: memoryview, acks: int) -> Verdict:
        return self._checker.check(image, self.acks.first(acks))

    def is_good(self, high: int, mark: int) -> bool:
        """Whether it accepts what was promised by a mark."""
        return self.says(high, mark + 1).kind == "ok"

    def close(self) -> None:
        self._checker.close()


def unsent(
    run: Run,
    target: Target,
    look: bool,
    advance: Callable[[int, str], None] = lambda _done, _what: None,
) -> Unsent | None:
    """None when every mark that was tried is fine. `look`: whether the checker is one of files."""
    with closing(_Device(run, target)) as device:
        tried = _spread(device.acks.count, MOST_MARKS)
        marks: list[Mark] = []
        late: list[Mark] = []  # those that fail for what they promise
        for done, number in enumerate(tried):
            advance(done, "marks, with nothing lost")
            found = device.says(device.at_mark[number], number + 1)
            if _rejects(found):
                marks.append(_mark(device, number, found))
                if device.says(device.at_mark[number], 0).kind == "ok":
                    late.append(marks[-1])
        if not marks:
            return None
        arrival, removed = _why(device, late, look) if late else (None, None)
        return Unsent(
            device.acks.count,
            len(tried),
            len(late),
            len(marks) - len(late),
            dict(Counter(mark.outcome for mark in marks)),
            late[0] if late else None,
            arrival,
            removed,
        )


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `count`, the first and the last among them."""
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, most)).tolist()})


def _rejects(found: Verdict) -> bool:
    return found.kind != "ok" and found.kind not in UNJUDGED


def _mark(device: _Device, number: int, found: Verdict) -> Mark:
    history = device.run.history
    row = int(np.flatnonzero(history.ack_device == device.number)[number])
    label, given_ns = str(history.ack_label[row]), int(history.ack_t_ns[row])
    return Mark(number, label, given_ns, found.outcome or found.kind, found.message)


def _why(
    device: _Device, late: Sequence[Mark], look: bool
) -> tuple[Arrival | None, Removed | None]:
    """When what was promised came, and the file that was in the way."""
    place, write = _arrived(device, late)
    if place < 0:
        return None, None
    mark, removed, renamed = late[place], None, None
    changes: tuple[str, ...] = ()
    with FileTrees() as trees:
        highs = (device.at_mark[mark.number], write, write + 1)
        there, without, then = (trees.of(device.image(high)) if look else None for high in highs)
        if there is not None and without is not None and then is not None:
            changes, renamed = _changed(without, then), _renamed(without, then)
            gone = [] if renamed else _gone(there, then)
            tried = (_removed(device, trees, path, late[place:]) for path in gone)
            removed = next(filter(None, tried), None)
    return _arrival(device, mark, write, changes, renamed), removed


def _arrived(device: _Device, late: Sequence[Mark]) -> tuple[int, int]:
    """The first failing mark that a later write makes good, and that write; (-1, -1): none is. The
    checker says yes with the write and no without it."""
    history = device.run.history
    end = int(history.store_write[history.rows_of(device.number)].max()) + 1
    # What the last acknowledgement of all needs is most likely never written.
    some = (n for n, mark in enumerate(late[:MOST_SHOWN]) if device.is_good(end, mark.number))
    place = next(some, -1)
    if place < 0:
        return -1, -1
    mark = late[place].number
    low, high = device.at_mark[mark], end  # not good with the writes before `low`
    while low + 1 < high:
        middle = (low + high) // 2
        if device.is_good(middle, mark):
            high = middle
        else:
            low = middle
    return (place, high - 1) if _rejects(device.says(low, mark + 1)) else (-1, -1)


def _arrival(
    device: _Device,
    mark: Mark,
    write: int,
    changes: tuple[str, ...],
    renamed: tuple[str, str] | None,
) -> Arrival:
    history = device.run.history
    rows = np.flatnonzero(history.store_write == write)
    t_ns = int(history.store_t_ns[rows[0]])
    mine = np.flatnonzero(history.ack_device == device.number)
    before = mine[history.ack_t_ns[mine] <= t_ns]
    return Arrival(
        mark,
        write,
        t_ns,
        int(history.store_offset[rows[0]]) - history.devices[device.number].first_byte,
        int(history.store_length[rows].sum()),
        str(history.ack_label[before[-1]]) if before.size else "",
        changes,
        renamed,
    )


# --- files ----------------------------------------------------------------------------------------


def _gone(there: Tree, then: Tree) -> list[str]:
    """Files that are not there any more, whatever has their names."""
    return [
        path
        for path, file in sorted(there.items())
        if path not in then or then[path].identity != file.identity
    ]


def _renamed(without: Tree, then: Tree) -> tuple[str, str] | None:
    """From and to, if a file has another name and nothing else is changed."""
    differ = [path for path in sorted({*without, *then}) if without.get(path) != then.get(path)]
    sources = [path for path in differ if path in without and path not in then]
    if len(sources) != 1:
        return None
    (source,) = sources
    targets = [path for path in differ if path in then and then[path] == without[source]]
    return (source, targets[0]) if {source, *targets} == {*differ} and len(targets) == 1 else None


def _changed(without: Tree, then: Tree) -> tuple[str, ...]:
    """What is another file, or another content, in words."""
    told = (_told(path, without.get(path), then.get(path)) for path in sorted({*without, *then}))
    return tuple(filter(None, told))


def _told(path: str, old: TreeFile | None, new: TreeFile | None) -> str:
    if new is None:
        return f"{path} is gone"
    if old is None:
        return f"{path} is there"
    if old.identity != new.identity:
        return f"{path} is gone, and another file has its name"
    if old.size != new.size:
        return f"{path} has {new.size:,} bytes, not {old.size:,}"
    return "" if old.digest == new.digest else f"{path} has other content"


def _removed(device: _Device, trees: FileTrees, path: str, late: Sequence[Mark]) -> Removed | None:
    """Whether the checker accepts failing marks without that file; None if it does not accept the
    first of them."""
    shown = [late[n].number for n in _spread(len(late), MOST_SHOWN)]
    accepted = 0
    for mark in shown:
        less = trees.without(device.image(device.at_mark[mark]), path)
        accepted += less is not None and device.of(less, mark + 1).kind == "ok"
        if not accepted:
            return None
    return Removed(path, len(shown), accepted)
