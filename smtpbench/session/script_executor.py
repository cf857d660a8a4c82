"""The writing half of a client session: executes its script, and records the outcome of its arrivals.

Theory of operation
===================

`ScriptExecutor` holds the position in the script and the arrival that the session serves. `advance` executes steps from the
position on, until the session has to wait for a reply, a timer or the engine. It returns what to write. At the end of an
iteration the session asks the arrival source for the next arrival. It knows no load model.

Each message of an arrival is counted once, in the recorder that came with the arrival. It is accepted or rejected when its
transaction ends, and failed if the session ends before.

A latency sample is one integer, `service_ns + (late_us << LATE_SHIFT)`. late_us is how long after its intended start the
arrival began. The service time begins when the write is given to the kernel, and ends when the kernel has received the last
octets of the reply. The engine sets both times.

The kernel takes nearly every write at once. Of a large message it takes a part, and more of it when the server has read. The
engine then calls `write_progressed`, and the service time begins with the last octet. What came before it is the time of the
transfer, a metric of its own.
"""

from __future__ import annotations

from typing import Any

from smtpbench.engine import api
from smtpbench.session import script as s
from smtpbench.session.context import (
    LATE_SHIFT,
    START,
    UNSCHEDULED,
    WAIT,
    SessionContext,
    SessionRecorder,
    UnansweredSample,
)
from smtpbench.session.output import decoded, joined, segments
from smtpbench.session.reply_cache import EMPTY_CACHE
from smtpbench.session.sasl_exchange import MAX_TIMEOUTS, SaslExchange
from smtpbench.session.script import Step
from smtpbench.session.transcript import CLIENT, EVENT, Transcript
from smtpbench.session.transfer import METRIC as TRANSFER
from smtpbench.session.transfer import Transfer, longest_ns
from smtpbench.smtp.reply import MAX_KEPT_REPLY_BYTES, ReplyReader

_NO_RECORDER: Any = None  # a session has no recorder before it is assigned an arrival


