"""What a run says is what was found: each sentence is held against the History."""

from __future__ import annotations

from tests.cli_support import Program

TO_THE_END = """
device: {size: 1MiB}
workload: {kind: append-log, records: 100, record_size: 8B, rate: 100/s}
guest: {file_system: none}
sync: {call: none}
"""


def test_an_acknowledgement_at_the_very_end_of_a_run_is_counted(program: Program) -> None:
    assert program.run(TO_THE_END).code == 0
    (case,) = program.results()["cases"]
    assert case["acknowledged"] == case["uncovered_acknowledgements"]["max"] == 100
    told = program("loss", program.latest(), "--at", f"{case['end_ns']}ns").out
    assert "Of 100 acknowledgements 100 " in told
    beyond = program("loss", program.latest(), "--at", f"{case['end_ns'] + 1}ns")
    assert beyond.code == 2 and "up to then" in beyond.err
