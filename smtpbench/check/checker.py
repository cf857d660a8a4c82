"""Checking a target: run the probe of every rule, repeat what was violated, and evaluate the invariants.

Theory of operation
===================

Several probes run at the same time, each session on a connection of its own. Rules that may crash the server or keep it
busy (`Rule.exclusive`) come last, one after the other. After each of their sessions that did not end with 221, the checker
connects again to see whether the server still greets; it waits before that, because a process takes a moment to exit. A
server that no longer greets violates `health`, and the session before is the evidence. The rules that are left are
inconclusive.

A violation counts if a second attempt shows it again. A violation that showed in one of two attempts is inconclusive: it
deserves a look, but no build should fail for it.

A rule passes only if the server replied to what its probe sent. Otherwise it is inconclusive.

The invariants are evaluated at the end, on the dialogues of all probes. Of a server that sends very much, the first
`_MAX_KEPT_BYTES` are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from smtpbench.rules import rule as r
from smtpbench.rules.discover import TARGET_GONE, is_alive
from smtpbench.rules.end_reason import describe_end
from smtpbench.rules.probe_steps import no_reply_text
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionResult, SessionRunner
from smtpbench.session.script import Script

#: Sessions at the same time.
CONCURRENCY: Final = 8
_NO_GREETING: Final = "no greeting"
#: Memory for the server's part of the dialogues that are kept for the invariants.
_MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
#: The rule that a server violates by crashing.
HEALTH: Final = "health"

# Phases of a check.
PROBES: Final = "probes"
EXCLUSIVE_PROBES: Final = "exclusive probes"
INVARIANTS: Final = "invariants"

#: Called with the phase, the number of rules that have a result, and the name of the rule that was or is next evaluated.
ReportRule = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Result of one rule.

    Attributes:
        rule: The rule.
        verdict: Whether the server keeps it.
        session_result: The session that shows the verdict, where there is one.
        reproducibility: In how many attempts the verdict was reached, such as `2 of 2`.
    """

    rule: Rule
    verdict: Verdict
    session_result: SessionResult | None = None
    reproducibility: str = "1 of 1"

    @property
    def violated(self) -> bool:
        """Return whether the server violates the rule."""
        return self.verdict.status == r.VIOLATED


