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
from smtpbench.rules.discover import alive
from smtpbench.rules.offer import Offer
from smtpbench.rules.rule import Judgement, Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.script import Script
from smtpbench.session.stage import UNREACHABLE, Stage, Take

#: Probes at once.
CONCURRENCY = 8
_UNGREETED = "no greeting"
#: The rule that a server breaks by dying.
HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one rule. take: the session that shows it, where one does. reproducibility: in how many tries."""

    rule: Rule
    judgement: Judgement
    take: Take | None = None
    reproducibility: str = "1 of 1"

    @property
    def broken(self) -> bool:
        """Whether the rule is broken."""
        return self.judgement.verdict == r.BROKEN


class Court:
    """Judges one target.

    dialogues: all that were spoken, for the invariants.
    """

    def __init__(self, stage: Stage, offer: Offer) -> None:
        self._stage = stage
        self._offer = offer
        self._outcomes: dict[str, Outcome] = {}
        self._gone = ""
        self._killer: Take | None = None
        self._limiter = trio.CapacityLimiter(CONCURRENCY)
        self._again = trio.Lock()
        self._spoken: list[tuple[Take, Dialogue]] = []

    async def judge(self, rules: Sequence[Rule]) -> list[Outcome]:
        """Every rule's outcome, in the order given. Where it is cancelled, `so_far` has what there is."""
        outcomes = self._outcomes

        async def one(rule: Rule) -> None:
            outcomes[rule.name] = await self._try(rule)

        async with trio.open_nursery() as nursery:
            for rule in rules:
                if rule.probe is not None and not rule.alone:
                    nursery.start_soon(one, rule)
        for rule in rules:
            if rule.name in outcomes and outcomes[rule.name].judgement.actual.startswith(_UNGREETED):
                outcomes[rule.name] = await self._try(rule)  # it was too much at once for the server
        for rule in rules:
            if rule.probe is not None and rule.alone:
                outcomes[rule.name] = await self._try(rule)
        for rule in rules:
            if rule.invariant is not None:
                outcomes[rule.name] = await self._read(rule, outcomes.get(rule.name))
        if self._killer is not None and HEALTH in outcomes:
            died = r.broken("the server is gone: after this session it takes no connection")
            outcomes[HEALTH] = Outcome(outcomes[HEALTH].rule, died, self._killer)
        return self.so_far(rules)

    def so_far(self, rules: Sequence[Rule]) -> list[Outcome]:
        """The outcomes that there are, in the order given."""
        return [self._outcomes[rule.name] for rule in rules if rule.name in self._outcomes]

    async def _try(self, rule: Rule) -> Outcome:
        lack = self._gone or self._offer.lacks(rule.needs)
        if lack:
            return Outcome(rule, r.unclear(lack))
        first = await self._speak(rule)
        if not first.broken or self._gone:
            return first
        second = await self._speak(rule)
        if second.broken:
            return replace(second, reproducibility="2 of 2")
        return Outcome(rule, r.unclear(f"seen once in two tries: {first.judgement.actual}"), first.take)

    async def _speak(self, rule: Rule) -> Outcome:
        assert rule.probe is not None
        assert rule.judge is not None
        takes = await (self._one_by_one if rule.alone else self._together)(rule.probe(self._offer))
        dialogues = [Dialogue.of(take.tape) for take in takes]
        self._spoken += zip(takes, dialogues, strict=True)
        for at, dialogue in enumerate(dialogues):
            if dialogue.fate in UNREACHABLE or not dialogue.began:
                return Outcome(rule, r.unclear(self._gone or f"{_UNGREETED} ({dialogue.fate})"), takes[at])
            banner = dialogue.turns[0].code
            if banner // 100 in (4, 5) and not rule.turned_away:
                return Outcome(rule, r.unclear(f"it greets with {banner}"), takes[at])
        if self._gone:
            return Outcome(rule, r.unclear(self._gone), takes[-1])
        judgement = rule.judge(self._offer, dialogues)
        return Outcome(rule, judgement, takes[judgement.take] if takes else None)

    async def _together(self, scripts: Sequence[Script]) -> list[Take]:
        takes: dict[int, Take] = {}

        async def one(at: int, script: Script) -> None:
            async with self._limiter:
                takes[at] = await self._heard_out(script)

        async with trio.open_nursery() as nursery:
            for at, script in enumerate(scripts):
                nursery.start_soon(one, at, script)
        return [takes[at] for at in range(len(scripts))]

    async def _one_by_one(self, scripts: Sequence[Script]) -> list[Take]:
        """The same with nobody else there, and a canary after each session that did not end as it should."""
        takes: list[Take] = []
        for script in scripts:
            take = await self._heard_out(script)
            takes.append(take)
            if Dialogue.of(take.tape).last_code != 221 and not await alive(self._stage, self._offer):
                self._gone, self._killer = "the target is gone", take
                break
        return takes

    async def _heard_out(self, script: Script) -> Take:
        """Speak a script; once more, and with nobody else there, where the server did not even greet."""
        take = await self._stage.perform(script)
        if self._gone or Dialogue.of(take.tape).began:
            return take
        async with self._again:
            return await self._stage.perform(script)

    async def _read(self, rule: Rule, probed: Outcome | None) -> Outcome:
        """An invariant over all that was spoken; a rule may have a probe as well."""
        if probed is not None and probed.judgement.verdict != r.PASS:
            return probed
        assert rule.invariant is not None
        if not self._spoken:
            return probed or Outcome(rule, r.unclear("no dialogue was spoken that could show it"))
        for take, dialogue in self._spoken:
            wrong = rule.invariant(self._offer, dialogue) if dialogue.began else ""
            if wrong:
                return await self._confirmed(rule, take, wrong)
        return Outcome(rule, r.HELD)

    async def _confirmed(self, rule: Rule, take: Take, wrong: str) -> Outcome:
        """What an invariant found, spoken once more."""
        assert rule.invariant is not None
        if self._gone:
            return Outcome(rule, r.broken(wrong), take)
        again = await self._heard_out(take.script)
        dialogue = Dialogue.of(again.tape)
        wrong_again = rule.invariant(self._offer, dialogue) if dialogue.began else ""
        if wrong_again:
            return Outcome(rule, r.broken(wrong_again), again, "2 of 2")
        return Outcome(rule, r.unclear(f"seen once in two tries: {wrong}"), take)
