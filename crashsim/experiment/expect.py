"""What an experiment expects of its results, and whether it came true.

Contract: a condition is a comparison (`==` when only a value is written) with a quantity of the
metric's own kind: bytes, a duration or a count. `judge` is pure: conditions and figures in,
verdicts out, in the order of `FIGURES`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationInfo, create_model

from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import Spelling, refused, units_required
from crashsim.results import FIGURES, Expectation


class _Kind(NamedTuple):
    """How figures of one unit are written."""

    parse: Callable[[str], int]
    exact: Callable[[int], str]
    wanted: str
    pattern: str
    example: str


def _count(text: str) -> int:
    if re.fullmatch("[0-9]{1,18}", text) is None:
        raise UnitError(text)
    return int(text)


_KINDS = {
    "bytes": _Kind(
        units.parse_bytes, units.exact_bytes, "size", units.SIZE_PATTERN.strip("^$"), "<= 1MiB"
    ),
    "ns": _Kind(
        *(units.parse_duration, units.exact_duration, "duration"),
        *(units.DURATION_PATTERN.strip("^$"), "<= 6s"),
    ),
    "": _Kind(_count, str, "count", "[0-9]{1,18}", "== 0"),
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = r"^\s*(==|<=|>=|<|>)?\s*"
_WRITTEN = re.compile(_COMPARISON + r"(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with `value`, whose `unit` is that of the figure: bytes, ns or none."""

    comparison: str
    value: int
    unit: str

    def __str__(self) -> str:
        return f"{self.comparison} {_KINDS[self.unit].exact(self.value)}"

    def holds(self, actual: int) -> bool:
        """Whether a figure satisfies the condition."""
        return _COMPARISONS[self.comparison](actual, self.value)


def _condition(unit: str) -> Spelling:
    kind = _KINDS[unit]

    def read(value: Any, info: ValidationInfo) -> Condition:
        if isinstance(value, Condition) and value.unit == unit:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            # 0 is the same in every unit, and the commonest expectation of all.
            if value >= 0 and (not unit or value == 0 or not units_required(info)):
                return Condition("==", value, unit)
        elif isinstance(value, str) and (match := _WRITTEN.fullmatch(value)):
            with suppress(UnitError):
                number = 0 if match[2] == "0" else kind.parse(match[2])
                return Condition(match[1] or "==", number, unit)
        expected = f"expected a comparison with a {kind.wanted} such as '{kind.example}'"
        raise refused(f"{expected}, got {units.shown(value)}")

    number = {"type": "integer", "minimum": 0} | ({"maximum": 0} if unit else {})
    text = {"type": "string", "pattern": _COMPARISON + f"(0|{kind.pattern})" + r"\s*$"}
    return Spelling(read, {"anyOf": [number, text], "examples": [kind.example]}, str)


class Known(Block):
    """A finding that is known, and has to happen as long as it stands here."""

    outcome: str | None = Key(
        None, "Findings of that outcome; * stands for anything, ? for one character.", min_length=1
    )
    finding: str | None = Key(
        None,
        "The finding that a saved state belongs to; a file beside the experiment.",
        min_length=1,
    )
    why: str = Field(min_length=1, description="Why it is no surprise.")

    def contradictions(self) -> Iterator[Clash]:
        if (self.outcome is None) == (self.finding is None):
            yield Clash((), "expected exactly one of outcome and finding")

    @property
    def name(self) -> str:
        """What was written."""
        return self.outcome or self.finding or ""

    def is_called(self, outcome: str) -> bool:
        """Whether findings of that outcome are meant by name."""
        return self.outcome is not None and fnmatchcase(outcome, self.outcome)


_CONDITIONS = {unit: Annotated[Condition, _condition(unit)] for unit in _KINDS}
_fields: dict[str, Any] = {
    name: (_CONDITIONS[figure.unit] | None, Field(default=None, description=figure.says))
    for name, figure in FIGURES.items()
}
_Conditions: Any = create_model("_Conditions", __base__=Block, **_fields)


class Expect(_Conditions):  # type: ignore[misc]  # its fields are the table of figures
    """Conditions on a case's figures; losses are those of a host power cut."""

    known: tuple[Known, ...] = Key(
        (), "Findings that are known, and why; each must happen.", strict=False
    )

    def conditions(self) -> dict[str, Condition]:
        """The metrics that something is expected of."""
        return {name: value for name, value in self if isinstance(value, Condition)}


class CaseBlock(Block):
    """What holds for the cases whose name matches."""

    expect: Expect = Field(description="Conditions, over those of the whole experiment.")


def judge(expectations: Expect, metrics: Mapping[str, int]) -> list[Expectation]:
    """Each expectation with the figure found, in bytes, nanoseconds or counts.

    KeyError when `metrics` lacks one that is expected.
    """
    return [
        Expectation(
            metric=name,
            condition=str(condition),
            actual=metrics[name],
            unit=condition.unit,
            holds=condition.holds(metrics[name]),
        )
        for name, condition in expectations.conditions().items()
    ]
