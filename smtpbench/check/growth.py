"""Growth and busy loops of the server after a check, and when a finding of them is replayed.

After the probes, nobody talks to the server for a moment, to see whether it uses a core meanwhile (`supervisor.busy_loop`).
If it is quiet, the verbs that the probes sent are sent alone, each a hundred times, and the server is measured. That takes a
few seconds at most. Kinds that make it grow are sent a thousand times more (`supervisor.growth_search`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from smtpbench.rules import rule as r
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.scenario.model import GrowthMetadata
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.busy_loop import busy_share, busy_text, find_busy_case
from smtpbench.supervisor.case_kinds import CaseKind, control_kind, kinds_of, lines_of
from smtpbench.supervisor.growth import RESOURCE_OF
from smtpbench.supervisor.growth_search import GrowthSearch, growth_again
from smtpbench.supervisor.supervised import SupervisedServer

#: Severity of growth and of a busy loop: the server goes on to reply, and nobody is harmed at once.
SEVERITY: Final = r.VIOLATION
#: Time for the first look at all kinds, and for the whole search if something grows, seconds.
_LOOK_S: Final = 2.5
_SEARCH_S: Final = 10.0
#: Time for the search of the session that makes the server spin, seconds.
_BUSY_SEARCH_S: Final = 30.0
#: Time for a replay, seconds.
_REPLAY_S: Final = 60.0
#: Sessions that may be the cause of a busy loop, besides the kinds.
_MAX_SUSPECTS: Final = 32


@dataclass(frozen=True, slots=True)
class GrowthResult:
    """Growth or a busy loop.

    Attributes:
        actual: What the server does.
        cause: Tells it from others.
        session_result: A session that shows it.
        reproducibility: In how many attempts it showed.
        about: Further keys for the file of the finding.
    """

    actual: str
    cause: str
    session_result: SessionResult
    reproducibility: str
    about: Mapping[str, Any] = field(default_factory=dict)


class GrowthCheck:
    """Looks for growth and busy loops.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        server: The server under test, whose processes are known.
        target_info: What is known of the target.
    """

    def __init__(self, runner: SessionRunner, server: SupervisedServer, target_info: TargetInfo) -> None:
        self._runner = runner
        self._server = server
        self._target_info = target_info
        self._busy_before = 0.0

    async def begin(self) -> None:
        """Measure the server before the first probe."""
        self._busy_before = await busy_share(self._server, windows=1)

    async def find(self, session_results: Sequence[SessionResult]) -> list[GrowthResult]:
        """Return what the server does wrong. `session_results`: sessions of the probes."""
        if not await self._server.wait_until_ready():
            return []
        scripts = [session_result.script for session_result in session_results]
        kinds = kinds_of(self._target_info, lines_of(scripts))
        busy = await self._find_busy_loop(kinds, session_results)
        if busy:
            return busy
        search = GrowthSearch(self._runner, self._server, trio.current_time() + _SEARCH_S)
        found = await search.find(kinds, control_kind(self._target_info), look_s=_LOOK_S)
        return [
            GrowthResult(
                growth.actual,
                growth.cause,
                growth.session_result,
                f"{growth.seen} of {growth.tried}",
                {"growth": growth.to_data()},
            )
            for growth in found
        ]

    async def _find_busy_loop(
        self, kinds: Sequence[CaseKind], session_results: Sequence[SessionResult]
    ) -> list[GrowthResult]:
        share = 0.0 if self._busy_before or not session_results else await busy_share(self._server)
        if not share:
            return []
        latest = session_results[-_MAX_SUSPECTS:]
        found = None
        if self._server.can_restart:
            suspects: list[Script] = [kind.scripts[0] for kind in kinds]
            with trio.move_on_after(_BUSY_SEARCH_S):
                found = await find_busy_case(self._server, self._runner, suspects + [one.script for one in latest])
            if found is None:
                await self._server.restart()
        about = {"growth": {"resource": "cpu"}}
        if found is None:
            text = busy_text(share, self._busy_before)
            return [GrowthResult(text, "busy loop", latest[-1], "1 of 1, not proved", about)]
        text, times = busy_text(found.share, self._busy_before), f"{found.seen} of {found.tried}"
        return [GrowthResult(text, "busy loop", found.session_result, times, about)]


async def replay_growth(
    runner: SessionRunner,
    server: SupervisedServer | None,
    target_info: TargetInfo,
    script: Script,
    growth: GrowthMetadata,
) -> tuple[bool | None, str]:
    """Return whether a server still grows or spins, None if that cannot be told, and what it does or why.

    Args:
        runner: Runs sessions with the target; nothing else may use the target meanwhile.
        server: The server under test; None if nothing is known of its processes.
        target_info: What is known of the target.
        script: The session of the finding.
        growth: What grew when it was found.
    """
    if server is None or not server.known or server.measure() is None:
        return None, "that shows only where the server's processes are known: give --start or --watch"
    if growth.resource == "cpu":
        return await _replay_busy_loop(runner, server, script)
    resource = RESOURCE_OF[growth.resource]
    search = GrowthSearch(runner, server, trio.current_time() + _REPLAY_S)
    control = await search.measure(control_kind(target_info))
    measured = await search.measure(CaseKind("case", (script,), growth.per_session))
    if measured is None or control is None:
        return None, "the server was started again while it was measured"
    slope = measured.slope(resource)
    still = growth_again(measured, control, resource, growth.each)
    if slope is None:
        return None, f"the server served {measured.done:,} cases only"
    each = resource.format(slope.each)
    return still, f"{resource.name} {resource.verb} by {each} for each case ({measured.done:,} cases)"


async def _replay_busy_loop(runner: SessionRunner, server: SupervisedServer, script: Script) -> tuple[bool | None, str]:
    before = await busy_share(server, windows=1)
    if before and server.can_restart and await server.restart():
        before = await busy_share(server, windows=1)
    if before:
        return None, "the server uses a core before the session"
    await runner.run(script, TrackedSession)
    share = await busy_share(server)
    if share and server.can_restart:
        await server.restart()  # the next finding needs a server that is quiet
    return share > 0, busy_text(share, before) if share else ""
