"""What `crashsim advise` says, and as JSON.

Contract: every line is made from one `Advised`. A loss is said to be ended by what was run and
found fine, and by nothing else; of what was only simulated, or explored in part, that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from crashsim.advise.evidence import Checked, Toll
from crashsim.advise.guest_memory import Arrival, Removed, Unsent
from crashsim.advise.missing_syncs import Spare
from crashsim.advise.search import Advice, Advised
from crashsim.engine.units import exact_instant, format_bytes, format_duration

NO_COMMAND = (
    "no --set makes this change: make it where the device is described, and run that experiment"
)


def to_json(found: Advised) -> dict[str, Any]:
    """Plain data."""
    return asdict(found) | {"fine": found.fine, "exit_code": found.exit_code}


def lines(name: str, found: Advised) -> list[str]:
    """What is said on a terminal."""
    return [f"{name}: {_verdict(found)}", *(f"  {line}" for line in _told(found))]


def _told(found: Advised) -> Iterator[str]:
    yield from _about(found)
    if found.command:
        yield f"Shown by: {found.command}"
    for number, one in enumerate(found.advice, start=1):
        yield from _advice(number, one, found)
    for one in found.refuted:
        assert one.explored is not None
        yield f"Does not end it: the checker still rejects {_rejected(one.explored)}"
        yield from _changes(one)
    if not found.fine and not found.advice and found.unsent is None:
        yield _nothing_ends(found)
    if found.untried:
        yield f"Not explored: {found.untried} more changes that the simulation likes."
    if found.idle:
        yield (
            f"{_syncs(found.idle)} with nothing stored since the sync before: "
            f"{found.idle.places.words} ({_price(found.idle.before, found.idle.after)} without)"
        )
    if found.ordering:
        places = found.ordering.places.words
        yield f"{_syncs(found.ordering)} with no acknowledgement behind: {places}"
        yield f"   {_ordering(found.ordering)}"


def _verdict(found: Advised) -> str:
    before, explored = found.before, found.explored
    written = " of what had come to the device" if found.recorded else ""
    told = []
    if before.uncovered or before.broken:
        told.append(
            f"up to {before.uncovered:,} acknowledgements{written} are lost at once, "
            f"{before.broken:,} promises of flushes are broken"
        )
    if explored is not None and not explored.fine:
        told.append(f"the checker rejects {_rejected(explored)}")
    if told:
        return "; ".join(told) + "."
    safe = f"no acknowledgement{written} is lost in the simulation, no promise is broken"
    return f"{safe}{f', and {_nothing(explored)}' if explored else ''}."


def _about(found: Advised) -> Iterator[str]:
    explored = found.explored
    if found.lost:
        yield f"First: {found.lost}."
    elif explored is not None and not explored.fine:
        written = "what had come to the device" if found.recorded else "what was acknowledged"
        yield f"By the simulation alone nothing is lost of {written}."
    if found.unsent is not None:
        yield from _unsent(found.unsent)
    if explored is not None:
        yield from _reasons(explored)
        rest = explored.failing - sum(one.states for one in explored.reasons)
        if explored.reasons and rest:
            yield f"Not established: the causes of {rest:,} more states that the checker rejects."
        if not explored.reached:
            yield (
                "Not established: not every state that was planned was judged. The budget ended, "
                "or the checker took too long, or answered differently when asked again."
            )
        elif not explored.every and explored.fine:
            yield "Not established: what the checker says of the images that were not tried."
    elif found.recorded:
        yield (
            "Not established: whether what was acknowledged had come to the device at all. The "
            "guest may have held it still; a checker (explore:) can tell."
        )
    else:
        yield "Not established: what recovery makes of it. No states are explored (explore:)."


def _reasons(explored: Checked) -> Iterator[str]:
    """What the exploration says of its findings, the same only once."""
    for cure, known in dict.fromkeys((one.cure, one.known) for one in explored.reasons):
        counted: dict[str, int] = {}
        for one in explored.reasons:
            if (one.cure, one.known) == (cure, known):
                counted[one.outcome] = counted.get(one.outcome, 0) + one.states
        told = ", ".join(f"{outcome} {count:,}" for outcome, count in counted.items())
        yield f"{told}: {cure}" + (f" Known: {known}." if known else "")


def _unsent(one: Unsent) -> Iterator[str]:
    tried = f"{one.tried:,} marks" + (f" tried of {one.marks:,}" if one.tried < one.marks else "")
    yield (
        f"With nothing lost that had come to the device the checker rejects {one.failing:,} of "
        f"{tried} for what they promise, {one.damaged:,} whatever was acknowledged."
    )
    if one.first is None:
        yield "So no flush of the device, and no disk, ends it."
        return
    given = exact_instant(one.first.given_ns)
    yield f"The first is '{one.first.label}', given at {given}: {one.first.outcome}."
    where = "still in the guest's memory" if one.arrival else "in the guest's memory, or nowhere"
    yield (
        f"What it promises was {where}. No flush of the device, and no disk, can replace the sync "
        "that the program did not make."
    )
    yield from _missing(one.arrival, one.removed)
    yield (
        "Not established: that the program loses nothing with that sync. Record it again with it, "
        "and explore that."
    )


def _missing(arrival: Arrival | None, removed: Removed | None) -> Iterator[str]:
    if arrival is None:
        yield "Missing: a sync in the guest, before the mark, of what the mark stands for."
        yield "  It never came to the device, so which file that is this recording cannot say."
        return
    if arrival.renamed is not None:
        source, target = arrival.renamed
        yield (
            f"Missing: a sync of the directory {_folder(target)} after {source} is renamed to "
            f"{target}, before the mark."
        )
    elif removed is not None:
        yield (
            f"Missing: a sync of the directory {_folder(removed.path)} after {removed.path} is "
            "deleted, before the mark."
        )
        yield (
            f"  With that file alone removed the checker accepts {removed.accepted} of "
            f"{removed.shown} such marks."
        )
    else:
        yield "Missing: a sync in the guest, before the mark, of what came too late."
    behind = f", behind the mark '{arrival.behind}'" if arrival.behind else ""
    files = f" With it {'; '.join(arrival.files)}." if arrival.files else ""
    yield (
        f"  For '{arrival.mark.label}' it came with write {arrival.write} "
        f"({format_bytes(arrival.length)} at offset {arrival.offset}, made at "
        f"{exact_instant(arrival.t_ns)}{behind}), without which the checker rejects it.{files}"
    )


def _folder(path: str) -> str:
    return f"/{path.rpartition('/')[0]}"


def _nothing_ends(found: Advised) -> str:
    if found.recorded and found.before.safe:
        return (
            "Nothing was tried: by the simulation no setting and no flush is at fault, and the "
            "program of a recording cannot be changed."
        )
    return f"Nothing that was tried ends it ({found.runs} runs)."


def _advice(number: int, one: Advice, found: Advised) -> Iterator[str]:
    said = f", {_nothing(one.explored)}" if one.explored else ""
    rest = " of what had come to the device" if found.recorded and not one.explored else ""
    yield f"{number}. ends it: no acknowledgement{rest} is lost in its run{said}"
    yield from _changes(one)
    yield f"   Price: {_price(found.before, one.after)}"
    if one.flushes is not None:
        yield "   A recording takes no flush by --set: record the program again with them."
    else:
        yield f"   Shown by: {one.command or NO_COMMAND}"


def _changes(one: Advice) -> Iterator[str]:
    for change in one.changes:
        means = f"   ({change.means})" if change.means else ""
        yield f"   {change.key}: {change.old} -> {change.new}{means} [{change.rule}]"
    if one.flushes is not None:
        yield f"   a flush of the device {one.flushes.words} [V2]"


def _ordering(one: Spare) -> str:
    price, explored = _price(one.before, one.after), one.explored
    if explored is None or one.worse is None:
        return (
            f"Not established: whether recovery needs their order ({price} without). A checker "
            "(explore:) can tell."
        )
    if one.worse:
        return (
            f"Needed: without them the checker rejects {_rejected(explored)}; only then "
            f"{', '.join(one.worse)}. Recovery counts on the order of at least some."
        )
    if explored.failing:
        return (
            f"Not established: whether recovery needs their order. Without them ({price}) the "
            f"checker rejects {_rejected(explored)}."
        )
    return f"Without them ({price}) {_nothing(explored)}, which is no proof."


def _syncs(one: Spare) -> str:
    number = len(one.places.after_writes)
    return f"{number:,} sync" + ("" if number == 1 else "s")


def _rejected(explored: Checked) -> str:
    told = ", ".join(f"{outcome} {count:,}" for outcome, count in explored.rejected.items())
    return f"{explored.failing:,} of {explored.checked:,} states ({told})"


def _nothing(explored: Checked) -> str:
    if explored.failing:
        return f"the checker rejects only what is known: {_rejected(explored)}"
    return f"the checker accepts all {explored.checked:,} states tried of {explored.images}"


def _price(before: Toll, after: Toll) -> str:
    wait_ns = after.wait_ns - before.wait_ns
    sign = "+" if wait_ns >= 0 else "-"
    told = [
        f"{after.flushes - before.flushes:+,} flushes",
        f"{sign}{format_duration(abs(wait_ns))} of waiting",
    ]
    if after.delay_ns > before.delay_ns:
        told.append(f"acknowledged up to {format_duration(after.delay_ns)} after the write")
    fewer = before.acknowledged - after.acknowledged
    if fewer > 0:
        told.append(f"{fewer:,} acknowledgements fewer by the end")
    return ", ".join(told)
