"""The verdict on a result as the last lines of a console report: a line for each cause, the gravest first."""

from __future__ import annotations

import textwrap
from typing import Final

from smtpbench.measure.saved import Saved
from smtpbench.report.reading.verdict import BAD, GOOD, WARNING, ResultVerdict, verdict_of
from smtpbench.report.terminal.screen import Screen, styled
from smtpbench.text import plural

_STYLES: Final = {BAD: "1;31", WARNING: "33", GOOD: "32"}
#: Causes that a screen shows at most.
_MAX_CAUSES = 6
#: Lines of a screen for one of them.
_MAX_LINES = 3


def verdict_text(saved: Saved, *, color: bool = False, screen: Screen | None = None, label: str = "") -> str:
    """Return the verdict on a result.

    Args:
        saved: The result.
        color: Whether to use ANSI escapes.
        screen: Size to wrap long lines to; None for whole lines.
        label: What to put before each line.
    """
    return "\n".join(styled(line, style if color else "") for line, style in verdict_lines(verdict_of(saved), screen, label))


def verdict_lines(verdict: ResultVerdict, screen: Screen | None = None, label: str = "") -> list[tuple[str, str]]:
    """Return the lines of a verdict, each with its ANSI style; see `verdict_text`."""
    causes = verdict.causes if screen is None else verdict.causes[:_MAX_CAUSES]
    prefix = f"{label}: " if label else ""
    lines = [(f"{prefix}{cause.line}", _STYLES[cause.level]) for cause in causes]
    if len(causes) < len(verdict.causes):
        more = plural(len(verdict.causes) - len(causes), "more cause")
        lines.append((f"and {more}; see result.json", ""))
    if screen is None:
        return lines
    return [
        (part, style)
        for line, style in lines
        for part in textwrap.wrap(line, screen.width, subsequent_indent="  ", max_lines=_MAX_LINES, placeholder=" …")
    ]
