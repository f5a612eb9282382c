"""Any file loads or is refused by an ExperimentError; what loads is valid and shown as it is."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from crashsim.errors import ExperimentError
from crashsim.experiment.applications import KINDS
from crashsim.experiment.document import plain, read
from crashsim.experiment.loader import Plan, load, plan
from crashsim.experiment.mistakes import known_keys
from crashsim.experiment.model import Experiment
from crashsim.experiment.schema import json_schema
from crashsim.experiment.shipped import starter
from crashsim.experiment.show import show
from crashsim.results import FIGURES

RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

VALID = """\
name: x
devices:
- {name: a, size: 64MiB, sync: {call: fsync, group: true, delay: 1ms}}
- {name: b, size: 4MiB, workload: {kind: key-value, records: 5, slots: 9, theta: 0.5,
   distribution: zipf, value_size: {min: 1B, max: 1KiB}, slot_size: 2KiB}}
workload: {kind: append-log, records: 10, record_size: 1KiB, rate: 5/s, vcpus: 2}
guest: {driver: ordered, access: direct, file_system: none}
host: {memory: 1GiB, dirty_expire: 3s, early_writeback: {every: 1s, share: 1/8}, fsync_errors: [1s]}
disk: {profile: hdd, bandwidth: 200MB/s, sector: 4KiB}
power: {domains: [vmm-kill, power-cut], at: [1s, 2.5s], host_crash: {in_flight: kept}}
sweep: {product: {seed: [1, 2], disk.plp: [true, false]}, zip: {host.fault: [1us, 2us]}}
expect: {broken_promises: 0, at_risk_p99: <= 1MiB}
cases: {"seed=1,*": {expect: {guest_wait: "< 5s"}}}
"""

WORDS = st.one_of(
    st.sampled_from(
        [
            *known_keys(()),
            *KINDS,
            "known",
            *FIGURES,
            *(key for part in Experiment.model_fields for key in known_keys((part,))),
            *("5s", "64MiB", "1/8", "2000/s", "1.2GB/s", "10 records", "<= 1MiB", "fsync", "none"),
            *("sync.call", "disk.profile", "devices.0.size", "hdd", "power-cut", "*", "min", "max"),
        ]
    ),
    st.text(max_size=8),
)
SCALARS = st.one_of(
    WORDS, st.integers(), st.booleans(), st.none(), st.floats(), st.dates(), st.binary(max_size=3)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, SCALARS), inner, max_size=5)
    ),
    max_leaves=25,
)


def outcome(text: str, overrides: list[str] | None = None) -> Plan | None:
    """The plan, or None when the text is refused as it should be."""
    try:
        found = plan(text, "x.yaml", overrides or [])
    except ExperimentError as error:
        problems = error.problems
    else:
        assert found.cases
        return found
    assert problems, "an error without a problem"
    for problem in problems:
        assert problem.message
        assert "\n" not in str(problem)
        str(problem).encode("utf-8")
    return None


def as_yaml(tree: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, stream)
    return stream.getvalue()


def check_accepted(text: str, found: Plan) -> None:
    """What the loader takes, the schema takes; and what is shown is the same experiment."""
    tree, _ = read(text, "x.yaml")
    assert tree is not None
    document = json.loads(json.dumps(plain(tree), default=float))
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    for case, shown in zip(found.cases, show(found).split("---\n# "), strict=True):
        assert plan(f"# {shown}", "x.yaml").cases[0].experiment == case.experiment


@RELAXED
@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(text: str) -> None:
    outcome(text)


@RELAXED
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,?~ \n\t0159=<.", max_size=60))
def test_any_yaml_punctuation_loads_or_is_refused(text: str) -> None:
    outcome(text)


@RELAXED
@given(st.binary(max_size=200))
def test_any_bytes_load_or_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ExperimentError):
        load(path)


@RELAXED
@given(TREES)
def test_any_structure_loads_or_is_refused(tree: Any) -> None:
    outcome(as_yaml(tree))


@RELAXED
@given(st.dictionaries(st.sampled_from(known_keys(())), TREES, min_size=1, max_size=6))
def test_any_structure_under_known_keys_loads_or_is_refused(tree: Any) -> None:
    text = as_yaml({"device": {"size": "64MiB"}, "workload": {"kind": "fill"}, **tree})
    found = outcome(text)
    if found is not None:
        check_accepted(text, found)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += _paths(value, (*path, key))
    return found


@RELAXED
@given(st.data())
def test_a_valid_experiment_with_changes_loads_or_is_refused(data: st.DataObject) -> None:
    tree = YAML(typ="safe", pure=True).load(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(_paths(tree)))
        block = tree
        for step in way:
            block = block[step]
        change = data.draw(st.sampled_from(["remove", "replace", "rename"]))
        if change == "remove" or (change == "rename" and isinstance(block, list)):
            del block[last]
        elif change == "rename":
            block[data.draw(WORDS)] = block.pop(last)
        else:
            block[last] = data.draw(TREES)
        if not isinstance(tree, dict) or not _paths(tree):
            break
    text = as_yaml(tree)
    found = outcome(text)
    if found is not None:
        check_accepted(text, found)


@RELAXED
@given(st.data())
def test_a_valid_text_with_changed_characters_loads_or_is_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([VALID, starter()]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        until = data.draw(st.integers(at, min(len(text), at + 12)))
        text = text[:at] + data.draw(st.text(max_size=4)) + text[until:]
    found = outcome(text)
    if found is not None:
        check_accepted(text, found)


@RELAXED
@given(st.lists(st.one_of(st.text(max_size=20), st.tuples(WORDS, WORDS).map("=".join)), max_size=3))
def test_any_overrides_are_taken_or_refused(overrides: list[str]) -> None:
    outcome(VALID, overrides)


def test_the_valid_experiment_of_these_tests_is_valid() -> None:
    found = outcome(VALID)
    assert found is not None
    check_accepted(VALID, found)
