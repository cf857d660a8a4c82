"""What is wrong with one session of a campaign: by the state table, by every invariant, and by the clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from smtpbench.rules import rule as r
from smtpbench.rules.account import Wrong
from smtpbench.rules.accounted import AccountedSession
from smtpbench.rules.offer import Offer
from smtpbench.rules.register import RULES
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


def judge(offer: Offer, take: Take, dialogue: Dialogue, *, strict: bool, slow_ns: int) -> list[Wrong]:
    """All that is wrong with one session: by the state table, by every invariant, and by the clock."""
    if not dialogue.began:
        return []
    assert isinstance(take.session, AccountedSession)  # it kept the account while it spoke
    wrongs = list(take.session.account.wrongs)
    for rule in _INVARIANTS:
        assert rule.invariant is not None
        if strict or rule.severity != r.ADVICE:
            actual = rule.invariant(offer, dialogue)
            if actual:
                wrongs.append(Wrong(rule.name, actual, ""))
    wait_ns, verb = longest(take)
    if wait_ns > slow_ns and sum(one.reply.code // 100 in (4, 5) for one in dialogue.replies()) <= _TOLERATED:
        wrongs.append(Wrong("health", f"a reply after {verb} took {wait_ns / 1e6:.0f} ms", f"{SLOW}{verb}"))
    return wrongs if strict else [one for one in wrongs if _SEVERITY.get(one.rule) != r.ADVICE]


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
