"""Judging a target: every rule's probe is spoken, what it broke is spoken again, and invariants read every dialogue.

Theory of operation
===================

Probes run several at once, each on connections of its own. Those that may end the server or keep it busy (`Rule.alone`)
come last, one at a time, and after each a canary session asks whether the server still greets: a process takes a moment to
die, so the canary waits first. Once the server is gone, `health` is broken, with the session that it died of, and what
is left is inconclusive.

A violation counts when it was seen twice. Seen once in two, it is inconclusive: somebody should look, and no build
should fail for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from smtpbench.rules import rule as r
from smtpbench.rules.discover import is_alive
from smtpbench.rules.rule import Rule, Verdict
from smtpbench.rules.target_info import TargetInfo
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import UNREACHABLE, SessionResult, SessionRunner
from smtpbench.session.script import Script

#: Probes at once.
CONCURRENCY = 8
_UNGREETED = "no greeting"
#: The rule that a server breaks by dying.
HEALTH = "health"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What came of one rule. take: the session that shows it, where one does. reproducibility: in how many tries."""

    rule: Rule
    verdict: Verdict
    session_result: SessionResult | None = None
    reproducibility: str = "1 of 1"

    @property
    def violated(self) -> bool:
        """Whether the rule is broken."""
        return self.verdict.status == r.VIOLATED


class Checker:
    """Judges one target.

    dialogues: all that were spoken, for the invariants.
    """

    def __init__(self, runner: SessionRunner, target_info: TargetInfo) -> None:
        self._runner = runner
        self._target_info = target_info
        self._outcomes: dict[str, RuleResult] = {}
        self._gone = ""
        self._fatal_session: SessionResult | None = None
        self._limiter = trio.CapacityLimiter(CONCURRENCY)
        self._retry_lock = trio.Lock()
        self._dialogues: list[tuple[SessionResult, Dialogue]] = []

    async def run(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """Every rule's outcome, in the order given. Where it is cancelled, `so_far` has what there is."""
        outcomes = self._outcomes

        async def one(rule: Rule) -> None:
            outcomes[rule.name] = await self._check_rule(rule)

        async with trio.open_nursery() as nursery:
            for rule in rules:
                if rule.probe is not None and not rule.exclusive:
                    nursery.start_soon(one, rule)
        for rule in rules:
            if rule.name in outcomes and outcomes[rule.name].verdict.actual.startswith(_UNGREETED):
                outcomes[rule.name] = await self._check_rule(rule)  # it was too much at once for the server
        for rule in rules:
            if rule.probe is not None and rule.exclusive:
                outcomes[rule.name] = await self._check_rule(rule)
        for rule in rules:
            if rule.invariant is not None:
                outcomes[rule.name] = await self._check_invariant(rule, outcomes.get(rule.name))
        if self._fatal_session is not None and HEALTH in outcomes:
            died = r.violated("the server is gone: after this session it takes no connection")
            outcomes[HEALTH] = RuleResult(outcomes[HEALTH].rule, died, self._fatal_session)
        return self.finished(rules)

    def finished(self, rules: Sequence[Rule]) -> list[RuleResult]:
        """The outcomes that there are, in the order given."""
        return [self._outcomes[rule.name] for rule in rules if rule.name in self._outcomes]

    async def _check_rule(self, rule: Rule) -> RuleResult:
        lack = self._gone or self._target_info.missing(rule.needs)
        if lack:
            return RuleResult(rule, r.inconclusive(lack))
        first = await self._probe(rule)
        if not first.violated or self._gone:
            return first
        second = await self._probe(rule)
        if second.violated:
            return replace(second, reproducibility="2 of 2")
        return RuleResult(rule, r.inconclusive(f"seen once in two tries: {first.verdict.actual}"), first.session_result)

    async def _probe(self, rule: Rule) -> RuleResult:
        assert rule.probe is not None
        assert rule.evaluate is not None
        session_results = await (self._run_in_turn if rule.exclusive else self._run_concurrently)(
            rule.probe(self._target_info)
        )
        dialogues = [Dialogue.of(session_result.transcript) for session_result in session_results]
        self._dialogues += zip(session_results, dialogues, strict=True)
        for at, dialogue in enumerate(dialogues):
            if dialogue.end_reason in UNREACHABLE or not dialogue.greeted:
                return RuleResult(
                    rule, r.inconclusive(self._gone or f"{_UNGREETED} ({dialogue.end_reason})"), session_results[at]
                )
            banner = dialogue.exchanges[0].code
            if banner // 100 in (4, 5) and not rule.allows_refused_greeting:
                return RuleResult(rule, r.inconclusive(f"it greets with {banner}"), session_results[at])
        if self._gone:
            return RuleResult(rule, r.inconclusive(self._gone), session_results[-1])
        verdict = rule.evaluate(self._target_info, dialogues)
        return RuleResult(rule, verdict, session_results[verdict.dialogue_index] if session_results else None)

    async def _run_concurrently(self, scripts: Sequence[Script]) -> list[SessionResult]:
        session_results: dict[int, SessionResult] = {}

        async def one(at: int, script: Script) -> None:
            async with self._limiter:
                session_results[at] = await self._run_script(script)

        async with trio.open_nursery() as nursery:
            for at, script in enumerate(scripts):
                nursery.start_soon(one, at, script)
        return [session_results[at] for at in range(len(scripts))]

    async def _run_in_turn(self, scripts: Sequence[Script]) -> list[SessionResult]:
        """The same with nobody else there, and a canary after each session that did not end as it should."""
        session_results: list[SessionResult] = []
        for script in scripts:
            session_result = await self._run_script(script)
            session_results.append(session_result)
            if Dialogue.of(session_result.transcript).last_code != 221 and not await is_alive(
                self._runner, self._target_info
            ):
                self._gone, self._fatal_session = "the target is gone", session_result
                break
        return session_results

    async def _run_script(self, script: Script) -> SessionResult:
        """Speak a script; once more, and with nobody else there, where the server did not even greet."""
        session_result = await self._runner.run(script)
        if self._gone or Dialogue.of(session_result.transcript).greeted:
            return session_result
        async with self._retry_lock:
            return await self._runner.run(script)

    async def _check_invariant(self, rule: Rule, probed: RuleResult | None) -> RuleResult:
        """An invariant over all that was spoken; a rule may have a probe as well."""
        if probed is not None and probed.verdict.status != r.PASS:
            return probed
        assert rule.invariant is not None
        if not self._dialogues:
            return probed or RuleResult(rule, r.inconclusive("no dialogue was spoken that could show it"))
        for session_result, dialogue in self._dialogues:
            violation = rule.invariant(self._target_info, dialogue) if dialogue.greeted else ""
            if violation:
                return await self._confirm(rule, session_result, violation)
        return RuleResult(rule, r.PASSED)

    async def _confirm(self, rule: Rule, session_result: SessionResult, violation: str) -> RuleResult:
        """What an invariant found, spoken once more."""
        assert rule.invariant is not None
        if self._gone:
            return RuleResult(rule, r.violated(violation), session_result)
        again = await self._run_script(session_result.script)
        dialogue = Dialogue.of(again.transcript)
        wrong_again = rule.invariant(self._target_info, dialogue) if dialogue.greeted else ""
        if wrong_again:
            return RuleResult(rule, r.violated(wrong_again), again, "2 of 2")
        return RuleResult(rule, r.inconclusive(f"seen once in two tries: {violation}"), session_result)
