"""Results that are read are the results that were written, or an error that says what is wrong."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim import results as contract
from crashsim.errors import UsageError
from crashsim.report.readback import from_json, read_document
from crashsim.results import FIGURES, Means, to_json
from tests import report_fixtures as fixtures

DOCS = Path(__file__).parents[1] / "docs" / "results.md"


def document() -> dict[str, Any]:
    return copy.deepcopy(to_json(fixtures.results(fixtures.lying_disk(), fixtures.with_sync())))


def test_what_was_written_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document()))
    assert to_json(fixtures.read(path)) == document()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r":1:1: not JSON"),
        (b'{"schema": 1,', r":1:14: not JSON"),
        (b"\xff\xfe", "not text|not JSON"),
        (b"[1]", "expected an object, got list"),
        (b"{}", "no schema version"),
        (b'{"schema": "1"}', "no schema version"),
        (b'{"schema": true}', "no schema version"),
        (b'{"schema": 2}', "schema version 2, this crashsim reads version 3"),
        (b'{"schema": 3}', "experiment: Field required"),
        (b"[" * 100_000, "not results"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "not results"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        fixtures.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(UsageError, match=re.escape(str(path))):
            read_document(path)


def spoiled(path: str, value: Any, good: dict[str, Any] | None = None) -> dict[str, Any]:
    whole = copy.deepcopy(good) if good else document()
    *parents, last = path.split(".")
    place: Any = whole
    for key in parents:
        place = place[int(key) if key.isdecimal() else key]
    place[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cases.0.holes", "3", "cases.0.holes"),
        ("cases.0.holes", 1.5, "cases.0.holes"),
        ("cases.0.holes", None, "cases.0.holes"),
        ("interrupted", 0, "interrupted"),
        ("surprise", 1, "unknown field surprise"),
        ("cases.1.surprise", 1, r"unknown field cases\.1\.surprise"),
        ("cases.1.loss.surprise", 1, r"unknown field cases\.1\.loss\.surprise"),
        ("cases.0.loss.values", [1], "loss: .* instants but 1 values"),
        ("cases.0.loss", {"instants": [2, 1], "values": [0, 0]}, "not in order"),
        ("cases.0.loss", {"instants": [1], "values": [-1]}, "out of range"),
        ("cases.0.loss", {"instants": [1], "values": [1 << 80]}, "out of range"),
        ("cases.0.layers", {"L2": {"instants": [1], "values": [float("nan")]}}, "out of range"),
        ("cases.0.layers", {"L2": {"instants": [1], "values": []}}, r"layers\.L2"),
        ("cases.0.recovery_point", {"instants": [1], "values": []}, "recovery_point"),
        ("cases.0.end_ns", -1, "end_ns"),
        ("cases.0.name", "sync=fdatasync, every=100 records", "two cases are called"),
        ("cases", {}, "cases"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_json(spoiled(path, value), "results")


def test_many_mistakes_are_told_in_few_lines() -> None:
    whole = document()
    whole["cases"] = [{}] * 50
    with pytest.raises(UsageError) as caught:
        from_json(whole, "results")
    assert len(str(caught.value).splitlines()) == 6


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def places(value: Any, path: str = "") -> list[str]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        found += places(value[0], f"{path}.0")
    return found


SMALL = to_json(fixtures.results(fixtures.case(layers={"L2": Means([1], [2.5])})))
PLACES = [path for path in places(SMALL) if not path.endswith(".0")]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(PLACES), json_values)
def test_no_document_however_wrong_is_more_than_a_usage_error(path: str, value: Any) -> None:
    with contextlib.suppress(UsageError):
        from_json(spoiled(path, value, SMALL), "results")


# The document of the schema


def section(title: str) -> list[str]:
    text = DOCS.read_text(encoding="utf-8")
    body = re.split(r"^#{1,2} ", text.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(r"^\| `(\w+)` \|", body, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "kind", "extra"),
    [
        ("The document", contract.Results, ["schema"]),
        ("Case", contract.CaseResult, []),
        ("Spread", contract.Spread, []),
        ("Steps", contract.Steps, []),
        ("Means", contract.Means, []),
        ("Device", contract.DeviceResult, []),
        ("Cut", contract.Cut, []),
        ("Example", contract.Example, []),
        ("Schedule", contract.Schedule, []),
        ("Schedule span", contract.ScheduleSpan, []),
        ("Marks", contract.Marks, []),
        ("Expectation", contract.Expectation, []),
    ],
)
def test_every_field_of_the_schema_is_documented_and_no_other(
    title: str, kind: Any, extra: list[str]
) -> None:
    assert section(title) == extra + [field.name for field in dataclasses.fields(kind)]


def test_the_documented_version_and_figures_are_the_codes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert f"`schema` is {contract.SCHEMA_VERSION}." in text
    table = [f"| `{name}` | {one.unit or 'count'} | {one.says} |" for name, one in FIGURES.items()]
    assert [line for line in text.rpartition("# Figures")[2].splitlines() if "| `" in line] == table
