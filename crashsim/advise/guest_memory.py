"""What a recording's guest had promised and still held in its own memory.

Contract: a recording has what came to the device. Of a mark everything that was written before it
is laid down, nothing lost, and the checker is asked with the acknowledgements up to that mark. If
it says no, then no disk and no flush of the device ends that loss. If it says yes without any
acknowledgement, what was promised had not come to the device: it came later, or never. When it came
is found by laying down more writes in their order: with one of them the checker says yes, without
it no. What that write changed among the files is told by `files.py`, and a file is said to be
in the way only if the checker says yes once that file alone is removed.

At most `MOST_MARKS` marks are tried, evenly spread; files are looked at for `MOST_SHOWN` of those
that fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crashsim.advise.files import File, FileTrees
from crashsim.checkers import Acks, Verdict, acknowledgements
from crashsim.checkers.verdict import UNJUDGED
from crashsim.engine.pages import words
from crashsim.explore.selection import as_choices
from crashsim.explore.state_runner import StateRunner, Target

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


def unsent(
    target: Target, look: bool, advance: Callable[[int, str], None] = lambda _done, _what: None
) -> Unsent | None:
    """None when every mark that was tried is fine. `look`: whether the checker is one of files."""
    with StateRunner(target) as runner:
        acks = acknowledgements(target.history, target.device)
        tried = _spread(acks.count, MOST_MARKS)
        at_mark = [_high(acks, mark) for mark in range(acks.count)]
        marks: list[Mark] = []
        late: list[int] = []  # those that fail for what they promise
        for done, mark in enumerate(tried):
            advance(done, "marks, with nothing lost")
            found = _with(runner, target, at_mark[mark], mark + 1)
            if _rejects(found):
                marks.append(_mark(target, mark, found))
                if runner.check(_lay(runner, target, at_mark[mark]), 0).kind == "ok":
                    late.append(mark)
        if not marks:
            return None
        arrival, removed = _why(runner, target, at_mark, late, look) if late else (None, None)
        outcomes = Counter(mark.outcome for mark in marks)
        first = next((mark for mark in marks if late and mark.number == late[0]), None)
        damaged = len(marks) - len(late)
        return Unsent(
            acks.count, len(tried), len(late), damaged, dict(outcomes), first, arrival, removed
        )


def _why(
    runner: StateRunner, target: Target, at_mark: Sequence[int], late: Sequence[int], look: bool
) -> tuple[Arrival | None, Removed | None]:
    """When what was promised came, and the file that was in the way."""
    number, write = _arrived(runner, target, at_mark, late)
    if number < 0:
        return None, None
    mark, removed = late[number], None
    with FileTrees() as files:
        seen = _seen(runner, target, files, (at_mark[mark], write, write + 1)) if look else None
        there, without, then = seen or ({}, {}, {})
        renamed = _renamed(without, then)
        for path in [] if renamed else _gone(there, then):
            removed = _removed(runner, target, files, path, late[number:], at_mark)
            if removed is not None:
                break
    said = _with(runner, target, at_mark[mark], mark + 1)
    told = _changed(without, then)
    return _arrival(target, _mark(target, mark, said), write, told, renamed), removed


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `count`, the first and the last among them."""
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, most)).tolist()})


def _high(acks: Acks, mark: int) -> int:
    """Writes before this number were made before the mark."""
    return max(high for _, high in acks.records[: mark + 1])


def _lay(runner: StateRunner, target: Target, high: int) -> tuple[tuple[int, int], ...]:
    """Go to the epoch in which all writes before `high` are made; the state with all of them and
    no other."""
    history = target.history
    rows = history.rows_of(target.device)
    rows = rows[history.store_write[rows] < high]
    if not rows.size:
        runner.enter(0)
        return ()
    last = int(rows[-1])
    count = words(history.store_offset[last : last + 1], history.store_length[last : last + 1])
    epoch = runner.enter(target.space.at(int(history.store_t_ns[last] + count[0] - 1)))
    return as_choices([atom.before_store(last + 1) for atom in epoch.atoms])


def _with(runner: StateRunner, target: Target, high: int, acks: int) -> Verdict:
    """What the checker says with all writes before `high` and the first acknowledgements."""
    return runner.check(_lay(runner, target, high), acks)


