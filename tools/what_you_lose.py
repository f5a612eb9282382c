"""`docs/what-you-lose.md`: what each configuration loses to each failure, from fresh results.

Contract: every figure on the page is that of a case of a shipped experiment, run when the page is
made; only the words are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crashsim.engine.units import format_bytes, format_duration
from crashsim.errors import UsageError
from crashsim.experiment.loader import load
from crashsim.results import CaseResult
from crashsim.runs.one import run_case

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration: in the reader's words, the rules it rests on, the case that shows it."""

    label: str
    rules: str
    experiment: str
    case: str


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the page; `failures`: domain -> heading."""

    title: str
    text: str
    failures: Mapping[str, str]
    rows: tuple[Row, ...]


FAILURES = {
    "guest-crash": "guest panics",
    "vmm-kill": "monitor is killed",
    "vmm-quit": "monitor quits",
    "host-crash": "host crashes",
    "power-cut": "power is cut",
}
COPIES = {
    "live-copy": "copied while it runs",
    "storage-snapshot": "storage snapshot",
    "migration": "migrated",
    "power-cut": "power is cut",
}


def _rows(experiment: str, *entries: tuple[str, str, str]) -> tuple[Row, ...]:
    return tuple(Row(label, rules, experiment, case) for label, rules, case in entries)


SECTIONS = (
    Section(
        "The backing file",
        "The guest appends records and calls `fdatasync` after each; a record is acknowledged when "
        "its sync has succeeded. The first line is how it should be.",
        FAILURES,
        _rows(
            "lost-although-synced",
            ("shared mapping of a file (`share=on`)", "V2", "vmm=qemu,kind=file"),
            (
                "QEMU's `share=off` (the default) or `readonly=on`",
                "V4",
                "vmm=qemu,kind=private",
            ),
            ("cloud-hypervisor's `discard_writes`", "V4", "vmm=cloud-hypervisor,kind=private"),
            ("file on tmpfs", "V4, H15", "vmm=qemu,kind=tmpfs"),
            ("file on hugetlbfs", "V4, H15", "vmm=qemu,kind=hugetlbfs"),
        )
        + _rows(
            "memory-backend-ram",
            ("`memory-backend-ram`", "V5", "kind=ram,acknowledge=after-sync"),
            (
                "the same, and the program acknowledges before it syncs",
                "V5",
                "kind=ram,acknowledge=before-sync",
            ),
        )
        + _rows("discard-data", ("`discard-data=on`", "V5", "discard_data=true"))
        + _rows("prealloc", ("`prealloc=on`", "V5", "prealloc=true"))
        + _rows(
            "full-host",
            ("sparse file, host's file system full", "V6", "extents=sparse"),
        ),
    ),
    Section(
        "The monitor",
        "Two vCPUs, each of which writes and syncs.",
        FAILURES,
        _rows(
            "firecracker-litmus",
            ("one `msync` for each flush", "V3", "vmm=firecracker,driver=concurrent"),
            (
                "one result for all flushes found, driver of Linux 5.3 on",
                "V3, G7",
                "vmm=firecracker-reused-result,driver=concurrent",
            ),
            (
                "one result for all flushes found, serialized driver",
                "V3, G7",
                "vmm=firecracker-reused-result,driver=serialized",
            ),
        ),
    ),
    Section(
        "Other devices, the same work",
        "A record, a sync, again and again; only the device differs.",
        FAILURES,
        _rows(
            "compare-devices",
            ("virtio-pmem", "V2", "type=virtio-pmem"),
            ("real NVDIMM", "V9", "type=real-nvdimm"),
            ("virtio-blk, `cache=none`", "V9", "type=virtio-blk,cache=none"),
            ("virtio-blk, `cache=writeback`", "V9", "type=virtio-blk,cache=writeback"),
            ("virtio-blk, `cache=writethrough`", "V9", "type=virtio-blk,cache=writethrough"),
            ("virtio-blk, `cache=unsafe`", "V9", "type=virtio-blk,cache=unsafe"),
            ("emulated NVDIMM on a regular file", "V9", "type=nvdimm"),
        ),
    ),
    Section(
        "One failed write",
        "The host's disk refuses one write, and the guest is told once. What its program does then "
        "decides. (A broken promise is also a later flush that succeeds while this data is gone.)",
        FAILURES,
        _rows(
            "fsyncgate",
            ("writes again all that was not acknowledged", "H14, G9", "on_sync_error=rewrite"),
            ("panics", "H14, G9", "on_sync_error=panic"),
            ("gives up on these records, goes on", "H14, G9", "on_sync_error=give-up"),
            ("calls `fdatasync` again", "H14, G9", "on_sync_error=retry"),
        ),
    ),
    Section(
        "The disk",
        "A disk that does not do what it says.",
        FAILURES,
        _rows(
            "ignored-flush-rate",
            ("an honest disk", "D1", "share=0/1"),
            ("ignores one FLUSH in 100", "D4", "share=1/100"),
            ("ignores every second FLUSH", "D4", "share=1/2"),
            ("ignores all of them", "D4", "share=1/1"),
        )
        + _rows(
            "shorn-writes",
            ("drops the last page of one write in 1000", "D4", "share=1/1000"),
            ("drops the last page of one write in 100", "D4", "share=1/100"),
        )
        + _rows(
            "corrupted-writes",
            ("damages the last page of one write in 1000", "D4", "share=1/1000"),
            ("damages the last page of one write in 100", "D4", "share=1/100"),
        )
        + _rows("dead-disk", ("dies half way through", "D4", "at=4s")),
    ),
    Section(
        "No sync at all",
        "A second of writes, acknowledged at once; then the guest is idle.",
        FAILURES,
        _rows(
            "idle-guest",
            (
                "ext4 in the guest, disk with power-loss protection",
                "G6",
                "guest=file_system:ext4,profile=plp-nvme",
            ),
            (
                "ext4 in the guest, disk without",
                "G6",
                "guest=file_system:ext4,profile=consumer-nvme",
            ),
            (
                "raw device, disk with power-loss protection",
                "H6, H9",
                "guest=file_system:none+access:direct,profile=plp-nvme",
            ),
            (
                "raw device, disk without",
                "H6, H9",
                "guest=file_system:none+access:direct,profile=consumer-nvme",
            ),
        ),
    ),
    Section(
        "Copies",
        "A log synced once a second; what is missing from a copy made at the worst instant.",
        COPIES,
        _rows(
            "copies-and-migration",
            ("DAX", "P6, V8", "access=dax"),
            ("through the guest's page cache", "G2, P6, V8", "access=cached"),
        ),
    ),
)

_HEAD = """\
# What you lose

