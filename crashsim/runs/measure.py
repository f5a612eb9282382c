"""All figures of one case: a pure function of its History (and, for chosen cuts, of real files).

Losses are those of a host power cut unless they are listed under another failure domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from crashsim.engine.history import History, Reason
from crashsim.engine.pages import PAGE_BYTES, unique_sorted
from crashsim.engine.units import exact_instant
from crashsim.errors import NothingExplored
from crashsim.experiment.expect import judge
from crashsim.experiment.loader import Case
from crashsim.experiment.model import Experiment
from crashsim.power import cuts
from crashsim.power.broken_promises import schedule_of
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, Stage, kept_stage
from crashsim.power.steps import Ramps, StepFunction, ramp_spread, spread
from crashsim.power.tell import Teller
from crashsim.replay import comparison
from crashsim.results import (
    ADDED,
    FIGURES,
    MADE,
    CaseResult,
    DeviceResult,
    Example,
    Expectation,
    Make,
    Marks,
    Means,
    Schedule,
    Spread,
    thinning,
)
from crashsim.simulate.inputs import Inputs

EXAMPLES_EACH = 2


class _Found:
    """What figures are made of."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.losses = Losses(history, Stage.DURABLE)

    @property
    def bytes_written(self) -> int:
        """By the host, to the disk."""
        return int(self.history.io_pages.sum()) * PAGE_BYTES + self.history.info.metadata_bytes

    def figures(self, makers: Mapping[str, Make]) -> dict[str, Any]:
        """Every one as it is kept."""
        return {name: self._kept(make(self)) for name, make in makers.items()}

    def _kept(self, made: Any) -> int | Spread:
        if isinstance(made, Ramps):
            return ramp_spread(made, self.history.end_ns)
        return spread(made, self.history.end_ns) if isinstance(made, StepFunction) else int(made)


def measure(case: Case, history: History, inputs: Inputs, paranoid: bool) -> CaseResult:
    """The figures of a case; `paranoid`: compare files at every durability event."""
    if not history.store_t_ns.size or not history.end_ns:
        raise NothingExplored(f"{case.name}: the guest wrote nothing, so nothing was explored")
    end = history.end_ns
    power = case.experiment.power
    options = power.host_crash
    found = _Found(history)
    losses = found.losses
    stages = _stages(history, losses.at_risk)
    chosen = cuts.instants(history, power, losses.at_risk, paranoid)
    domains = [
        comparison.figures(
            history, Domain(name), options, stages[kept_stage(Domain(name), options)]
        )
        for name in power.domains
    ]
    compared = comparison.compare(history, inputs, chosen, domains)
    result = CaseResult(
        name=case.name,
        parameters=case.parameters,
        seed=case.experiment.seed,
        end_ns=end,
        **found.figures(MADE),
        recorded=history.info.recorded,
        syncs=_syncs(case.experiment, history),
        loss=thinning.largest(losses.at_risk, end, thinning.EXACT_STEPS),
        recovery_point=thinning.saw_teeth(*losses.recovery, end, thinning.PICTURE_STEPS),
        layers=layers(stages, end, thinning.PICTURE_STEPS),
        domains={str(d): spread(stages[kept_stage(d, options)], end) for d in Domain},
        uncovered_by_domain={str(d.domain): spread(d.uncovered, end) for d in domains},
        devices=_devices(history),
        cuts=compared,
        examples=_examples(losses),
        schedules=_schedules(losses),
        marks=_marks(history),
        notices=inputs.notices + _hints(case.experiment) + _notices(history),
        added=found.figures(ADDED),
    )
    return _judged(case, result, history)


