"""Finding violations in one session of a campaign.

There are four sources: the SMTP state table, the invariants of the rule register, the time that replies take, and the
replies of a second target.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from smtpbench.rules import rule as r
from smtpbench.rules.divergence import find_divergence
from smtpbench.rules.register import RULES
from smtpbench.rules.reply_tracker import Violation
from smtpbench.rules.rule import Rule
from smtpbench.rules.target_info import TargetInfo
from smtpbench.rules.tracked_session import TrackedSession
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.runner import SessionResult
from smtpbench.session.transcript import CLIENT, SERVER
from smtpbench.smtp.command import verb_of

#: Prefix of the cause of a slow reply.
SLOW: Final = "slow after "
#: A reply to NOOP is slow if it takes this many times what a plain one takes.
_SLOW_NOOP_FACTOR = 10
#: After more refusals than this in one session many servers delay their replies on purpose.
_TOLERATED_REFUSALS = 2
_INVARIANTS = [rule for rule in RULES if rule.invariant is not None]
_SEVERITY = {rule.name: rule.severity for rule in RULES}
#: Memory for the exchanges to remember, what each takes besides its octets, and the most octets of one of them.
#: A server whose replies hold queue ids fills the cache, and gains nothing from a larger one.
_CACHE_BYTES = 4 * 1024 * 1024
_ENTRY_BYTES = 300
_CACHED_EXCHANGE_BYTES = 2048


class Oracle:
    """Finds violations in the dialogues of a campaign.

    Most exchanges of a campaign repeat, so an exchange without a violation is remembered and not evaluated again.

    Args:
        target_info: What is known of the target.
        strict: Whether rules of severity `advice` count.
    """

    def __init__(self, target_info: TargetInfo, *, strict: bool) -> None:
        rules = [rule for rule in _INVARIANTS if strict or rule.severity != r.ADVICE]
        self._exchange_rules = [rule for rule in rules if rule.by_exchange]
        self._session_rules = [rule for rule in rules if not rule.by_exchange]
        self._target_info = target_info
        self._strict = strict
        #: exchange without a violation → whether EHLO or HELO is accepted in it
        self._clean_exchanges: dict[tuple[object, ...], bool] = {}
        self._cache_bytes = 0

    def evaluate(
        self,
        session_result: SessionResult,
        dialogue: Dialogue,
        slow_ns: int,
        peer_results: Sequence[SessionResult] = (),
    ) -> list[Violation]:
        """Return all violations of one session.

        Args:
            session_result: The session.
            dialogue: The dialogue of its transcript.
            slow_ns: A reply that takes longer is a violation, nanoseconds.
            peer_results: The same script with a second target; a difference between the two is a violation.
        """
        violations = self._rule_violations(session_result, dialogue, slow_ns) if dialogue.greeted else []
        divergences = (find_divergence(dialogue, Dialogue.of(peer.transcript)) for peer in peer_results)
        return [*violations, *(divergence for divergence in divergences if divergence)]

    def _rule_violations(self, session_result: SessionResult, dialogue: Dialogue, slow_ns: int) -> list[Violation]:
        assert isinstance(session_result.session, TrackedSession)
        tracked = session_result.session.tracker.violations
        violations = [violation for violation in tracked if self._strict or _SEVERITY[violation.rule] != r.ADVICE]
        if not self._target_info.noop_code:  # NOOP gets no reply in time in any session
            violations = [violation for violation in violations if violation.cause != "no reply to NOOP"]
        if not self._is_known_clean(dialogue):
            found = self._evaluate_invariants(self._exchange_rules, dialogue)
            violations += found
            if not found:
                self._remember_clean(dialogue)
        violations += self._evaluate_invariants(self._session_rules, dialogue)
        wait_ns, verb = longest_wait(session_result)
        refusals = sum(received.reply.code // 100 in (4, 5) for received in dialogue.replies())
        if verb == "NOOP":  # the baseline has none, and a server may delay its reply on purpose
            slow_ns = max(slow_ns, _SLOW_NOOP_FACTOR * self._target_info.noop_ns)
        if wait_ns > slow_ns and refusals <= _TOLERATED_REFUSALS:
            actual = f"the reply after {verb} took {wait_ns / 1e6:.0f} ms"
            violations.append(Violation("health", actual, f"{SLOW}{verb}", r.SECURITY))  # it did reply
        return violations

    def _evaluate_invariants(self, rules: Sequence[Rule], dialogue: Dialogue) -> list[Violation]:
        found = []
        for rule in rules:
            assert rule.invariant is not None
            actual = rule.invariant(self._target_info, dialogue)
            if actual:
                found.append(Violation(rule.name, actual, ""))
        return found

    def _is_known_clean(self, dialogue: Dialogue) -> bool:
        """Return whether every exchange was evaluated before, without a violation."""
        after_hello, sent, known = False, b"", self._clean_exchanges
        for exchange in dialogue.exchanges:
            sent = exchange.sent if sent.endswith(b"\n") else sent + exchange.sent  # one line may take several writes
            accepts_hello = known.get((after_hello, sent, exchange.tls, *[one[0].raw for one in exchange.replies]))
            if accepts_hello is None:
                return False
            after_hello = after_hello or accepts_hello
        return True

    def _remember_clean(self, dialogue: Dialogue) -> None:
        if any(b"SMTPUTF8" in exchange.sent.upper() for exchange in dialogue.exchanges):
            return  # SMTPUTF8 anywhere in a session allows UTF-8 in the replies of its other exchanges
        if self._cache_bytes > _CACHE_BYTES:
            self._clean_exchanges.clear()
            self._cache_bytes = 0
        after_hello, sent = False, b""
        for exchange in dialogue.exchanges:
            sent = exchange.sent if sent.endswith(b"\n") else sent + exchange.sent
            replies = [received.reply.raw for received in exchange.replies]
            is_hello = any(verb in sent.upper() for verb in (b"EHLO", b"HELO", b"LHLO"))
            accepts_hello = exchange.code // 100 == 2 and is_hello
            same_layer = all(received.tls == exchange.tls for received in exchange.replies)
            exchange_bytes = len(sent) + sum(map(len, replies))
            if same_layer and exchange_bytes <= _CACHED_EXCHANGE_BYTES:
                key = (after_hello, sent, exchange.tls, *replies)
                if key not in self._clean_exchanges:
                    self._clean_exchanges[key] = accepts_hello
                    self._cache_bytes += _ENTRY_BYTES + exchange_bytes
            after_hello = after_hello or accepts_hello


def longest_wait(session_result: SessionResult) -> tuple[int, str]:
    """Return the longest wait for a reply, nanoseconds, and what was sent before it. Waits in AUTH do not count."""
    worst_ns, worst, received = 0, b"", b""
    for entry, following in pairwise(session_result.transcript.entries):
        auth = entry.data[:4].upper() == b"AUTH" or received.startswith(b"334")
        received = entry.data if entry.who == SERVER else received
        if entry.who == CLIENT and following.who == SERVER and not auth and following.at_ns - entry.at_ns > worst_ns:
            worst_ns, worst = following.at_ns - entry.at_ns, entry.data
    return worst_ns, verb_of(worst) or "a text"


def replies_balanced(session_result: SessionResult) -> bool:
    """Return whether the server sent every reply that was due, and no others."""
    assert isinstance(session_result.session, TrackedSession)
    return session_result.session.tracker.balanced