class Checker:
    """Checks one target.

    Args:
        runner: Runs sessions with the target.
        target_info: What is known of the target.
        report_rule: Called when a rule has a result, and before a rule that runs alone.
    """

    def __init__(
        self,
        runner: SessionRunner,
        target_info: TargetInfo,
        report_rule: ReportRule = lambda phase, done, rule: None,
    ) -> None:
        self._runner = runner
        self._target_info = target_info
        self._report_rule = report_rule
        self._results: dict[str, RuleResult] = {}
        self._target_gone = False
        self._fatal_session: SessionResult | None = None
        self._limiter = trio.CapacityLimiter(CONCURRENCY)
        self._retry_lock = trio.Lock()
        self._dialogues: list[tuple[SessionResult, Dialogue]] = []
        self._kept_bytes = 0
        self._unanswered: set[str] = set()

    async def run(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Check these rules and return their results, in the order given.

        If the call is cancelled, `results_so_far` returns what is known by then.
        """
        results = self._results

        async def check_rule(rule: Rule) -> None:
            results[rule.name] = await self._check_rule(rule)
            self._report_rule(PROBES, len(results), rule.name)

        async with trio.open_nursery() as nursery:
            for rule in rules:
                if rule.probe is not None and not rule.exclusive:
                    nursery.start_soon(check_rule, rule)
        for rule in rules:
            if rule.name in results and results[rule.name].verdict.actual.startswith(_NO_GREETING):
                await check_rule(rule)  # the sessions of the other rules were too many for the server
        for rule in rules:
            if rule.probe is not None and rule.exclusive:
                self._report_rule(EXCLUSIVE_PROBES, len(results), rule.name)
                results[rule.name] = await self._check_rule(rule)
        for rule in rules:
            if rule.invariant is not None:
                results[rule.name] = await self._check_invariant(rule, results.get(rule.name))
                self._report_rule(INVARIANTS, len(results), rule.name)
        if self._fatal_session is not None and HEALTH in results:
            crashed = r.violated("the server accepts no connection after this session")
            results[HEALTH] = RuleResult(results[HEALTH].rule, crashed, self._fatal_session)
        return self.results_so_far(rules)

    def results_so_far(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Return the results that are known, in the order given."""
        return [self._results[rule.name] for rule in rules if rule.name in self._results]

    async def _check_rule(self, rule: Rule) -> RuleResult:
        reason = TARGET_GONE if self._target_gone else self._target_info.missing(rule.needs)
        if reason:
            return RuleResult(rule, r.inconclusive(reason))
        first = await self._run_probe(rule)
        if not first.violated or self._target_gone:
            return first
        second = await self._run_probe(rule)
        if second.violated:
            return replace(second, reproducibility="2 of 2")
        return RuleResult(rule, _seen_once(first.verdict.actual), first.session_result)

    async def _run_probe(self, rule: Rule) -> RuleResult:
        assert rule.probe is not None
        assert rule.evaluate is not None
        run_scripts = self._run_in_turn if rule.exclusive else self._run_concurrently
        session_results = await run_scripts(rule.probe(self._target_info))
        dialogues = [Dialogue.of(session_result.transcript) for session_result in session_results]
        self._keep(session_results, dialogues)
        for session_result, dialogue in zip(session_results, dialogues, strict=True):
            if dialogue.end_reason in UNREACHABLE or not dialogue.greeted:
                reason = TARGET_GONE if self._target_gone else f"{_NO_GREETING} ({describe_end(dialogue.end_reason)})"
                return RuleResult(rule, r.inconclusive(reason), session_result)
            code = dialogue.exchanges[0].code
            if code // 100 in (4, 5) and not rule.allows_refused_greeting:
                return RuleResult(rule, r.inconclusive(f"the greeting is {code}"), session_result)
        if self._target_gone:
            return RuleResult(rule, r.inconclusive(TARGET_GONE), session_results[-1])
        verdict = rule.evaluate(self._target_info, dialogues)
        if verdict.status == r.PASS:
            reasons = enumerate(map(no_reply_text, dialogues))
            verdict = next((r.inconclusive(reason, index) for index, reason in reasons if reason), verdict)
            if verdict.status != r.PASS:
                self._unanswered.add(rule.name)
        return RuleResult(rule, verdict, session_results[verdict.dialogue_index] if session_results else None)

    def _keep(self, session_results: Sequence[SessionResult], dialogues: Sequence[Dialogue]) -> None:
        """Keep dialogues for the invariants."""
        for session_result, dialogue in zip(session_results, dialogues, strict=True):
            self._kept_bytes += session_result.transcript.memory_bytes
            if self._kept_bytes <= _MAX_KEPT_BYTES:
                self._dialogues.append((session_result, dialogue))

    async def _run_concurrently(self, scripts: Sequence[Script]) -> list[SessionResult]:
        session_results: dict[int, SessionResult] = {}

        async def run_script(index: int, script: Script) -> None:
            async with self._limiter:
                session_results[index] = await self._run_script(script)

        async with trio.open_nursery() as nursery:
            for index, script in enumerate(scripts):
                nursery.start_soon(run_script, index, script)
        return [session_results[index] for index in range(len(scripts))]

    async def _run_in_turn(self, scripts: Sequence[Script]) -> list[SessionResult]:
        """Run scripts one after the other, with a health check after each session that did not end with 221."""
        session_results: list[SessionResult] = []
        for script in scripts:
            session_result = await self._run_script(script)
            session_results.append(session_result)
            ended_well = Dialogue.of(session_result.transcript).last_code == 221
            if not ended_well and not await is_alive(self._runner, self._target_info):
                self._target_gone, self._fatal_session = True, session_result
                break
        return session_results

    async def _run_script(self, script: Script) -> SessionResult:
        """Run a script, and run it a second time, after other such scripts, if there was no greeting."""
        session_result = await self._runner.run(script)
        if self._target_gone or Dialogue.of(session_result.transcript).greeted:
            return session_result
        async with self._retry_lock:
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