def _stages(history: History, durable: StepFunction) -> dict[Stage, StepFunction]:
    """Bytes whose latest store has not reached a stage, over time."""
    nothing = StepFunction(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    found = {Stage.STORED: nothing, Stage.DURABLE: durable}
    for stage in (Stage.IN_HOST, Stage.SUBMITTED, Stage.COMPLETED, Stage.ELSEWHERE):
        if stage is Stage.IN_HOST and all(history.info.dax):
            found[stage] = nothing
        else:
            found[stage] = Losses(history, stage).at_risk
    info = history.info
    for stage in (Stage.IN_FILE, Stage.AFTER_QUIT):
        outlives = not {"private", "ram"}.intersection(info.media)
        if outlives and not (stage is Stage.AFTER_QUIT and any(info.discard_data)):
            found[stage] = found[Stage.IN_HOST]
        else:
            found[stage] = Losses(history, stage).at_risk
    return found


_INWARD = (Stage.STORED, Stage.IN_HOST, Stage.SUBMITTED, Stage.COMPLETED, Stage.DURABLE)


def layers(
    stages: dict[Stage, StepFunction], end_ns: int, limit: int, intervals: int = thinning.COLUMNS
) -> dict[str, Means]:
    """Bytes at risk by the layer that holds their latest version: what got past one stage but not
    the next; beyond `limit` steps the mean of each of `intervals` (fewer than `limit`)."""
    t_ns = unique_sorted(np.concatenate([stages[stage].instants for stage in _INWARD]))
    t_ns = t_ns[t_ns <= end_ns]
    edges = thinning.edges_of(0, end_ns, intervals)[:-1].tolist()
    found: dict[str, Means] = {}
    for number, (inner, outer) in enumerate(pairwise(_INWARD), start=1):
        values = thinning.values_at(stages[outer], t_ns) - thinning.values_at(stages[inner], t_ns)
        if t_ns.size <= limit:
            found[f"L{number}"] = Means(t_ns.tolist(), values.tolist())
        else:
            shown = thinning.means(StepFunction(t_ns, values), end_ns, intervals)
            found[f"L{number}"] = Means(edges, shown.tolist(), exact=False)
    return found


def _devices(history: History) -> list[DeviceResult]:
    if len(history.devices) == 1:
        return []
    wanted = {one.name: MADE[one.name] for one in fields(DeviceResult) if one.name in MADE}
    return [
        DeviceResult(name=span.name, **_Found(only(history, device)).figures(wanted))
        for device, span in enumerate(history.devices)
    ]


def only(history: History, device: int) -> History:
    """The History with the stores, flushes and acknowledgements of one device alone."""
    span = history.devices[device]
    stores = (history.store_offset >= span.first_byte) & (history.store_offset < span.end_byte)
    flushes = history.flush_device == device
    acks = history.ack_device == device
    changed = {
        name: getattr(history, name)[rows]
        for prefix, rows in (("store_", stores), ("ack_", acks), ("flush_", flushes))
        for name in history.columns()
        if name.startswith(prefix) and not name.startswith("flush_disk_")
    }
    return replace(history, **changed)


def _marks(history: History) -> Marks:
    end = history.end_ns
    acked = history.flush_ack_ns[history.flush_ack_ns <= end]
    flusher = history.batch_reason == Reason.FLUSHER
    other = (history.batch_reason == Reason.BACKGROUND) | (history.batch_reason == Reason.EARLY)
    return Marks(
        flush_acks=thinning.evenly(np.sort(acked)),
        flusher_passes=thinning.evenly(history.batch_t_ns[flusher]),
        other_writeback=thinning.evenly(history.batch_t_ns[other]),
        acknowledgements=thinning.evenly(history.ack_t_ns[history.ack_t_ns <= end]),
    )


def _schedules(found: Losses) -> list[Schedule]:
    """The first broken promise, if any; if there is a choice, of a write that was not divided."""
    history = found.history
    requests, stores, _until = found.broken
    if not requests.size:
        return []
    parts = np.bincount(history.store_write)[history.store_write[stores]]
    chosen = int(parts.argmin())
    return [schedule_of(history, found.safety, int(requests[chosen]), int(stores[chosen]))]


def _syncs(experiment: Experiment, history: History) -> bool:
    """Whether the guest's program asks for durability: of a recording its flushes tell."""
    if history.info.recorded:
        return bool(history.flush_device.size)
    asks = (sync.flushes for _, _, sync in experiment.resolved_devices())
    return any(asks)


_MEMORY = {
    "private": "is a private mapping: its bytes are the monitor's own (L2 in the pictures) and "
    "never reach the file, though its flushes succeed (V4)",
    "tmpfs": "is a file on tmpfs: its flushes succeed and do nothing (V4, H15)",
    "hugetlbfs": "is a file on hugetlbfs: its flushes succeed and do nothing (V4, H15)",
    "ram": "has no file: every flush of it fails (V5)",
}


def _hints(experiment: Experiment) -> list[str]:
    """What the devices' memory is if it is not a file's, and what the guest's program was told
    (Rules V4, V5, V9, G3)."""
    hints = []
    for device, _, _ in experiment.resolved_devices():
        if device.backing.kind in _MEMORY:
            hints.append(f"{device.name} {_MEMORY[device.backing.kind]}")
        if device.type == "nvdimm":
            hints.append(f"{device.name} has no flush path: its syncs return at once (V9)")
    if not experiment.guest.map_sync:
        return hints
    return [
        *hints,
        "MAP_SYNC was refused with EOPNOTSUPP (95): the device cannot make stores durable by "
        "themselves, so the program must call fsync or msync (G3)",
    ]


def _notices(history: History) -> list[str]:
    info = history.info
    notices = [
        f"{key} at {exact_instant(t)} never fired: nothing came at or after it"
        for key, t in info.faults_not_fired
    ]
    if info.sigbus is not None:
        at, device = exact_instant(info.sigbus.t_ns), info.sigbus.device
        notices.append(
            f"the host's file system was full: a store to a hole of {device} killed the monitor "
            f"with SIGBUS at {at}; no flush reported anything (V6)"
        )
    for span, at_ns in zip(history.devices, info.journal_aborted_ns, strict=True):
        if at_ns is not None:
            notices.append(
                f"a flush of a commit of the guest's ext4 on {span.name} failed at "
                f"{exact_instant(at_ns)}: the journal aborts, no store and no sync succeeds from "
                "then on (G9)"
            )
    if info.panicked_ns is not None:
        at = exact_instant(info.panicked_ns)
        notices.append(f"the guest panicked at {at} after a failed sync: the run ends there")
    return notices


def _examples(found: Losses) -> list[Example]:
    tell, history = Teller(found), found.history
    examples = tell.peak()
    for request, store, until in list(zip(*found.broken, strict=True))[:EXAMPLES_EACH]:
        examples.append(tell.broken_promise(int(request), int(store), int(until)))
    for position in found.holes[:EXAMPLES_EACH].tolist():
        examples.append(tell.hole(position))
    for position in found.torn[:EXAMPLES_EACH].tolist():
        examples.append(tell.torn(position))
    # One whose record's last word lands after the end is not given in this run.
    given = history.ack_t_ns <= history.end_ns
    late = np.flatnonzero(given & (found.covered_ns > history.ack_t_ns))
    if late.size:
        wait_ns = np.minimum(found.covered_ns, history.end_ns)[late] - history.ack_t_ns[late]
        worst = int(late[np.argmax(wait_ns)])
        examples.append(tell.uncovered(worst, int(found.covered_ns[worst])))
    return examples


def _judged(case: Case, result: CaseResult, history: History) -> CaseResult:
    expected = case.experiment.expect.model_copy(update={"findings": None})  # judged when explored
    expectations = judge(expected, {name: figure.of(result) for name, figure in FIGURES.items()})
    idle = len(history.info.faults_not_fired)
    if history.info.faults_configured:  # a fault that never fires proves nothing
        expectations.append(Expectation("faults_not_fired", "== 0", idle, "", idle == 0))
    return replace(result, expectations=expectations)
