"""What users do, as they do it: whole `crashsim run`s, whole explorations; and a plain loop.

Each function answers with plain numbers; nothing is asserted about time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

import crashsim
from benchmarks.exploring import write_log

Answer = dict[str, Any]
RANDOM = """
device: {{size: 4GiB}}
workload:
  kind: key-value
  records: {stores}
  slots: 1048576
  slot_size: 4KiB
  value_size: {{min: 64B, max: 4KiB}}
guest: {{file_system: none}}
sync: {{call: fdatasync, every: 1000 records}}
"""
RECORDED = """
device: {{size: 1GiB}}
workload: {{kind: recording, log: {log}, clock: 10us}}
guest: {{file_system: none}}
"""
UNDECIDED = """
device: {size: 4MiB}
workload:
  kind: key-value
  records: 400
  slots: 1024
  slot_size: 4KiB
  value_size: {min: 64B, max: 4KiB}
guest: {file_system: none}
sync: {call: none}
"""


def whole(_side: object, stores: int) -> Answer:
    """`crashsim run` of random stores, from the process's start to its report."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(RANDOM.format(stores=stores), Path(folder))


def recorded(_side: object, writes: int) -> Answer:
    """`crashsim run` of a recording, a flush after every 100 writes of a sector."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "long.log"
        write_log(log, writes)
        return _run(RECORDED.format(log=log), Path(folder))


def _run(experiment: str, folder: Path) -> Answer:
    file = folder / "measured.yaml"
    file.write_text(experiment, encoding="utf-8")
    command = [sys.executable, "-m", "crashsim", "run", str(file), "--output", str(folder / "runs")]
    start, cpu_s = perf_counter(), _cpu_s(RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    return {
        "seconds": perf_counter() - start,
        "cpu_s": _cpu_s(RUSAGE_CHILDREN) - cpu_s,
        "peak_bytes": getrusage(RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def by_function(_side: object, states: int) -> Answer:
    """An exploration by a Python function that looks for a value's first bytes."""
    return _explored(crashsim.Function(_begins), states)


def by_command(_side: object, states: int) -> Answer:
    """One by a command that is started for each state."""
    return _explored(crashsim.Command("/bin/true"), states)


def _begins(image: memoryview, _acks: object) -> None:
    assert len(bytes(image[:8])) == 8


def _explored(checker: Any, states: int) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.yaml"
        file.write_text(UNDECIDED, encoding="utf-8")
        run = crashsim.run(str(file))
    assert run.history.store_t_ns.size  # simulated before the time is taken
    start, cpu_s = perf_counter(), _cpu_s(RUSAGE_CHILDREN) + _cpu_s(RUSAGE_SELF)
    found = run.explore(checker, states=states, workers=os.cpu_count() or 1)
    return {
        "seconds": perf_counter() - start,
        "cpu_s": _cpu_s(RUSAGE_CHILDREN) + _cpu_s(RUSAGE_SELF) - cpu_s,
        "checked": found.checked,
    }


def _cpu_s(whose: int) -> float:
    used = getrusage(whose)
    return used.ru_utime + used.ru_stime


def plain(offset: list[int], length: list[int], every_records: int) -> list[int]:
    """Bytes at risk after each store by a plain loop without a framework: of each page that was
    stored to since the last sync the bytes that are covered, as a number with a bit for each."""
    dirty: dict[int, int] = {}
    added: list[int] = []
    lost = 0
    for number, (at, size) in enumerate(zip(offset, length, strict=True)):
        if number and number % every_records == 0:
            dirty.clear()
            added.append(-lost)
            lost = 0
        page, start = at >> 12, at & 4095
        before = dirty.get(page, 0)
        after = before | ((1 << size) - 1) << start
        if after != before:
            more = after.bit_count() - before.bit_count()
            dirty[page] = after
            lost += more
            added.append(more)
        else:
            added.append(0)
    return list(accumulate(added))
