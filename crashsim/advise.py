"""The cheapest change that ends the loss of acknowledged data.

Contract: what is at fault is read from one History: an acknowledgement that no successful flush
stands behind lacks a sync; one that has such a flush and is lost all the same is the fault of a
setting below. Every change that is advised was run, with all its syncs: no acknowledgement is
uncovered at any instant and no promise is broken, and something is acknowledged. Cheapest first:
fewest flushes, then waiting; before those that give up acknowledgements. At most `MOST_RUNS`
simulations are made, `MOST_SETTINGS` of them for settings; single changes come before pairs.

Missing and redundant syncs are found by `advise_syncs`. Where acknowledging after the sync ends a
loss, two changes are told: that alone, and with syncs behind the records that have none, so that no
acknowledgement waits for a later record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import ValidationError

from crashsim.advise_syncs import (
    MOST_RUNS,
    Advance,
    Figures,
    Places,
    Removal,
    Trials,
    before_marks,
    behind_records,
    figures,
    new_syncs,
    redundant,
)
from crashsim.engine.history import NEVER, History
from crashsim.experiment.model import Experiment, Recording
from crashsim.experiment.units import format_duration
from crashsim.guest.program import Program
from crashsim.inputs import make_inputs
from crashsim.power.losses import Losses
from crashsim.power.safety import Stage

__all__ = ["MOST_RUNS", "advise", "lines"]

MOST_SETTINGS = 36


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
    """A change that was run and ends the loss; `syncs`: where it puts some, `prompt`: so that no
    acknowledgement waits for a later record."""

    changes: tuple[Change, ...]
    syncs: Places | None
    after: Figures
    prompt: bool = False


@dataclass(frozen=True, slots=True)
class Advised:
    """What is wrong, what ends it, and which syncs are redundant."""

    before: Figures
    lost: str  # the first acknowledgement that is lost, and why
    advice: tuple[Advice, ...]
    idle: Removal | None
    ordering: Removal | None
    runs: int


def advise(experiment: Experiment, advance: Advance = lambda _done, _what: None) -> Advised:
    """Find and check what ends the loss."""
    trials = Trials(advance)
    programs = make_inputs(experiment).programs
    history = trials.run(experiment, programs, "as it is")
    before = figures(history)
    found: list[Advice] = []
    if not before.safe:
        found += _with_settings(trials, experiment, programs)
        flushed = before_marks(trials, experiment, programs, history)
        if flushed is not None:
            found.append(Advice((), *flushed))
    idle, ordering = redundant(trials, experiment, programs, history)
    given = before.acknowledged
    found.sort(key=lambda one: (one.after.acknowledged < given, one.after.cost()))
    lost = "" if before.safe else _first_lost(history)
    return Advised(before, lost, tuple(found), idle, ordering, trials.made)


# --- settings -------------------------------------------------------------------------------------


def _with_settings(
    trials: Trials, experiment: Experiment, before: Sequence[Program]
) -> Iterator[Advice]:
    """Single changes that end the loss, pairs if none does; with syncs where they are missing."""
    candidates = list(_settings(experiment))
    for together in (1, 2):
        ended = False
        for changes in combinations(candidates, together):
            changed = _changed(experiment, changes)
            if changed is None or trials.made >= MOST_SETTINGS:
                continue
            programs = make_inputs(changed).programs
            what = ", ".join(change.key for change in changes)
            after = figures(trials.run(changed, programs, what))
            if after.safe:
                one = Advice(changes, new_syncs(before, programs), after)
                ending = list(_ending(trials, changed, before, programs, one))
                ended |= bool(ending)
                yield from ending
        if ended:
            return


def _ending(
    trials: Trials,
    changed: Experiment,
    before: Sequence[Program],
    programs: Sequence[Program],
    one: Advice,
) -> Iterator[Advice]:
    """A change of settings that ends the loss, and with syncs where they are missing. To
    acknowledge nothing any more ends none."""
    if one.after.acknowledged:
        yield one
    if any(change.key.endswith(".acknowledge") for change in one.changes) and trials.left():
        more = behind_records(trials, changed, before, programs)
        if more is not None:
            yield Advice(one.changes, *more, prompt=True)


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
            why = "before records are acknowledged"
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
    if history.facts["recorded"]:
        why = "no flush that succeeded lies between the mark before it and it"
    elif flushed:
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
            text.append(f"     a sync {one.syncs.words} [V2]")
        if one.prompt:
            text.append("     so that no acknowledgement waits for a later record")
    if not before.safe and not found.advice:
        text.append(f"  None of the changes tried ends it ({found.runs} runs).")
    if found.idle:
        text += _removal("Redundant, nothing is stored since the sync before", found.idle)
    if found.ordering:
        text += _removal("Only to order writes, no acknowledgement needs it", found.ordering)
        text.append(
            "     without one, what is written before and after it may be kept in any order"
        )
    return text


def _removal(kind: str, one: Removal) -> list[str]:
    number = len(one.places.after_writes)
    syncs = f"{number:,} sync" + ("" if number == 1 else "s")
    price = _price(one.before, one.after)
    return [f"  {kind}: {syncs},", f"     {one.places.words}", f"     run without ({price})"]


def _price(before: Figures, after: Figures) -> str:
    wait_ns = after.wait_ns - before.wait_ns
    sign = "+" if wait_ns >= 0 else "-"
    price = f"{after.flushes - before.flushes:+,} flushes, "
    price += f"{sign}{format_duration(abs(wait_ns))} of waiting"
    fewer = before.acknowledged - after.acknowledged
    return f"{price}, {fewer:,} acknowledgements fewer by the end" if fewer > 0 else price
