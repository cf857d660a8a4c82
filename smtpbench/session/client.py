"""The client's side of a session, fed with octets and times: what it does about each reply.

Theory of operation
===================

`receive` is the hottest function of the program, so it is two functions.

The fast one knows nothing of SMTP. For each expected reply there is a cache. It maps a reply to what that reply led to
before: the list that its latency is appended to, and the next step. A reply that is equal to an earlier one costs one
dictionary look-up. A reply that ends in a queue id is never equal to an earlier one. So the cache also holds, under the key
`PREFIXES`, the first octets of replies of one line. Code and enhanced code lie within those octets (`PREFIX_BYTES`), so
replies that differ in either never share an entry. Where the first octets differ too (an address or an id stands there),
code and enhanced code alone are the key (`reply_cache.status`).

A malformed reply is never cached, because each is counted as an error. If its lines have different codes, the last counts.

The slow one parses replies, decides what follows, and caches the decision if an equal reply always leads to the same one.
Decisions that depend on more than the beginning of a reply are never cached: refusals, groups, TLS, SASL, the several
replies of LMTP, and sessions with a transcript.

`session.script_executor` decides what is written next.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session import reply_cache
from smtpbench.session import script as s
from smtpbench.session.context import START, STOP, WAIT, SessionContext
from smtpbench.session.output import joined, reply_text, segments
from smtpbench.session.reply_cache import BEGUN, COMPLETED, EMPTY_CACHE, NO_PREFIXES, PREFIXES, RECIPIENT, CacheEntry
from smtpbench.session.sasl_exchange import SaslExchange
from smtpbench.session.script import ExpectedReply, Step
from smtpbench.session.script_executor import ScriptExecutor
from smtpbench.session.transcript import SERVER, Transcript
from smtpbench.smtp.reply import PREFIX_BYTES, Reply


class ClientSession(ScriptExecutor):
    """One connection's dialogue; implements `engine.api.Session`.

    Assign it an arrival (`assign`) and call `open` before the engine opens its connection.

    Attributes:
        connection: The engine's handle, set by the caller that connects, so that what `resume` returns can be pushed.
        session_deadline_ns: When the whole session ends, whatever is going on; NEVER without a limit.
        broken: The session ended otherwise than by its script.
        given_back: The connection ended before the assigned arrival was offered; the arrival source issues it again.
        consecutive_failures: How many sessions in a row broke before this one; an accepted message resets it. Set by the
            arrival source.

    Hooks for subclasses
    ====================

    A subclass uses the names below and no name that begins with an underscore.

    It may override these methods, and call the base class's own from them:

        connected, tls_started, receive, write_progressed, octets_acknowledged, wake, eof_received, connection_lost: The
            engine's calls (`engine.api.Session`).
        on_sent(wire, now_ns): The session writes something. Called for every write of a session with a transcript; a note
            stands in place of SASL responses.
        await_replies(step, now_ns): A step was written, and its replies are due. It may change `replies_due`. If it sets
            that to 0, it may set `pending_action` and `wake_ns`.
        on_reply(reply, now_ns): A reply came while one was due. It reduces `replies_due` and returns what to write.
        on_unsolicited_reply(reply): A reply came while none was due.

    It may call `advance`, `jump`, `recover`, `start_tls`, `answer_challenge`, `restart_timeout` and `fail`.

    It may read these attributes:

        context: What all sessions share.
        step: The step whose replies are due.
        replies_due: How many replies are due. May be changed in `await_replies` and `on_reply`.
        recorder: Where samples and errors go.
        started_ns: Time of `open`.
        sent_ns, received_ns: When the kernel was given the last write, and received the last octets (`engine.api`). Of a
            write that the kernel took in parts, sent_ns is when it had taken the last octet.
        transfer: The write that the kernel is taking in parts; None if there is none.
        lateness: Lateness of the arrival as a sample stores it; added to each service time.
    """

    __slots__ = ("_group_replies", "_wrote_in_this_read")

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        super().__init__(context, transcript)
        self._group_replies: list[Reply] = []
        self._wrote_in_this_read = False

    # -- what the engine calls -----------------------------------------------------------------------------

    @property
    def deadline_ns(self) -> int:
        """When the timeout or the session's own limit ends; in the far future if nothing is waited for."""
        return min(self.sent_ns + self.timeout_ns, self.session_deadline_ns)

    def connected(self, now_ns: int) -> api.Out:
        self.record_time("connect")
        if self.context.script.implicit_tls:
            return self.start_tls(now_ns)
        return self._await_greeting(now_ns)

    def tls_started(self, now_ns: int) -> api.Out:
        self.record_time("tls")
        self.log_event(b"tls", now_ns)
        if self.step is self.context.greeting_step:
            return self._await_greeting(now_ns)
        return self.advance(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        cache = self.reply_cache
        entry: CacheEntry | None = cache.get(data)
        if entry is None:
            entry = cache.get(PREFIXES, NO_PREFIXES).get(data[:PREFIX_BYTES])
            if entry is None or data.find(b"\n") + 1 != len(data):
                return self._receive(data, now_ns)
        append, step, self.reply_cache, position, changes = entry
        append(self.received_ns - self.sent_ns + self.lateness)
        if changes == 1:  # RECIPIENT, by far the most frequent
            self.recipients_accepted += 1
        elif changes:
            self._apply_changes(changes, now_ns)
        if step is None:
            return self._step_succeeded(now_ns)
        self.step = step
        self.position = position
        self.sent_ns = now_ns
        return step.wire if step.render is None else step.render(self.n)

    def wake(self, now_ns: int) -> api.Out:
        return self.advance(now_ns)

    def eof_received(self, now_ns: int) -> api.Out:
        self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        self.log_event(reason.encode(), now_ns)
        if self.done:
            pass
        elif reason == api.STOPPED:
            self._accept_for_some()
            waits_ns = [max(0, now_ns - (self.waiting_since_ns or now_ns))] * self.messages_open
            self.recorder.censor(self.unanswered(now_ns), waits_ns)
            self.recorder.interrupted += self.messages_open
        elif self.idle:
            self.recorder.error("closed_idle", f"{reason} between two arrivals")
        elif reason in (api.CLOSED, api.CONNECTION_RESET) and not self.reader.pending and self.nothing_offered():
            self.give_back(f"{reason} between two arrivals")
        else:
            if reason in (api.TIMEOUT, api.CONNECT_TIMEOUT) and self.transcript is None:
                self.recorder.censor(self.unanswered(now_ns))
            if self.reader.pending:
                detail = detail or "in the middle of a reply"
            doing = "while waiting" if self.transfer is None else "while sending"
            self.fail_messages(reason, f"{detail or doing} ({self.step.metric or s.KIND_NAMES[self.step.kind]})")
        self.messages_open = 0
        self.timeout_ns = api.NEVER
        self.context.scheduler.session_ended(self, now_ns)

    def _await_greeting(self, now_ns: int) -> api.Out:
        if self.context.script.greeting is None:
            return self.advance(now_ns)
        self.await_replies(self.context.greeting_step, now_ns)
        self.sent_ns = self.received_ns  # nothing is written: the wait begins with the connection
        return b""

    # -- replies -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.transcript is not None:
            self.transcript.add(now_ns, SERVER, data)
        elif self.reply_cache:
            entry: CacheEntry | None = self.reply_cache.get(PREFIXES, NO_PREFIXES).get(reply_cache.status(data))
            if entry is not None:
                return self._cached_reply(entry, now_ns)
        elif self.replies_due == len(self.step.expected_replies) > 1 and not self.reader.pending:
            cache = self.reply_caches[self.step.first_reply_index]
            appends = cache.get(data) or cache.get(reply_cache.statuses(data, self.replies_due))
            if appends is not None:
                return self._cached_group(appends, now_ns)
        reader = self.reader
        outs: list[bytes] = []
        self._wrote_in_this_read = False
        replies = reader.feed(data)
        if len(replies) == self.replies_due == len(self.step.expected_replies) > 1 and not reader.pending:
            self._cache_group(data, replies)
        for reply in replies:
            # what came in one read with the reply before it cannot answer what is written only now
            if self.replies_due and not self._wrote_in_this_read and not self.done:
                out = self.on_reply(reply, now_ns)
                if out:
                    if not reader.pending and isinstance(out, tuple):
                        return out
                    outs += segments(out)
                    self._wrote_in_this_read = True
            elif not self.done:
                self.on_unsolicited_reply(reply)
        if reader.overflow and not self.done:
            self.fail("reply_too_long", f"{len(reader.pending)} octets without an end")
        elif self.transcript is not None and self.transcript.is_endless and not self.done:
            received = f"{self.transcript.received_bytes} octets, {self.transcript.received_lines} lines"
            self.fail("reply_too_long", f"{received} in one session")
        if reader.pending:
            self.reply_cache = EMPTY_CACHE
        return joined(outs)

    def on_reply(self, reply: Reply, now_ns: int) -> api.Out:
        """Handle a reply that is due; return what to write."""
        step = self.step
        if reply.malformed and reply.code and self.transcript is None:
            self.recorder.error("mixed_reply_codes" if reply.mixed_codes else "malformed_reply", reply_text(reply))
        index = len(step.expected_replies) - self.replies_due if step.kind != s.MESSAGE else 0
        expected = step.expected_replies[index]
        if step.kind == s.AUTH and reply.code == 334:
            return self.answer_challenge(reply, now_ns)
        ok = expected.matches(reply.code)
        single = len(step.expected_replies) == 1
        samples = self.recorder.samples(expected.verb, step.metric if single else "", reply.decisive, ok)
        waited_ns = self.received_ns - self.sent_ns
        if step.kind == s.AUTH and self.sasl_exchange is not None:
            waited_ns += self.sasl_exchange.waited_ns
        samples.append(waited_ns + self.lateness)
        self.replies_due -= 1
        if expected.verb == "RCPT":
            self.recipients_accepted += ok
            self.recipients_rejected += not ok
        if not single or (step.kind == s.MESSAGE and self.context.script.lmtp):
            return self._group_reply(step, reply, ok, now_ns)
        if not ok:
            return self._unexpected_reply(step, reply, now_ns)
        if self.transcript is None and not reply.malformed:
            reply_cache.store_reply(self.reply_caches, self.context.script, step, self.position, reply.raw, samples)
        return self._step_succeeded(now_ns)

    def answer_challenge(self, reply: Reply, now_ns: int) -> api.Out:
        """Answer a 334 reply to an AUTH step. An exchange without an end ends the session."""
        assert self.sasl_exchange is not None  # an AUTH step begins with one
        if self.sasl_exchange.exhausted or now_ns > self.sasl_exchange.limit_ns:
            return self.fail("sasl_endless", f"the server goes on with AUTH: {reply_text(reply)}")
        self.recorder.samples("AUTH", "", reply.raw[:4], True).append(0)
        self.sasl_exchange.waited_ns += self.received_ns - self.sent_ns
        self.sent_ns = now_ns
        self.on_sent(SaslExchange.SHOWN_RESPONSE, now_ns)
        return self.sasl_exchange.response_to(reply)

    def _cache_group(self, data: bytes, replies: list[Reply]) -> None:
        step = self.step
        if self.transcript is not None or self.context.script.lmtp or step.kind != s.GROUP:
            return

        def samples(expected: ExpectedReply, reply: Reply) -> list[int]:
            return self.recorder.samples(expected.verb, "", reply.raw, True)

        cache = self.reply_caches[step.first_reply_index]
        reply_cache.store_group(cache, step, data, replies, samples, self.recorder.timing(step.metric))

    def _cached_reply(self, entry: CacheEntry, now_ns: int) -> api.Out:
        """Do what `receive` does with an entry of the cache."""
        append, step, self.reply_cache, position, changes = entry
        append(self.received_ns - self.sent_ns + self.lateness)
        if changes:
            self._apply_changes(changes, now_ns)
        if step is None:
            return self._step_succeeded(now_ns)
        self.step, self.position, self.sent_ns = step, position, now_ns
        return step.wire if step.render is None else step.render(self.n)

    def _apply_changes(self, changes: int, now_ns: int) -> None:
        """Do what an entry of the cache says besides the step that follows."""
        if changes & RECIPIENT:
            self.recipients_accepted += 1
        if changes & COMPLETED:
            self.complete_transaction(True, now_ns)
            self.timeout_ns = self.context.timeout_ns  # a message that the kernel took in parts may have extended it
        if changes & BEGUN:
            self.transaction_ns = now_ns
            self.recipients_accepted = self.recipients_rejected = 0

    def _cached_group(self, appends: list[Callable[[int], None]], now_ns: int) -> api.Out:
        """Handle all replies of a group, received in one read, all expected and cached."""
        sample = self.received_ns - self.sent_ns + self.lateness
        for append in appends:
            append(sample)
        self.recipients_accepted = 1  # at least; the number matters in LMTP only, where groups are not cached
        return self.advance(now_ns)

    def _step_succeeded(self, now_ns: int) -> api.Out:
        """Go on behind a step whose one reply was expected."""
        kind = self.step.kind
        if kind == s.MESSAGE:
            self.complete_transaction(True, now_ns)
            if self.position == self.context.script.teardown and self.iterating:
                opening = self.context.opening_mail
                if self.end_iteration(now_ns) == START and opening is not None and self.reply_caches:
                    return self._start_next_message(opening, now_ns)
                if self.idle:
                    return b""
        elif kind == s.STARTTLS:
            return self.start_tls(now_ns)
        return self.advance(now_ns)

    def _start_next_message(self, opening: Step, now_ns: int) -> api.Out:
        """Begin the next message: what `advance` would do in this, the commonest case."""
        self.position += 1
        self.transaction_ns = now_ns
        self.recipients_accepted = self.recipients_rejected = 0
        self.await_replies(opening, now_ns)
        return opening.wire if opening.render is None else opening.render(self.n)

    def _group_reply(self, step: Step, reply: Reply, ok: bool, now_ns: int) -> api.Out:
        """Handle one of several replies to a step; decide once the last one has come."""
        if step.kind == s.MESSAGE and reply.code:
            self.recorder.recipients_accepted += ok
            self.recorder.recipients_rejected += not ok
        if reply.code in (0, 421) and step.on_unexpected != s.CONTINUE:
            return self._unexpected_reply(step, reply, now_ns)  # no others follow it
        self._group_replies.append(reply)
        self.restart_timeout(now_ns)
        if self.replies_due:
            return b""
        codes, self._group_replies = [member.code for member in self._group_replies], []
        if step.kind == s.MESSAGE:
            self.complete_transaction(any(code // 100 == 2 for code in codes), now_ns)
            return self.advance(now_ns)
        satisfied = all(expected.matches(code) for expected, code in zip(step.expected_replies, codes, strict=True))
        self.recorder.timing(step.metric, satisfied).append(self.received_ns - self.sent_ns + self.lateness)
        if satisfied or step.on_unexpected == s.CONTINUE:
            return self.advance(now_ns)
        return self._group_refused(step, codes, reply, now_ns)

    def _group_refused(self, step: Step, codes: list[int], last: Reply, now_ns: int) -> api.Out:
        """Recover from a pipelined group with a refusal (RFC 2920 §3.1: DATA may still be answered 354)."""
        if step.on_unexpected == s.ABORT_SESSION:
            return self._unexpected_reply(step, last, now_ns)
        by_verb = dict(zip((expected.verb for expected in step.expected_replies), codes, strict=True))
        in_transaction = by_verb.get("MAIL", 250) // 100 == 2
        if by_verb.get("DATA", 0) // 100 == 3:
            if in_transaction and self.recipients_accepted:
                return self.advance(now_ns)
            self.complete_transaction(False, now_ns)
            return self.recover(s.EMPTY_MESSAGE, step.abort_target, now_ns)
        if in_transaction and self.recipients_accepted and "DATA" not in by_verb:
            return self.advance(now_ns)
        self.complete_transaction(False, now_ns)
        if in_transaction:
            return self.recover(self.context.script.rset, step.abort_target, now_ns)
        return self.jump(step.abort_target, now_ns)

    def _unexpected_reply(self, step: Step, reply: Reply, now_ns: int) -> api.Out:
        """Do what the step's `on_unexpected` says."""
        if step.on_unexpected == s.CONTINUE:
            if step.kind == s.MESSAGE:
                self.complete_transaction(False, now_ns)
            return self.advance(now_ns)
        if reply.code == 0:
            return self.fail("malformed_reply", reply_text(reply))
        if reply.code == 421 and self.nothing_offered(1):
            self.give_back(reply_text(reply))
            return b""
        if reply.code == 421:
            if step.on_unexpected == s.ABORT_TRANSACTION and not self._accept_for_some():
                self.complete_transaction(False, now_ns)
            return self.fail("closed_421", reply_text(reply))
        if step.on_unexpected == s.ABORT_SESSION:
            self.fail_messages(f"{step.metric.lower()}_refused", reply_text(reply))
            self.iterating = False
            return self.jump(self.context.script.teardown, now_ns)
        if step.kind == s.RCPT:
            return self.advance(now_ns)
        self.complete_transaction(False, now_ns)
        if step.kind in (s.MAIL, s.MESSAGE):
            return self.jump(step.abort_target, now_ns)
        return self.recover(self.context.script.rset, step.abort_target, now_ns)

    def end_iteration(self, now_ns: int) -> int:
        if self.messages_open:
            self.fail_incomplete_messages()
        decision = self.context.scheduler.next_arrival(self, now_ns) if self.iterations_left else STOP
        if decision == START:
            self.begin_iteration(now_ns)
        elif decision == WAIT:
            self.idle = True
            self.replies_due = 0
            self.reply_cache = EMPTY_CACHE
            self.timeout_ns = api.NEVER
        else:
            self.iterating = False
        return decision

    def on_unsolicited_reply(self, reply: Reply) -> None:
        """Record a reply while none was due."""
        if reply.code != 421:
            self.recorder.error("unsolicited_reply", reply_text(reply))
        elif self.idle:
            self.recorder.error("closed_idle", reply_text(reply))
            self.finish()
        elif self.nothing_offered():
            self.give_back(reply_text(reply))
        else:
            self.fail("closed_421", reply_text(reply))

    def fail_messages(self, kind: str, detail: str) -> None:
        self._accept_for_some()
        super().fail_messages(kind, detail)

    def _accept_for_some(self) -> bool:
        """Count a message as accepted if the session ends when some of its recipients were (LMTP); return whether it was."""
        replies, self._group_replies = self._group_replies, []
        if self.step.kind != s.MESSAGE or not self.messages_open or all(reply.code // 100 != 2 for reply in replies):
            return False
        self.messages_open -= 1
        self.recorder.accepted += 1
        return True

    def fail(self, kind: str, detail: str) -> api.Out:
        """End the session with an error: request the close of its connection."""
        self.fail_messages(kind, detail)
        self.finish()
        return b""
