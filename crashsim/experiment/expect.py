"""What an experiment expects of its results, and whether it came true.

Contract: a condition is a comparison (`==` when only a value is written) with a quantity of the
metric's own kind: bytes, a duration or a count. `judge` is pure: conditions and figures in,
verdicts out, in the order of `FIGURES`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)

from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.experiment.block import Block, Contradiction
from crashsim.experiment.quantities import refused, units_required
from crashsim.results import FIGURES, Expectation

Kind = Literal["bytes", "duration", "count"]

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(==|<=|>=|<|>)?\s*(.*?)\s*\Z", re.DOTALL)
_COUNT = re.compile(r"[0-9]{1,18}\Z")
_UNIT = {"bytes": "bytes", "duration": "ns", "count": ""}
_EXAMPLES: dict[Kind, str] = {"bytes": "<= 1MiB", "duration": "<= 6s", "count": "== 0"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with `value` (bytes, ns or a plain count, as `kind` says)."""

    comparison: str
    value: int
    kind: Kind

    def __str__(self) -> str:
        return f"{self.comparison} {_exact(self.value, self.kind)}"

    def holds(self, actual: int) -> bool:
        """Whether a figure satisfies the condition."""
        return _COMPARISONS[self.comparison](actual, self.value)


def _exact(value: int, kind: Kind) -> str:
    if kind == "bytes":
        return units.exact_bytes(value)
    return units.exact_duration(value) if kind == "duration" else str(value)


def _quantity(text: str, kind: Kind) -> int | None:
    try:
        if kind == "bytes":
            return units.parse_bytes(text)
        if kind == "duration":
            return units.parse_duration(text)
    except UnitError:
        return None
    return int(text) if _COUNT.match(text) else None


def _reader(kind: Kind) -> Callable[[Any, ValidationInfo], Condition]:
    wanted = {"bytes": "size", "duration": "duration", "count": "count"}[kind]
    expected = f"expected a comparison with a {wanted} such as '{_EXAMPLES[kind]}'"

    def read(value: Any, info: ValidationInfo) -> Condition:
        if isinstance(value, Condition) and value.kind == kind:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            # 0 is the same in every unit, and the commonest expectation of all.
            if value >= 0 and (kind == "count" or value == 0 or not units_required(info)):
                return Condition("==", value, kind)
        elif isinstance(value, str):
            match = _CONDITION.match(value)
            number = None
            if match is not None:
                number = 0 if match[2] == "0" else _quantity(match[2], kind)
            if match is not None and number is not None:
                return Condition(match[1] or "==", number, kind)
        raise refused(f"{expected}, got {units.shown(value)}")

    return read


_COMPARISON_PATTERN = r"^\s*(==|<=|>=|<|>)?\s*"


def _schema(pattern: str, kind: Kind) -> WithJsonSchema:
    number = {"type": "integer", "minimum": 0}
    if kind != "count":
        number["maximum"] = 0
    text = {"type": "string", "pattern": _COMPARISON_PATTERN + f"(0|{pattern})" + r"\s*$"}
    return WithJsonSchema({"anyOf": [number, text], "examples": [_EXAMPLES[kind]]})


_text = PlainSerializer(str, when_used="json")
BytesCondition = Annotated[
    Condition,
    BeforeValidator(_reader("bytes")),
    _text,
    _schema(units.SIZE_PATTERN.strip("^$"), "bytes"),
]
DurationCondition = Annotated[
    Condition,
    BeforeValidator(_reader("duration")),
    _text,
    _schema(units.DURATION_PATTERN.strip("^$"), "duration"),
]
CountCondition = Annotated[
    Condition, BeforeValidator(_reader("count")), _text, _schema("[0-9]{1,18}", "count")
]


class Known(Block):
    """A finding that is known, and has to happen as long as it stands here."""

    outcome: str | None = Field(
        default=None,
        min_length=1,
        description="Findings of that outcome; * stands for anything, ? for one character.",
    )
    finding: str | None = Field(
        default=None,
        min_length=1,
        description="The finding that a saved state belongs to; a file beside the experiment.",
    )
    why: str = Field(min_length=1, description="Why it is no surprise.")

    def contradictions(self) -> Iterator[Contradiction]:
        if (self.outcome is None) == (self.finding is None):
            yield Contradiction((), "expected exactly one of outcome and finding")

    @property
    def name(self) -> str:
        """What was written."""
        return self.outcome or self.finding or ""

    def is_called(self, outcome: str) -> bool:
        """Whether findings of that outcome are meant by name."""
        return self.outcome is not None and fnmatchcase(outcome, self.outcome)


_CONDITIONS = {"bytes": BytesCondition, "ns": DurationCondition, "": CountCondition}
_fields: dict[str, Any] = {
    name: (_CONDITIONS[figure.unit] | None, Field(default=None, description=figure.says))
    for name, figure in FIGURES.items()
}
_Conditions: Any = create_model("_Conditions", __base__=Block, **_fields)


class Expect(_Conditions):  # type: ignore[misc]  # its fields are the table of figures
    """Conditions on a case's figures; losses are those of a host power cut."""

    known: tuple[Known, ...] = Field(
        default=(), strict=False, description="Findings that are known, and why; each must happen."
    )

    def conditions(self) -> dict[str, Condition]:
        """The metrics that something is expected of."""
        return {name: value for name, value in self if isinstance(value, Condition)}


def judge(expectations: Expect, metrics: Mapping[str, int]) -> list[Expectation]:
    """Each expectation with the figure found, in bytes, nanoseconds or counts.

    KeyError when `metrics` lacks one that is expected.
    """
    return [
        Expectation(
            metric=name,
            condition=str(condition),
            actual=metrics[name],
            unit=_UNIT[condition.kind],
            holds=condition.holds(metrics[name]),
        )
        for name, condition in expectations.conditions().items()
    ]