Made by `make docs` from the results of the experiments in [experiments/](../experiments/), and
checked in CI against fresh ones. [The rules](rules.md) have numbers.

Each cell is the worst instant of the run. **Bold** are acknowledged records that this failure takes
(of how many in all) and the bytes they and everything else come to: the world was told that these
are safe. Bytes alone are work in progress: lost, but nobody was told otherwise. *Oldest* is the age
of the oldest work that a power cut takes. *Broken promises* are flushes that reported success
before the data was safe from a power cut.
"""


def page(sections: Iterable[Section], result_of: Callable[[Row], CaseResult]) -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(_section(section, result_of) for section in sections)])


def _section(section: Section, result_of: Callable[[Row], CaseResult]) -> str:
    told = ["oldest", "the guest was told", "broken promises", "rule", "experiment"]
    head = ["configuration", *section.failures.values(), *told]
    lines = [head, ["---"] * len(head)]
    for row in section.rows:
        case = result_of(row)
        link = f"[{row.experiment}](../experiments/{row.experiment}.yaml)"
        cells = [_lost(case, domain) for domain in section.failures]
        broken = f"**{case.broken_promises:,}**" if case.broken_promises else "0"
        cells += [_oldest(case), _told(case), broken]
        lines.append([row.label, *cells, row.rules, link])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {section.title}\n\n{section.text}\n\n{table}\n"


def _lost(case: CaseResult, domain: str) -> str:
    size, records = case.domains[domain].max, case.uncovered_by_domain[domain].max
    if not size:
        return "nothing"
    if not records:
        return format_bytes(size)
    return f"**{records:,} of {case.acknowledged:,}**, {format_bytes(size)}"


def _oldest(case: CaseResult) -> str:
    age_ns = case.recovery_point_ns.max
    return format_duration(age_ns) if age_ns else "nothing"


def _told(case: CaseResult) -> str:
    if not case.flushes:
        return "no flush was asked for"
    if not case.failed_syncs:
        return f"{case.flushes:,} flush{'es' if case.flushes > 1 else ''} succeeded"
    return f"{case.failed_syncs:,} of {case.flushes:,} flushes failed"


def fresh_page() -> str:
    """The page from results made now. UsageError outside of a checkout."""
    return page(SECTIONS, _results().__getitem__)


def _results() -> dict[Row, CaseResult]:
    rows = [row for section in SECTIONS for row in section.rows]
    found: dict[Row, CaseResult] = {}
    for experiment in dict.fromkeys(row.experiment for row in rows):
        file = EXPERIMENTS / f"{experiment}.yaml"
        if not file.is_file():
            raise UsageError(f"{file}: not here; run this in a checkout of crashsim")
        cases = {case.name: case for case in load(file).cases}
        for row in rows:
            if row.experiment == experiment:
                if row.case not in cases:
                    raise UsageError(f"{file}: no case {row.case!r}; there are {', '.join(cases)}")
                found[row] = run_case(cases[row.case]).figures
    return found
