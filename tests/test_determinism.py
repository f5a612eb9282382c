"""The same experiment and seed give the same History, byte for byte, wherever it runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from crashsim.engine.history import History
from tests.against_oracle import simulate_world
from tests.oracle import OracleDevice, OracleDisk, OracleHost, OracleWorld, Sync, Write

PROGRAM = tuple(
    item
    for number in range(40)
    for item in (Write(number * 5003 % 60_000, 700, 90, True), *[Sync()] * (number % 4 == 3))
)
WORLD = OracleWorld(
    (OracleDevice(16, (PROGRAM, PROGRAM[5:])), OracleDevice(16, (PROGRAM,))),
    OracleHost(fault_ns=10, writeback_ns=3000, expire_ns=5000, early=(700, 1, 3)),
    OracleDisk(flush_ns=900),
)


def fingerprint(history: History) -> str:
    digest = hashlib.sha256()
    for name, column in sorted(history.columns().items()):
        digest.update(f"{name} {column.dtype} {column.shape}".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()


def in_another_process(hash_seed: str) -> str:
    code = "from tests.test_determinism import *; print(fingerprint(simulate_world(WORLD)))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_run_is_the_same_twice_in_one_process() -> None:
    history = simulate_world(WORLD)
    assert history.io_batch.size > 20, "nothing to compare"
    assert fingerprint(history) == fingerprint(simulate_world(WORLD))


def test_a_run_is_the_same_in_two_processes_that_hash_differently() -> None:
    here = fingerprint(simulate_world(WORLD))
    assert in_another_process("1") == here
    assert in_another_process("2") == here


def test_two_seeds_give_two_runs() -> None:
    other = simulate_world(replace(WORLD, seed=WORLD.seed + 1))
    assert fingerprint(simulate_world(WORLD)) != fingerprint(other)
