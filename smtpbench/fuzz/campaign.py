"""A fuzzing campaign: generate cases, evaluate each, and collect suspects; then confirm the suspects.

Theory of operation
===================

Cases are numbered in the order in which they are generated, and the number and the seed decide what a case is. The order in
which cases end, and how many run at the same time, therefore change nothing. Cases that break the same rule for the same
cause form one suspect; the case with the lowest number represents it.

While cases run, a health check runs the unchanged scenario at a fixed interval. Its latency is that of a well-behaved
client, and its failure shows that the target died. If nobody starts it again, no more cases begin.

A target that dies cuts off all its sessions. What the rules say of their ends waits until it is known whether it died
(`fuzz.losses`). After the last case, the cases that were cut off at the same moment run again, to find the one that kills
the target (`fuzz.crash_search`). One crash is one finding, and nothing else is reported of the sessions that it cut off. If
the target stays dead, nothing can be proved, and the cases that were cut off are candidates, the likeliest first
(`fuzz.crashes`).

Then the other suspects are confirmed and shrunk, one after the other (`fuzz.confirmation`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import trio

from smtpbench.engine import api
from smtpbench.fuzz.confirmation import QUIET_PERIOD, Confirmation
from smtpbench.fuzz.crash_search import CrashSearch
from smtpbench.fuzz.crashes import MAX_CANDIDATES, CrashFindings
from smtpbench.fuzz.losses import END_RULES, CutOffCase, Losses
from smtpbench.fuzz.mutation import Mutation, apply_mutations, command_step, replace_steps
from smtpbench.fuzz.oracle import SLOW, Oracle, longest_wait
from smtpbench.fuzz.strategies import cases
from smtpbench.fuzz.suspect import CASES, CONFIRMATION, CampaignStats
from smtpbench.fuzz.target_health import HEALTH_CHECK_INTERVAL_S, TargetHealth
from smtpbench.rules import rule as r
from smtpbench.rules.crash import is_cut_off
from smtpbench.rules.discover import is_silent, silence_text
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult, SessionRunner
from smtpbench.session.script import Script, Step
from smtpbench.units import NS_PER_MS, NS_PER_S

#: A reply is slow if it takes this many times the longest wait of the baseline, and at least `_MIN_SLOW_NS`.
_SLOW_FACTOR = 30
_MIN_SLOW_NS = 500 * NS_PER_MS
#: The baseline: this many sessions at the same time, and as many times one after the other.
_BASELINE_SESSIONS = 4
#: Cases that begin before the event loop handles replies.
_CASES_PER_CHECKPOINT = 16
#: More than any campaign lasts, nanoseconds.
_UNLIMITED_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What a campaign does. It ends at whichever of `cases` and `duration_ns` is reached first.

    Attributes:
        cases: Cases to generate, at most.
        duration_ns: Time for generating cases, nanoseconds; None without a limit.
        seed: Random seed; the same seed generates the same cases.
        connections: Cases that run at the same time.
        families: Mutation families to use, see `fuzz.families`.
        max_findings: No more cases begin once there are this many suspects.
        strict: Whether rules of severity `advice` count.
        shrink_s: Time for shrinking one suspect, seconds.
    """

    cases: int
    duration_ns: int | None
    seed: int
    connections: int
    families: Sequence[str]
    max_findings: int
    strict: bool = False
    shrink_s: float = 5.0


