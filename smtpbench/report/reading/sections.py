"""Results as formats read them: as `sift` does for pages, but with all that there is of everything.

A text comes out as `console.safe` leaves it: no control, format or unassigned character and no lone surrogate is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from smtpbench.report.reading import lenient as sift
from smtpbench.report.reading.lenient import natural, number

__all__ = [
    "duration_s", "instant", "instant_text", "natural", "number", "records", "rfc_url", "section", "texts", "words",
]  # fmt: skip

#: Characters of a text, and entries of a list: what a result of ours never holds.
LONGEST: Final = 10_000
MOST: Final = 1_000_000
_SECTION = re.compile(r"RFC (?P<rfc>[0-9]{1,5})(?: §(?P<part>[0-9A-Z]{1,3}(?:\.[0-9]{1,3}){0,6}))?")


def words(value: object) -> str:
    """A text, made safe; empty for what is none."""
    return sift.text(value, LONGEST) if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """The texts of a list, made safe."""
    return [words(entry) for entry in sift.entries(value, MOST) if isinstance(entry, str)]


def section(value: object, *names: str) -> Mapping[str, Any]:
    """The mapping at that place; an empty one where there is none."""
    found = sift.at(value, *names)
    return found if isinstance(found, Mapping) else {}


def records(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    return sift.records(value, MOST)


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
