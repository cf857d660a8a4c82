"""Quantities as text and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpbench import units
from smtpbench.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ns"),
    [("0s", 0), ("500ms", 500_000_000), ("1m30s", 90_000_000_000), ("1.5h", 5_400_000_000_000), (" 7us ", 7_000)],
)
def test_durations_are_parsed(text: str, ns: int) -> None:
    assert units.parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("1024", 1024), ("4KiB", 4096), ("1.5 MiB", 1_572_864), ("10MB", 10_000_000), ("7B", 7)]
)
def test_sizes_are_parsed(text: str, count: int) -> None:
    assert units.parse_size_bytes(text) == count


@pytest.mark.parametrize(("text", "per_s"), [("500/s", 500.0), ("30/m", 0.5), ("36 / h", 0.01), ("0.5/s", 0.5)])
def test_rates_are_parsed(text: str, per_s: float) -> None:
    assert units.parse_rate_per_s(text) == per_s


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_duration_ns, ""), (units.parse_duration_ns, "5"), (units.parse_duration_ns, "-1s"),
        (units.parse_duration_ns, "1s later"), (units.parse_size_bytes, "1.5"), (units.parse_size_bytes, "4 kib"),
        (units.parse_rate_per_s, "500"), (units.parse_rate_per_s, "500/d"), (units.parse_share, "0.5"),
        (units.parse_share, "101%"), (units.parse_count, "1e3"), (units.parse_count, "-1"), (units.parse_count, "٣"),
    ],
)  # fmt: skip
def test_text_that_is_not_a_quantity_is_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(UsageError, match=r"is not"):
        parse(text)


def test_ranges_are_parsed() -> None:
    assert units.parse_ends("100/s..5/s", units.parse_rate_per_s) == (100.0, 5.0)
    assert units.parse_range("1KiB..2KiB", units.parse_size_bytes) == (1024, 2048)
    assert units.parse_range("3", units.parse_count) == (3, 3)
    with pytest.raises(UsageError, match="ends below its start"):
        units.parse_range("2..1", units.parse_count)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0.00 us"), (1_234, "1.23 us"), (99_940, "99.9 us"), (99_960, "100 us"), (999_400, "999 us"),
        (999_600, "1.00 ms"), (1_250_000_000, "1.25 s"), (3_600_000_000_000, "3600 s"),
    ],
)  # fmt: skip
def test_durations_have_three_digits(ns: int, text: str) -> None:
    assert units.format_duration(ns) == text


@given(st.integers(0, 10**15))
def test_formatted_duration_is_close_to_the_true_one(ns: int) -> None:
    number, unit = units.format_duration(ns).split()
    shown_ns = float(number) * {"us": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert abs(shown_ns - ns) <= max(0.0051 * ns, 10)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (812, "812 B"), (65_536, "64.0 KiB"), (5 * 2**30, "5.00 GiB")])
def test_sizes_are_formatted_with_binary_units(count: int, text: str) -> None:
    assert units.format_bytes(count) == text
