"""The cheapest change that ends the loss of acknowledged data.

Contract: what is at fault is read from one History: an acknowledgement that no successful flush
stands behind lacks a sync; one that has such a flush and is lost all the same is the fault of a
setting below. Every change that is advised was run, with all its syncs: no acknowledgement is
uncovered at any instant and no promise is broken. Cheapest first: fewest flushes, then waiting. At
most `MOST_RUNS` simulations are made; single changes come before pairs.

Where a sync is missing: in a recording before which marks; a workload acknowledges records either
with their last write, and then each lacks one there, or with a sync. A sync is redundant when
nothing was stored since the last one; leaving such syncs out is run, too. Others are never called
redundant, though every acknowledgement might be covered without them: they may order writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import ValidationError

from crashsim.engine.history import NEVER, History
from crashsim.engine.streams import I64
from crashsim.experiment.model import Experiment, Recording
from crashsim.experiment.units import format_duration
from crashsim.guest.program import Op, Program
from crashsim.inputs import make_inputs
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage
from crashsim.stack import simulate

MOST_RUNS = 60
Advance = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run loses and costs."""

    uncovered: int  # acknowledgements, at the worst instant
    broken: int
    flushes: int
    wait_ns: int

    @property
    def safe(self) -> bool:
        return not self.uncovered and not self.broken

    def cost(self) -> tuple[int, int]:
        return self.flushes, self.wait_ns


