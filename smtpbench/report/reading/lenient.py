"""Access to results that may be made up: typed, bounded, and without exceptions.

A value of the wrong type counts as missing. So does a number that cannot have been measured (NaN, infinite, or a hundred
digits long). Text comes back with its control characters spelled out and cut to a limit. The other modules of this package
build typed values with these functions; no other code of a report reads a raw result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from smtpbench.report.reading.formatting import safe

#: Entries of a list or mapping that are read at most.
MAX_ENTRIES: Final = 1_000_000
#: Characters of a text that are read at most.
MAX_TEXT: Final = 10_000
#: Characters of a file's text that are read at most.
MAX_FILE_TEXT: Final = 20_000
_MAX_NUMBER = 1e15
_MAX_DURATION_S = 1e12


def at(value: object, *path: str) -> Any:
    """Return the value at a path of keys; None where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def number(value: object) -> float | None:
    """Return a finite number of a plausible size; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_MAX_NUMBER <= value <= _MAX_NUMBER else None  # false of NaN too


def natural(value: object) -> int:
    """Return a count; 0 where there is none."""
    found = number(value)
    return 0 if found is None else max(0, int(found))


def duration_s(value: object) -> float | None:
    """Return a duration in seconds; None for anything else."""
    found = number(value)
    return found if found is not None and 0 <= found < _MAX_DURATION_S else None


def instant(value: object) -> datetime | None:
    """Return an ISO 8601 time with its zone, in UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def text(value: object, limit: int = MAX_TEXT) -> str:
    """Return one line of visible text of at most `limit` characters and an ellipsis; empty for anything but text."""
    if not isinstance(value, str):
        return ""
    shown = safe(value[:limit])
    return shown[:limit] + ("…" if len(value) > limit or len(shown) > limit else "")


def lines(value: object, limit: int = MAX_FILE_TEXT) -> str:
    """Return text of several lines, in which every other control character is spelled out."""
    if not isinstance(value, str):
        return ""
    kept = value[:limit].replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(safe, line.split("\t"))) for line in kept) + ("\n…" if len(value) > limit else "")


def entries(value: object, limit: int = MAX_ENTRIES) -> Sequence[Any]:
    """Return the first entries of a list."""
    return value[:limit] if isinstance(value, list) else ()


def texts(value: object, limit: int = MAX_TEXT) -> list[str]:
    """Return the texts of a list."""
    return [text(entry, limit) for entry in entries(value) if isinstance(entry, str)]


def records(value: object, limit: int = MAX_ENTRIES) -> list[Mapping[str, Any]]:
    """Return the mappings among the first entries of a list."""
    return [entry for entry in entries(value, limit) if isinstance(entry, Mapping)]


def mapping(value: object, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path of keys; an empty one where there is none."""
    found = at(value, *path)
    return found if isinstance(found, Mapping) else {}


def items(value: object, limit: int = MAX_ENTRIES) -> Iterator[tuple[str, Any]]:
    """Yield the first entries of a mapping, each with its name as visible text."""
    if isinstance(value, Mapping):
        yield from islice(((text(name), entry) for name, entry in value.items() if isinstance(name, str)), limit)


def greatest(values: Sequence[float | None], default: float = 0.0) -> float:
    """Return the greatest finite number; `default` where there is none."""
    return max((value for value in values if value is not None and math.isfinite(value)), default=default)
