"""Quantities as users write them: `30s`, `500/s`, `64KiB`, `5%`, and ranges of them with `..`.

Inside the program, durations are integers of nanoseconds, sizes integers of octets, and rates floats per second. Only the
functions of this module convert between quantities and text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TypeVar

from smtpbench.errors import UsageError

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_DURATION_PART = re.compile(_NUMBER + r"(?P<unit>us|µs|ms|s|m|h)")
_DURATION_NS = {"us": 1_000, "µs": 1_000, "ms": NS_PER_MS, "s": NS_PER_S, "m": 60 * NS_PER_S, "h": 3600 * NS_PER_S}
_SIZE = re.compile(_NUMBER + r"\s*(?P<unit>B|KB|MB|GB|KiB|MiB|GiB)?")
_SIZE_BYTES = {None: 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RATE = re.compile(_NUMBER + r"\s*/\s*(?P<unit>s|m|h)")
_RATE_S = {"s": 1, "m": 60, "h": 3600}
_SHARE = re.compile(_NUMBER + r"\s*%")

Quantity = TypeVar("Quantity")


def parse_duration_ns(text: str) -> int:
    """Parse a duration like `30s`, `500ms`, `1m30s` or `0s`; return nanoseconds. Raises UsageError."""
    position = total = 0
    text = text.strip()
    while match := _DURATION_PART.match(text, position):
        total += round(float(match["number"]) * _DURATION_NS[match["unit"]])
        position = match.end()
    if not text or position != len(text):
        raise UsageError(f"{text!r} is not a duration; write a number and us, ms, s, m or h, like 30s or 1m30s")
    return total


def parse_size_bytes(text: str) -> int:
    """Parse a size like `1024`, `4KiB` or `10MB`; return octets. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or (match["unit"] is None and "." in match["number"]):
        raise UsageError(f"{text!r} is not a size; write a number and B, KB, MB, KiB or MiB, like 64KiB")
    return round(float(match["number"]) * _SIZE_BYTES[match["unit"]])


def parse_rate_per_s(text: str) -> float:
    """Parse a rate like `500/s`, `30/m` or `100/h`; return events a second. Raises UsageError."""
    match = _RATE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a rate; write a number and /s, /m or /h, like 500/s")
    return float(match["number"]) / _RATE_S[match["unit"]]


def parse_share(text: str) -> float:
    """Parse a percentage: `5%` → 0.05. Raises UsageError."""
    match = _SHARE.fullmatch(text.strip())
    if not match or float(match["number"]) > 100:
        raise UsageError(f"{text!r} is not a percentage; write one from 0% to 100%, like 5%")
    return float(match["number"]) / 100


def parse_count(text: str) -> int:
    """Parse a whole number of at most 15 digits. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,15}", text.strip()):
        raise UsageError(f"{text!r} is not a whole number; write digits only, like 100")
    return int(text)


def parse_ends(text: str, parse: Callable[[str], Quantity]) -> tuple[Quantity, Quantity]:
    """Parse `a..b` or `a`, each with `parse`; return both ends, of which the second may be lower. Raises UsageError."""
    low_text, dots, high_text = text.partition("..")
    low = parse(low_text)
    return low, parse(high_text) if dots else low


def parse_range(text: str, parse: Callable[[str], Quantity]) -> tuple[Quantity, Quantity]:
    """Parse `a..b` or `a`, each with `parse`; return both ends. Raises UsageError, also if the second end is lower."""
    low, high = parse_ends(text, parse)
    if high < low:  # type: ignore[operator]  # every quantity parsed here is a number
        raise UsageError(f"range {text!r} ends below its start; write the lower end first")
    return low, high


def format_duration(ns: float) -> str:
    """Return a duration as text with three digits: `1.25 s`, `340 us`."""
    for limit, divisor, unit in ((NS_PER_MS, 1_000, "us"), (NS_PER_S, NS_PER_MS, "ms"), (math.inf, NS_PER_S, "s")):
        if ns < limit * 0.9995:  # a value that would round to 1000 is shown in the next unit
            return f"{_three_digits(ns / divisor)} {unit}"
    raise AssertionError("unreachable: the last limit is infinite")


def format_bytes(count: float) -> str:
    """Return a size as text with a binary unit: `812 B`, `64.0 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{_three_digits(count)} {unit}"
        count /= 1024
    return f"{_three_digits(count)} GiB"


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
