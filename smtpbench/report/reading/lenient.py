"""Results as pages need them: read leniently, since anybody may have made one up.

What has the wrong type is taken for missing, numbers that nobody measured (NaN, infinite, of a hundred digits) as well, and
text is made visible and cut. Nothing here raises, and nothing is longer than it says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from smtpbench.measure.histogram import Histogram
from smtpbench.report.terminal.tables import safe
from smtpbench.units import NS_PER_MS, format_duration

#: Entries of a list or mapping that a page shows at most.
MOST: Final = 300
#: Characters of a text in a table, and of a file.
SHORT: Final = 300
LONG: Final = 20_000
_GREATEST = 1e15
_UNKNOWN = "–"


def at(value: Any, *path: str) -> Any:
    """What stands there; None where there is nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def number(value: Any) -> float | None:
    """A finite number of a size that can be meant."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_GREATEST <= value <= _GREATEST else None  # false of NaN too


def natural(value: Any) -> int:
    """A count; 0 where there is none."""
    found = number(value)
    return 0 if found is None else max(0, int(found))


def text(value: Any, limit: int = SHORT) -> str:
    """One line of text, visible; empty where there is none. A number is text too."""
    if not isinstance(value, str):
        return "" if number(value) is None else f"{value:g}"
    shown = safe(value[:limit])
    return shown[:limit] + ("…" if len(value) > limit or len(shown) > limit else "")


def lines(value: Any, limit: int = LONG) -> str:
    """Text of several lines; every other control character is visible."""
    if not isinstance(value, str):
        return ""
    kept = value[:limit].replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(safe, line.split("\t"))) for line in kept) + ("\n…" if len(value) > limit else "")


def texts(value: Any, limit: int = SHORT) -> list[str]:
    """The texts of a list."""
    return [text(one, limit) for one in entries(value) if isinstance(one, str)]


def entries(value: Any, most: int = MOST) -> Sequence[Any]:
    """The first entries of a list."""
    return value[:most] if isinstance(value, list) else ()


def records(value: Any, most: int = MOST) -> list[Mapping[str, Any]]:
    """The first mappings of a list."""
    return [one for one in entries(value, most) if isinstance(one, Mapping)]


def items(value: Any, most: int = MOST) -> Iterator[tuple[str, Any]]:
    """The first entries of a mapping, by their names as they stand there."""
    if isinstance(value, Mapping):
        yield from islice(((name, entry) for name, entry in value.items() if isinstance(name, str)), most)


def histogram(times: Any) -> Histogram | None:
    """A slot's time out of a result, with its exact extremes; None where the text is none, or holds nothing."""
    try:
        found = Histogram.decode(at(times, "histogram"))
    except ValueError:
        return None
    low, high = number(at(times, "min_ms")), number(at(times, "max_ms"))
    if low is not None and high is not None and 0 <= low <= high:
        found.min_ns, found.max_ns = round(low * NS_PER_MS), round(high * NS_PER_MS)
    return found if found.count else None


def ms(value: Any) -> str:
    """Milliseconds in the unit that fits."""
    found = number(value)
    return _UNKNOWN if found is None or found < 0 else format_duration(found * NS_PER_MS)


def count(value: Any) -> str:
    """A count with its thousands apart."""
    found = number(value)
    return _UNKNOWN if found is None else f"{found:,.0f}"


def rate(value: Any) -> str:
    """Events a second, with as many digits as can be read."""
    found = number(value)
    if found is None:
        return _UNKNOWN
    return (
        f"{found:,.0f}"
        if abs(found) >= 1000 or found == int(found)
        else f"{found:,.1f}"
        if abs(found) >= 10
        else f"{found:.2f}"
    )


def share(value: Any, digits: int = 1) -> str:
    """A share from 0 to 1 as a percentage; what is not nothing does not look like it."""
    found = number(value)
    if found is None:
        return _UNKNOWN
    if found and abs(found) < 1e-8:
        return "< 0.000001 %"
    while found and digits < 6 and abs(found) * 100 < 10**-digits:
        digits += 1
    return f"{found * 100:.{digits}f} %".replace(f".{'0' * digits} %", " %")


def seconds(value: Any) -> str:
    """Seconds as people say them."""
    found = number(value)
    if found is None or found < 0:
        return _UNKNOWN
    if found < 120:
        return f"{found:.3g} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if rest else f"{minutes} min"


def at_most(values: Sequence[float | None], least: float = 0.0) -> float:
    """The greatest of the numbers there are."""
    return max((value for value in values if value is not None and math.isfinite(value)), default=least)
