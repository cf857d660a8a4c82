"""A session that writes arbitrary octets and waits for exactly the replies that a server must send for them.

The expected replies of a script cannot say how many replies a mutated write gets: that depends on the replies before it. So
the steps of a case name no number. A `ReplyTracker` derives it from what was written and received. The octets of a case
never depend on a reply, so a case is the same for every server.
"""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.rules.reply_tracker import ReplyTracker
from smtpbench.session import script as s
from smtpbench.session.client import ClientSession
from smtpbench.session.context import SessionContext
from smtpbench.session.dialogue import HALF_CLOSE_EVENT
from smtpbench.session.script import Step, Wire
from smtpbench.session.transcript import Transcript
from smtpbench.smtp.reply import Reply
from smtpbench.units import NS_PER_MS

#: How long a session waits for replies if the tracker cannot tell how many are due.
_LENIENT_WAIT_NS = 30 * NS_PER_MS


class TrackedSession(ClientSession):
    """One case on one connection.

    Attributes:
        tracker: Which replies are due, and which were wrong.
    """

    __slots__ = ("tracker",)

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        super().__init__(context, transcript)
        self.tracker = ReplyTracker(lmtp=context.script.lmtp)

    def tls_started(self, now_ns: int) -> api.Out:
        self.tracker.tls_started()
        return super().tls_started(now_ns)

    def log_event(self, event: bytes, now_ns: int) -> None:
        super().log_event(event, now_ns)
        if event == HALF_CLOSE_EVENT:
            self.tracker.half_closed()

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        self.tracker.close(reason, endless=self.reader.overflow)
        super().connection_lost(reason, detail, now_ns)

    def on_sent(self, wire: Wire, now_ns: int) -> None:
        super().on_sent(wire, now_ns)
        self.tracker.sent(wire if isinstance(wire, bytes) else b"".join(wire))

    def await_replies(self, step: Step, now_ns: int) -> None:
        super().await_replies(step, now_ns)
        self.replies_due = 1 if step is self.context.greeting_step else self.tracker.replies_due
        if not self.replies_due:
            # none is due, or the tracker cannot tell: go on, after a wait if replies may still come
            self.pending_action = api.SLEEP
            self.wake_ns = now_ns + (_LENIENT_WAIT_NS if self.tracker.lenient else 0)

    def on_reply(self, reply: Reply, now_ns: int) -> api.Out:
        step = self.step
        expected = step.expected_replies[0]
        samples = self.recorder.samples(expected.verb, step.metric, reply.decisive, expected.matches(reply.code))
        samples.append(self.received_ns - self.sent_ns + self.lateness)
        self.tracker.received(reply)
        if step.kind == s.AUTH and reply.code == 334:
            return self.answer_challenge(reply, now_ns)
        self.replies_due = self.tracker.replies_due
        if self.replies_due:
            self.restart_timeout(now_ns)
            return b""
        if step.kind == s.STARTTLS and reply.code == 220:
            return self.start_tls(now_ns)
        if self.pending_action == api.SLEEP:
            return b""
        return self.advance(now_ns)

    def on_unsolicited_reply(self, reply: Reply) -> None:
        self.tracker.received(reply)
