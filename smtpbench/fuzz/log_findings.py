"""Cases that make lines of an error appear in the log of a server that lives.

Lines that appear for the unchanged scenario too, and those of a server that died, are no finding. Each line is one, whatever
its numbers; see `supervisor.log_evidence`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from smtpbench.fuzz.confirmation import split_end
from smtpbench.fuzz.losses import CutOffCase
from smtpbench.fuzz.mutation import replace_steps
from smtpbench.fuzz.outage_search import ends_with, with_quit
from smtpbench.fuzz.outages import Outages
from smtpbench.fuzz.shrink import scenario_lines, shrink
from smtpbench.fuzz.suspect import CONFIRMATIONS, CampaignStats, Suspect
from smtpbench.fuzz.target_health import TargetHealth
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.runner import SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.death import LogLine
from smtpbench.supervisor.log_evidence import (
    LATE_NS,
    LOG_CAUSE,
    LogSearch,
    error_text,
    line_key,
    quoted_lines,
    severity_of_lines,
    telling_lines,
)
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_S

#: Different lines of a campaign, and cases for each.
_MAX_LINES: Final = 10
_MAX_CASES: Final = 32
#: Time after which the cases have ended that were open when a line was read.
_SETTLE_NS: Final = NS_PER_S
#: Share of the time that is left for the search, and the time for all lines in times that shrinking one case may take.
_SHARE: Final = 0.5
_SEARCHES: Final = 2
_ALL_NS: Final = 1 << 62


@dataclass(slots=True)
class _Entry:
    """A line, and the cases that were open when it was read first."""

    line: LogLine
    cases: list[CutOffCase]
    count: int = 1


class LogFindings:
    """Collects lines of the server's log, and finds the cases behind them.

    Args:
        stats: The suspects of the campaign.
        runner: Runs sessions with the server; nothing else may use it in a search.
        server: The server.
        health: Knows whether the server is gone.
        outages: The deaths, and the latest cases.
        scenario: The scenario that cases were made from; its own commands are kept or removed as a whole.
        control: The scenario, unchanged, with its end.
        shrink_s: Time for shrinking one suspect, seconds.

    Attributes:
        known: Keys of lines that the unchanged scenario causes.
    """

    def __init__(
        self,
        stats: CampaignStats,
        runner: SessionRunner,
        server: SupervisedServer,
        health: TargetHealth,
        outages: Outages,
        scenario: Script,
        control: Script,
        shrink_s: float,
    ) -> None:
        self._stats = stats
        self._runner = runner
        self._server = server
        self._health = health
        self._outages = outages
        self._scenario = scenario
        self._control = control
        self._shrink_s = shrink_s
        self._entries: dict[str, _Entry] = {}
        self._from_ns = time.monotonic_ns()
        self.known: set[str] = set()

    def begin(self) -> None:
        """Record what the baseline causes, and begin with the cases."""
        now_ns = time.monotonic_ns()
        self.known |= {line_key(line.text) for line in self._server.log_lines(self._from_ns, now_ns)}
        self._from_ns = now_ns + 1

    def update(self, now_ns: int) -> None:
        """Record the lines of which all cases have ended."""
        to_ns = now_ns - _SETTLE_NS
        if to_ns < self._from_ns:
            return
        for line in telling_lines(self._server.log_lines(self._from_ns, to_ns)):
            key = line_key(line.text)
            if key in self._entries:
                self._entries[key].count += 1
            elif key not in self.known and len(self._entries) < _MAX_LINES and not self._outages.covers(line.at_ns):
                cases = [case for case in self._outages.latest if case.was_open(line.at_ns, LATE_NS)]
                if cases:
                    self._entries[key] = _Entry(line, cases[-_MAX_CASES:])
        self._from_ns = to_ns + 1

    async def find(self, slow_ns: int, limit: TimeLimit) -> None:
        """Find the cases that cause the lines, and record them.

        Args:
            slow_ns: Limit for a reply in a search, nanoseconds.
            limit: When the campaign ends.
        """
        self.update(_ALL_NS)
        now_s = trio.current_time()
        end_s = min(limit.share_of_the_rest_s(now_s, _SHARE), now_s + _SEARCHES * self._shrink_s)
        search = LogSearch(self._runner, self._server, TrackedSession, slow_ns)
        with trio.move_on_at(end_s):
            for key, entry in self._entries.items():
                if self._health.gone:
                    return
                await self._explain(search, key, entry, end_s)

    async def _explain(self, search: LogSearch, key: str, entry: _Entry, end_s: float) -> None:
        if (await search.run(self._control, key))[1]:
            self.known.add(key)
            return
        numbers = {id(case.session_result.script): case.number for case in entry.cases}
        script = await search.find([case.session_result.script for case in entry.cases], key)
        if script is None:
            return
        suspect: Suspect | None = None
        for tried in range(1, CONFIRMATIONS + 1):
            session_result, lines = await search.run(script, key)
            if lines:
                seen = 1 if suspect is None else suspect.seen + 1
                suspect = Suspect(numbers[id(script)], session_result, _violation(key, lines), entry.count, seen)
                suspect.log_lines = quoted_lines(lines, self.known)
            if suspect is not None:
                suspect.tried = tried
        if suspect is None:
            return
        self._stats.suspects.setdefault(("health", suspect.violation.cause), suspect)
        if suspect.is_deterministic:
            await self._shrink(search, key, suspect, end_s)

    async def _shrink(self, search: LogSearch, key: str, suspect: Suspect, end_s: float) -> None:
        steps, _ = split_end(suspect.session_result.script.steps)
        whole_line = ends_with(steps, b"\r\n")

        async def appears(script: Script) -> bool:
            if whole_line and not ends_with(script.steps, b"\r\n"):
                return False
            return bool((await search.run(with_quit(script), key))[1])

        shrink_s = min(self._shrink_s, max(0.0, end_s - trio.current_time()) / 2)
        small = await shrink(
            replace_steps(self._scenario, steps), appears, shrink_s, scenario_lines(self._scenario), concurrency=1
        )
        for script in (small, with_quit(small)):
            session_result, lines = await search.run(script, key)
            if lines:
                suspect.session_result, suspect.violation = session_result, _violation(key, lines)
                suspect.log_lines = quoted_lines(lines, self.known)
                return


def _violation(key: str, lines: Sequence[LogLine]) -> Violation:
    return Violation("health", error_text(key, lines), f"{LOG_CAUSE}{key}", severity_of_lines(lines))