@dataclass(frozen=True, slots=True)
class Change:
    """A setting: its place in the experiment, before and after, the rule, and how it is spelled."""

    key: str
    old: str
    new: str
    rule: str
    means: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that was run and ends the loss. `syncs`: flushes put in before acknowledgements."""

    changes: tuple[Change, ...]
    syncs: tuple[str, ...]
    after: Figures


@dataclass(frozen=True, slots=True)
class Advised:
    """What is wrong, what ends it, and which syncs do nothing."""

    before: Figures
    lost: str  # the first acknowledgement that is lost, and why
    advice: tuple[Advice, ...]
    redundant: int
    without_redundant: Figures | None
    runs: int


def advise(experiment: Experiment, advance: Advance = lambda _done, _what: None) -> Advised:
    """Find and check what ends the loss."""
    inputs = make_inputs(experiment)
    history = simulate(experiment, inputs.programs)
    before = figures(history)
    runs = 1
    found: list[Advice] = []
    if not before.safe:
        candidates = list(_settings(experiment))
        for changes in [*combinations(candidates, 1), *combinations(candidates, 2)]:
            covered = any(set(one.changes) <= set(changes) for one in found)
            if covered or runs >= MOST_RUNS or (len(changes) == 2 and found):
                continue
            changed = _changed(experiment, changes)
            if changed is None:
                continue
            advance(runs, ", ".join(change.key for change in changes))
            after = figures(simulate(changed, make_inputs(changed).programs))
            runs += 1
            if after.safe:
                found.append(Advice(changes, (), after))
        for one in _with_syncs(experiment, history, inputs.programs):
            found.append(one)
            runs += 1
    fewer, without = _redundant(history, inputs.programs)
    after_removal = None
    if without is not None:
        after_removal = figures(simulate(experiment, without))
        runs += 1
        if (after_removal.uncovered, after_removal.broken) > (before.uncovered, before.broken):
            fewer, after_removal = 0, None
    found.sort(key=lambda one: one.after.cost())
    lost = "" if before.safe else _first_lost(history)
    return Advised(before, lost, tuple(found), fewer, after_removal, runs)


def figures(history: History) -> Figures:
    """What a power cut takes at the worst instant, and the price."""
    found = Losses(history, Stage.DURABLE)
    inside = found.uncovered.instants < history.end_ns
    values = found.uncovered.values[inside]
    return Figures(
        uncovered=int(values.max()) if values.size else 0,
        broken=int(found.broken[0].size),
        flushes=int(history.flush_device.size),
        wait_ns=int(history.facts["guest_wait_ns"]),
    )


# --- settings -------------------------------------------------------------------------------------


def _settings(experiment: Experiment) -> Iterator[Change]:
    """Settings that may be at fault, with the nearest one that is not."""
    for number, (device, workload, sync) in enumerate(experiment.resolved_devices()):
        single = experiment.device is not None
        here = "device" if single else f"devices.{number}"
        kind = device.backing.kind
        if kind != "file":
            means = {"private": "QEMU: share=on,readonly=off", "ram": "QEMU: memory-backend-file"}
            rule = "V5" if kind == "ram" else "V4"
            words = means.get(kind, "a file on a disk")
            yield Change(f"{here}.backing.kind", kind, "file", rule, words)
        if device.type == "nvdimm":
            yield Change(f"{here}.type", "nvdimm", "virtio-pmem", "V9", "it has a flush path")
        if device.cache == "unsafe":
            yield Change(f"{here}.cache", "unsafe", "writeback", "V9")
        if isinstance(workload, Recording):
            continue
        own = not single and device.workload is not None
        place = f"{here}.workload" if own else "workload"
        if workload.acknowledge == "before-sync":
            why = "acknowledge when the sync has returned"
            yield Change(f"{place}.acknowledge", "before-sync", "after-sync", "V2", why)
        if sync.call in ("none", "msync-async"):
            place = f"{here}.sync" if not single and device.sync is not None else "sync"
            why = "after the last write of each record, before it is acknowledged"
            yield Change(f"{place}.call", sync.call, "fdatasync", "H12", why)
    if experiment.vmm == "firecracker-reused-result":
        yield Change("vmm", experiment.vmm, "firecracker", "V3", "one msync for each request")
        if experiment.guest.driver == "concurrent":
            yield Change("guest.driver", "concurrent", "serialized", "G7")
    for reaction in ("panic", "rewrite"):
        if experiment.guest.on_sync_error in ("give-up", "retry"):
            old = experiment.guest.on_sync_error
            yield Change("guest.on_sync_error", old, reaction, "H14")
    if experiment.disk.ignores_flush:
        yield Change("disk.ignores_flush", "true", "false", "D4", "a disk that honours FLUSH")
    for name in ("ignored_flush", "shorn", "corrupted", "dead"):
        if getattr(experiment.disk.faults, name).configured:
            yield Change(f"disk.faults.{name}", "configured", "none", "D4", "another disk")
    if not experiment.disk.plp:
        yield Change("disk.plp", "false", "true", "D4", "a disk with power-loss protection")


def _changed(experiment: Experiment, changes: Sequence[Change]) -> Experiment | None:
    """The experiment with the changes; None if it makes no sense."""
    if len({change.key for change in changes}) < len(changes):
        return None
    tree = experiment.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        *path, last = change.key.split(".")
        node: Any = tree
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if change.new == "none":
            node.pop(last, None)
        else:
            node[last] = {"true": True, "false": False}.get(change.new, change.new)
    try:
        return Experiment.model_validate(tree)
    except ValidationError:
        return None


# --- syncs ----------------------------------------------------------------------------------------


def _with_syncs(
    experiment: Experiment, history: History, programs: Sequence[Program]
) -> Iterator[Advice]:
    """A recording: a flush before each mark that none stands behind, and no more than needed."""
    if len(programs) != 1 or not programs[0].labels:
        return
    program = programs[0]
    marks = np.flatnonzero(program.op_kind == Op.MARK)
    chosen: list[int] = []
    while True:  # the first mark that is not covered when it is given needs a flush before it
        after = simulate(experiment, [_flushed(program, marks[chosen])])
        ready = _covered_when_given(after)
        missing = np.flatnonzero(~ready)
        new = [int(one) for one in missing[:1] if int(one) not in chosen]
        if not new or len(chosen) >= MOST_RUNS:
            break
        # Acknowledgements in a row each need one: take the whole row at once.
        row = missing[: int(np.argmax(np.append(np.diff(missing) != 1, True))) + 1]
        chosen = sorted({*chosen, *row.tolist()})
    result = figures(after)
    if result.safe and chosen:
        names = tuple(program.labels[int(program.op_argument[marks[one]])] for one in chosen)
        yield Advice((), names, result)


def _covered_when_given(history: History) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    ready: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ready = Losses(history, Stage.DURABLE).covered_ns <= history.ack_t_ns
    return ready


def _flushed(program: Program, before: I64) -> Program:
    """The program with a flush before each of some operations."""
    keep = np.arange(program.op_at.size)
    order = np.argsort(np.concatenate([2 * keep + 1, 2 * before]), kind="stable")

    def column(values: I64, added: int | I64) -> I64:
        more = np.broadcast_to(np.asarray(added, dtype=np.int64), before.shape)
        joined: I64 = np.concatenate([values, more])[order]
        return joined

    return replace(
        program,
        op_at=column(program.op_at, program.op_at[before]),
        op_kind=column(program.op_kind, int(Op.FLUSH)),
        op_delay_ns=column(program.op_delay_ns, 0),
        op_argument=column(program.op_argument, 1),
    )


def _redundant(history: History, programs: Sequence[Program]) -> tuple[int, list[Program] | None]:
    """Syncs with nothing stored since the one before, and the programs without them."""
    fewer, changed = 0, []
    for program in programs:
        syncs = np.isin(program.op_kind, (Op.SYNC, Op.FLUSH)) & (program.op_argument <= 1)
        rows = np.flatnonzero(syncs)
        again = rows[1:][program.op_at[rows[1:]] == program.op_at[rows[:-1]]]
        marks = np.flatnonzero(program.op_kind == Op.MARK)
        # An acknowledgement between the two makes the second one stand behind it.
        between = np.searchsorted(marks, again) > np.searchsorted(marks, again - 1)
        again = again[~between]
        fewer += int(again.size)
        keep = np.ones(program.op_at.size, dtype=bool)
        keep[again] = False
        changed.append(
            replace(
                program,
                op_at=program.op_at[keep],
                op_kind=program.op_kind[keep],
                op_delay_ns=program.op_delay_ns[keep],
                op_argument=program.op_argument[keep],
            )
        )
    return fewer, changed if fewer else None


def _first_lost(history: History) -> str:
    """The first acknowledgement that can be lost, and what it lacks."""
    found = Losses(history, Stage.DURABLE)
    safe = found.covered_ns
    late = np.flatnonzero(safe > history.ack_t_ns)
    if not late.size and found.uncovered.instants.size:
        return "what had been durable was lost again: the disk is at fault (D4)"
    if not late.size:
        return "a flush was acknowledged with success and a store it covers was not durable (V2)"
    ack = int(late[0])
    given = int(history.ack_t_ns[ack])
    label = str(history.ack_label[ack])
    last_write = int(history.ack_high[ack]) - 1
    name = f"'{label}'" if label else f"of write {last_write}"
    rows = np.flatnonzero(history.store_write == last_write)
    stored = int(history.store_t_ns[rows[-1]]) if rows.size else 0
    behind = (history.flush_submit_ns > stored) & (history.flush_ack_ns <= given)
    flushed = bool(np.any(behind & (history.flush_result == 0)))
    until = "never safe" if safe[ack] == NEVER else f"safe at {format_duration(int(safe[ack]))}"
    if flushed:
        why = "although a flush behind it had succeeded: a setting below is at fault"
    else:
        why = f"no sync that succeeded lies between write {last_write} and it"
    return f"the acknowledgement {name}, given at {format_duration(given)}, is {until}: {why}"


# --- words ----------------------------------------------------------------------------------------


def lines(name: str, found: Advised) -> list[str]:
    """What is said on a terminal."""
    before = found.before
    if before.safe:
        text = [f"{name}: no acknowledgement is ever lost and no promise is broken."]
    else:
        text = [
            f"{name}: up to {before.uncovered:,} acknowledgements are lost, {before.broken:,} "
            "promises broken.",
            f"  First: {found.lost}.",
        ]
    for number, one in enumerate(found.advice, start=1):
        text.append(f"  {number}. ends it, checked by running it ({_price(before, one.after)}):")
        for change in one.changes:
            means = f"   ({change.means})" if change.means else ""
            text.append(f"     {change.key}: {change.old} -> {change.new}{means} [{change.rule}]")
        if one.syncs:
            some = ", ".join(one.syncs[:5]) + (" ..." if len(one.syncs) > 5 else "")
            text.append(f"     a flush before each of {len(one.syncs):,} marks: {some} [V2]")
    if not before.safe and not found.advice:
        text.append(f"  None of the changes tried ends it ({found.runs} runs).")
    if found.redundant and found.without_redundant is not None:
        price = _price(before, found.without_redundant)
        text.append(f"  {found.redundant:,} syncs follow another with nothing stored ({price}).")
    return text


def _price(before: Figures, after: Figures) -> str:
    wait_ns = after.wait_ns - before.wait_ns
    sign = "+" if wait_ns >= 0 else "-"
    waiting = f"{sign}{format_duration(abs(wait_ns))}"
    return f"{after.flushes - before.flushes:+,} flushes, {waiting} of waiting"
