"""A fuzzing campaign: generate cases, evaluate each, and collect suspects; then confirm the suspects.

Theory of operation
===================

Cases are numbered in the order in which they are generated, and the number and the seed decide what a case is. The order in
which cases end, and how many run at the same time, therefore change nothing. Cases that break the same rule for the same
cause form one suspect; the case with the lowest number represents it.

A case that the server refused, because it is busy, runs again later, and fewer cases run at the same time meanwhile
(`fuzz.admission`).

While cases run, a health check runs the unchanged scenario at a fixed interval. Its latency is that of a well-behaved
client, and its failure shows that the target died. If nobody starts it again, no more cases begin.

A target that dies cuts off all its sessions. What the rules say of their ends waits until it is known whether it died
(`fuzz.losses`). After the last case, the cases that were cut off at the same moment run again, to find the one that kills
the target (`fuzz.crash_search`). One crash is one finding, and nothing else is reported of the sessions that it cut off. If
the target stays dead, nothing can be proved, and the cases that were cut off are candidates, the likeliest first
(`fuzz.crashes`). Where the server's processes are known, its deaths are facts with a moment (`fuzz.outages`), and the
cases of that moment run again alone, each on a fresh server (`fuzz.outage_search`).

Where the server's processes are known, it is measured while cases run. What makes it grow, or use a core for nothing, is
found afterwards (`fuzz.growth`).

Then the other suspects are repeated, one after the other, and those that showed each time are shrunk (`fuzz.confirmation`).
Those whose session took the least time come first, so that many are confirmed before the time is up (`fuzz.time_limit`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice

import trio

from smtpbench.engine import api
from smtpbench.fuzz.admission import Admission, Case
from smtpbench.fuzz.confirmation import QUIET_PERIOD, Confirmation
from smtpbench.fuzz.crash_search import CrashSearch
from smtpbench.fuzz.crashes import CrashFindings
from smtpbench.fuzz.growth import CampaignGrowth
from smtpbench.fuzz.log_findings import LogFindings
from smtpbench.fuzz.losses import END_RULES, CutOffCase, Losses
from smtpbench.fuzz.mutation import Addresses, apply_mutations, command_step, replace_steps
from smtpbench.fuzz.oracle import SLOW, Oracle, longest_wait
from smtpbench.fuzz.outage_search import OutageSearch
from smtpbench.fuzz.outages import Outages
from smtpbench.fuzz.plan import CampaignPlan, CaseLimiter
from smtpbench.fuzz.strategies import cases
from smtpbench.fuzz.suspect import CASES, CONFIRMATION, MAX_CANDIDATES, CampaignStats, Suspect, SuspectKey
from smtpbench.fuzz.target_health import HEALTH_CHECK_INTERVAL_S, TargetHealth
from smtpbench.fuzz.time_limit import TimeLimit
from smtpbench.rules import rule as r
from smtpbench.rules.crash import is_cut_off
from smtpbench.rules.discover import is_silent, silence_text
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.client import ClientSession
from smtpbench.session.dialogue import NO_GREETING, Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.supervisor.log_evidence import quoted_lines
from smtpbench.supervisor.supervised import SupervisedServer
from smtpbench.units import NS_PER_MS, NS_PER_S

#: A reply is slow if it takes this many times the longest wait of the baseline, and at least `_MIN_SLOW_NS`.
_SLOW_FACTOR = 30
_MIN_SLOW_NS = 500 * NS_PER_MS
#: The baseline: this many sessions at the same time, and as many times one after the other.
_BASELINE_SESSIONS = 4
#: Cases that begin before the event loop handles replies.
_CASES_PER_CHECKPOINT = 16
#: A refusal of a server that does not run at the moment.
_NO_CONNECTION = "no connection"
#: More than any reply takes, nanoseconds.
_UNLIMITED_NS = 1 << 62
#: Sessions that confirming a suspect takes, besides those of shrinking it.
_REPETITIONS = 5


class Campaign:
    """Fuzzes one target.

    Args:
        runner: Runs the cases.
        baseline: Runs the baseline, the health checks and the confirmation, which are measured apart from the cases.
        script: The scenario that cases are made from, without its end.
        target_info: What is known of the target.
        plan: What to do.
        peer: Runs every case with a second target as well, to find where the two differ.
        limiter: Decides when cases may begin; None for as soon as a connection is free.
        time_limit: When the campaign ends; None to start its time with `run`.
        server: The server under test; None if nothing is known of its processes.

    Attributes:
        stats: Progress and suspects so far.
        stop: Set this event, and no more cases begin.
    """

    def __init__(
        self,
        runner: SessionRunner,
        baseline: SessionRunner,
        script: Script,
        target_info: TargetInfo,
        plan: CampaignPlan,
        peer: SessionRunner | None = None,
        limiter: CaseLimiter | None = None,
        time_limit: TimeLimit | None = None,
        server: SupervisedServer | None = None,
    ) -> None:
        self._runner = runner
        self._peer = peer
        self._limiter = limiter
        self._script = script
        self._plan = plan
        self._addresses = Addresses.of(script.steps, plan.aliases, plan.unknown)
        self._oracle = Oracle(target_info, strict=plan.strict)
        self._confirmation = Confirmation(baseline, peer, self._oracle, script, plan.shrink_s)
        known = server if server is not None and server.known else None
        self._outages = None if known is None else Outages(known, script)
        self._losses = Losses(script, None if self._outages is None else self._outages.explain)
        self._health = TargetHealth(
            baseline, self._with_end(script.steps), self._losses.refuse, self._is_serving, server, self._outages
        )
        self._slow_ns = _MIN_SLOW_NS
        self._latest: deque[CutOffCase] = deque(maxlen=max(MAX_CANDIDATES, plan.connections))
        #: number of a case → its runner and session; None while that session begins
        self._running: dict[int, tuple[SessionRunner, ClientSession] | None] = {}
        self._admission = Admission(plan.connections)
        self._time_limit = time_limit
        #: number of suspects, and what confirming them is likely to take
        self._estimated, self._estimate_s = 0, 0.0
        self._wake_at = 0
        self._wake = trio.Event()
        self.stats = CampaignStats(plan.cases, None if plan.duration_ns is None else plan.duration_s)
        search = CrashSearch(baseline, self._health, script)
        self._crashes = CrashFindings(self.stats, script, search, self._health, self._losses, self._latest, plan.shrink_s)
        self._outage_search = None
        if known is not None and self._outages is not None:
            self._outage_search = OutageSearch(
                self.stats, baseline, known, self._health, self._outages, script, plan.shrink_s
            )
        self._growth = None if known is None else CampaignGrowth(self.stats, baseline, known, target_info, script)
        self._log_findings = None
        if known is not None and self._outages is not None:
            control = self._with_end(script.steps)
            self._log_findings = LogFindings(
                self.stats, baseline, known, self._health, self._outages, script, control, plan.shrink_s
            )
        self._server = known
        self.stop = trio.Event()

    async def run(self, report_progress: Callable[[CampaignStats], None] = lambda stats: None) -> CampaignStats:
        """Run all phases: baseline, cases, confirmation.

        Args:
            report_progress: Called at each health check, and before and after each confirmation.
        """
        limit = self._time_limit or TimeLimit(trio.current_time(), self._plan.duration_s)
        with trio.move_on_at(limit.latest_s):
            await self._measure_baseline()
        if self.stats.silence:
            return self.stats
        if self._limiter is not None:
            await self._limiter.wait_for_start()
        if self._log_findings is not None:
            self._log_findings.begin()
        self.stats.phase = CASES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_health_checks, trio.current_time(), report_progress)
            if self._growth is not None:
                await nursery.start(self._growth.watch)
            await self._run_cases(nursery, limit)
            await self._end_cases(limit)
            nursery.cancel_scope.cancel()
        self.stats.phase = CONFIRMATION
        if self._growth is not None:
            await self._growth.find_busy_loop(limit)
        if self._outage_search is not None:
            await self._outage_search.find(self._slow_ns, limit)
        recorded = self._outages is not None and bool(self._outages.settled)
        proved = None if self._outage_search is None else self._outage_search.proved
        await self._crashes.find(self._slow_ns, limit, recorded=recorded, proved=proved)
        if self._growth is not None and not self._health.gone:
            await self._growth.find_growth(limit)
        if self._log_findings is not None:
            await self._log_findings.find(self._slow_ns, limit)
        await self._confirm_suspects(limit, report_progress)
        return self.stats

    # -- cases -----------------------------------------------------------------------------------------------------

    async def _measure_baseline(self) -> None:
        """Run the unchanged scenario: how long do its replies take, and is anything wrong with it already?"""
        waits_ns = []
        silences = []

        async def run_sessions() -> None:
            for _ in range(_BASELINE_SESSIONS):
                reproduction = await self._confirmation.reproduce(self._with_end(self._script.steps), _UNLIMITED_NS)
                waits_ns.append(longest_wait(reproduction.session_result)[0])
                dialogue = Dialogue.of(reproduction.session_result.transcript)
                silences.append(silence_text(dialogue) if is_silent(dialogue) else dialogue.refusal)
                self.stats.add(-1, reproduction.session_result, reproduction.violations)
                if dialogue.refusal:
                    break  # it was refused each time that it was repeated

        async with trio.open_nursery() as nursery:
            for _ in range(_BASELINE_SESSIONS):
                nursery.start_soon(run_sessions)
        self._slow_ns = max(_MIN_SLOW_NS, _SLOW_FACTOR * max(waits_ns))
        self.stats.silence = silences[0] if all(silences) else ""

    async def _run_cases(self, nursery: trio.Nursery, limit: TimeLimit) -> None:
        """Begin cases until a limit is reached: those that were refused and are due, then new ones."""
        plan, admission = self._plan, self._admission
        fresh = enumerate(islice(cases(plan.families, plan.seed), plan.cases))
        while not self._is_over(limit):
            connections = admission.connections
            if len(self._running) >= connections:
                # wake up once for several cases that ended, so that several begin together
                await self._wait_until_running(connections - max(1, connections // 8), self._cases_end_s(limit))
                continue
            case = admission.next_due(trio.current_time())
            if case is None and not admission.is_full:
                numbered = next(fresh, None)
                case = None if numbered is None else Case(*numbered)
                if case is not None:
                    if self._limiter is not None and not await self._limiter.wait_for_case(case.number):
                        break
                    if self._is_over(limit):
                        break
                    self.stats.generated += 1
            if case is None:
                if not self._running and math.isinf(admission.next_due_s):
                    break
                await self._wait_until_running(len(self._running) - 1, min(admission.next_due_s, self._cases_end_s(limit)))
                continue
            if self._start_case(nursery, case) % _CASES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()

    def _is_over(self, limit: TimeLimit) -> bool:
        """Return whether no more cases may begin."""
        enough = len(self.stats.suspects) >= self._plan.max_findings
        serves_nobody = bool(self._admission.given_up) and not self.stats.run
        is_time = trio.current_time() >= self._cases_end_s(limit)
        return self.stop.is_set() or self._health.gone or enough or serves_nobody or is_time

    def _cases_end_s(self, limit: TimeLimit) -> float:
        suspects = self.stats.suspects
        if self._estimated != len(suspects):
            self._estimated = len(suspects)
            sessions_s = sum(map(_session_ns, suspects.values())) / NS_PER_S
            self._estimate_s = len(suspects) * self._plan.shrink_s + _REPETITIONS * sessions_s
        search_s = self._crashes.search_s
        if self._outage_search is not None:
            search_s = max(search_s, self._outage_search.search_s)
        growth_s = 0.0 if self._growth is None else self._growth.reserved_s(self._plan.duration_s)
        return limit.cases_end_s(self._estimate_s + search_s + growth_s)

    async def _end_cases(self, limit: TimeLimit) -> None:
        """Wait until the last case has ended, and end those that are still running when their time is up."""
        await self._wait_until_running(0, limit.share_of_the_rest_s(trio.current_time()))
        self.stats.interrupted = len(self._running)
        running, self._running = self._running, {}
        for runner, session in filter(None, running.values()):
            runner.stop(session)
        self._admission.give_up_the_rest()
        self._count_refusals()

    async def _wait_until_running(self, count: int, latest_s: float) -> None:
        """Wait until at most `count` cases are running, and not longer than until `latest_s`. A negative count: so long."""
        with trio.move_on_at(latest_s):
            while len(self._running) > count:
                self._wake, self._wake_at = trio.Event(), count
                await self._wake.wait()

    def _start_case(self, nursery: trio.Nursery, case: Case) -> int:
        """Begin a case and return the serial number of this attempt."""
        # callbacks and not a task: a task for each case would cost more than the case
        number, serial = case.number, self._admission.begin()
        script = self._with_end(apply_mutations(self._script.steps, case.mutations, self._addresses))

        def start(runner: SessionRunner, on_end: Callable[[SessionResult], None]) -> None:
            self._running[number] = None
            session = runner.start(script, on_end, TrackedSession)
            if number in self._running and self._running[number] is None:  # it has not ended already
                self._running[number] = runner, session

        def end(*session_results: SessionResult) -> None:
            if number not in self._running:
                return  # its time was up
            if self._peer is not None and len(session_results) == 1:
                start(self._peer, partial(end, *session_results))
            else:
                self._end_case(nursery, case, serial, *session_results)

        start(self._runner, end)
        return serial

    def _end_case(
        self, nursery: trio.Nursery, case: Case, serial: int, session_result: SessionResult, *peer_results: SessionResult
    ) -> None:
        dialogue = Dialogue.of(session_result.transcript)
        peer_dialogues = [Dialogue.of(peer.transcript) for peer in peer_results]
        refusal = next(filter(None, map(self._refusal, (dialogue, *peer_dialogues))), "")
        if refusal:
            if dialogue.end_reason == api.CONNECT_REFUSED:  # the target died
                self._losses.refuse(session_result.transcript.entries[-1].at_ns)
            nursery.start_soon(self._end_refused_case, case, serial, refusal)
            return
        self._admission.serve()
        violations = self._oracle.evaluate(session_result, dialogue, self._slow_ns, peer_results)
        end_violations = [violation for violation in violations if violation.rule in END_RULES]
        ended = CutOffCase(case.number, session_result, end_violations)
        self._latest.append(ended._replace(violations=()))
        if self._outages is not None:
            self._outages.add(ended._replace(violations=()))
        if self._growth is not None:
            self._growth.add(case, session_result, dialogue)
        if is_cut_off(dialogue):  # what is wrong with its end depends on whether the target died
            violations = [violation for violation in violations if violation.rule not in END_RULES]
            self._losses.add(ended)
        self.stats.add(case.number, session_result, violations)
        self.stats.run += 1
        self.stats.answered += not is_silent(dialogue)
        assert isinstance(session_result.session, TrackedSession)
        self.stats.verbs |= session_result.session.tracker.answered
        self._release_connection(case.number)

    def _refusal(self, dialogue: Dialogue) -> str:
        """Return how the server refused a session; empty if it served it.

        A server that is busy may also greet, and reply 421 to the first command. A mutated command may be what it dislikes.
        """
        if dialogue.end_reason == api.CONNECT_REFUSED:
            return _NO_CONNECTION
        if self._script.greeting is None and not dialogue.greeted:
            return ""  # the scenario begins before the greeting, and such a case may prevent it
        exchange = dialogue.exchanges[1] if len(dialogue.exchanges) > 1 else None
        if exchange is not None and exchange.code == 421 and exchange.sent == self._script.steps[0].wire:
            return "a reply of 421 to the first command"
        return dialogue.refusal

    async def _end_refused_case(self, case: Case, serial: int, refusal: str) -> None:
        """Keep a case for later. Where there was no greeting, check the target before another case takes its place."""
        if refusal in (_NO_CONNECTION, NO_GREETING):
            await self._health.check()
        running, is_busy = len(self._running), refusal != _NO_CONNECTION
        if self._release_connection(case.number):
            self._admission.refuse(case, serial, running, trio.current_time(), refusal, is_busy=is_busy)
            self._count_refusals()

    def _is_serving(self) -> bool:
        """Return whether the target keeps a connection open that it greeted."""
        sessions = [running[1] for running in self._running.values() if running is not None and running[0] is self._runner]
        return any(session.transcript is not None and session.transcript.received() for session in sessions)

    def _count_refusals(self) -> None:
        stats, admission = self.stats, self._admission
        stats.retried, stats.given_up, stats.refusal = admission.retried, admission.given_up, admission.refusal
        stats.connections_lowest = admission.lowest if admission.refusal else 0

    def _release_connection(self, number: int) -> bool:
        """Let another case take the place of this one. Return whether it was running: its time was not up."""
        was_running = number in self._running
        self._running.pop(number, None)
        if len(self._running) <= self._wake_at:
            self._wake.set()
        return was_running

    def _with_end(self, steps: Sequence[Step]) -> Script:
        """Return a script of these steps that ends with QUIT and waits for late replies."""
        quit_steps = [] if steps and steps[-1].wire == b"QUIT\r\n" else [command_step(b"QUIT\r\n")]
        return replace_steps(self._script, [*steps, *quit_steps, QUIET_PERIOD])

    async def _run_health_checks(self, started_s: float, report_progress: Callable[[CampaignStats], None]) -> None:
        while True:
            await trio.sleep(HEALTH_CHECK_INTERVAL_S)
            self.stats.elapsed_s = trio.current_time() - started_s
            report_progress(self.stats)
            await self._health.check()
            self._crashes.settle(time.monotonic_ns())
            if self._outage_search is not None:
                self._outage_search.settle(time.monotonic_ns())
            if self._log_findings is not None:
                self._log_findings.update(time.monotonic_ns())

    # -- confirmation ----------------------------------------------------------------------------------------------

    async def _apply_controls(self) -> None:
        """Replace suspects whose control shows another cause. Several may turn out to be the same."""
        suspects = self.stats.suspects
        for key, suspect in list(suspects.items()):
            real = await self._confirmation.control(suspect, self._slow_ns)
            if real is None:
                continue
            del suspects[key]
            known = suspects.setdefault((real.violation.rule, real.violation.cause), real)
            known.hits += suspect.hits if known is not real else 0

    async def _confirm_suspects(self, limit: TimeLimit, report_progress: Callable[[CampaignStats], None]) -> None:
        suspects = self.stats.suspects
        rules = {rule for rule, _ in suspects}
        for key in list(suspects):
            if rules & set(key[1].split(" or ")):
                del suspects[key]  # several causes are possible, and one of them is a suspect of its own
        if not self.stats.target_gone:
            with trio.move_on_at(limit.end_s):
                await self._apply_controls()
        unknown = [key for key, suspect in suspects.items() if not (suspect.tried or suspect.unproved)]
        in_order = sorted(unknown, key=lambda key: _session_ns(suspects[key]))
        crashed = any(suspect.violation.severity == r.CRASH for suspect in suspects.values())
        if not self.stats.target_gone:
            for key in in_order:
                report_progress(self.stats)
                from_ns = time.monotonic_ns()
                await self._within_time(limit, self._confirmation.repeat, key)
                self._quote_log(suspects[key], from_ns)
            for key in in_order:
                slow = key[1].startswith(SLOW)  # because of the load that the campaign itself makes
                cut_off = key[0] in END_RULES and crashed  # because another session killed the target
                if suspects[key].is_load_only and (slow or cut_off):
                    del suspects[key]
        to_shrink = [key for key in in_order if key in suspects and suspects[key].is_deterministic]
        for done, key in enumerate(to_shrink):
            report_progress(self.stats)
            await self._within_time(limit, self._confirmation.shrink, key, share=len(to_shrink) - done)
            self.stats.confirmed = len(suspects) - len(to_shrink) + done + 1
        self.stats.confirmed = len(suspects)
        report_progress(self.stats)

    def _quote_log(self, suspect: Suspect, from_ns: int) -> None:
        """Quote the server's log since a moment, in which only this suspect ran."""
        if self._server is not None and self._log_findings is not None:
            lines = self._server.log_lines(from_ns, time.monotonic_ns())
            suspect.log_lines = quoted_lines(lines, self._log_findings.known)

    async def _within_time(
        self, limit: TimeLimit, work: Callable[[SuspectKey, Suspect, int], Awaitable[None]], key: SuspectKey, share: int = 1
    ) -> None:
        """Do some work on a suspect, unless the time is up.

        Args:
            limit: When the campaign ends.
            work: The work.
            key: Key of the suspect.
            share: How many suspects share the time that is left.
        """
        suspect, now_s = self.stats.suspects[key], trio.current_time()
        time_s = min(self._plan.confirmation_s, (limit.end_s - now_s) / share)
        suspect.time_up = True
        if time_s > 0:
            with trio.move_on_at(now_s + time_s) as scope:
                await work(key, suspect, self._slow_ns)
            suspect.time_up = scope.cancelled_caught


def _session_ns(suspect: Suspect) -> int:
    """Return how long the session of a suspect took, nanoseconds."""
    entries = suspect.session_result.transcript.entries
    return entries[-1].at_ns - entries[0].at_ns if entries else 0
