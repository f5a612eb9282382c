"""The JSON Schema, the starter, and the experiments that are shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from crashsim.experiment.block import Block
from crashsim.experiment.document import plain, read
from crashsim.experiment.loader import load, plan
from crashsim.experiment.schema import blocks, json_schema
from crashsim.experiment.shipped import starter
from crashsim.experiment.show import show
from crashsim.results import FIGURES

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))


def violations(text: str) -> list[str]:
    tree, mistakes = read(text, "x.yaml")
    assert tree is not None
    assert mistakes == []
    validator = jsonschema.Draft202012Validator(json_schema())
    return [
        error.message
        for error in validator.iter_errors(json.loads(json.dumps(plain(tree), default=float)))
    ]


def test_experiments_are_shipped() -> None:
    assert len(SHIPPED) >= 13


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_experiment_is_what_it_should_be(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert violations(text) == []
    found = load(path)
    assert text.startswith("# "), "begins with what it teaches"
    assert found.experiment.description
    for case, document in zip(found.cases, show(found).split("---\n"), strict=True):
        assert case.experiment.expect.conditions(), f"{case.name} expects nothing"
        assert case.experiment.power.random or case.experiment.power.at, "zero cuts is never green"
        assert plan(document, str(path)).cases[0].experiment == case.experiment


def test_the_schema_is_a_schema_and_plain_json() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def described(schema: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(schema, list):
        for item in schema:
            yield from described(item, path)
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            yield f"{path}.{name}", field.get("description", "")
        for key, value in schema.items():
            if key != "if":
                yield from described(value, f"{path}.{key}")


def test_every_key_is_described_to_editors() -> None:
    fields = list(described(json_schema()))
    assert len(fields) > 80
    assert [path for path, text in fields if not text] == []


def test_defaults_are_written_with_their_units() -> None:
    blocks = json_schema()["$defs"]
    assert blocks["Host"]["properties"]["dirty_expire"]["default"] == "30s"
    assert blocks["AppendLog"]["properties"]["record_size"]["default"] == "256B"
    assert "default" not in blocks["Disk"]["properties"]["flush"]


@pytest.mark.parametrize(
    "wrong",
    [
        "device: {size: 64}",
        "device: {sizes: 64MiB}",
        "workload: {kind: append-lgo}",
        "workload: {kind: fill, records: 5}",
        "sync: {call: fsync, every: 5}",
        "host: {dirty_expire: 30}",
        "expect: {at_risk_max: 5}",
        "expect: {at_risk_max: <= 5s}",
        "seed: -1",
        "sweep: {product: {seed: []}}",
    ],
)
def test_the_schema_refuses_what_an_editor_should_underline(wrong: str) -> None:
    assert violations(wrong) != []


def test_the_schema_takes_an_incomplete_experiment_that_its_sweep_completes() -> None:
    text = """\
device: {size: 1MiB}
workload: {kind: append-log}
sweep: {product: {workload.records: [1, 2]}}
"""
    plan(text, "x.yaml")
    assert violations(text) == []


def test_the_starter_loads_and_is_valid() -> None:
    assert violations(starter()) == []
    found = plan(starter(), "starter.yaml")
    assert len(found.cases) == 3
    assert all(case.experiment.expect.conditions() for case in found.cases)


def test_the_starter_explains_every_key() -> None:
    explained = set(re.findall(r"^[ #-]*(\w+):.*#\s*\S", starter(), re.MULTILINE))
    assert starter().count("also _p50 and _p99 over time") == 2
    explained |= {name for name in FIGURES if name.endswith(("_p50", "_p99"))}
    in_braces = ("SizeRange", "FolioPart", "RateLimiter", "Fault", "DiskFaults", "Known")
    keys = {
        key
        for block in blocks(Block)
        if block.__name__ not in in_braces
        for key in block.model_fields
    }
    assert keys - explained == set()


def test_the_starters_other_workloads_load_when_uncommented() -> None:
    block = starter().split("# Other kinds")[1].split("\nsync:")[0]
    for text in block.split("#\n"):
        lines = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
        if lines and "kind: recording" not in lines[0]:
            workload = "workload:\n  " + "\n  ".join(lines)
            plan("device: {size: 64MiB}\n" + workload, "x.yaml")


def test_the_starters_comments_fit_a_screen() -> None:
    assert max(len(line) for line in starter().splitlines()) <= 122
