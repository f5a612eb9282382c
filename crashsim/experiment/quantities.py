"""The field types of the experiment's models: integers that a file writes with a unit.

Contract: in Python code a plain integer (ns, bytes, bytes/s, 1/s) is accepted, and so is text with
a unit. While a file is validated (`context` is `FROM_FILE`) a bare number is refused, because
nobody can tell whether `5` was meant as seconds. Each type also knows its exact text
(`model_dump(mode="json")`) and its JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import Field, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from crashsim.engine import units
from crashsim.errors import UnitError
from crashsim.printable import nearest

_KERNEL = re.compile(r"^[0-9]{1,3}\.[0-9]{1,3}$")
_NUMBER = re.compile(r"^[0-4](\.[0-9]{1,20})?$")

FROM_FILE: dict[str, object] = {"units_required": True}


def refused(message: str) -> PydanticCustomError:
    """A value error whose text is shown as it is."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def any_of(known: Iterable[str], got: object) -> str:
    """What was expected in place of a word, and the nearest of those."""
    words = list(known)
    expected = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    near = nearest(got, words) if isinstance(got, str) else ""
    return f"expected {expected}, got {units.shown(got)}{near}"


class Spelling:
    """`Annotated[T, Spelling(...)]`: how a value stands in a file. `read` gives the value of what
    was written (or was given by Python code) or raises `refused`; `exact` is its text, by default
    the value itself; `schema` says what an editor may let pass."""

    def __init__(
        self,
        read: Callable[[Any, ValidationInfo], Any],
        schema: Mapping[str, object] | Callable[[], Mapping[str, object]],
        exact: Callable[[Any], str] | None = None,
    ) -> None:
        self._read = read
        self._schema = schema
        self._exact = exact

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        serialization = None
        if self._exact is not None:
            serialization = core_schema.plain_serializer_function_ser_schema(
                self._exact, when_used="json"
            )
        return core_schema.with_info_plain_validator_function(
            self._read, serialization=serialization
        )

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        return dict(self._schema() if callable(self._schema) else self._schema)


class NameIn(Spelling):
    """The name of something in a table. What is put there later counts, too: the table is looked
    at when a value is checked, or the schema is made."""

    def __init__(self, table: Collection[str]) -> None:
        def read(value: object, _: ValidationInfo) -> str:
            if isinstance(value, str) and value in table:
                return value
            raise refused(any_of(table, value))

        super().__init__(read, lambda: {"enum": list(table), "type": "string"})


def units_required(info: ValidationInfo) -> bool:
    """Whether a file is being validated, rather than values given by Python code."""
    return bool(info.context and info.context.get("units_required"))


def _reader(
    parse: Callable[[str], int], expected: str, smallest: int
) -> Callable[[Any, ValidationInfo], int]:
    def read(value: Any, info: ValidationInfo) -> int:
        if isinstance(value, str):
            try:
                number = parse(value)
            except UnitError as error:
                raise refused(str(error)) from None
        elif isinstance(value, int) and not isinstance(value, bool) and not units_required(info):
            number = value
        else:
            raise refused(f"expected {expected}, got {units.shown(value)}")
        if number < smallest:
            raise refused(f"expected more than {smallest - 1}, got {units.shown(value)}")
        if number > units.LARGEST:
            raise refused(f"{units.shown(value)} is too large")
        if parse is units.parse_duration and number > units.LONGEST_NS:
            longest = units.exact_duration(units.LONGEST_NS)
            raise refused(f"expected at most {longest}, got {units.shown(value)}")
        return number

    return read


def _ratio(value: Any, _: ValidationInfo) -> tuple[int, int]:
    if isinstance(value, tuple):
        value = "/".join(str(part) for part in value)
    if not isinstance(value, str):
        raise refused(f"expected {units.EXPECTED_RATIO}, got {units.shown(value)}")
    try:
        return units.parse_ratio(value)
    except UnitError as error:
        raise refused(str(error)) from None


def _theta(value: Any, _: ValidationInfo) -> Decimal:
    try:
        if isinstance(value, bool | float) or (isinstance(value, str) and not _NUMBER.match(value)):
            raise InvalidOperation
        number = Decimal(value)
        if not 0 <= number <= 4:
            raise InvalidOperation
    except (InvalidOperation, TypeError, ValueError):
        message = f"expected a number from 0 to 4 such as 0.99, got {units.shown(value)}"
        raise refused(message) from None
    return number


def _kernel(value: Any, _: ValidationInfo) -> str:
    """YAML reads 6.18 as a number; the loader keeps its digits."""
    text = str(value) if isinstance(value, str | Decimal) else ""
    if not _KERNEL.match(text):
        raise refused(f"expected a Linux version such as 6.18, got {units.shown(value)}")
    return text


def text(pattern: str, example: str) -> dict[str, object]:
    """The schema of a text."""
    return {"type": "string", "pattern": pattern, "examples": [example]}


_read_duration, _read_positive = (
    _reader(units.parse_duration, units.EXPECTED_DURATION, smallest) for smallest in (0, 1)
)
read_size = _reader(units.parse_bytes, units.EXPECTED_SIZE, 1)
_read_byte_rate = _reader(units.parse_byte_rate, units.EXPECTED_BYTE_RATE, 1)
_read_rate = _reader(units.parse_rate, units.EXPECTED_RATE, 1)
_duration = text(units.DURATION_PATTERN, "5s")
_byte_rate = text(units.BYTE_RATE_PATTERN, "1.2GB/s")
_number = {"type": "number"}

Duration = Annotated[int, Spelling(_read_duration, _duration, units.exact_duration)]
PositiveDuration = Annotated[int, Spelling(_read_positive, _duration, units.exact_duration)]
Size = Annotated[int, Spelling(read_size, text(units.SIZE_PATTERN, "64MiB"), units.exact_bytes)]
ByteRate = Annotated[int, Spelling(_read_byte_rate, _byte_rate, units.exact_byte_rate)]
Rate = Annotated[int, Spelling(_read_rate, text(units.RATE_PATTERN, "2000/s"), units.exact_rate)]
Ratio = Annotated[
    tuple[int, int], Spelling(_ratio, text(units.RATIO_PATTERN, "1/8"), units.exact_ratio)
]
_theta_schema = {
    "anyOf": [
        _number | {"minimum": 0, "maximum": 4},
        {"type": "string", "pattern": _NUMBER.pattern},
    ]
}
Theta = Annotated[Decimal, Spelling(_theta, _theta_schema, str)]
_kernel_schema = {"anyOf": [{"type": "string", "pattern": _KERNEL.pattern}, _number]}
Kernel = Annotated[str, Spelling(_kernel, _kernel_schema)]
Count = Annotated[int, Field(ge=1, le=10**9)]
