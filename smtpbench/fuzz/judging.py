"""What is wrong with one session of a campaign: by the state table, by every invariant, and by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from smtpbench.rules import rule as r
from smtpbench.rules.account import Wrong
from smtpbench.rules.accounted import AccountedSession
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import RULES
from smtpbench.rules.rule import Rule
from smtpbench.session.dialogue import Dialogue
from smtpbench.session.stage import Take
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


class Reader:
    """Reads dialogues by the thousand: what was judged of a turn once is remembered, for most turns come again.

    strict: advice counts.
    """

    def __init__(self, offer: Offer, *, strict: bool) -> None:
        rules = [rule for rule in _INVARIANTS if strict or rule.severity != r.ADVICE]
        self._by_turn = [rule for rule in rules if rule.by_turn]
        self._by_session = [rule for rule in rules if not rule.by_turn]
        self._offer = offer
        self._strict = strict
        #: turns that no rule holds anything against → whether EHLO or HELO is taken in it
        self._spotless: dict[tuple[object, ...], bool] = {}

    def judge(self, take: Take, dialogue: Dialogue, slow_ns: int) -> list[Wrong]:
        """All that is wrong with one session: by the state table, by every invariant, and by the clock."""
        if not dialogue.began:
            return []
        assert isinstance(take.session, AccountedSession)  # it kept the account while it spoke
        wrongs = [one for one in take.session.account.wrongs if self._strict or _SEVERITY[one.rule] != r.ADVICE]
        if not self._nothing_new(dialogue):
            found = self._broken(self._by_turn, dialogue)
            wrongs += found
            if not found:
                self._remember(dialogue)
        wrongs += self._broken(self._by_session, dialogue)
        wait_ns, verb = longest(take)
        if wait_ns > slow_ns and sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies()) <= _TOLERATED:
            wrongs.append(Wrong("health", f"a reply after {verb} took {wait_ns / 1e6:.0f} ms", f"{SLOW}{verb}"))
        return wrongs

    def _broken(self, rules: Sequence[Rule], dialogue: Dialogue) -> list[Wrong]:
        found = []
        for rule in rules:
            assert rule.invariant is not None
            actual = rule.invariant(self._offer, dialogue)
            if actual:
                found.append(Wrong(rule.name, actual, ""))
        return found

    def _nothing_new(self, dialogue: Dialogue) -> bool:
        """Whether every turn was read before, and nothing was wrong with it."""
        greeted, said, known = False, b"", self._spotless
        for turn in dialogue.turns:
            said = turn.said if said.endswith(b"\n") else said + turn.said  # a line may be said in several writes
            greets = known.get((greeted, said, turn.tls, *[one[0].raw for one in turn.heard]))
            if greets is None:
                return False
            greeted = greeted or greets
        return True

    def _remember(self, dialogue: Dialogue) -> None:
        if any(b"SMTPUTF8" in turn.said.upper() for turn in dialogue.turns):
            return  # that excuses the other turns
        if len(self._spotless) > _REMEMBERED:
            self._spotless.clear()
        greeted, said = False, b""
        for turn in dialogue.turns:
            said = turn.said if said.endswith(b"\n") else said + turn.said
            raws = [one.reply.raw for one in turn.heard]
            greets = turn.code // 100 == 2 and any(verb in said.upper() for verb in (b"EHLO", b"HELO", b"LHLO"))
            even = all(one.tls == turn.tls for one in turn.heard)
            if even and len(said) + sum(map(len, raws)) <= _TURN_BYTES:
                self._spotless[(greeted, said, turn.tls, *raws)] = greets
            greeted = greeted or greets


def longest(take: Take) -> tuple[int, str]:
    """The longest time between a write and what came next, and what was written."""
    worst_ns, worst, heard = 0, b"", b""
    for entry, following in pairwise(take.tape.entries):
        auth = entry.data[:4].upper() == b"AUTH" or heard.startswith(b"334")
        heard = entry.data if entry.who == SERVER else heard
        if entry.who == CLIENT and following.who == SERVER and not auth and following.at_ns - entry.at_ns > worst_ns:
            worst_ns, worst = following.at_ns - entry.at_ns, entry.data
    return worst_ns, verb_of(worst) or "a text"


def complete(take: Take) -> bool:
    """Whether each reply that came was owed, and each that was owed came."""
    assert isinstance(take.session, AccountedSession)
    return take.session.account.even
