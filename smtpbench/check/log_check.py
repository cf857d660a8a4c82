"""The server's log in a check: quoted in the results of violated rules, and searched for errors that no rule shows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

import trio

from smtpbench.check.rule_result import HEALTH, RuleResult
from smtpbench.rules import rule as r
from smtpbench.session.runner import SessionResult, SessionRunner
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
from smtpbench.units import NS_PER_MS

#: Time for all of it, seconds; sessions to try for one line.
_TIME_S: Final = 10.0
_MAX_SESSIONS: Final = 32
#: Lines this near to a death speak of it.
_DEATH_NS: Final = 500 * NS_PER_MS


class LogCheck:
    """Reads the log of the server that is checked, from the time on at which this object is made.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        server: The server under test.
    """

    def __init__(self, runner: SessionRunner, server: SupervisedServer) -> None:
        self._runner = runner
        self._server = server
        self._from_ns = time.monotonic_ns()

    async def complete(
        self,
        results: dict[str, RuleResult],
        session_results: Sequence[SessionResult],
        run_script: Callable[[Script], Awaitable[SessionResult]],
    ) -> None:
        """Quote the log in the results of violated rules, and find sessions that cause errors there.

        Args:
            results: Results by the name of the rule, which are completed in place.
            session_results: Sessions of the probes.
            run_script: Runs the session of a violated rule once more.
        """
        server = self._server
        lines = telling_lines(server.log_lines(self._from_ns, time.monotonic_ns()))
        if not lines:
            return
        earlier = server.log_lines(0, self._from_ns)
        known = {line_key(line.text) for line in earlier}  # from sessions that find out what the target offers
        with trio.move_on_after(_TIME_S):
            for name, result in list(results.items()):
                if result.violated and result.session_result is not None and result.death is None:
                    from_ns = time.monotonic_ns()
                    await run_script(result.session_result.script)
                    quoted = quoted_lines(server.log_lines(from_ns, time.monotonic_ns()), known)
                    results[name] = replace(result, log_lines=quoted)
            health = results.get(HEALTH)
            if health is not None and not health.violated:
                results[HEALTH] = await self._find_error(health, session_results, lines, known)

    async def _find_error(
        self,
        health: RuleResult,
        session_results: Sequence[SessionResult],
        lines: Sequence[LogLine],
        known: Collection[str],
    ) -> RuleResult:
        """Return `health`, violated by the session that makes an error appear in the log if there is one."""
        search, tried = LogSearch(self._runner, self._server), set(known)
        for line in lines:
            key = line_key(line.text)
            if key in tried or any(abs(line.at_ns - death.at_ns) < _DEATH_NS for death in self._server.deaths):
                continue
            tried.add(key)
            scripts = [one.script for one in session_results if one.transcript.was_open(line.at_ns, LATE_NS)]
            script = await search.find(scripts[-_MAX_SESSIONS:], key)
            if script is None:
                continue
            session_result, found = await search.run(script, key)
            if found:
                verdict = r.violated(error_text(key, found), 0, severity_of_lines(found))
                quoted = quoted_lines(found, known)
                return RuleResult(health.rule, verdict, session_result, "2 of 2", None, quoted, f"{LOG_CAUSE}{key}")
        return health
