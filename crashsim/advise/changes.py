"""The changes of an experiment that may end a loss, and the command that shows one.

Contract: a change is what `--set` takes, so that what is tried is what the command runs. The
settings that may be at fault are told with the nearest one that is not. The policies are tried with
every one of them, from a sync behind each record to one a second: what comes less often costs less
and lets acknowledgements wait for longer.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from crashsim.errors import ExperimentError
from crashsim.experiment.applications import Recording, Sync
from crashsim.experiment.backing import Device
from crashsim.experiment.document import find, plain, read
from crashsim.experiment.loader import Case, load
from crashsim.experiment.model import Experiment

NO_LOSS = "{uncovered_acknowledgements: 0, broken_promises: 0}"
_EVERY = ("1 records", "10 records", "100 records", "10ms", "100ms", "1s")
_PLAIN = re.compile(r"[A-Za-z0-9./][A-Za-z0-9 ./_-]*")
_JUDGED = ("name", "description", "expect", "cases", "sweep")


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the experiment, its value before and after, the rule, and how it is spelled."""

    key: str
    old: str
    new: str  # as `--set` takes it; `{}`: as if it were not there
    rule: str
    means: str = ""

    @property
    def text(self) -> str:
        """For `--set`."""
        return f"{self.key}={self.new}"


Changes = tuple[Change, ...]


def settings(experiment: Experiment) -> Iterator[Change]:
    """Settings that may be at fault, but for the program's own."""
    single = experiment.device is not None
    for number, (device, _, _) in enumerate(experiment.resolved_devices()):
        yield from _of_device("device" if single else f"devices.{number}", device)
    if experiment.vmm == "firecracker-reused-result":
        yield Change("vmm", experiment.vmm, "firecracker", "V3", "one msync for each request")
        if experiment.guest.driver == "concurrent":
            yield Change("guest.driver", "concurrent", "serialized", "G7")
    reaction = experiment.guest.on_sync_error
    if reaction in ("give-up", "retry"):
        for better in ("panic", "rewrite"):
            yield Change("guest.on_sync_error", reaction, better, "H14")
    if experiment.disk.ignores_flush:
        yield Change("disk.ignores_flush", "true", "false", "D4", "a disk that honours FLUSH")
    for name in experiment.disk.faults.configured():
        yield Change(f"disk.faults.{name}", "configured", "{}", "D4", "another disk")
    if not experiment.disk.plp:
        yield Change("disk.plp", "false", "true", "D4", "a disk with power-loss protection")


def _of_device(here: str, device: Device) -> Iterator[Change]:
    kind = device.backing.kind
    if kind != "file":
        told = {"private": "QEMU: share=on,readonly=off", "ram": "QEMU: memory-backend-file"}
        means, rule = told.get(kind, "a file on a disk"), "V5" if kind == "ram" else "V4"
        yield Change(f"{here}.backing.kind", kind, "file", rule, means)
    if device.type == "nvdimm":
        yield Change(f"{here}.type", "nvdimm", "virtio-pmem", "V9", "it has a flush path")
    if device.cache == "unsafe":
        yield Change(f"{here}.cache", "unsafe", "writeback", "V9")


def programs(experiment: Experiment) -> list[Changes]:
    """What the programs may do instead, the strictest first: acknowledge after their syncs, and
    sync by each of the policies. Empty for recordings, which nobody can change."""
    places = list(_places(experiment))
    if not places:
        return []
    early = tuple(change for change, _, _ in places if change is not None)
    lacking = [(key, sync) for change, key, sync in places if change or not sync.flushes]
    policies = dict(lacking or [(key, sync) for _, key, sync in places])
    found = [early + _policy(policies, f"every: {every}") for every in _EVERY]
    if any(workload.vcpus > 1 for _, workload, _ in _synthetic(experiment)):
        found.append(early + _policy(policies, "group: true"))
    if early and all(sync.flushes for sync in policies.values()):
        found.append(early)
    return found


def at_fault(experiment: Experiment) -> bool:
    """Whether a program acknowledges what no sync stands behind."""
    return any(change or not sync.flushes for change, _, sync in _places(experiment))


def _synthetic(experiment: Experiment) -> Iterator[tuple[int, Any, Sync]]:
    for number, (_, workload, sync) in enumerate(experiment.resolved_devices()):
        if not isinstance(workload, Recording):
            yield number, workload, sync


def _places(experiment: Experiment) -> Iterator[tuple[Change | None, str, Sync]]:
    """Of each program: its acknowledgement, where it has to move, and the key of its policy."""
    told: set[str] = set()
    for number, workload, sync in _synthetic(experiment):
        device = None if experiment.devices is None else experiment.devices[number]
        here = f"devices.{number}."
        place = f"{here if device and device.workload is not None else ''}workload.acknowledge"
        change = None
        if workload.acknowledge == "before-sync" and place not in told:
            told.add(place)
            means = "acknowledge when the sync has returned"
            change = Change(place, "before-sync", "after-sync", "V2", means)
        yield change, f"{here if device and device.sync is not None else ''}sync", sync


def _policy(policies: dict[str, Sync], how: str) -> Changes:
    changes = []
    for key, sync in policies.items():
        old = flow(sync.model_dump(mode="json", exclude_unset=True) or {"call": sync.call})
        call = sync.call if sync.flushes else "fdatasync"
        changes.append(Change(key, old, f"{{call: {call}, {how}}}", "V2"))
    return tuple(changes)


def changed(experiment: Experiment, changes: Sequence[Change]) -> Experiment | None:
    """The experiment with the changes; None if it makes no sense."""
    if len({change.key for change in changes}) < len(changes):
        return None  # one of them twice
    tree = experiment.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        *path, last = change.key.split(".")
        node: Any = tree
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        value, _ = read(change.new, change.key)
        assert value is not None
        node[last] = plain(value)
        if not node[last] and isinstance(node[last], dict):
            del node[last]
    try:
        return Experiment.model_validate(tree)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class Typed:
    """What the user typed: a file and `--set`."""

    file: str
    overrides: tuple[str, ...] = ()

    def command(self, case: Case, changes: Sequence[Change], expect: str) -> str:
        """The command that runs a case with the changes and expects this; '' when there is none,
        as for a device that a monitor's command line describes."""
        wanted = changed(case.experiment, changes)
        own = list(self.overrides)
        if case.parameters:
            own += ["sweep=null", *(f"{key}={_swept(case, key)}" for key in case.parameters)]
        anew = tuple(f"{key}." for key in ("cases", "expect", *(one.key for one in changes)))
        own = [one for one in own if not f"{one.partition('=')[0].strip()}.".startswith(anew)]
        more = [*own, *(change.text for change in changes), "cases={}", f"expect={expect}"]
        try:
            plan = load(self.file, more)
        except ExperimentError:
            return ""
        if len(plan.cases) != 1 or wanted is None or _run(plan.cases[0].experiment) != _run(wanted):
            return ""
        words = [part for one in more for part in ("--set", one)]
        return shlex.join(["crashsim", "run", self.file, *words])


def _swept(case: Case, key: str) -> str:
    """What the sweep set, as `--set` takes it."""
    node = find(case.tree, tuple(key.split(".")))
    return flow(None if node is None else plain(node))


def flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = str(value)
    return text if not isinstance(value, str) or _PLAIN.fullmatch(text) else json.dumps(text)


def _run(experiment: Experiment) -> dict[str, Any]:
    """What it comes to, whatever is expected of it."""
    return {
        key: value
        for key, value in experiment.model_dump(mode="json").items()
        if key not in _JUDGED
    }
