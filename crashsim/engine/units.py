"""Quantities with units: text to integers and back.

Contract: integers only, so nothing is ever rounded on the way in. A duration is nanoseconds, a size
bytes, a byte rate bytes per second, a rate events per second. `parse_*` takes text with a unit
(`1.5ms`, `64MiB`, `1.2GB/s`, `2000/s`) and raises `UnitError` with what was expected; `exact_*` is
its inverse (`parse(exact(n)) == n`); `format_*` is for people: three significant figures, a space
before the unit. `exact_instant` is for instants: whoever types one again means the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction

from crashsim.errors import UnitError

# 2^62: sums of two quantities still fit the signed 64-bit columns of the History.
LARGEST = 1 << 62

# No run takes longer: 100 days, so that what happens every few seconds happens in bounded time.
LONGEST_NS = 2400 * 3_600_000_000_000

_DURATIONS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_READABLE_SECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "\u00b5s": 1_000, "ns": 1}
_READABLE_DURATIONS = {"h": _DURATIONS["h"], "m": _DURATIONS["m"], **_READABLE_SECONDS}
_BINARY_SIZES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_DECIMAL_SIZES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}
_SIZES = {**_BINARY_SIZES, **_DECIMAL_SIZES}
# U+00B5 (micro sign) and U+03BC (Greek mu) look the same; both are typed.
_DURATION_SPELLINGS = {**_DURATIONS, "\u00b5s": 1_000, "\u03bcs": 1_000}

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s?([^\W\d_]+)\Z")
_RATE = re.compile(r"([0-9]{1,20})\s*/\s*s\Z")
_RATIO = re.compile(r"([0-9]{1,9})\s?/\s?([0-9]{1,9})\Z")

_ANY_DURATION = "(" + "|".join(_DURATION_SPELLINGS) + ")"
_ANY_SIZE = "(" + "|".join(_SIZES) + ")"
# For editors (JSON Schema); the parsers below decide.
DURATION_PATTERN = rf"^\s*{_NUMBER}\s?{_ANY_DURATION}\s*$"
SIZE_PATTERN = rf"^\s*{_NUMBER}\s?{_ANY_SIZE}\s*$"
BYTE_RATE_PATTERN = rf"^\s*{_NUMBER}\s?{_ANY_SIZE}\s*/\s*s\s*$"
RATE_PATTERN = r"^\s*[0-9]{1,20}\s*/\s*s\s*$"
RATIO_PATTERN = r"^\s*[0-9]{1,9}\s?/\s?[0-9]{1,9}\s*$"

EXPECTED_DURATION = "a duration with a unit such as 5s or 200ms"
EXPECTED_SIZE = "a size with a unit such as 64MiB or 512B"
EXPECTED_BYTE_RATE = "a byte rate with a unit such as 1.2GB/s or 500MiB/s"
EXPECTED_RATE = "a rate such as 2000/s"
EXPECTED_RATIO = "a ratio such as 1/8"


def shown(value: object) -> str:
    """A wrong value as it is quoted in a message: short, on one line, in the file's own words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _quantity(text: str, units: Mapping[str, int], expected: str, base: str) -> int:
    match = _QUANTITY.match(text.strip())
    if match is None or match[2] not in units:
        raise UnitError(f"expected {expected}, got {shown(text)}{_unit_hint(match, units)}")
    value = Fraction(match[1]) * units[match[2]]
    if value.denominator != 1:
        raise UnitError(f"expected a whole number of {base}, got {shown(text)}")
    if value > LARGEST:
        raise UnitError(f"{shown(text)} is too large")
    return value.numerator


def _unit_hint(match: re.Match[str] | None, units: Mapping[str, int]) -> str:
    if match is None:
        return ""
    spelled = [unit for unit in units if unit.isascii()]
    return f" (units: {', '.join(spelled)})"


def parse_duration(text: str) -> int:
    """Nanoseconds of `5s`, `1.5ms`, `30us`, `2h`."""
    return _quantity(text, _DURATION_SPELLINGS, EXPECTED_DURATION, "nanoseconds")


def parse_bytes(text: str) -> int:
    """Bytes of `512B`, `64MiB`, `1.5kB`."""
    return _quantity(text, _SIZES, EXPECTED_SIZE, "bytes")


def parse_byte_rate(text: str) -> int:
    """Bytes per second of `1.2GB/s`."""
    amount, slash, second = text.strip().rpartition("/")
    with suppress(UnitError):
        if slash and second.strip() == "s":
            return parse_bytes(amount)
    raise UnitError(f"expected {EXPECTED_BYTE_RATE}, got {shown(text)}")


