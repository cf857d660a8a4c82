"""What the server under test used and how it died, as a few lines of a console report.

Text of the server is escaped when it is read. On a screen, the block takes at most a fixed number of lines.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from smtpbench.measure.saved import Saved
from smtpbench.report.reading.findings import recorded_findings_of
from smtpbench.report.reading.server import (
    DeathsOfOneCause,
    ServerUsage,
    deaths_by_cause,
    log_lines_by_text,
    server_of,
    summary_of_server,
)
from smtpbench.report.terminal.screen import Screen, cut
from smtpbench.text import plural

#: Lines of a screen for the figures.
_FIGURE_LINES: Final = 2
#: Lines of its last output and of its log that are shown where the report may have any length.
_OUTPUT_LINES: Final = 10
_LOG_LINES: Final = 10
_MAX_CAUSES: Final = 20
_LABEL: Final = "server: "
_INDENT: Final = " " * len(_LABEL)


def server_lines(saved: Saved, screen: Screen | None = None, room: int = 5) -> list[str]:
    """Return the block on the server; no lines where nothing is known of it.

    Args:
        saved: The result.
        screen: Size to fit into; None for everything, in whole lines.
        room: Lines of the screen that the block may take.
    """
    server = server_of(saved)
    if server is None:
        return []
    if screen is not None:
        figures = _figures(server, screen.width, min(_FIGURE_LINES, room))
        events = [line for group in deaths_by_cause(server.deaths) for line in _brief(group)]
        return [*figures, *(cut(line, screen.width) for line in _first(events, room - len(figures)))]
    phrases = summary_of_server(server)
    lines = [_LABEL + "; ".join(phrases)] if phrases else []
    explained = {finding.death.text for finding in recorded_findings_of(saved) if finding.death is not None}
    groups = deaths_by_cause(server.deaths)
    for group in groups[:_MAX_CAUSES]:
        lines += _death(group, with_details=group.first.text not in explained)
    more = len(groups) - _MAX_CAUSES
    lines += [f"  and {plural(more, 'more cause')}; see result.json"] if more > 0 else []
    return [*lines, *_log(server)]


def _figures(server: ServerUsage, width: int, room: int) -> list[str]:
    """Return as many figures as fit, the most important first."""
    phrases = summary_of_server(server)
    for count in range(len(phrases), 0, -1):
        text = _LABEL + "; ".join(phrases[:count])
        lines = textwrap.wrap(text, width, subsequent_indent=_INDENT, break_on_hyphens=False)
        if len(lines) <= room:
            return lines
    return []


def _first(lines: list[str], room: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"  and {plural(len(lines) - room + 1, 'more line')}; see result.json"] if room > 0 else []


def _brief(deaths: DeathsOfOneCause) -> list[str]:
    """Return what the verdict, which is on the same screen, does not say of a death."""
    death = deaths.first
    if death.frames:
        return [f"server died{deaths.when}, in {' < '.join(death.frames)}"]
    return [f"server died{deaths.when}, last output: {death.output[-1]}"] if death.output else []


def _death(deaths: DeathsOfOneCause, *, with_details: bool) -> list[str]:
    if not with_details:
        return [deaths.headline]
    details = [f"  {name}: {value}" for name, value in deaths.details]
    return [deaths.headline, *details, *quoted_output(deaths.first.output)]


def quoted_output(lines: Sequence[str], indent: str = "  ") -> list[str]:
    """Return the last lines of an output, each marked as quoted."""
    return [f"{indent}| {line}" for line in lines[-_OUTPUT_LINES:]]


def _log(server: ServerUsage) -> list[str]:
    """Return how many lines of the log speak of errors, and the first ones."""
    count = len(server.log_lines) + server.log_lines_dropped
    if not count:
        return []
    groups = log_lines_by_text(server.log_lines)[:_LOG_LINES]
    quoted = [f"  | {line.quoted}" + (f"  ({number:,} ×)" if number > 1 else "") for line, number in groups]
    more = count - sum(number for _, number in groups)
    rest = [f"  and {plural(more, 'more line')}; see result.json"] if more else []
    return [f"server log: {plural(count, 'line')} on errors", *quoted, *rest]