class ScriptExecutor:
    """Position in a script and state of an arrival. `session.client.ClientSession` lists what a subclass may use."""

    __slots__ = (
        "broken",
        "connection",
        "consecutive_failures",
        "context",
        "done",
        "given_back",
        "idle",
        "intended_ns",
        "iterating",
        "iterations_left",
        "lateness",
        "messages_open",
        "n",
        "pending_action",
        "position",
        "reader",
        "received_ns",
        "recipients_accepted",
        "recipients_rejected",
        "recorder",
        "replies_due",
        "reply_cache",
        "reply_caches",
        "sasl_exchange",
        "sent_ns",
        "session_deadline_ns",
        "started_ns",
        "step",
        "timeout_ns",
        "transaction_ns",
        "transaction_samples",
        "transcript",
        "transfer",
        "transfer_limit_ns",
        "wake_ns",
    )

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        self.context = context
        self.transcript = transcript
        self.connection: Any = None
        self.broken = False
        self.consecutive_failures = 0
        self.pending_action = api.NOTHING
        self.wake_ns = 0
        self.timeout_ns = api.NEVER
        self.reader = ReplyReader() if transcript is None else self._new_reader()
        self.recorder: SessionRecorder = _NO_RECORDER
        self.reply_cache = EMPTY_CACHE
        self.step = context.greeting_step
        self.position = 0
        self.replies_due = 0
        self.lateness = 0
        self.sent_ns = 0
        self.received_ns = 0
        self.session_deadline_ns = api.NEVER
        self.transaction_ns = 0
        self.recipients_accepted = 0
        self.recipients_rejected = 0
        self.sasl_exchange: SaslExchange | None = None
        self.transfer: Transfer | None = None
        self.transfer_limit_ns = 0  # progress after it does not extend the timeout
        self.iterations_left = context.script.iterations
        self.iterating = False
        self.idle = False
        self.done = False
        self.given_back = False
        self.messages_open = 0
        self.n = 0

    def _new_reader(self) -> ReplyReader:
        return ReplyReader() if self.transcript is None else ReplyReader(MAX_KEPT_REPLY_BYTES)

    # -- arrivals ------------------------------------------------------------------------------------------

    def assign(self, n: int, intended_ns: int, recorder: SessionRecorder) -> None:
        """Take over an arrival. Called before `open`, and by `ArrivalSource.next_arrival`.

        Args:
            n: Number of the arrival.
            intended_ns: When it is meant to begin; UNSCHEDULED in a closed model.
            recorder: Counts its outcome.
        """
        self.n = n
        self.intended_ns = intended_ns
        if recorder is not self.recorder:
            self.recorder = recorder
            # a session with a transcript must take each reply by the slow path: it uses no cache
            self.reply_caches = recorder.reply_caches if self.transcript is None else []
            self.transaction_samples = recorder.timing("transaction")
        messages = self.context.messages
        self.messages_open = self.context.script.messages(n) if messages is None else messages

    def open(self, now_ns: int) -> None:
        """Start the clock: the engine begins to connect."""
        self.started_ns = now_ns
        self.sent_ns = now_ns
        self.timeout_ns = self.context.timeout_ns
        self._record_lateness(now_ns)

    def resume(self, now_ns: int) -> api.Out:
        """Begin the arrival that was assigned to a session that waits; return what to write."""
        self.idle = False
        self.begin_iteration(now_ns)
        return self.advance(now_ns)

    def finish_waiting(self, now_ns: int) -> api.Out:
        """End a session that waits for an arrival; return what to write."""
        self.idle = False
        self.iterating = False
        return self.jump(self.context.script.teardown, now_ns)

    def _record_lateness(self, now_ns: int) -> None:
        late_ns = now_ns - self.intended_ns
        self.lateness = late_ns // 1000 << LATE_SHIFT if late_ns > 0 else 0  # UNSCHEDULED is never in the past

    def nothing_offered(self, replies: int = 0) -> bool:
        """Return whether the connection ends between two arrivals, although the second has been assigned.

        A server may limit the number of messages of a connection. It closes after the last reply, when the first command of
        the next message may be under way. That message was not refused, and another connection can send it.

        Args:
            replies: Number of replies since that command that only say that the connection ends.
        """
        script = self.context.script
        return (
            self.iterating
            and self.iterations_left < script.iterations - 1
            and self.position == script.loop_start + 1
            and self.step is script.steps[script.loop_start]
            and self.replies_due == len(self.step.expected_replies) - replies
        )

    def give_back(self, detail: str) -> None:
        """End the session; the arrival source opens another connection for its arrival."""
        self.recorder.error("closed_idle", detail)
        self.given_back = True
        self.messages_open = 0
        self.finish()

    def begin_iteration(self, now_ns: int) -> None:
        """Begin an iteration with the arrival that was assigned."""
        self.iterating = True
        self.iterations_left -= 1
        self.position = self.context.script.loop_start
        self._record_lateness(now_ns)

    def end_iteration(self, now_ns: int) -> int:
        """End an iteration: START if the next has begun, WAIT if none is due yet, STOP if there will be none."""
        raise NotImplementedError

    def complete_transaction(self, accepted: bool, now_ns: int) -> None:
        """Count one mail transaction of the arrival as accepted or rejected."""
        if not self.messages_open:
            return  # the transaction has no message step, so it was never counted as a message to come
        self.messages_open -= 1
        sample = now_ns - self.transaction_ns + self.lateness
        if accepted:
            self.recorder.accepted += 1
            self.consecutive_failures = 0
            self.transaction_samples.append(sample)
        else:
            self.recorder.rejected += 1
            self.recorder.timing("transaction", False).append(sample)

    def fail_messages(self, kind: str, detail: str) -> None:
        """Count an error that ends the session, and the messages still open as failed."""
        self.broken = True
        self.recorder.error(kind, detail)
        self.recorder.failed += self.messages_open
        self.messages_open = 0

    def fail_incomplete_messages(self) -> None:
        """Count the messages of the arrival whose transaction did not end."""
        if self.messages_open:
            self.recorder.error("incomplete", "the script ended before the message was sent", self.messages_open)
            self.recorder.failed += self.messages_open
            self.messages_open = 0

    @property
    def waiting_since_ns(self) -> int:
        """Since when the session has waited for the server, for a reply or for progress of a write; 0 if it does not."""
        waits = not self.idle and not self.done and self.timeout_ns != api.NEVER and self.step.kind != s.PAUSE
        if not waits:
            return 0
        return self.sent_ns if self.transfer is None else self.transfer.progress_ns

    def unanswered(self, now_ns: int) -> list[UnansweredSample]:
        """Return what is known of the latencies that are waited for: lower bounds, if the wait ends now without an answer.

        An arrival of the open model is at least as late as its intended start is past.
        """
        if self.done or self.idle:
            return []
        step, context = self.step, self.context
        in_transfer = self.transfer is not None and self.transfer.of_message and self.transfer.step is step
        waited_ns = max(0, now_ns - (self.sent_ns if in_transfer else self.waiting_since_ns or now_ns))
        scheduled = self.intended_ns != UNSCHEDULED
        late_ns = max(0, now_ns - self.intended_ns) if scheduled else waited_ns
        metric = step.metric if self.replies_due else ""
        in_message = step.kind == s.MESSAGE and bool(self.replies_due)
        if in_transfer:
            metric, in_message = TRANSFER, False
        if step is context.greeting_step and not self.replies_due and not context.script.implicit_tls:
            metric = "connect"
        found = []
        if metric and not (in_message and self.messages_open):
            found.append(UnansweredSample(metric, waited_ns, waited_ns + (self.lateness >> LATE_SHIFT) * 1000))
        if self.messages_open:
            in_transaction = step.kind in (s.MAIL, s.RCPT, s.GROUP, s.MESSAGE) or step.metric in ("DATA", "BDAT")
            for name, begun in ((context.message_metric, in_message), ("transaction", in_transaction)):
                service_ns = waited_ns if begun or not scheduled else None
                if name:
                    found += [UnansweredSample(name, service_ns, max(late_ns, waited_ns))] * self.messages_open
        return found

    # -- steps ---------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> api.Out:
        """Go on with the script until something is waited for; return what to write."""
        script = self.context.script
        steps = script.steps
        outs: list[bytes] = []
        self.replies_due = 0
        self.reply_cache = EMPTY_CACHE
        while True:
            at = self.position
            if at == script.teardown and self.iterating:
                decision = self.end_iteration(now_ns)
                if decision == WAIT:
                    return joined(outs)
                if decision == START:
                    continue
            elif at == script.loop_start and script.repeats and self.iterations_left == script.iterations:
                self.begin_iteration(now_ns)
            if at >= len(steps):
                self.record_session_time(now_ns)
                self.finish()
                return joined(outs)
            step = steps[at]
            self.position = at + 1
            kind = step.kind
            if kind <= s.STARTTLS:
                if kind == s.MAIL or (kind == s.GROUP and step.expected_replies[0].verb == "MAIL"):
                    self.transaction_ns = now_ns
                    self.recipients_accepted = self.recipients_rejected = 0
                elif self.recipients_rejected and not self.recipients_accepted and step.needs_recipient:
                    self.complete_transaction(False, now_ns)
                    return joined(outs, self.recover(script.rset, step.abort_target, now_ns))
                wire = step.wire if step.render is None else step.render(self.n)
                if self.transcript is not None:
                    self.on_sent(wire, now_ns)
                if step.expected_replies:
                    self.await_replies(step, now_ns)
                    return joined(outs, list(step.split)) if step.split else joined(outs, wire) if outs else wire
                outs += step.split or segments(wire)
            elif kind == s.CHOOSE:
                self.position = s.choose(step, script.draw(self.n, at))
            elif kind == s.JUMP:
                self.position = step.targets[0]
            elif kind == s.AUTH:
                return joined(outs, self._authenticate(step, now_ns))
            else:
                self._request_action(step, now_ns)
                return joined(outs)

    def jump(self, position: int, now_ns: int) -> api.Out:
        """Go on with the script at another position; return what to write."""
        self.position = position
        return self.advance(now_ns)

    def recover(self, step: Step, position: int, now_ns: int) -> api.Out:
        """Write a step that is not in the script; once it is answered, the script goes on at a position."""
        self.position = position
        self.on_sent(step.wire, now_ns)
        self.await_replies(step, now_ns)
        self.reply_cache = EMPTY_CACHE  # where it leads depends on what it recovers from
        return step.wire

    def _authenticate(self, step: Step, now_ns: int) -> api.Out:
        credentials = step.credentials or self.context.credentials or ("", "")
        exchange = SaslExchange(step.mechanism, credentials, now_ns + MAX_TIMEOUTS * self.context.timeout_ns)
        self.sasl_exchange = exchange
        self.on_sent(exchange.shown_command, now_ns)
        self.await_replies(step, now_ns)
        return exchange.command

    def _request_action(self, step: Step, now_ns: int) -> None:
        """Have the engine do a step."""
        self.step = step
        kind = step.kind
        if kind == s.TLS:
            self.start_tls(now_ns)
        elif kind == s.PAUSE:
            self.pending_action = api.SLEEP
            self.wake_ns = now_ns + step.pause_ns
            # earlier writes may be stuck at a server that does not read
            self.sent_ns = now_ns
            self.timeout_ns = step.pause_ns + self.context.timeout_ns
        elif kind in (s.HALF_CLOSE, s.FIN):
            self.log_event(b"half-close", now_ns)
            self.pending_action = api.HALF_CLOSE if kind == s.HALF_CLOSE else api.FIN
        else:
            self.record_session_time(now_ns)
            self.finish()
            if kind == s.RESET:
                self.pending_action = api.RESET

    def await_replies(self, step: Step, now_ns: int) -> None:
        """Wait for the replies to a step that was written; their latency begins."""
        self.step = step
        expected_replies = len(step.expected_replies)
        self.replies_due = expected_replies
        if expected_replies == 1:
            if step.kind == s.MESSAGE and self.context.script.lmtp:
                self.replies_due = max(1, self.recipients_accepted)
            self.reply_cache = self.reply_caches[step.first_reply_index] if self.reply_caches else EMPTY_CACHE
        self.sent_ns = now_ns
        self.timeout_ns = self.context.timeout_ns

    def write_progressed(self, now_ns: int, left_bytes: int) -> None:
        """Note that the kernel takes a write in parts.

        As long as octets flow, the timeout begins anew. Once it has the last octet, the latency of the reply begins, and
        its timeout (RFC 5321 §4.5.3.2.5 and §4.5.3.2.6).
        """
        transfer = self.transfer
        if transfer is None:
            transfer = self.transfer = Transfer(self.step, self.sent_ns, now_ns)
            self.transfer_limit_ns = now_ns + longest_ns(left_bytes, self.context.timeout_ns)
        transfer.progress_ns = now_ns
        if left_bytes:
            self._allow_progress(now_ns)
            return
        self.transfer = None
        if not self.replies_due:
            return
        if transfer.of_message and transfer.step is self.step:  # else a reply came early, and the session has gone on
            self.recorder.timing(TRANSFER).append(now_ns - transfer.begun_ns + self.lateness)
        self.sent_ns = now_ns
        self.timeout_ns = self.context.timeout_ns

    def octets_acknowledged(self, now_ns: int) -> None:
        """Note that octets of a write that the kernel took in parts arrive at the server."""
        if self.transfer is not None:
            self.transfer.progress_ns = now_ns
        self._allow_progress(now_ns)

    def _allow_progress(self, now_ns: int) -> None:
        if not self.done and now_ns < self.transfer_limit_ns:
            self.timeout_ns = max(self.timeout_ns, now_ns - self.sent_ns + self.context.timeout_ns)

    def restart_timeout(self, now_ns: int) -> None:
        """Allow the next reply the whole timeout again. Its latency still counts from the write."""
        self.timeout_ns = now_ns - self.sent_ns + self.context.timeout_ns

    def start_tls(self, now_ns: int) -> api.Out:
        """Request a TLS handshake. What the server sent behind its 220 is discarded (RFC 3207 §4.2)."""
        if self.reader.pending:
            self.recorder.error("injected_before_tls", decoded(self.reader.pending))
            self.reader = self._new_reader()
        self.replies_due = 0
        self.reply_cache = EMPTY_CACHE
        self.sent_ns = now_ns
        self.timeout_ns = self.context.timeout_ns
        self.pending_action = api.START_TLS
        return b""

    def finish(self) -> None:
        """End the session: request the close of its connection."""
        if self.done:
            return
        self.fail_incomplete_messages()
        self.done = True
        self.replies_due = 0
        self.reply_cache = EMPTY_CACHE
        self.pending_action = api.CLOSE

    # -- records -------------------------------------------------------------------------------------------

    def record_time(self, metric: str) -> None:
        """Record a time that no single reply gives, counted from the last write."""
        self.recorder.timing(metric).append(self.received_ns - self.sent_ns + self.lateness)

    def record_session_time(self, now_ns: int) -> None:
        """Record how long the session took."""
        if not self.done:
            self.recorder.timing("session").append(now_ns - self.started_ns + self.lateness)

    def log_event(self, event: bytes, now_ns: int) -> None:
        """Add an event to the transcript, if there is one."""
        if self.transcript is not None:
            self.transcript.add(now_ns, EVENT, event)

    def on_sent(self, wire: s.Wire, now_ns: int) -> None:
        """Add a write to the transcript, if there is one."""
        if self.transcript is not None:
            self.transcript.add(now_ns, CLIENT, wire if isinstance(wire, bytes) else b"".join(wire))
