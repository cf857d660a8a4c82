"""A session that says octets which nobody meant, and waits for exactly the replies that a server owes for them.

A script's asks cannot say how many replies a mutated write gets: that hangs on what was answered before. So the steps of
a case carry no number; an `ReplyTracker` keeps it, from what was written and heard. Which octets are said never hangs on a
reply: a case is the same for every server.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules.reply_tracker import ReplyTracker
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.context import SessionContext
from smtpbench.session.script import Step, Wire
from smtpbench.session.transcript import Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.units import NS_PER_MS

#: How long a session whose account is loose listens for what may or may not come.
_LENIENT_WAIT_NS = 30 * NS_PER_MS


class TrackedSession(ClientSession):
    """One case on one connection. account: what is owed."""

    __slots__ = ("tracker",)

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        super().__init__(context, transcript)
        self.tracker = ReplyTracker(lmtp=context.script.lmtp)

    def tls_started(self, now_ns: int) -> api.Out:
        self.tracker.tls_started()
        return super().tls_started(now_ns)

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        self.tracker.close(why)
        super().connection_lost(why, detail, now_ns)

    def _log_sent(self, wire: Wire, now_ns: int) -> None:
        super()._log_sent(wire, now_ns)
        self.tracker.sent(wire if isinstance(wire, bytes) else b"".join(wire))

    def _await_replies(self, step: Step, now_ns: int) -> None:
        super()._await_replies(step, now_ns)
        self._replies_due = 1 if step is self._context.greeting_step else self.tracker.replies_due
        if not self._replies_due:
            # nothing is owed, or nobody can say: go on, after a look where something may come
            self.pending_action = api.SLEEP
            self.wake_ns = now_ns + (_LENIENT_WAIT_NS if self.tracker.lenient else 0)

    def _reply(self, reply: Reply, now_ns: int) -> api.Out:
        step = self._step
        ask = step.expected_replies[0]
        ok = ask.matches(reply.code)
        samples = self._recorder.samples(ask.verb, step.metric, reply.raw, ok)
        samples.append(now_ns - self._sent_ns + self._lateness)
        self.tracker.received(reply)
        if step.kind == s.AUTH and reply.code == 334 and self._sasl is not None:
            return self._challenged(reply, now_ns)
        self._replies_due = self.tracker.replies_due
        if self._replies_due:
            self._restart_timeout(now_ns)
            return b""
        if step.kind == s.STARTTLS and reply.code == 220:
            return self._handshake(now_ns)
        if self.pending_action == api.SLEEP:
            return b""
        return self._advance(now_ns)

    def _unsolicited_reply(self, reply: Reply) -> None:
        self.tracker.received(reply)
