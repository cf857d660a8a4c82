"""Checking a target: run the probe of every rule, repeat what was violated, and evaluate the invariants.

Theory of operation
===================

Several probes run at the same time, each session on a connection of its own. A server that dies cuts off the sessions of all
rules, so the rules of which it cut off a session run again, one rule at a time. Rules that may crash the server or keep it
busy (`Rule.exclusive`) come last, one session after the other.

Each session of these rules runs beside an idle one (`rules.crash`). Where the server's processes are known, its death is a
fact instead (`supervisor.lone_session`), and the rules that run again are those of which a session was open at the moment of
a death. After an exclusive session that did not end with 221 the checker connects again to see whether the server still
greets; it waits before that, because a process takes a moment to exit. A server that died or no longer greets violates
`health`, and the session before is the evidence. Its rule is inconclusive. If something starts the server again, the session
is repeated and the check goes on; otherwise the rules that are left are inconclusive. A server that hangs is started again
where smtpbench can do that.

A violation counts if a second attempt shows it again. A violation that showed in one of two attempts is inconclusive: it
deserves a look, but no build should fail for it.

A rule passes only if the server replied to what its probe sent (`rules.tested`). Otherwise it is inconclusive. Which write
a reply answers is decided by the reply tracker.

Where the server's processes are known, the check looks for growth and busy loops after all probes (`check.growth`). They
violate `health`.

The invariants are evaluated at the end, on the dialogues of all probes. Of a server that sends very much, the first
`_MAX_KEPT_BYTES` are evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import trio

from smtpbench.check.growth import SEVERITY, GrowthCheck, GrowthResult
from smtpbench.check.log_check import LogCheck
from smtpbench.check.rule_result import HEALTH, RuleResult
from smtpbench.rules import rule as r
from smtpbench.rules.crash import is_cut_off, run_watched
from smtpbench.rules.discover import REFUSAL_RETRY_DELAYS_S, TARGET_GONE, is_greeting
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.probe_steps import no_reply_text
from smtpbench.rules.reply_tracker import match_replies
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tested import untested_text
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionResult, SessionRunner
from smtpbench.session.script import Script
from smtpbench.supervisor.death import Death
from smtpbench.supervisor.lone_session import bring_back, find_outage, run_alone
from smtpbench.supervisor.supervised import SupervisedServer

#: Sessions at the same time.
CONCURRENCY: Final = 8
_NO_GREETING: Final = "no greeting"
#: Memory for the server's part of the dialogues that are kept for the invariants.
_MAX_KEPT_BYTES: Final = 16 * 1024 * 1024

# Phases of a check.
PROBES: Final = "probes"
EXCLUSIVE_PROBES: Final = "exclusive probes"
INVARIANTS: Final = "invariants"
GROWTH: Final = "growth"

#: Called with the phase, the number of rules that have a result, and the name of the rule that was or is next evaluated.
ReportRule = Callable[[str, int, str], None]


class _Outage(NamedTuple):
    """The first session in which the server died or hung.

    Attributes:
        rule: The rule whose probe it belongs to.
        severity: CRASH or HANG.
        actual: What the server did.
        session_result: The session.
        dialogue_index: Its index among the sessions of the probe.
        reproducibility: In how many attempts it happened.
        death: How the server's process ended; None if that is not known.
    """

    rule: Rule
    severity: str
    actual: str
    session_result: SessionResult
    dialogue_index: int
    reproducibility: str
    death: Death | None


class _LoneSession(NamedTuple):
    """A session that ran while no other did.

    Attributes:
        session_result: The session.
        severity: CRASH or HANG; empty if the server still greets.
        actual: What the server did.
        death: How its process ended; None if that is not known.
    """

    session_result: SessionResult
    severity: str = ""
    actual: str = ""
    death: Death | None = None


class Checker:
    """Checks one target.

    Args:
        runner: Runs sessions with the target.
        target_info: What is known of the target.
        report_rule: Called when a rule has a result, and before a rule that runs alone.
        server: The server under test; None if nothing is known of its processes.

    Attributes:
        further_results: Violations of a rule besides its result.
    """

    def __init__(
        self,
        runner: SessionRunner,
        target_info: TargetInfo,
        report_rule: ReportRule = lambda phase, done, rule: None,
        server: SupervisedServer | None = None,
    ) -> None:
        self._runner = runner
        self._server = server
        self._known = server is not None and server.known
        self._log = None if server is None else LogCheck(runner, server)
        self._target_info = target_info
        self._report_rule = report_rule
        self._results: dict[str, RuleResult] = {}
        self._target_gone = False
        self._outage: _Outage | None = None
        self._fatal: list[SessionResult] = []
        self._cut_off: set[str] = set()
        self._limiter = trio.CapacityLimiter(CONCURRENCY)
        self._retry_lock = trio.Lock()
        self._dialogues: list[tuple[SessionResult, Dialogue]] = []
        self._kept_bytes = 0
        self._unanswered: set[str] = set()
        self.further_results: list[RuleResult] = []

    async def run(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Check these rules and return their results, in the order given.

        If the call is cancelled, `results_so_far` returns what is known by then.
        """
        results = self._results
        growth = None
        if self._known and self._server is not None and any(rule.name == HEALTH for rule in rules):
            growth = GrowthCheck(self._runner, self._server, self._target_info)
            await growth.begin()

        async def check_rule(rule: Rule) -> None:
            results[rule.name] = await self._check_rule(rule)
            self._report_rule(PROBES, len(results), rule.name)

        async with trio.open_nursery() as nursery:
            for rule in rules:
                if rule.probe is not None and not rule.exclusive:
                    nursery.start_soon(check_rule, rule)
        for rule in rules:
            if rule.name in results and results[rule.name].verdict.actual.startswith(_NO_GREETING):
                if self._known:
                    self._cut_off.add(rule.name)  # it died before, or it dies of this rule
                else:
                    await check_rule(rule)  # the sessions of the other rules were too many for the server
        for rule in rules:
            if rule.name in self._cut_off:
                results[rule.name] = await self._check_rule(rule, alone=True)
        for rule in rules:
            if rule.probe is not None and rule.exclusive:
                self._report_rule(EXCLUSIVE_PROBES, len(results), rule.name)
                results[rule.name] = await self._check_rule(rule)
        for rule in rules:
            if rule.invariant is not None:
                results[rule.name] = await self._check_invariant(rule, results.get(rule.name))
                self._report_rule(INVARIANTS, len(results), rule.name)
        if self._outage is not None:
            fatal = self._outage
            verdict = r.violated(fatal.actual, fatal.dialogue_index, fatal.severity)
            name = HEALTH if HEALTH in results else fatal.rule.name
            results[name] = RuleResult(results[name].rule, verdict, fatal.session_result, fatal.reproducibility, fatal.death)
        if self._log is not None and not self._target_gone:
            sessions = [session_result for session_result, _ in self._dialogues]
            await self._log.complete(results, sessions, self._run_script)
        if growth is not None and not self._target_gone:
            self._report_rule(GROWTH, len(results), HEALTH)
            self._add_growth(await growth.find([session_result for session_result, _ in self._dialogues]))
        return self.results_so_far(rules)

    def _add_growth(self, found: Sequence[GrowthResult]) -> None:
        """Record growth and busy loops: as the result of `health`, and what that has no place for as further results."""
        for one in found:
            own = self._results[HEALTH]
            rule_result = RuleResult(
                own.rule,
                r.violated(one.actual, severity=SEVERITY),
                one.session_result,
                one.reproducibility,
                cause=one.cause,
                about=one.about,
            )
            if own.violated:
                self.further_results.append(rule_result)
            else:
                self._results[HEALTH] = rule_result

    def results_so_far(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Return the results that are known, in the order given."""
        return [self._results[rule.name] for rule in rules if rule.name in self._results]

    async def _check_rule(self, rule: Rule, *, alone: bool = False) -> RuleResult:
        """Check a rule. `alone`: whether its sessions run one after the other, because the server may die of one of them."""
        alone = alone or rule.exclusive
        reason = TARGET_GONE if self._target_gone else self._target_info.missing(rule.needs)
        if reason:
            return RuleResult(rule, r.inconclusive(reason))
        first = await self._run_probe(rule, alone=alone)
        if not first.violated or self._target_gone or (rule.name in self._cut_off and not alone):
            return first
        second = await self._run_probe(rule, alone=alone)
        if second.violated:
            return replace(second, reproducibility="2 of 2")
        return RuleResult(rule, _seen_once(first.verdict.actual), first.session_result)

    async def _run_probe(self, rule: Rule, *, alone: bool) -> RuleResult:
        assert rule.probe is not None
        assert rule.evaluate is not None
        scripts = rule.probe(self._target_info)
        from_ns = time.monotonic_ns()
        if rule.exclusive:
            session_results = await self._run_in_turn(rule, scripts)
        elif alone:
            session_results = await self._run_watched(rule, scripts)
        else:
            session_results = await self._run_concurrently(scripts)
        dialogues = [Dialogue.of(session_result.transcript) for session_result in session_results]
        half_closed = [dialogue for dialogue in dialogues if dialogue.half_closed]
        if not alone and (any(map(is_cut_off, dialogues)) or await self._died(from_ns, half_closed)):
            self._cut_off.add(rule.name)
        self._keep(session_results, dialogues, cut_off=alone)
        if session_results and self._was_fatal(session_results[-1]):
            return RuleResult(rule, r.inconclusive("the server died or hung in this session"), session_results[-1])
        for session_result, dialogue in zip(session_results, dialogues, strict=True):
            if dialogue.end_reason in UNREACHABLE or not dialogue.greeted:
                reason = TARGET_GONE if self._target_gone else f"{_NO_GREETING} ({describe_end(dialogue.end_reason)})"
                return RuleResult(rule, r.inconclusive(reason), session_result)
            code = dialogue.exchanges[0].code
            if code // 100 in (4, 5) and not rule.allows_refused_greeting:
                return RuleResult(rule, r.inconclusive(f"the greeting is {code}"), session_result)
        if self._target_gone:
            return RuleResult(rule, r.inconclusive(TARGET_GONE), session_results[-1])
        matched = [match_replies(dialogue, lmtp=self._target_info.lmtp) for dialogue in dialogues]
        verdict = rule.evaluate(self._target_info, matched)
        if verdict.status == r.PASS:
            verdict = self._verdict_if_tested(rule, scripts, dialogues)
            if verdict.status != r.PASS:
                self._unanswered.add(rule.name)
        return RuleResult(rule, verdict, session_results[verdict.dialogue_index] if session_results else None)

    def _verdict_if_tested(self, rule: Rule, scripts: Sequence[Script], dialogues: Sequence[Dialogue]) -> Verdict:
        """Return PASSED for a rule that the server keeps, or why the sessions of its probe do not show that."""
        sessions = zip(scripts, dialogues, strict=True)
        reasons = [untested_text(rule, self._target_info, script, dialogue) for script, dialogue in sessions]
        if rule.evaluate is r.always_passed and not all(reasons):
            # an invariant holds in each session by itself, and those that ended early show less and not nothing
            reasons = [no_reply_text(dialogue) for dialogue in dialogues]
        return next((r.inconclusive(reason, index) for index, reason in enumerate(reasons) if reason), r.PASSED)

    def _keep(self, session_results: Sequence[SessionResult], dialogues: Sequence[Dialogue], *, cut_off: bool) -> None:
        """Keep dialogues for the invariants, those that the server cut off only if they were alone and it did not die."""
        for session_result, dialogue in zip(session_results, dialogues, strict=True):
            if self._was_fatal(session_result) or (is_cut_off(dialogue) and not cut_off):
                continue
            self._kept_bytes += session_result.transcript.memory_bytes
            if self._kept_bytes <= _MAX_KEPT_BYTES:
                self._dialogues.append((session_result, dialogue))

    def _was_fatal(self, session_result: SessionResult) -> bool:
        """Return whether the server died or hung in a session."""
        return any(one is session_result for one in self._fatal)

    async def _died(self, from_ns: int, dialogues: Sequence[Dialogue]) -> bool:
        """Return whether the server is known to have died since a moment, before these sessions ended."""
        server = self._server
        if server is None or not server.known:
            return False
        if any(death.at_ns >= from_ns for death in server.deaths):
            return True
        if all(dialogue.last_code == 221 for dialogue in dialogues):
            return False
        return await server.death_since(from_ns) is not None

    async def _run_concurrently(
        self, scripts: Sequence[Script], run_one: Callable[[Script], Awaitable[SessionResult]] | None = None
    ) -> list[SessionResult]:
        run_one = run_one or self._run_script
        session_results: dict[int, SessionResult] = {}

        async def run_script(index: int, script: Script) -> None:
            async with self._limiter:
                session_results[index] = await run_one(script)

        async with trio.open_nursery() as nursery:
            for index, script in enumerate(scripts):
                nursery.start_soon(run_script, index, script)
        return [session_results[index] for index in range(len(scripts))]

    async def _run_watched(self, rule: Rule, scripts: Sequence[Script]) -> list[SessionResult]:
        """Run scripts at the same time, each beside an idle session; one after the other if the server dies of any."""
        deaths: list[str] = []

        async def run_script(script: Script) -> SessionResult:
            if self._known:
                return await self._runner.run(script)
            watched = await run_watched(self._runner, script)
            deaths.append(watched.death)
            return watched.session_result

        from_ns = time.monotonic_ns()
        session_results = await self._run_concurrently(scripts, run_script)
        dialogues = [Dialogue.of(session_result.transcript) for session_result in session_results]
        died = any(deaths) or await self._died(from_ns, dialogues)
        if died or not await is_greeting(self._runner, self._target_info):
            await self._bring_back(hung=self._known and not died)
            return await self._run_in_turn(rule, scripts)
        return session_results

    async def _run_in_turn(self, rule: Rule, scripts: Sequence[Script]) -> list[SessionResult]:
        """Run scripts one after the other, until the server dies or hangs in one of them."""
        session_results: list[SessionResult] = []
        for index, script in enumerate(scripts):
            lone = await self._run_alone(script)
            session_result = lone.session_result
            session_results.append(session_result)
            if not lone.severity:
                continue
            self._fatal.append(session_result)
            reproducibility = "1 of 1"
            if not await self._bring_back(hung=lone.severity == r.HANG):
                self._target_gone = True
            elif self._outage is None:
                again = await self._run_alone(script)
                if again.severity:
                    lone, reproducibility = again, "2 of 2"
                    self._target_gone = not await self._bring_back(hung=again.severity == r.HANG)
                else:
                    reproducibility = "1 of 2"
            if self._outage is None:
                self._outage = _Outage(
                    rule, lone.severity, lone.actual, lone.session_result, index, reproducibility, lone.death
                )
            break
        return session_results

    async def _run_alone(self, script: Script) -> _LoneSession:
        """Run a script while no other runs, and find out what happened to the server."""
        lone = await run_alone(self._runner, script, self._server)
        if not lone.how and not Dialogue.of(lone.session_result.transcript).greeted:
            await self._bring_back()
            lone = await run_alone(self._runner, script, self._server)
        session_result = lone.session_result
        if lone.how:
            return _LoneSession(session_result, r.CRASH, f"the server died: {lone.how}", lone.death)
        if Dialogue.of(session_result.transcript).last_code == 221:
            return _LoneSession(session_result)
        severity = await find_outage(self._server, self._runner, self._target_info, lone)
        return _LoneSession(session_result, severity, "the server greets no client after this session")

    async def _bring_back(self, *, hung: bool = False) -> bool:
        """Wait until the server greets again. Return False if it does not in time."""
        return await bring_back(self._server, self._runner, self._target_info, hung=hung)

    async def _run_script(self, script: Script) -> SessionResult:
        """Run a script, and run it a second time, after other such scripts, if the server did not serve it."""
        session_result = await self._runner.run(script)
        dialogue = Dialogue.of(session_result.transcript)
        if self._target_gone or (dialogue.greeted and not dialogue.is_busy):
            return session_result
        async with self._retry_lock:
            if self._known and self._server is not None and self._server.can_restart:
                await self._server.wait_until_ready()  # it may have died of another session
            if dialogue.is_busy:
                await trio.sleep(REFUSAL_RETRY_DELAYS_S[0])
            return await self._runner.run(script)

    async def _check_invariant(self, rule: Rule, probe_result: RuleResult | None) -> RuleResult:
        """Evaluate an invariant on all dialogues, unless the probe of the same rule has not passed."""
        unanswered = rule.name in self._unanswered
        if probe_result is not None and probe_result.verdict.status != r.PASS and not unanswered:
            return probe_result
        assert rule.invariant is not None
        if not self._dialogues:
            return probe_result or RuleResult(rule, r.inconclusive("no dialogue to evaluate"))
        for session_result, dialogue in self._dialogues:
            actual = rule.invariant(self._target_info, dialogue) if dialogue.greeted else ""
            if actual:
                return await self._confirm(rule, session_result, actual)
        return probe_result if unanswered and probe_result is not None else RuleResult(rule, r.PASSED)

    async def _confirm(self, rule: Rule, session_result: SessionResult, actual: str) -> RuleResult:
        """Repeat the session in which an invariant was violated."""
        assert rule.invariant is not None
        if self._target_gone:
            return RuleResult(rule, r.violated(actual), session_result)
        second = await self._run_script(session_result.script)
        dialogue = Dialogue.of(second.transcript)
        actual_again = rule.invariant(self._target_info, dialogue) if dialogue.greeted else ""
        if actual_again:
            return RuleResult(rule, r.violated(actual_again), second, "2 of 2")
        return RuleResult(rule, _seen_once(actual), session_result)


def _seen_once(actual: str) -> Verdict:
    return r.inconclusive(f"seen in one of two attempts: {actual}")
