"""Growth and busy loops of the server while it is fuzzed: noticed while cases run, and explained after them.

Theory of operation
===================

While cases run, the server is measured about twice a second, together with the number of cases done. If memory, descriptors
or threads seem to grow (`supervisor.growth`), the kinds of cases that the campaign sent are sent alone after it, one after
the other (`supervisor.growth_search`): the lines by their verbs first, and where none of those explains it, the cases of
each mutation family as they were drawn. Of a family that grows, half of the cases are sent, and half of the steeper half,
until one case is left.

After the last case nobody talks to the server for a moment. If it uses a core meanwhile (`supervisor.busy_loop`), and did
not before the first case, the suspects run on a fresh server: the lines by their verbs, then the cases in which the server
did not reply in time, those of which it did not answer the last write, and the latest ones. Where the server cannot be
started again, the likeliest of them is the finding, marked as not proved.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from typing import Final

import trio

from smtpbench.engine import api
from smtpbench.fuzz.admission import Case
from smtpbench.fuzz.suspect import CampaignStats, Suspect
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.rules import rule as r
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.busy_loop import busy_share, busy_text, find_busy_case
from smtpbench.supervisor.case_kinds import CaseKind, add_line, control_kind, kinds_of
from smtpbench.supervisor.growth import Resource, Usage, growing, may_grow
from smtpbench.supervisor.growth_search import CONFIRMATIONS, Growth, GrowthSearch
from smtpbench.supervisor.supervised import SupervisedServer

#: Time between two measurements, seconds: at first, and once a campaign is no short one.
_FIRST_INTERVAL_S: Final = 0.1
_INTERVAL_S: Final = 0.5
_FIRST_SAMPLES: Final = 20
#: Measurements to keep; then every other one is dropped.
_MAX_USAGES: Final = 240
#: Share of the time of a campaign that is kept for the search if something seems to grow, and the most it takes, seconds.
_SHARE: Final = 0.15
_MOST_S: Final = 60.0
#: Time for the first look at all kinds, seconds.
_LOOK_S: Final = 8.0
#: Share of the time that is left which the search may take.
_SEARCH_SHARE: Final = 0.75
#: Cases to keep of each family, and of those that may be the cause of a busy loop.
_PER_FAMILY: Final = 16
_MAX_SUSPECTS: Final = 32
#: Writes to remember, so that each is looked at once.
_MAX_SENT: Final = 10_000
#: Sessions of cases at the same time.
_PARALLEL: Final = 8
_RULE: Final = "health"
_BUSY_LOOP: Final = "busy loop"


class CampaignGrowth:
    """Notices and explains growth and busy loops.

    Args:
        stats: Progress and suspects of the campaign.
        runner: Runs sessions with the target.
        server: The server under test, whose processes are known.
        target_info: What is known of the target.
        script: The scenario that cases are made from.
    """

    def __init__(
        self, stats: CampaignStats, runner: SessionRunner, server: SupervisedServer, target_info: TargetInfo, script: Script
    ) -> None:
        self._stats = stats
        self._runner = runner
        self._server = server
        self._target_info = target_info
        self._usages: list[Usage] = []
        self._suspected: list[Resource] = []
        self._busy_before = 0.0
        self._sent: set[bytes] = set()
        self._lines: dict[str, bytes] = {}
        self._by_family: dict[str, list[Script]] = defaultdict(list)
        self._timed_out: deque[SessionResult] = deque(maxlen=_MAX_SUSPECTS)
        self._unanswered: deque[SessionResult] = deque(maxlen=_MAX_SUSPECTS)
        self._latest: deque[SessionResult] = deque(maxlen=_MAX_SUSPECTS)
        self._add_lines(script)

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Measure the server until cancelled, before the first case too."""
        self._busy_before = await busy_share(self._server, windows=1)
        self._measure()
        task_status.started()
        interval_s = _FIRST_INTERVAL_S
        while True:
            await trio.sleep(interval_s)
            self._measure()
            if len(self._usages) == _FIRST_SAMPLES:
                interval_s = max(interval_s, _INTERVAL_S)
            if len(self._usages) > _MAX_USAGES:
                del self._usages[1::2]
                interval_s *= 2
            if len(self._usages) % 4 == 0:
                self._suspected = growing(self._usages)

    def _measure(self) -> None:
        sample = self._server.measure()
        # between a death and the next start there is nothing to measure, or a process that is just starting
        if sample is not None and sample.processes and len(self._server.deaths) <= sample.restarts:
            self._usages.append(Usage(self._stats.run, sample))

    def add(self, case: Case, session_result: SessionResult, dialogue: Dialogue) -> None:
        """Record a case that ended."""
        script = session_result.script
        self._add_lines(script)
        for mutation in case.mutations:
            scripts = self._by_family[mutation.family]
            if len(scripts) < _PER_FAMILY:
                scripts.append(script)
        self._latest.append(session_result)
        if dialogue.end_reason == api.TIMEOUT:
            self._timed_out.append(session_result)
        elif dialogue.exchanges[-1].sent and not dialogue.exchanges[-1].replies:
            self._unanswered.append(session_result)

    def _add_lines(self, script: Script) -> None:
        """Keep one line of each verb: the first that is plain text, which is that of the scenario if it has one."""
        for step in script.steps:
            if step.wire not in self._sent:
                if len(self._sent) < _MAX_SENT:
                    self._sent.add(step.wire)
                add_line(self._lines, step)

    def reserved_s(self, duration_s: float) -> float:
        """Return what the search is likely to take, seconds. `duration_s`: time for the whole campaign."""
        return min(_SHARE * duration_s, _MOST_S) if self._suspected else 0.0

    # -- growth ----------------------------------------------------------------------------------------------------

    async def find_growth(self, limit: TimeLimit) -> None:
        """Find what makes the server grow, and record it.

        Args:
            limit: When the campaign ends.
        """
        self._measure()
        if not may_grow(self._usages) or not await self._server.wait_until_ready():
            return
        now_s = trio.current_time()
        end_s = min(now_s + _MOST_S, limit.share_of_the_rest_s(now_s, _SEARCH_SHARE))
        control = control_kind(self._target_info)
        search = GrowthSearch(self._runner, self._server, end_s)
        with trio.move_on_at(limit.latest_s):
            # all resources: of threads that leak, the campaign may have shown the memory only
            found = await search.find(self._kinds(), control, look_s=_LOOK_S)
            left = [resource for resource in growing(self._usages) if not any(resource in growth.slopes for growth in found)]
            if left:
                families = [
                    CaseKind(f"case of the family `{family}`", tuple(scripts), parallel=_PARALLEL)
                    for family, scripts in sorted(self._by_family.items())
                ]
                found += [await self._narrow(search, growth) for growth in await search.find(families, control, left)]
            for growth in found:
                self._add_growth(growth)

    def _kinds(self) -> list[CaseKind]:
        return kinds_of(self._target_info, self._lines)

    async def _narrow(self, search: GrowthSearch, growth: Growth) -> Growth:
        """Return the growth of one case of a family that grows; of the whole family if it takes several."""
        kind, resource = growth.kind, growth.resource
        while len(kind.scripts) > 1:
            middle = (len(kind.scripts) + 1) // 2
            slopes = []
            for scripts in (kind.scripts[:middle], kind.scripts[middle:]):
                half = replace(kind, scripts=scripts)
                measured = await search.measure(half)
                slope = None if measured is None else measured.grows(resource)
                if measured is not None and slope is not None and measured.session_result is not None:
                    slopes.append((slope.each, half, measured.session_result))
            if not slopes:
                break
            _, kind, growth.session_result = max(slopes, key=lambda one: one[0])
        if len(kind.scripts) > 1:
            growth.session_result = replace(growth.session_result, script=kind.scripts[0])
            growth.tried = growth.seen = 0
        return growth

    def _add_growth(self, growth: Growth) -> None:
        violation = Violation(_RULE, growth.actual, growth.cause, r.VIOLATION)
        suspect = Suspect(-1, growth.session_result, violation, unproved=not growth.tried)
        suspect.seen, suspect.tried, suspect.time_up = growth.seen, growth.tried, growth.tried < CONFIRMATIONS
        suspect.about = {"growth": growth.to_data()}
        self._stats.suspects[_RULE, growth.cause] = suspect

    # -- busy loops ------------------------------------------------------------------------------------------------

    async def find_busy_loop(self, limit: TimeLimit) -> None:
        """Find what makes the server use a core while nobody talks to it, and record it.

        Args:
            limit: When the campaign ends.
        """
        if self._busy_before or not self._latest:
            return
        share = await busy_share(self._server)
        if not share:
            return
        likeliest = (self._timed_out or self._unanswered or self._latest)[0]
        suspect = Suspect(-1, likeliest, Violation(_RULE, busy_text(share, self._busy_before), _BUSY_LOOP, r.VIOLATION))
        suspect.unproved, suspect.about = True, {"growth": {"resource": "cpu"}}
        self._stats.suspects[_RULE, _BUSY_LOOP] = suspect
        if not self._server.can_restart:
            return
        found = None
        with trio.move_on_at(limit.share_of_the_rest_s(trio.current_time())):
            found = await find_busy_case(self._server, self._runner, self._busy_suspects())
        if found is None:
            await self._server.restart()  # the other suspects are confirmed on a server that is quiet
            return
        suspect.session_result, suspect.unproved = found.session_result, False
        suspect.seen, suspect.tried = found.seen, found.tried
        suspect.violation = suspect.violation._replace(actual=busy_text(found.share, self._busy_before))

    def _busy_suspects(self) -> list[Script]:
        """Return the sessions that may be the cause, the simplest first."""
        cases = [session_result.script for session_result in (*self._timed_out, *self._unanswered, *self._latest)]
        return [kind.scripts[0] for kind in self._kinds()] + cases
