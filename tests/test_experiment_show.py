"""The effective configuration and where each value came from."""

from __future__ import annotations

import re

from crashsim.experiment.loader import plan
from crashsim.experiment.show import show

TEXT = """\
device: {size: 64MiB}
workload: {kind: key-value, records: 10, slots: 5}
disk: {profile: hdd, plp: true}
expect: {holes: 0}
"""


def origins(text: str, *overrides: str, seed: int | None = None) -> dict[str, str]:
    """The key of each line and its comment; the first of several lines with one key."""
    shown = show(plan(text, "some/folder/x.yaml", overrides, seed))
    lines = re.findall(r"^[ -]*(\w+):.*?  # (.*)$", shown, re.MULTILINE)
    return dict(reversed(lines))


def test_each_value_says_where_it_came_from() -> None:
    found = origins(TEXT, "host.fault=5us", seed=3)
    assert found["size"] == "x.yaml:1"
    assert found["records"] == "x.yaml:2"
    assert found["vcpus"] == "default"
    assert found["plp"] == "x.yaml:3"
    assert found["flush"] == "profile hdd"
    assert found["sector"] == "default"
    assert found["fault"] == "--set host.fault"
    assert found["seed"] == "--seed"
    assert found["name"] == "the file's name"
    assert found["holes"] == "x.yaml:4"


def test_what_the_sweep_set_says_so() -> None:
    found = origins(TEXT + "sweep: {product: {sync.call: [fsync]}}\n")
    assert found["call"] == "sweep, x.yaml:5"
    assert found["group"] == "default"


def test_every_value_has_an_origin() -> None:
    for line in show(plan(TEXT, "x.yaml")).splitlines():
        is_block = re.fullmatch(r"[ -]*\w+:", line) is not None
        assert line.startswith("# ") or is_block or "  # " in line, line


def test_each_case_is_a_document_that_loads_to_the_same_experiment() -> None:
    found = plan(TEXT + "sweep: {product: {sync.call: [none, fsync]}}\n", "x.yaml")
    documents = show(found).split("---\n")
    assert len(documents) == 2
    for case, document in zip(found.cases, documents, strict=True):
        assert plan(document, "x.yaml").cases[0].experiment == case.experiment
        assert case.name in document.splitlines()[0]


def test_what_does_not_apply_is_not_shown() -> None:
    assert "theta" not in show(plan(TEXT, "x.yaml"))
    assert "theta: '0.99'" in show(plan(TEXT, "x.yaml", ["workload.distribution=zipf"]))
