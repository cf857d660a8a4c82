"""Values of a result as text: durations, counts, rates, shares, times and references to RFCs."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from smtpbench.text import visible
from smtpbench.units import NS_PER_MS, format_duration

#: Placeholder for a missing value.
MISSING: Final = "–"
_MAX_VISIBLE = 10_000
_MIN_SHARE = 1e-8
_MAX_SHARE_DIGITS = 6
_MINUTES_FROM_S = 120
_REFERENCE = re.compile(r"RFC (?P<rfc>[0-9]{1,5})(?: §(?P<part>[0-9A-Z]{1,3}(?:\.[0-9]{1,3}){0,6}))?")


class LowerBound(float):
    """A value that would be higher if replies that did not come had come later."""


def safe(value: object) -> str:
    """Return a result's text with control, format and unassigned characters and lone surrogates spelled out.

    Text of a result has been made visible already, so its backslashes are not doubled a second time.
    """
    return visible(str(value), _MAX_VISIBLE).replace("\\\\", "\\")


def cut_text(value: str, limit: int) -> str:
    """Return at most `limit` characters of a text; an ellipsis follows where something is missing."""
    return value if len(value) <= limit else f"{value[:limit]}…"


def format_ms(value: float | None) -> str:
    """Return milliseconds in the unit that fits, after `≥` if they are a lower bound."""
    if value is None or value < 0:
        return MISSING
    shown = format_duration(value * NS_PER_MS)
    return f"≥{shown}" if isinstance(value, LowerBound) else shown


def format_count(value: float | None) -> str:
    """Return a count with thousands separators."""
    return MISSING if value is None else f"{value:,.0f}"


def format_rate(value: float | None) -> str:
    """Return events per second, with as many digits as are readable."""
    if value is None:
        return MISSING
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def format_share(value: float | None, digits: int = 1) -> str:
    """Return a share from 0 to 1 as a percentage; only 0 itself is written as `0 %`."""
    if value is None:
        return MISSING
    if value and abs(value) < _MIN_SHARE:
        return "< 0.000001 %"
    while value and digits < _MAX_SHARE_DIGITS and abs(value) * 100 < 10**-digits:
        digits += 1
    return f"{value * 100:.{digits}f} %".replace(f".{'0' * digits} %", " %")


def format_seconds(value: float | None) -> str:
    """Return a duration in seconds, from two minutes on in minutes and hours."""
    if value is None or value < 0:
        return MISSING
    if value < _MINUTES_FROM_S:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if rest else f"{minutes} min"


def format_instant(moment: datetime | None) -> str:
    """Return `2026-01-02T03:04:05Z`; empty for None."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment is not None else ""


def rfc_url(section: str) -> str:
    """Return the address of `RFC 5321 §4.1.1.4`; empty for anything else."""
    match = _REFERENCE.fullmatch(section)
    if not match:
        return ""
    part = match["part"]
    anchor = "" if not part else f"#{'section' if part[0].isdigit() else 'appendix'}-{part}"
    return f"https://www.rfc-editor.org/rfc/rfc{match['rfc']}{anchor}"
