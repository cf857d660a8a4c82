"""What the server under test used and how it died, as a few lines of a console report.

Text of the server is escaped when it is read. On a screen, the block takes at most a fixed number of lines.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from smtpbench.measure.saved import Saved
from smtpbench.report.reading.findings import recorded_findings_of
from smtpbench.report.reading.server import SavedDeath, ServerUsage, server_of, summary_of_server
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
        events = [line for group in _by_text(server.deaths) for line in _brief(group)] + _log(server, 0)
        return [*figures, *(cut(line, screen.width) for line in _first(events, room - len(figures)))]
    phrases = summary_of_server(server)
    lines = [_LABEL + "; ".join(phrases)] if phrases else []
    explained = {finding.death.text for finding in recorded_findings_of(saved) if finding.death is not None}
    groups = _by_text(server.deaths)
    for group in groups[:_MAX_CAUSES]:
        lines += _death(group, with_details=group[0].text not in explained)
    more = len(groups) - _MAX_CAUSES
    lines += [f"  and {plural(more, 'more cause')}; see result.json"] if more > 0 else []
    return [*lines, *_log(server, _LOG_LINES)]


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


def _by_text(deaths: Sequence[SavedDeath]) -> list[list[SavedDeath]]:
    """Return the deaths in groups of one cause, in the order of their first ones."""
    groups: dict[str, list[SavedDeath]] = {}
    for death in deaths:
        groups.setdefault(death.text, []).append(death)
    return list(groups.values())


def _brief(deaths: Sequence[SavedDeath]) -> list[str]:
    """Return what the verdict, which is on the same screen, does not say of a death."""
    death, when = deaths[0], _when(deaths)
    if death.frames:
        return [f"server died{when}, in {' < '.join(death.frames)}"]
    return [f"server died{when}, last output: {death.output[-1]}"] if death.output else []


def _when(deaths: Sequence[SavedDeath]) -> str:
    first = deaths[0].at_s
    times = f" {plural(len(deaths), 'time')}" if len(deaths) > 1 else ""
    return times if first is None else f"{times}{', first' if times else ''} after {first:.1f} s"


def _death(deaths: Sequence[SavedDeath], *, with_details: bool) -> list[str]:
    death = deaths[0]
    lines = [f"server died{_when(deaths)}: {death.text}"]
    if with_details:
        lines += [f"  {name}: {value}" for name, value in death.details if name != "noticed"]
        lines += quoted_output(death.output)
    return lines


def quoted_output(lines: Sequence[str], indent: str = "  ") -> list[str]:
    """Return the last lines of an output, each marked as quoted."""
    return [f"{indent}| {line}" for line in lines[-_OUTPUT_LINES:]]


def _log(server: ServerUsage, most: int) -> list[str]:
    """Return how many lines of the log speak of errors, and the first ones."""
    count = len(server.log_lines) + server.log_lines_dropped
    if not count:
        return []
    quoted = [f"  | {line.quoted}" for line in server.log_lines[:most]]
    more = count - len(quoted)
    rest = [f"  and {plural(more, 'more line')}; see result.json"] if more and most else []
    return [f"server log: {plural(count, 'line')} on errors", *quoted, *rest]