def _mark(target: Target, mark: int, found: Verdict) -> Mark:
    history = target.history
    row = int(np.flatnonzero(history.ack_device == target.device)[mark])
    said = found.outcome or found.kind
    label, given_ns = str(history.ack_label[row]), int(history.ack_t_ns[row])
    return Mark(mark, label, given_ns, said, found.message)


def _arrived(
    runner: StateRunner, target: Target, at_mark: Sequence[int], late: Sequence[int]
) -> tuple[int, int]:
    """The first failing mark that a later write makes good, and that write; (-1, -1): none is. The
    checker says yes with the write and no without it."""
    rows = target.history.rows_of(target.device)
    end = int(target.history.store_write[rows].max()) + 1
    if _with(runner, target, end, late[0] + 1).kind == "ok":
        number = 0
    else:  # what the last acknowledgement of all needs is most likely never written
        found = (n for n, mark in enumerate(late[:MOST_SHOWN]) if _good(runner, target, end, mark))
        number = next(found, -1)
    if number < 0:
        return -1, -1
    mark = late[number]
    low, high = at_mark[mark], end  # not good with the writes before `low`, good before `high`
    while low + 1 < high:
        middle = (low + high) // 2
        if _good(runner, target, middle, mark):
            high = middle
        else:
            low = middle
    if not _rejects(_with(runner, target, low, mark + 1)):  # it was not judged
        return -1, -1
    return number, high - 1


def _rejects(found: Verdict) -> bool:
    return found.kind != "ok" and found.kind not in UNJUDGED


def _good(runner: StateRunner, target: Target, high: int, mark: int) -> bool:
    return _with(runner, target, high, mark + 1).kind == "ok"


def _arrival(
    target: Target,
    mark: Mark,
    write: int,
    told: tuple[str, ...],
    renamed: tuple[str, str] | None,
) -> Arrival:
    history, device = target.history, target.device
    rows = np.flatnonzero(history.store_write == write)
    t_ns = int(history.store_t_ns[rows[0]])
    mine = np.flatnonzero(history.ack_device == device)
    before = mine[history.ack_t_ns[mine] <= t_ns]
    return Arrival(
        mark,
        write,
        t_ns,
        int(history.store_offset[rows[0]]) - history.devices[device].first_byte,
        int(history.store_length[rows].sum()),
        str(history.ack_label[before[-1]]) if before.size else "",
        told,
        renamed,
    )


# --- files ----------------------------------------------------------------------------------------


Tree = dict[str, File]


def _seen(
    runner: StateRunner, target: Target, files: FileTrees, highs: tuple[int, int, int]
) -> tuple[Tree, Tree, Tree] | None:
    """The files with all writes before each of these; None where they cannot be told."""
    first, second, third = (files.of(runner.lay(_lay(runner, target, high))) for high in highs)
    if first is None or second is None or third is None:
        return None
    return first, second, third


def _gone(there: Tree, then: Tree) -> list[str]:
    """FileTrees that are not there any more, whatever has their names."""
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


def _told(path: str, old: File | None, new: File | None) -> str:
    if new is None:
        return f"{path} is gone"
    if old is None:
        return f"{path} is there"
    if old.identity != new.identity:
        return f"{path} is gone, and another file has its name"
    if old.size != new.size:
        return f"{path} has {new.size:,} bytes, not {old.size:,}"
    return "" if old.digest == new.digest else f"{path} has other content"


def _removed(
    runner: StateRunner,
    target: Target,
    files: FileTrees,
    path: str,
    late: Sequence[int],
    at_mark: Sequence[int],
) -> Removed | None:
    """Whether the checker accepts failing marks without that file; None if it does not accept the
    first of them."""
    shown = [late[n] for n in _spread(len(late), MOST_SHOWN)]
    acks = acknowledgements(target.history, target.device)
    accepted = 0
    checker = target.make_checker()
    try:
        for mark in shown:
            image = runner.lay(_lay(runner, target, at_mark[mark]))
            less = files.without(image, path)
            good = less is not None and checker.check(less, acks.first(mark + 1)).kind == "ok"
            accepted += good
            if not accepted:
                return None
    finally:
        checker.close()
    return Removed(path, len(shown), accepted)
