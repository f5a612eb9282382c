"""Results as runs would give them, small and large, for the tests of the reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from crashsim.report.readback import from_json, read_document
from crashsim.results import (
    CaseResult,
    Cut,
    DeviceResult,
    Example,
    Expectation,
    Marks,
    Means,
    Results,
    Schedule,
    ScheduleSpan,
    Spread,
    Steps,
)

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
RATE = 512_000  # bytes a second: 2000 records of 256 B
END = 80 * SECOND
NO_SPREAD = Spread(0, 0, 0)
NO_STEPS = Steps([], [])
HOSTILE = '<script>alert("x")</script> | `a` & %0A::error::\x1b[31m'


def read(path: Path) -> Results:
    """The results in a file."""
    return from_json(read_document(path), str(path))


def spread_of(steps: Steps, end_ns: int) -> Spread:
    """Maximum and percentiles, the slow way."""
    held: list[tuple[int, int]] = [(0, steps.instants[0] if steps.instants else end_ns)]
    ends = [*steps.instants[1:], end_ns]
    held += [(v, b - a) for a, b, v in zip(steps.instants, ends, steps.values, strict=True)]

    def percentile(percent: int) -> int:
        passed = 0
        for value, time in sorted(held):
            passed += time
            if passed * 100 >= end_ns * percent:
                return value
        return 0

    return Spread(max(value for value, _ in held), percentile(50), percentile(99))


def case(name: str = "case", **changed: Any) -> CaseResult:
    """A case in which nothing is lost, but for what is `changed`."""
    plain = CaseResult(
        name=name,
        parameters={},
        seed=1,
        end_ns=END,
        writes=160_000,
        bytes_stored=160_000 * 256,
        at_risk_bytes=NO_SPREAD,
        unsaved_writes=NO_SPREAD,
        recovery_point_ns=NO_SPREAD,
        acknowledged=160_000,
        uncovered_acknowledgements=NO_SPREAD,
        broken_promises=0,
        holes=0,
        torn=0,
        failed_syncs=0,
        flushes=160_000,
        bytes_written=160_000 * 4096,
        guest_wait_ns=4_800_000_000,
        recorded=False,
        syncs=True,
        loss=NO_STEPS,
        recovery_point=NO_STEPS,
        layers={},
        domains={"power-cut": NO_SPREAD},
        uncovered_by_domain={"power-cut": NO_SPREAD},
        devices=[],
        cuts=[],
        examples=[],
        schedules=[],
        marks=Marks([], [], [], []),
    )
    return replace(plain, **changed)


def _sawtooth(
    period_ns: int, step_ns: int, drop_ns: int, end_ns: int = END
) -> tuple[Steps, Steps, Steps, Steps]:
    """Growth at RATE in steps, with a pass every `period_ns` that needs `drop_ns` to be safe:
    (loss, recovery point, L2, L3)."""
    loss: list[tuple[int, int]] = []
    host: list[tuple[int, int]] = []
    flight: list[tuple[int, int]] = []
    point: list[tuple[int, int]] = []
    start = 0
    while start < end_ns:
        stop = min(start + period_ns, end_ns)
        ticks = range(start, stop, step_ns)
        for t in ticks:
            own = (t - start + step_ns) * RATE // SECOND
            old = 0
            if start and t < start + drop_ns:
                old = period_ns * RATE // SECOND
            loss.append((t, own + old))
            host.append((t, own))
            flight.append((t, old))
        point += [(start + drop_ns if start else 0, drop_ns if start else 0)]
        safe = min(start + period_ns + drop_ns, end_ns)
        point += [(safe, safe - start)]
        start = stop
    return _steps(loss), _steps(point), _steps(host), _steps(flight)


def _steps(points: list[tuple[int, int]]) -> Steps:
    return Steps([t for t, _ in points], [value for _, value in points])


def means_of(steps: Steps) -> Means:
    """A step function as that of a layer."""
    return Means(steps.instants, [*map(float, steps.values)], steps.exact)


def without_sync(name: str = "sync=none", *, protected: bool = True) -> CaseResult:
    """Nobody syncs: the flusher passes at 35 s and 70 s. Without a disk flush what it wrote rests
    in the disk's cache, and is at risk for ever unless the disk is `protected`."""
    passes = [35 * SECOND, 70 * SECOND]
    tick = 50 * MILLISECOND
    loss, point, host, flight = _sawtooth(35 * SECOND, tick, 200 * MILLISECOND)
    layers = {"L2": means_of(host), "L3": means_of(flight)}
    if not protected:
        loss = Steps(loss.instants, [(t + tick) * RATE // SECOND for t in loss.instants])
        point = Steps([0, END], [0, END])
        parts = zip(loss.values, host.values, flight.values, strict=True)
        cached = [total - a - b for total, a, b in parts]
        layers["L4"] = means_of(Steps(loss.instants, cached))
    risk = spread_of(loss, END)
    age = Spread(max(point.values), max(point.values) // 2, max(point.values) * 99 // 100)
    text = (
        "write 70,000 (256 B at offset 17,920,000, stored at 35 s) would be lost by a power cut at "
        f"{35 if protected else 80} s: it was still in the host page cache"
    )
    records = risk.max // 256
    return case(
        name,
        parameters={"sync": "none", "disk.profile": "plp-nvme" if protected else "consumer-nvme"},
        at_risk_bytes=risk,
        unsaved_writes=Spread(records, risk.p50 // 256, risk.p99 // 256),
        recovery_point_ns=age,
        uncovered_acknowledgements=Spread(records, risk.p50 // 256, risk.p99 // 256),
        holes=0 if protected else 35_840,
        flushes=0,
        bytes_written=70 * RATE,
        guest_wait_ns=0,
        syncs=False,
        loss=loss,
        recovery_point=point,
        layers=layers,
        domains={
            "guest-crash": NO_SPREAD,
            "host-crash": spread_of(loss, END),
            "power-cut": risk,
        },
        marks=Marks([], passes, [], []),
        examples=[
            Example("at-risk-peak", text, 35 * SECOND, 70_000, 17_920_000, 256, "L2", "pmem0")
        ],
        cuts=[
            Cut(
                17 * SECOND,
                "power-cut",
                17 * RATE,
                17 * RATE,
                17 * RATE - 4096,
                34_000,
                34_000,
                "random",
            ),
            Cut(35 * SECOND, "power-cut", 35 * RATE, 35 * RATE, 35 * RATE, 70_000, 70_000, "worst"),
        ],
        expectations=[
            Expectation("broken_promises", "== 0", 0, "", True),
            Expectation("recovery_point_max", ">= 30s", age.max, "ns", True),
        ],
    )


def with_sync(
    records: int = 100, name: str = "", *, flush_ns: int = 2 * MILLISECOND, call: str = "fdatasync"
) -> CaseResult:
    """A sync every so many records: a small sawtooth."""
    period = records * SECOND // 2000
    tick = max(period // 10, SECOND // 2000)
    loss, point, host, flight = _sawtooth(period, tick, min(flush_ns, period))
    flushes = END // period
    risk = spread_of(loss, END)
    age = Spread(max(point.values), period // 2, max(point.values) * 99 // 100)
    return case(
        name or f"sync={call}, every={records} records",
        parameters={"sync.call": call, "sync.every": f"{records} records"},
        at_risk_bytes=risk,
        unsaved_writes=Spread(risk.max // 256, risk.p50 // 256, risk.p99 // 256),
        recovery_point_ns=age,
        flushes=flushes,
        bytes_written=flushes * 4096 * max(1, records // 16),
        guest_wait_ns=flushes * flush_ns,
        loss=loss,
        recovery_point=point,
        layers={"L2": means_of(host), "L3": means_of(flight)},
        domains={"guest-crash": NO_SPREAD, "host-crash": risk, "power-cut": risk},
        marks=Marks([period * (k + 1) + flush_ns for k in range(flushes)], [], [], []),
        expectations=[Expectation("uncovered_acknowledgements", "0", 0, "", True)],
    )


def never_durable() -> Schedule:
    """A disk that answers FLUSH and does nothing; another vCPU's flush shares the host call."""
    at = 100 * MILLISECOND
    return Schedule(
        "pmem0",
        0,
        at + 1_010_000,
        -1,
        [
            ScheduleSpan("store", "write 0, 256 B at offset 0", at, -1),
            ScheduleSpan("flush", "vCPU 0", at + 32, at + 1_010_000),
            ScheduleSpan("call", "for vCPU 0", at + 32, at + 1_010_000),
            ScheduleSpan("writeback", "with this write's page", at + 32, at + 10_000),
            ScheduleSpan("disk-flush", "does nothing", at + 10_000, at + 1_010_000),
        ],
    )


def lying_disk(name: str = "disk=ignores-flush") -> CaseResult:
    """Flushes succeed and nothing persists."""
    return replace(
        without_sync(name, protected=False),
        flushes=800,
        broken_promises=799,
        guest_wait_ns=800 * MILLISECOND,
        syncs=True,
        schedules=[never_durable()],
        marks=Marks([100 * MILLISECOND * k for k in range(1, 800)], [], [], []),
        examples=[
            Example(
                "broken-promise",
                "flush 1 was acknowledged at 100 ms, yet write 0 (256 B at offset 0) was in the "
                "disk's volatile cache",
                100 * MILLISECOND,
                0,
                0,
                256,
                "L4",
                "pmem0",
            )
        ],
        expectations=[
            Expectation("broken_promises", "== 0", 799, "", False),
            Expectation("at_risk_max", "<= 1MiB", 80 * RATE, "bytes", False),
        ],
    )


def results(*cases: CaseResult, **changed: Any) -> Results:
    """A run of these cases."""
    return replace(
        Results(
            experiment="append-log",
            description="One log under several sync policies.",
            version="0.1.0",
            seed=1,
            cases=list(cases),
        ),
        **changed,
    )


def story() -> Results:
    """Without sync and with it: what a newcomer sees first."""
    return results(without_sync(), with_sync(100), with_sync(25))


def sweep_of_twenty() -> Results:
    """Five policies on four disks."""
    disks = {"plp-nvme": 30_000, "consumer-nvme": 1_000_000, "sata-ssd": 3_000_000}
    disks["hdd"] = 10_000_000
    cases = []
    for disk, flush_ns in disks.items():
        cases.append(without_sync(f"sync=call:none,profile={disk}", protected=disk == "plp-nvme"))
        for every in (2000, 500, 100, 25):
            cases.append(
                with_sync(
                    every,
                    f"sync=call:fdatasync,every:{every} records,profile={disk}",
                    flush_ns=flush_ns,
                )
            )
    return results(*cases)


def huge(steps: int = 200_000) -> CaseResult:
    """A step function of more steps than any picture has pixels, with one narrow peak."""
    width = END // steps
    values = [4096 if i % 2 else 256 for i in range(steps)]
    values[steps // 3] = 1 << 20
    loss = Steps([i * width for i in range(steps)], values)
    return case(
        "huge",
        at_risk_bytes=Spread(1 << 20, 256, 4096),
        loss=loss,
        layers={"L2": means_of(loss), "L4": means_of(loss)},
        recovery_point=Steps(
            [i * width for i in range(steps)], [0 if i % 2 == 0 else width for i in range(steps)]
        ),
        marks=Marks([i * width for i in range(steps)], [], [], []),
    )


def two_devices() -> CaseResult:
    """A synced log beside a table that nobody syncs."""
    plain = without_sync("two devices")
    quiet = Spread(512, 0, 512)
    return replace(
        plain,
        devices=[
            DeviceResult("log", quiet, Spread(MILLISECOND, 0, MILLISECOND), NO_SPREAD, 0, 4000),
            DeviceResult("table", plain.at_risk_bytes, plain.recovery_point_ns, NO_SPREAD, 0, 0),
        ],
    )


def hostile() -> Results:
    """Names that try to be markup in every format."""
    bad = replace(
        lying_disk(HOSTILE),
        parameters={HOSTILE: HOSTILE},
        notices=[HOSTILE],
        expectations=[Expectation("broken_promises", f"== 0{HOSTILE}", 799, "", False)],
        examples=[Example("hole", HOSTILE, 1, 0, 0, 1, HOSTILE, HOSTILE)],
        domains={HOSTILE: NO_SPREAD},
        cuts=[Cut(1, HOSTILE, 0, 0, 0, 0, 0, HOSTILE)],
        schedules=[replace(never_durable(), spans=[ScheduleSpan("call", HOSTILE, 1, 2)])],
        devices=[DeviceResult(HOSTILE, NO_SPREAD, NO_SPREAD, NO_SPREAD, 0, 0)] * 2,
    )
    return results(bad, experiment=HOSTILE, description=HOSTILE)
