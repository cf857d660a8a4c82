"""Values out of JSON that anybody may have written: each is what it should be, or nothing.

A text comes out as `console.safe` leaves it: no control, format or unassigned character and no lone surrogate is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from smtpbench.report.console import safe

_GREATEST = 1e300
_SECTION = re.compile(r"RFC (?P<rfc>[0-9]{1,5})(?: §(?P<part>[0-9A-Z]{1,3}(?:\.[0-9]{1,3}){0,6}))?")


def number(value: object) -> float | None:
    """A finite number of a size that any reader takes; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_GREATEST < value < _GREATEST else None


def whole(value: object) -> int:
    """A count; 0 for what is none."""
    found = number(value)
    return int(found) if found is not None and found > 0 else 0


def words(value: object) -> str:
    """A text, made safe; empty for what is none."""
    return safe(value) if isinstance(value, str) else ""


def section(value: object, *names: str) -> Mapping[str, Any]:
    """The mapping at that place; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def entries(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    """The texts of a list, made safe."""
    return [words(entry) for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def duration_s(value: object) -> float | None:
    """A length of time; None for what is none."""
    found = number(value)
    return found if found is not None and 0 <= found < 1e12 else None


def instant(value: object) -> datetime | None:
    """An ISO 8601 time with its zone, in UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def instant_text(started: datetime | None) -> str:
    """`2026-01-02T03:04:05Z`; empty for None."""
    return f"{started.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if started is not None else ""


def rfc_url(place: str) -> str:
    """`RFC 5321 §4.1.1.4` → its address; empty for anything else."""
    match = _SECTION.fullmatch(place)
    if not match:
        return ""
    part = match["part"]
    anchor = "" if not part else f"#{'section' if part[0].isdigit() else 'appendix'}-{part}"
    return f"https://www.rfc-editor.org/rfc/rfc{match['rfc']}{anchor}"
