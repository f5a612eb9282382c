"""`results.json` back into `Results`, or a reason why not.

Contract: nothing is guessed and nothing is dropped. A document of another schema version, with a
missing, unknown or wrong field, a step function that is none, or two cases of one name is refused
by a `UsageError` that says where.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crashsim.errors import UsageError
from crashsim.results import ADDED, FIGURES, SCHEMA_VERSION, Means, Results, Steps

_LARGEST = (1 << 63) - 1  # what the columns of a step function hold
_SHOWN_MISTAKES = 5


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document in a file, its schema not yet checked."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise UsageError(f"{place}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{path}: not results: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: not results: expected an object, got {type(document).__name__}")
    return document


def from_json(document: dict[str, Any], name: str) -> Results:
    """The results in a document; `name` says in errors which."""
    _check_version(document, name)
    content = {key: value for key, value in document.items() if key != "schema"}
    try:
        results = TypeAdapter(Results).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise UsageError(_mistakes(error, name)) from None
    _check(results, name)
    return results


def _check_version(document: dict[str, Any], name: str) -> None:
    version = document.get("schema")
    if type(version) is not int:
        raise UsageError(f"{name}: not crashsim's results: it has no schema version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{name}: schema version {version}, this crashsim reads version {SCHEMA_VERSION}"
        )


def _mistakes(error: ValidationError, name: str) -> str:
    found = error.errors(include_url=False, include_input=False)
    lines = []
    for mistake in found:
        place = ".".join(map(str, mistake["loc"])) or "document"
        unknown = mistake["type"] == "unexpected_keyword_argument"
        text = f"unknown field {place}" if unknown else f"{place}: {mistake['msg']}"
        lines.append(f"{name}: {text}")
    if len(lines) > _SHOWN_MISTAKES:
        lines[_SHOWN_MISTAKES:] = [f"{name}: {len(lines) - _SHOWN_MISTAKES} more like these"]
    return "\n".join(lines)


def _check(results: Results, name: str) -> None:
    names = [case.name for case in results.cases]
    if len({*names}) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UsageError(f"{name}: two cases are called {twice!r}")
    for case in results.cases:
        functions: dict[str, Steps | Means] = {
            "loss": case.loss,
            "recovery_point": case.recovery_point,
        }
        functions |= {f"layers.{layer}": steps for layer, steps in case.layers.items()}
        for field, steps in functions.items():
            if fault := _fault(steps):
                raise UsageError(f"{name}: case {case.name!r}: {field}: {fault}")
        if case.end_ns < 0 or case.end_ns > _LARGEST:
            raise UsageError(f"{name}: case {case.name!r}: end_ns is out of range")
        if case.added.keys() != ADDED.keys():
            wanted = ", ".join(ADDED) or "none"
            raise UsageError(f"{name}: case {case.name!r}: added figures: expected {wanted}")
        for metric, figure in FIGURES.items():
            if not 0 <= figure.of(case) <= _LARGEST:
                raise UsageError(f"{name}: case {case.name!r}: {metric} is out of range")


def _fault(steps: Steps | Means) -> str:
    if len(steps.instants) != len(steps.values):
        return f"{len(steps.instants)} instants but {len(steps.values)} values"
    numbers = [*steps.instants, *steps.values]
    if not all(0 <= number <= _LARGEST for number in numbers):
        return "a number is out of range"
    if any(later < earlier for earlier, later in pairwise(steps.instants)):
        return "instants are not in order"
    return ""
