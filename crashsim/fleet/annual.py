"""What a fleet loses in a year, kind by kind, as it is and with what its file would change.

Contract: every host of a kind does what its experiment does, simulated once. Loss in bytes and
acknowledgements is exact over the instants of the run. Where the experiment explores, a machine may
be corrupted by a cut at an instant of whose epoch a state was rejected: the share of the run that
such epochs take is the most that the exploration bears out, no estimate of how often it happens.
A disk that dies takes all that is on it, which no experiment knows: it is counted, not weighed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crashsim.errors import UsageError
from crashsim.experiment.loader import load
from crashsim.fleet.hosts import Fleet, Hosts
from crashsim.fleet.year import F64, Failures, OneLoss, Yearly, spread_of, yearly
from crashsim.runs.curve import Curve
from crashsim.runs.judged import explore_case
from crashsim.runs.one import Run

REJECTED = ("finding", "crash")  # verdicts
DOMAINS = {"power_cuts": "power-cut", "host_crashes": "host-crash", "vmm_kills": "vmm-kill"}
Explored = Callable[[Run, str], float | None]


@dataclass(frozen=True, slots=True)
class Lost:
    """In a year: bytes, acknowledgements, and machines that lose at least one acknowledgement, may
    be corrupted (None: not explored), or lose their disk."""

    bytes: Yearly
    acknowledgements: Yearly
    machines: float
    corrupted: float | None
    disks: float


@dataclass(frozen=True, slots=True)
class KindLost:
    """Of the hosts of one kind; `changed`: with what its `change` sets, None without one."""

    hosts: Hosts
    failures: dict[str, float]  # failure domain -> how often a year, in all these hosts
    now: Lost
    changed: Lost | None


@dataclass(frozen=True, slots=True)
class FleetLost:
    """A fleet's year: every kind, and all together (what is not changed stays as it is)."""

    fleet: Fleet
    kinds: list[KindLost]
    now: Lost
    changed: Lost | None


def lost_in_a_year(
    fleet: Fleet, folder: Path, explored: Explored, advance: Callable[[int, str], None]
) -> FleetLost:
    """`folder`: what experiments are relative to; `explored` gives the share of a run in which a
    cut may corrupt, `advance(done, name)` tells how far it is. ExperimentError, UsageError."""
    kinds, years = [], []
    for number, hosts in enumerate(fleet.hosts):
        advance(number, hosts.name)
        now, drawn = _lost(fleet, hosts, [], folder, explored)
        changed, drawn_changed = None, drawn
        if hosts.change:
            sets = [f"{key}={_text(value)}" for key, value in hosts.change.items()]
            changed, drawn_changed = _lost(fleet, hosts, sets, folder, explored)
        kinds.append(KindLost(hosts, {d: r for d, r in _rates(hosts).items() if r}, now, changed))
        years.append((drawn, drawn_changed))
    now = _together([one.now for one in kinds], [pair[0] for pair in years])
    changed = None
    if any(one.changed for one in kinds):
        changed = _together([one.changed or one.now for one in kinds], [pair[1] for pair in years])
    return FleetLost(fleet, kinds, now, changed)


def may_corrupt(workers: int) -> Explored:
    """For `lost_in_a_year`: explores a run as its experiment says."""

    def share(run: Run, file: str) -> float | None:
        if run.experiment.explore is None:
            return None
        epochs = explore_case(run, file, workers, causes=False).found.result.epochs
        ns = [one.cut_ns + 1 - one.first_ns for one in epochs]
        bad = [any(one.verdicts.get(kind) for kind in REJECTED) for one in epochs]
        return sum(length for length, is_bad in zip(ns, bad, strict=True) if is_bad) / sum(ns)

    return share


def _rates(hosts: Hosts) -> dict[str, float]:
    """How often a year a domain fails in all hosts of a kind; what a UPS holds does not count."""
    rates = {d: hosts.count * getattr(hosts.per_year, name) for name, d in DOMAINS.items()}
    rates["power-cut"] *= 1 - hosts.ups
    return rates


Drawn = tuple[F64, F64]


def _lost(
    fleet: Fleet, hosts: Hosts, sets: list[str], folder: Path, explored: Explored
) -> tuple[Lost, Drawn]:
    run = _run(hosts, sets, folder)
    of_bytes, of_acks, machines = [], [], 0.0
    for domain, rate in _rates(hosts).items():
        together = min(hosts.cut_together, hosts.count) if domain == "power-cut" else 1
        if not rate:
            continue
        acks = one_loss(run.uncovered(domain))
        of_bytes.append(Failures(rate / together, together, one_loss(run.loss(domain))))
        of_acks.append(Failures(rate / together, together, acks))
        machines += rate * float(acks.ns[acks.amount > 0].sum() / acks.ns.sum())
    lost_bytes, drawn_bytes = yearly(of_bytes, fleet.seed, f"{hosts.name}/bytes", fleet.years)
    lost_acks, drawn_acks = yearly(of_acks, fleet.seed, f"{hosts.name}/acks", fleet.years)
    share = explored(run, str(folder / hosts.experiment))
    corrupted = None if share is None else _rates(hosts)["power-cut"] * share
    disks = hosts.count * hosts.per_year.disk_deaths
    return Lost(lost_bytes, lost_acks, machines, corrupted, disks), (drawn_bytes, drawn_acks)


def _run(hosts: Hosts, sets: list[str], folder: Path) -> Run:
    plan = load(folder / hosts.experiment, sets, None)
    cases = [case for case in plan.cases if hosts.case in (None, case.name)]
    if len(cases) != 1:
        names = ", ".join(case.name for case in plan.cases)
        raise UsageError(f"{hosts.name}: `case` is one of {names}")
    return Run(cases[0])


def one_loss(curve: Curve) -> OneLoss:
    """The values of a curve that does not grow, and for how long each holds."""
    inside = curve.t_ns < curve.end_ns
    t_ns = np.append(0, curve.t_ns[inside])
    ns = np.diff(t_ns, append=curve.end_ns)
    return OneLoss(np.append(0, curve.values[inside])[ns > 0], ns[ns > 0])


def _together(kinds: list[Lost], drawn: list[Drawn]) -> Lost:
    corrupted = [one.corrupted for one in kinds if one.corrupted is not None]
    return Lost(
        _sum([one.bytes for one in kinds], [pair[0] for pair in drawn]),
        _sum([one.acknowledgements for one in kinds], [pair[1] for pair in drawn]),
        sum(one.machines for one in kinds),
        sum(corrupted) if corrupted else None,
        sum(one.disks for one in kinds),
    )


def _sum(kinds: list[Yearly], drawn: list[F64]) -> Yearly:
    years = min(one.size for one in drawn)
    mean = sum(one.mean for one in kinds)
    deviation = sum(one.deviation**2 for one in kinds) ** 0.5
    return spread_of(mean, deviation, sum((one[:years] for one in drawn), np.zeros(years)))


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
