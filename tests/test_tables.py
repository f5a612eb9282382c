"""What pages and the starter list is what the tables have."""

from __future__ import annotations

import re
from pathlib import Path

from crashsim.experiment.applications import KINDS
from crashsim.experiment.profiles import PROFILES
from crashsim.experiment.shipped import starter
from crashsim.experiment.sync_calls import CALLS
from crashsim.results import Domain
from crashsim.traces.formats import FORMATS
from crashsim.vmm.monitors import MONITORS

MODEL = (Path(__file__).parents[1] / "docs" / "model.md").read_text(encoding="utf-8")


def test_the_models_table_of_monitors_is_theirs() -> None:
    table = MODEL.split("| monitor | call | threads | queue | error |\n", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[1:]]
    assert rows == [
        [
            f"`{name}`",
            "msync" if monitor.datasync else "fsync",
            str(monitor.threads),
            str(monitor.queue),
            f"{monitor.error}" + (" (-1)" if monitor.error == 0xFFFFFFFF else ""),
        ]
        for name, monitor in MONITORS.items()
    ]


def test_the_starter_lists_every_choice_of_a_table() -> None:
    text = starter()
    for key, table in (
        ("kind: append-log", KINDS),
        ("call: fdatasync", CALLS),
        ("vmm: qemu", MONITORS),
        ("profile: plp-nvme", PROFILES),
        ("format: dm-log-writes", FORMATS),
        (r"domains: \[power-cut\]", Domain),
    ):
        (listed,) = re.findall(rf"^[ #]*({key} +#(?:.*\n +#)*.*)$", text, re.MULTILINE)
        assert [name for name in table if name not in re.findall(r"[a-z_-]+", listed)] == [], key
