"""A session that says octets which nobody meant, and waits for exactly the replies that a server owes for them.

A script's asks cannot say how many replies a mutated write gets: that hangs on what was answered before. So the steps of
a case carry no number; an `Account` keeps it, from what was written and heard. Which octets are said never hangs on a
reply: a case is the same for every server.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules.account import Account
from smtpbench.session import script as s
from smtpbench.session.cast import Cast
from smtpbench.session.client import ClientSession
from smtpbench.session.script import Step, Wire
from smtpbench.session.transcript import Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.units import NS_PER_MS

#: How long a session whose account is loose listens for what may or may not come.
_LOOSE_NS = 30 * NS_PER_MS


class AccountedSession(ClientSession):
    """One case on one connection. account: what is owed."""

    __slots__ = ("account",)

    def __init__(self, cast: Cast, tape: Transcript | None = None) -> None:
        super().__init__(cast, tape)
        self.account = Account(lmtp=cast.script.lmtp)

    def secured(self, now_ns: int) -> api.Out:
        self.account.secured()
        return super().secured(now_ns)

    def lost(self, why: str, detail: str, now_ns: int) -> None:
        self.account.close(why)
        super().lost(why, detail, now_ns)

    def _note_sent(self, wire: Wire, now_ns: int) -> None:
        super()._note_sent(wire, now_ns)
        self.account.wrote(wire if isinstance(wire, bytes) else b"".join(wire))

    def _await(self, step: Step, now_ns: int) -> None:
        super()._await(step, now_ns)
        self._owed = 1 if step is self._cast.greet else self.account.due
        if not self._owed:
            # nothing is owed, or nobody can say: go on, after a look where something may come
            self.wants = api.SLEEP
            self.wake_ns = now_ns + (_LOOSE_NS if self.account.loose else 0)

    def _reply(self, reply: Reply, now_ns: int) -> api.Out:
        step = self._step
        ask = step.asks[0]
        ok = ask.satisfied(reply.code)
        samples = self._book.samples(ask.verb, step.slot, reply.raw, ok)
        samples.append(now_ns - self._sent_ns + self._late)
        self.account.heard(reply)
        if step.kind == s.AUTH and reply.code == 334 and self._sasl is not None:
            return self._challenged(reply, now_ns)
        self._owed = self.account.due
        if self._owed:
            self._stay_patient(now_ns)
            return b""
        if step.kind == s.STARTTLS and reply.code == 220:
            return self._handshake(now_ns)
        if self.wants == api.SLEEP:
            return b""
        return self._enter(now_ns)

    def _unasked(self, reply: Reply) -> None:
        self.account.heard(reply)