def parse_rate(text: str) -> int:
    """Events per second of `2000/s`."""
    match = _RATE.match(text.strip())
    if match is None:
        raise UnitError(f"expected {EXPECTED_RATE}, got {shown(text)}")
    return int(match[1])


def parse_ratio(text: str) -> tuple[int, int]:
    """Numerator and denominator of `1/8`, at most 1."""
    match = _RATIO.match(text.strip())
    if match is None or int(match[2]) == 0 or int(match[1]) > int(match[2]):
        raise UnitError(f"expected {EXPECTED_RATIO} between 0/1 and 1/1, got {shown(text)}")
    return int(match[1]), int(match[2])


def _exact(value: int, units: Mapping[str, int]) -> str:
    """The shortest text with at most three decimals that reads back as `value`."""
    candidates = []
    for unit, scale in units.items():
        thousandths, rest = divmod(value * 1000, scale)
        if rest == 0 and (value >= scale or scale == 1):
            candidates.append(_decimal(thousandths, 3) + unit)
    return min(candidates, key=len)


def _decimal(value: int, places: int) -> str:
    whole, part = divmod(value, 10**places)
    digits = f"{part:0{places}d}".rstrip("0") if places else ""
    return f"{whole}.{digits}" if digits else str(whole)


def exact_duration(nanoseconds: int) -> str:
    """`1.5ms` of 1500000: reads back as the same number."""
    return _exact(nanoseconds, _DURATIONS)


def exact_bytes(size_bytes: int) -> str:
    """`64MiB` of 67108864: reads back as the same number."""
    return _exact(size_bytes, _BINARY_SIZES)


def exact_byte_rate(bytes_per_second: int) -> str:
    """`1.2GB/s` of 1200000000: reads back as the same number."""
    return _exact(bytes_per_second, {**_DECIMAL_SIZES, **_BINARY_SIZES}) + "/s"


def exact_rate(per_second: int) -> str:
    """`2000/s` of 2000."""
    return f"{per_second}/s"


def exact_ratio(ratio: tuple[int, int]) -> str:
    """`1/8` of (1, 8)."""
    return f"{ratio[0]}/{ratio[1]}"


def _readable(value: int, units: Mapping[str, int]) -> str:
    """Three significant figures, rounded half up in integers."""
    if value < 0:
        return "-" + _readable(-value, units)
    names = list(units)
    index = next((i for i, unit in enumerate(names) if value >= units[unit]), len(names) - 1)
    text = _three_figures(value, units[names[index]])
    # 999.7 ms rounds to 1000 ms, which is better said as 1 s.
    if index > 0 and int(text.partition(".")[0]) * units[names[index]] >= units[names[index - 1]]:
        index -= 1
        text = _three_figures(value, units[names[index]])
    return f"{text} {names[index]}"


def _three_figures(value: int, scale: int) -> str:
    places = next((p for p in (2, 1) if value * 10**p < 1000 * scale), 0)
    return _decimal((value * 10**places * 2 + scale) // (2 * scale), places)


def format_duration(nanoseconds: int) -> str:
    """For people: `1.23 ms`, `90 s`, `12.5 m`."""
    long = abs(nanoseconds) >= 600 * _DURATIONS["s"]
    return _readable(nanoseconds, _READABLE_DURATIONS if long else _READABLE_SECONDS)


def exact_instant(t_ns: int) -> str:
    """An instant to be told and to be typed again: `1.0024ms` of 1002400, exact, not rounded."""
    unit = next((unit for unit in ("s", "ms", "us") if t_ns >= _DURATIONS[unit]), "ns")
    return _decimal(t_ns, len(str(_DURATIONS[unit])) - 1) + unit


def roundest(first: int, last: int) -> int:
    """The number of first ... last (of no sign) that is told in the fewest digits."""
    scale = 1
    while -(-first // (10 * scale)) * 10 * scale <= last and scale <= last:
        scale *= 10
    return -(-first // scale) * scale


def format_bytes(size_bytes: int) -> str:
    """For people: `1.5 MiB`, `512 B`."""
    return _readable(size_bytes, _BINARY_SIZES)


def format_byte_rate(bytes_per_second: int) -> str:
    """For people, in the decimal units of data sheets: `1.2 GB/s`."""
    return _readable(bytes_per_second, {**_DECIMAL_SIZES, "B": 1}) + "/s"
