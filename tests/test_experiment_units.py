"""Quantities: text with a unit to integers, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.engine import units
from crashsim.errors import UnitError

QUANTITY = st.integers(min_value=0, max_value=units.LARGEST)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("5s", 5_000_000_000),
        ("200ms", 200_000_000),
        ("1.5ms", 1_500_000),
        ("30us", 30_000),
        ("30µs", 30_000),  # the micro sign
        ("30\u03bcs", 30_000),  # the Greek letter
        ("2400ns", 2_400),
        ("0s", 0),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        (" 5 s ", 5_000_000_000),
        ("0.1s", 100_000_000),
    ],
)
def test_a_duration_is_read_exactly(text: str, nanoseconds: int) -> None:
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64MiB", 64 << 20), ("1.5kB", 1500), ("16TiB", 16 << 40), ("2GB", 2 * 10**9)],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    assert units.parse_bytes(text) == size


def test_rates_and_ratios_are_read_exactly() -> None:
    assert units.parse_byte_rate("1.2GB/s") == 1_200_000_000
    assert units.parse_byte_rate("500MiB/s") == 500 << 20
    assert units.parse_rate("2000/s") == 2000
    assert units.parse_ratio("1/8") == (1, 8)


@pytest.mark.parametrize(
    "text", ["5", "", "s", "5 5s", "-5s", "5x", "1e3s", "5sec", "\u0665s", "1_0s"]
)
def test_text_that_is_no_duration_says_what_was_expected(text: str) -> None:
    with pytest.raises(UnitError, match="expected a duration with a unit such as 5s"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["5", "5mb", "64 mib", "MiB", "1,5MiB", "5s"])
def test_text_that_is_no_size_says_what_was_expected(text: str) -> None:
    with pytest.raises(UnitError, match="expected a size with a unit such as 64MiB"):
        units.parse_bytes(text)


@pytest.mark.parametrize("text", ["2000", "2000/m", "2.5/s", "/s", "-1/s"])
def test_text_that_is_no_rate_says_what_was_expected(text: str) -> None:
    with pytest.raises(UnitError, match="expected a rate such as 2000/s"):
        units.parse_rate(text)


@pytest.mark.parametrize("text", ["1.2GB", "1.2/s", "GB/s", "1GB/m"])
def test_text_that_is_no_byte_rate_says_what_was_expected(text: str) -> None:
    with pytest.raises(UnitError, match=r"expected a byte rate with a unit such as 1\.2GB/s"):
        units.parse_byte_rate(text)


@pytest.mark.parametrize("text", ["1", "1/0", "2/1", "-1/2", "1/8/2", "0.5"])
def test_text_that_is_no_ratio_says_what_was_expected(text: str) -> None:
    with pytest.raises(UnitError, match="expected a ratio such as 1/8"):
        units.parse_ratio(text)


def test_a_known_quantity_with_a_wrong_unit_lists_the_units() -> None:
    with pytest.raises(UnitError, match=r"units: TiB, GiB, MiB, KiB, B, TB, GB, MB, kB"):
        units.parse_bytes("64Mb")


def test_nothing_is_rounded() -> None:
    with pytest.raises(UnitError, match="whole number of nanoseconds"):
        units.parse_duration("0.5ns")
    with pytest.raises(UnitError, match="whole number of bytes"):
        units.parse_bytes("0.3KiB")


def test_a_quantity_that_does_not_fit_the_history_is_refused() -> None:
    with pytest.raises(UnitError, match="too large"):
        units.parse_duration("99999999999999999999h")


@given(QUANTITY)
def test_the_exact_text_of_a_quantity_reads_back_as_the_same_number(value: int) -> None:
    assert units.parse_duration(units.exact_duration(value)) == value
    assert units.parse_bytes(units.exact_bytes(value)) == value
    assert units.parse_byte_rate(units.exact_byte_rate(value)) == value
    assert units.parse_rate(units.exact_rate(value)) == value


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (30_000_000_000, "30s"),
        (90_000_000_000, "90s"),
        (1_500_000, "1.5ms"),
        (0, "0ns"),
        (1, "1ns"),
    ],
)
def test_an_exact_duration_is_short(nanoseconds: int, text: str) -> None:
    assert units.exact_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(4096, "4KiB"), (3 << 19, "1.5MiB"), (0, "0B"), (4097, "4097B"), (1 << 40, "1TiB")],
)
def test_an_exact_size_is_short(size: int, text: str) -> None:
    assert units.exact_bytes(size) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (1_234, "1.23 µs"),
        (1_235_000, "1.24 ms"),
        (12_345_678, "12.3 ms"),
        (999_499_999, "999 ms"),
        (999_500_000, "1 s"),
        (30_272_000_000, "30.3 s"),
        (59_990_000_000, "60 s"),
        (90_000_000_000, "90 s"),
        (750_000_000_000, "12.5 m"),
        (3_599_000_000_000, "1 h"),
        (-1_500, "-1.5 µs"),
    ],
)
def test_a_readable_duration_has_three_significant_figures(nanoseconds: int, text: str) -> None:
    assert units.format_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1 << 20, "1 MiB"),
        (1_572_864, "1.5 MiB"),
        (1023 * 1024, "1023 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        (8_960_000, "8.54 MiB"),
    ],
)
def test_a_readable_size_has_three_significant_figures(size: int, text: str) -> None:
    assert units.format_bytes(size) == text


def test_a_readable_byte_rate_is_decimal() -> None:
    assert units.format_byte_rate(1_200_000_000) == "1.2 GB/s"


@given(QUANTITY)
def test_a_readable_quantity_is_within_half_a_percent(value: int) -> None:
    for text, scales in (
        (units.format_duration(value), units.parse_duration),
        (units.format_bytes(value), units.parse_bytes),
    ):
        number, unit = text.split()
        scale = scales(f"1{unit}")
        whole, _, part = number.partition(".")
        shown_times_100 = int(whole + part.ljust(2, "0")) * scale
        assert abs(shown_times_100 - value * 100) * 200 <= value * 100
