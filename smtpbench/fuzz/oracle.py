"""What is wrong with one session of a campaign: by the state table, by every invariant, and by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from smtpbench.rules import rule as r
from smtpbench.rules.register import RULES
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult
from smtpbench.session.transcript import CLIENT, SERVER
from smtpbench.smtp.command import verb_of

#: How the cause of a slow reply begins.
SLOW: Final = "slow after "
#: Who was refused more often than this in a session is slowed down by many servers, and on purpose; so is a failed login.
_TOLERATED = 2
_INVARIANTS = [rule for rule in RULES if rule.invariant is not None]
_SEVERITY = {rule.name: rule.severity for rule in RULES}
#: Turns that are remembered, and the octets that one of them may have.
_REMEMBERED = 20_000
_TURN_BYTES = 2048


class Oracle:
    """Reads dialogues by the thousand: what was judged of a turn once is remembered, for most turns come again.

    strict: advice counts.
    """

    def __init__(self, target_info: TargetInfo, *, strict: bool) -> None:
        rules = [rule for rule in _INVARIANTS if strict or rule.severity != r.ADVICE]
        self._by_turn = [rule for rule in rules if rule.by_exchange]
        self._by_session = [rule for rule in rules if not rule.by_exchange]
        self._target_info = target_info
        self._strict = strict
        #: turns that no rule holds anything against → whether EHLO or HELO is taken in it
        self._spotless: dict[tuple[object, ...], bool] = {}

    def evaluate(self, session_result: SessionResult, dialogue: Dialogue, slow_ns: int) -> list[Violation]:
        """All that is wrong with one session: by the state table, by every invariant, and by the clock."""
        if not dialogue.greeted:
            return []
        assert isinstance(session_result.session, TrackedSession)  # it kept the account while it spoke
        violations = [
            one for one in session_result.session.tracker.violations if self._strict or _SEVERITY[one.rule] != r.ADVICE
        ]
        if not self._nothing_new(dialogue):
            found = self._broken(self._by_turn, dialogue)
            violations += found
            if not found:
                self._remember(dialogue)
        violations += self._broken(self._by_session, dialogue)
        wait_ns, verb = longest(session_result)
        if wait_ns > slow_ns and sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies()) <= _TOLERATED:
            violations.append(Violation("health", f"a reply after {verb} took {wait_ns / 1e6:.0f} ms", f"{SLOW}{verb}"))
        return violations

    def _broken(self, rules: Sequence[Rule], dialogue: Dialogue) -> list[Violation]:
        found = []
        for rule in rules:
            assert rule.invariant is not None
            actual = rule.invariant(self._target_info, dialogue)
            if actual:
                found.append(Violation(rule.name, actual, ""))
        return found

    def _nothing_new(self, dialogue: Dialogue) -> bool:
        """Whether every turn was read before, and nothing was wrong with it."""
        greeted, sent, known = False, b"", self._spotless
        for exchange in dialogue.exchanges:
            sent = exchange.sent if sent.endswith(b"\n") else sent + exchange.sent  # a line may be said in several writes
            greets = known.get((greeted, sent, exchange.tls, *[one[0].raw for one in exchange.replies]))
            if greets is None:
                return False
            greeted = greeted or greets
        return True

    def _remember(self, dialogue: Dialogue) -> None:
        if any(b"SMTPUTF8" in exchange.sent.upper() for exchange in dialogue.exchanges):
            return  # that excuses the other turns
        if len(self._spotless) > _REMEMBERED:
            self._spotless.clear()
        greeted, sent = False, b""
        for exchange in dialogue.exchanges:
            sent = exchange.sent if sent.endswith(b"\n") else sent + exchange.sent
            raws = [one.reply.raw for one in exchange.replies]
            greets = exchange.code // 100 == 2 and any(verb in sent.upper() for verb in (b"EHLO", b"HELO", b"LHLO"))
            balanced = all(one.tls == exchange.tls for one in exchange.replies)
            if balanced and len(sent) + sum(map(len, raws)) <= _TURN_BYTES:
                self._spotless[(greeted, sent, exchange.tls, *raws)] = greets
            greeted = greeted or greets


def longest(session_result: SessionResult) -> tuple[int, str]:
    """The longest time between a write and what came next, and what was written."""
    worst_ns, worst, received = 0, b"", b""
    for entry, following in pairwise(session_result.transcript.entries):
        auth = entry.data[:4].upper() == b"AUTH" or received.startswith(b"334")
        received = entry.data if entry.who == SERVER else received
        if entry.who == CLIENT and following.who == SERVER and not auth and following.at_ns - entry.at_ns > worst_ns:
            worst_ns, worst = following.at_ns - entry.at_ns, entry.data
    return worst_ns, verb_of(worst) or "a text"


def complete(session_result: SessionResult) -> bool:
    """Whether each reply that came was owed, and each that was owed came."""
    assert isinstance(session_result.session, TrackedSession)
    return session_result.session.tracker.balanced
