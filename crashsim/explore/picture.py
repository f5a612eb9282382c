"""A finding as it is told; and its picture: what became of the writes in its state, in order.

Contract: every write of which something is undecided in the epoch is counted once, as kept, lost or
torn. At most `MOST_ROWS` rows are told: the writes that the finding takes, their neighbours, the
first and the last; those left out between two of them are one row, with how many there are of each
fate. A write's parts are told in at most `MOST_RUNS` runs. So the size is bounded, whatever the
epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from crashsim.explore.account import Told, WritePart
from crashsim.explore.grouping import Cause
from crashsim.explore.state_runner import Target
from crashsim.explore.story import Involved
from crashsim.results.discovery import (
    AtomResult,
    BrokenAck,
    FindingResult,
    LeftOut,
    WriteFates,
    WriteRow,
)

MOST_ROWS = 28
MOST_RUNS = 32
_BESIDE = (0, -1, 1, -2, 2)  # neighbours that are told, the nearest first


def picture(finding: Cause, target: Target) -> WriteFates:
    """The writes of a finding's epoch."""
    writes = finding.account
    taken = {one.kept_write for one in finding.kept}
    taken |= {one.write for one in writes if any(not part.held_back for part in one.lost)}
    shown = _shown([one.write in taken for one in writes])
    rows: list[WriteRow | LeftOut] = []
    ends_ns: list[int] = []
    for alone, group in groupby(enumerate(writes), key=lambda entry: entry[0] in shown):
        mine = [write for _, write in group]
        if alone:
            rows += [_row(write, target, write.write in taken) for write in mine]
        else:
            rows.append(LeftOut(mine[0].write, mine[-1].write, *_fates(mine)))
        for last in mine if alone else mine[-1:]:
            ends_ns.append(int(target.history.store_t_ns[last.row]))
    return WriteFates(len(writes), rows, _acknowledgement(finding, target, ends_ns))


def _row(write: Told, target: Target, taken: bool) -> WriteRow:
    history = target.history
    stored = np.flatnonzero(history.store_write == write.write)
    first = int(stored[0])
    return WriteRow(
        write.write,
        write.write,
        *_fates([write]),
        int(history.store_t_ns[first]),
        int(history.store_offset[first]) - history.devices[target.device].first_byte,
        int(history.store_length[stored].sum()),
        taken,
        [list(run) for run in _runs(write.parts)],
    )


def _fates(writes: Sequence[Told]) -> tuple[int, int, int]:
    """How many were kept, lost and torn."""
    fates = Counter(write.fate for write in writes)
    return fates["kept"], fates["lost"], fates["torn"]


def _shown(taken: Sequence[bool]) -> set[int]:
    """Places of the writes with a row of their own; the rest are told together."""
    count = len(taken)
    if count <= MOST_ROWS:
        return set(range(count))
    wanted = [place for place, one in enumerate(taken) if one]
    beside = [place + step for step in _BESIDE for place in wanted]
    shown: dict[int, None] = {}
    for place in [0, count - 1, *beside]:
        if 0 <= place < count and _size(shown.keys() | {place}, count) <= MOST_ROWS:
            shown[place] = None
    # A row for a single one that is left out costs as much as the write itself.
    return {n for n in range(count) if n in shown or (n - 1 in shown and n + 1 in shown)}


def _size(shown: set[int], count: int) -> int:
    """Rows, with those of what is left out."""
    ordered = sorted(shown)
    gaps = sum(b - a > 1 for a, b in zip([-1, *ordered], [*ordered, count], strict=True))
    return len(ordered) + gaps


def _runs(parts: Sequence[WritePart]) -> Iterator[tuple[int, int, int]]:
    """(offset, length, bytes kept) of neighbours with one fate, or, of too many such runs, of as
    many neighbouring parts as leave few enough."""
    runs: list[list[WritePart]] = []
    ordered = sorted(parts, key=lambda part: part.start)
    for part in ordered:
        last = runs[-1][-1] if runs else None
        if last is not None and last.end == part.start and last.kept == part.kept:
            runs[-1].append(part)
        else:
            runs.append([part])
    if len(runs) > MOST_RUNS:
        each = -(-len(ordered) // MOST_RUNS)
        runs = [ordered[n : n + each] for n in range(0, len(ordered), each)]
    for run in runs:
        kept = sum(part.end - part.start for part in run if part.kept)
        every = all(part.kept for part in run)
        length = run[-1].end - run[0].start
        yield run[0].start, length, length if every else kept


def _acknowledgement(finding: Cause, target: Target, ends_ns: Sequence[int]) -> BrokenAck | None:
    """The one that the state breaks."""
    if finding.ack < 0:
        return None
    history = target.history
    ack = int(np.flatnonzero(history.ack_device == target.device)[finding.ack])
    t_ns, label = int(history.ack_t_ns[ack]), str(history.ack_label[ack])
    first, last = int(history.ack_low[ack]), int(history.ack_high[ack]) - 1
    return BrokenAck(t_ns, label, first, last, bisect_right(ends_ns, t_ns))


def told_of(one: Cause, target: Target) -> FindingResult:
    """A finding, with its picture."""
    return FindingResult(
        one.kind,
        one.outcome,
        one.message,
        one.states,
        one.epochs,
        list(one.story),
        one.epoch,
        one.first_ns,
        one.cut_ns,
        one.acks,
        one.ack,
        [list(pair) for pair in one.changes],
        one.minimal,
        [_atom(part) for part in one.kept],
        [_atom(part) for part in one.lost],
        one.remedy,
        f"{one.digest:x}",
        one.original,
        picture(one, target),
    )


def _atom(part: Involved) -> AtomResult:
    return AtomResult(part.offset, part.start, len(part.content), part.kept_write, part.lost_write)