class CaseLimiter(Protocol):
    """Decides when cases may begin, where that is not as soon as a connection is free."""

    async def wait_for_start(self) -> None:
        """Wait until the campaign may begin its first case. Called once, after the baseline."""

    async def wait_for_case(self, number: int) -> bool:
        """Wait until case `number` may begin. Return False if no more cases may begin."""


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
    ) -> None:
        self._runner = runner
        self._peer = peer
        self._limiter = limiter
        self._script = script
        self._plan = plan
        self._oracle = Oracle(target_info, strict=plan.strict)
        self._confirmation = Confirmation(baseline, peer, self._oracle, script, plan.shrink_s)
        self._losses = Losses(script)
        self._health = TargetHealth(baseline, self._with_end(script.steps), self._losses.refuse)
        self._slow_ns = _MIN_SLOW_NS
        self._latest: deque[CutOffCase] = deque(maxlen=max(MAX_CANDIDATES, plan.connections))
        self._running = 0
        self._wake_at = 0
        self._wake = trio.Event()
        duration_ns = plan.duration_ns
        self.stats = CampaignStats(plan.cases, None if duration_ns is None else duration_ns / NS_PER_S)
        search = CrashSearch(baseline, self._health, script)
        self._crashes = CrashFindings(self.stats, script, search, self._health, self._losses, self._latest, plan.shrink_s)
        self.stop = trio.Event()

    async def run(self, report_progress: Callable[[CampaignStats], None] = lambda stats: None) -> CampaignStats:
        """Run all phases: baseline, cases, confirmation.

        Args:
            report_progress: Called at each health check, and before and after each confirmation.
        """
        await self._measure_baseline()
        if self.stats.silence:
            return self.stats
        if self._limiter is not None:
            await self._limiter.wait_for_start()
        self.stats.phase = CASES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_health_checks, trio.current_time(), report_progress)
            await self._run_cases(nursery)
            nursery.cancel_scope.cancel()
        self.stats.phase = CONFIRMATION
        await self._crashes.find(self._slow_ns)
        await self._confirm_suspects(report_progress)
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
                silences.append(silence_text(dialogue) if is_silent(dialogue) else "")
                self.stats.add(-1, reproduction.session_result, reproduction.violations)

        async with trio.open_nursery() as nursery:
            for _ in range(_BASELINE_SESSIONS):
                nursery.start_soon(run_sessions)
        self._slow_ns = max(_MIN_SLOW_NS, _SLOW_FACTOR * max(waits_ns))
        self.stats.silence = silences[0] if all(silences) else ""

    async def _run_cases(self, nursery: trio.Nursery) -> None:
        """Begin cases until a limit is reached, and wait until the last one has ended."""
        plan = self._plan
        deadline_s = trio.current_time() + (plan.duration_ns or _UNLIMITED_NS) / NS_PER_S
        for number, mutations in enumerate(islice(cases(plan.families, plan.seed), plan.cases)):
            while self._running >= plan.connections:
                # wake up once for several cases that ended, so that several begin together
                await self._wait_until_running(plan.connections - max(1, plan.connections // 8))
            if self._limiter is not None and not await self._limiter.wait_for_case(number):
                break
            enough = len(self.stats.suspects) >= plan.max_findings
            if self.stop.is_set() or self._health.gone or enough or trio.current_time() > deadline_s:
                break
            self.stats.generated += 1
            self._start_case(nursery, number, mutations)
            if number % _CASES_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        await self._wait_until_running(0)

    async def _wait_until_running(self, count: int) -> None:
        """Wait until at most `count` cases are running."""
        while self._running > count:
            self._wake, self._wake_at = trio.Event(), count
            await self._wake.wait()

    def _start_case(self, nursery: trio.Nursery, number: int, mutations: tuple[Mutation, ...]) -> None:
        # callbacks and not a task: a task for each case would cost more than the case
        script = self._with_end(apply_mutations(self._script.steps, mutations))
        self._running += 1

        def start_peer(session_result: SessionResult) -> None:
            if self._peer is None:
                self._end_case(nursery, number, session_result)
            else:
                self._peer.start(script, partial(self._end_case, nursery, number, session_result), TrackedSession)

        self._runner.start(script, start_peer, TrackedSession)

    def _end_case(
        self, nursery: trio.Nursery, number: int, session_result: SessionResult, *peer_results: SessionResult
    ) -> None:
        dialogue = Dialogue.of(session_result.transcript)
        violations = self._oracle.evaluate(session_result, dialogue, self._slow_ns, peer_results)
        case = CutOffCase(number, session_result, [violation for violation in violations if violation.rule in END_RULES])
        if dialogue.greeted:
            self._latest.append(case._replace(violations=()))
        if is_cut_off(dialogue):  # what is wrong with its end depends on whether the target died
            violations = [violation for violation in violations if violation.rule not in END_RULES]
            self._losses.add(case)
        self.stats.add(number, session_result, violations)
        self.stats.run += 1
        self.stats.answered += not is_silent(dialogue)
        assert isinstance(session_result.session, TrackedSession)
        self.stats.verbs |= session_result.session.tracker.answered
        if dialogue.end_reason == api.CONNECT_REFUSED:
            self._losses.refuse(case.end_ns)
        if not dialogue.greeted and not nursery.cancel_scope.cancel_called:
            nursery.start_soon(self._check_health_and_release)
            return
        self._release_connection()

    async def _check_health_and_release(self) -> None:
        """Check the target after a case without a greeting, before another case takes the place of that one."""
        await self._health.check()
        self._release_connection()

    def _release_connection(self) -> None:
        self._running -= 1
        if self._running <= self._wake_at:
            self._wake.set()

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

    async def _confirm_suspects(self, report_progress: Callable[[CampaignStats], None]) -> None:
        suspects = self.stats.suspects
        rules = {rule for rule, _ in suspects}
        for key in list(suspects):
            if rules & set(key[1].split(" or ")):
                del suspects[key]  # several causes are possible, and one of them is a suspect of its own
        if not self.stats.target_gone:
            await self._apply_controls()
        crashed = any(suspect.violation.severity == r.CRASH for suspect in suspects.values())
        for key, suspect in list(suspects.items()):
            report_progress(self.stats)
            if not (self.stats.target_gone or suspect.tried or suspect.unproved):
                await self._confirmation.confirm(key, suspect, self._slow_ns)
                slow = key[1].startswith(SLOW)  # because of the load that the campaign itself makes
                cut_off = key[0] in END_RULES and crashed  # because another session killed the target
                if not suspect.seen and (slow or cut_off):
                    del suspects[key]
                    continue
            self.stats.confirmed += 1
        report_progress(self.stats)
