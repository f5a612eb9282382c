"""The rows of the benchmark: what is measured, how often, and what became of it.

A measurement runs in a process of its own (`benchmarks.measure`), several times; a row keeps all
its values and shows their median, minimum and maximum. Times never decide anything. What does: the
two simulators must agree, and nothing may be compared with nothing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

GIB = 1 << 30
SIDE = "benchmarks.crashsim_side"

Answer = dict[str, Any]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work; `QUICK` only shows that the benchmark runs."""

    whole_stores: tuple[int, ...]
    stores: int
    stores_small: int
    synced_stores: int
    versus_stores: int
    equality_stores: int
    image_stores: int
    span_bytes: int
    image_span_bytes: int
    device_bytes: int
    explored_states: int
    program_states: int
    program_rounds: int
    spawn_seconds: float
    recorded_writes: int
    repeats: int


FULL = Sizes(
    whole_stores=(100_000, 1_000_000),
    stores=10_000_000,
    stores_small=1_000_000,
    synced_stores=200_000,
    versus_stores=1_500_000,
    equality_stores=20_000,
    image_stores=200_000,
    span_bytes=4 * GIB,
    image_span_bytes=GIB,
    device_bytes=1024 * GIB,
    explored_states=20_000,
    program_states=12_000,
    program_rounds=3,
    spawn_seconds=1.0,
    recorded_writes=1_000_000,
    repeats=3,
)
QUICK = Sizes(
    whole_stores=(1_000,),
    stores=20_000,
    stores_small=2_000,
    synced_stores=500,
    versus_stores=2_000,
    equality_stores=300,
    image_stores=1_000,
    span_bytes=GIB,
    image_span_bytes=GIB // 64,
    device_bytes=GIB,
    explored_states=20,
    program_states=20,
    program_rounds=1,
    spawn_seconds=0.05,
    recorded_writes=2_000,
    repeats=1,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `aim` is what the project promises or hopes for, "" if nothing."""

    name: str
    unit: str
    values: list[float]
    aim: str = ""
    cpu_s: tuple[float, ...] = ()  # processor time, where a process was waited for

    def spread(self) -> tuple[float, float, float]:
        return median(self.values), min(self.values), max(self.values)


@dataclass(slots=True)
class Report:
    """All rows of one run, and every disagreement found on the way."""

    date: str
    cpu: str
    python: str
    numpy: str
    rows: list[Row] = field(default_factory=list)
    compared_steps: int = 0
    problems: list[str] = field(default_factory=list)


class MeasurementFailed(Exception):
    """A measuring process ended with an error; the text is what it said last."""


def run(sizes: Sizes, side: str = SIDE, progress: Progress = lambda _text: None) -> Report:
    """Measure every row. Raises `MeasurementFailed` if a measuring process ends with an error."""
    report = Report(
        date=datetime.now(UTC).date().isoformat(),
        cpu=cpu_model(),
        python=platform.python_version(),
        numpy=version("numpy"),
    )

    def repeated(name: str, **options: float) -> list[Answer]:
        answers = []
        for turn in range(sizes.repeats):
            progress(f"{name} {options} {turn + 1}/{sizes.repeats}")
            answers.append(measure(side, name, options))
        return answers

    _user_rows(report, sizes, repeated)
    _stack_rows(report, sizes, repeated)
    _synced_rows(report, sizes, repeated)
    _versus_rows(report, sizes, repeated)
    _image_rows(report, sizes, repeated)
    _explore_rows(report, sizes, repeated)
    progress("equality")
    small = {"stores": sizes.equality_stores, "span_bytes": sizes.image_span_bytes}
    _compare(report, [measure(side, "equality", small)])
    if not report.compared_steps:
        report.problems.append("nothing was compared with SimPy")
    return report


def measure(side: str, name: str, options: Mapping[str, float]) -> Answer:
    """One measurement in its own process."""
    command = [sys.executable, "-m", "benchmarks.measure", side, name, json.dumps(options)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MeasurementFailed(f"{name} {options}: {lines[-1]}")
    answer: Answer = json.loads(done.stdout)
    return answer


def _user_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    """What users do, from start to end; the rows behind them are parts of it."""
    for stores in sizes.whole_stores:
        answers = repeated("whole", stores=stores)
        _timed(report, f"`crashsim run`, {stores:,} random stores, to its report", answers)
        peaks = [answer["peak_bytes"] / stores for answer in answers]
        report.rows.append(Row(f"`crashsim run`, {stores:,} random stores", "B/store", peaks))
    writes = sizes.recorded_writes
    answers = repeated("recorded", writes=writes)
    _timed(report, f"`crashsim run`, a recording of {writes:,} writes, to its report", answers)
    for name, checker in (("by_function", "a Python function"), ("by_command", "/bin/true")):
        answers = repeated(name, states=sizes.explored_states)
        rates = [answer["checked"] / answer["seconds"] for answer in answers]
        cpu_s = tuple(answer["cpu_s"] for answer in answers)
        name = f"{sizes.explored_states:,} states of 400 undecided stores, each by {checker}"
        report.rows.append(Row(name, "states/s", rates, cpu_s=cpu_s))
        _demand(report, f"states by {checker}", (answer["checked"] for answer in answers))


def _timed(report: Report, name: str, answers: list[Answer]) -> None:
    cpu_s = tuple(answer["cpu_s"] for answer in answers)
    report.rows.append(Row(name, "s", [answer["seconds"] for answer in answers], cpu_s=cpu_s))


def _stack_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    options = {"every_records": 1000, "span_bytes": sizes.span_bytes}
    small = repeated("stack", stores=sizes.stores_small, **options)
    large = repeated("stack", stores=sizes.stores, **options)
    label = f"{sizes.stores:,} stores, sync every 1,000"
    steps = ("generate_s", "simulate_s", "loss_s")
    for title, parts, aim in (
        ("workload generated", steps[:1], ""),
        ("simulated", steps[1:2], ""),
        ("loss at every instant", steps[2:], ""),
        ("simulated with its loss", steps[1:], "at least 3, aim 10"),
        ("all three", steps, ""),
    ):
        rates = [sizes.stores / seconds(answer, parts) / 1e6 for answer in large]
        report.rows.append(Row(f"{label}: {title}", "million stores/s", rates, aim))
    peaks = [answer["peak_bytes"] / 2**20 for answer in large]
    report.rows.append(Row(f"{label}: peak memory", "MiB", peaks, "at most 2,048"))
    ratios = [
        seconds(big, steps[1:]) / seconds(little, steps[1:])
        for big, little in zip(large, small, strict=True)
    ]
    growth = sizes.stores // sizes.stores_small
    name = f"time of {sizes.stores:,} stores against {sizes.stores_small:,}"
    report.rows.append(Row(name, "times", ratios, f"at most {growth * 1.1:g}"))
    _demand(report, "steps of the loss", (answer["steps"] for answer in small + large))


def _synced_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    answers = repeated(
        "stack", stores=sizes.synced_stores, every_records=1, span_bytes=sizes.span_bytes
    )
    rates = [answer["flushes"] / answer["simulate_s"] for answer in answers]
    whole = [answer["flushes"] / seconds(answer, ("simulate_s", "loss_s")) for answer in answers]
    label = f"{sizes.synced_stores:,} stores, each synced"
    report.rows.append(Row(f"{label}: simulated", "flushes/s", rates, "at least 50,000"))
    report.rows.append(Row(f"{label}: simulated with its loss", "flushes/s", whole))
    _demand(report, "flushes", (answer["flushes"] for answer in answers))


def _versus_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    stores = sizes.versus_stores
    answers = repeated("versus", stores=stores, every_records=1000, span_bytes=sizes.span_bytes)
    label = f"{stores:,} stores, sync every 1,000, same results"
    for title, key in (
        ("SimPy", "simpy_s"),
        ("a plain loop, loss alone", "plain_s"),
        ("crashsim", "crashsim_s"),
    ):
        rates = [stores / answer[key] / 1e6 for answer in answers]
        report.rows.append(Row(f"{label}: {title}", "million stores/s", rates))
    ratios = [answer["simpy_s"] / answer["crashsim_s"] for answer in answers]
    report.rows.append(Row(f"{label}: ratio to SimPy", "times faster", ratios, "at least 30"))
    ratios = [answer["plain_s"] / answer["crashsim_s"] for answer in answers]
    report.rows.append(Row(f"{label}: ratio to the plain loop", "times faster", ratios))
    _compare(report, answers)


def _image_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    device_bytes = sizes.device_bytes
    options = {"span_bytes": sizes.image_span_bytes, "device_bytes": device_bytes}
    answers = repeated("image", stores=sizes.image_stores, **options)
    name = f"image of {binary(device_bytes)} with {answers[0]['pages']:,} pages touched"
    times = [answer["rebuild_s"] * 1e6 / answer["pages"] for answer in answers]
    report.rows.append(Row(name, "µs/page", times))
    if any(answer["size_bytes"] != device_bytes for answer in answers):
        report.problems.append(f"{name}: the file has another size")


def _explore_rows(report: Report, sizes: Sizes, repeated: Callable[..., list[Answer]]) -> None:
    rounds, seconds = sizes.program_rounds, sizes.spawn_seconds
    answers = repeated("programs", states=sizes.program_states, seconds=seconds, rounds=rounds)
    name = f"{sizes.program_states:,} states of 8 writes, each checked by /bin/true, on all CPUs"
    spawned = [answer["spawned"] for answer in answers]
    explored = [answer["explored"] for answer in answers]
    shares = [100 * answer["share"] for answer in answers]
    report.rows.append(Row("/bin/true spawned by itself, on all CPUs", "1/s", spawned))
    report.rows.append(Row(name, "states/s", explored))
    report.rows.append(Row(f"{name}: of what can be spawned", "%", shares, "at least 80"))
    _demand(report, "checked states", (answer["checked"] for answer in answers))
    answers = repeated("recording", writes=sizes.recorded_writes)
    name = f"recording of {sizes.recorded_writes:,} writes, ready to explore"
    report.rows.append(Row(name, "s", [answer["seconds"] for answer in answers], "under 10"))
    sizes_mib = [answer["peak_bytes"] / 2**20 for answer in answers]
    log = f"{answers[0]['log_bytes'] / 2**20:,.0f} MiB of log, mapped, among it"
    report.rows.append(Row(f"{name}: peak memory ({log})", "MiB", sizes_mib))
    _demand(report, "atoms", (answer["atoms"] for answer in answers))


def _compare(report: Report, answers: Iterable[Answer]) -> None:
    for answer in answers:
        report.compared_steps += answer["steps"]
        report.problems += answer["different"]


def _demand(report: Report, what: str, counts: Iterable[int]) -> None:
    if not all(counts):
        report.problems.append(f"a measurement had no {what}")


def seconds(answer: Answer, parts: tuple[str, ...]) -> float:
    return float(sum(answer[part] for part in parts))


def binary(size_bytes: int) -> str:
    """`1 GiB`, `1 TiB`: the largest unit that divides the size."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while size_bytes and size_bytes % 1024 == 0 and power < len(units) - 1:
        size_bytes //= 1024
        power += 1
    return f"{size_bytes:,} {units[power]}"


def cpu_model() -> str:
    """The processor's name and how many of it this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the general name will do
    return f"{name}, {os.cpu_count()} CPUs"


def markdown(report: Report) -> str:
    """The report as a table for the README."""
    lines = [
        f"{report.date}, {report.cpu}, Python {report.python}, numpy {report.numpy}",
        "",
        "| what | median | min | max | unit | CPU s | aim |",
        "|---|---:|---:|---:|---|---:|---|",
    ]
    for row in report.rows:
        figures = " | ".join(
            f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in row.spread()
        )
        cpu_s = f"{median(row.cpu_s):,.3g}" if row.cpu_s else ""
        lines.append(f"| {row.name} | {figures} | {row.unit} | {cpu_s} | {row.aim} |")
    lines += ["", "Not measured beside it: pmreorder and replay-log, which pip does not install."]
    return "\n".join(lines)


def document(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    rows = []
    for row in report.rows:
        middle, low, high = row.spread()
        figures = {"median": middle, "min": low, "max": high, "values": row.values}
        about = {"name": row.name, "unit": row.unit, "aim": row.aim, "cpu_s": row.cpu_s}
        rows.append(about | figures)
    return {
        "date": report.date,
        "cpu": report.cpu,
        "python": report.python,
        "numpy": report.numpy,
        "rows": rows,
        "compared_steps": report.compared_steps,
        "problems": report.problems,
    }
