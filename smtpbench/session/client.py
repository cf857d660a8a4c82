"""The client's side of a session: a script's program counter, fed with octets and times.

Theory of operation
===================

`receive` is the hottest function of the program, so it is two functions.

The fast one knows nothing of SMTP. For the ask that is open it holds a memo, a row of the book, from a reply
to what that reply led to before: which list its latency is appended to, and which step came next. A reply that
comes again octet for octet costs one dictionary look-up. One that ends in a queue id never does: so the memo
also holds, under the key `HEADS`, the first octets of replies of one line. Code and enhanced code lie within those
octets (`HEAD_BYTES`), so replies that differ in either never share an entry.

The slow one reads replies properly, decides, and writes the memo when the decision cannot come out
otherwise the next time. Everything that depends on more than the reply's head (refusals, groups, TLS,
SASL, LMTP's many replies, a transcript being kept) is never memoised.

A session does not know the load model. When a pass begins it asks its `ArrivalScheduler` for an arrival; when it is over
it tells it so. What it counts, it counts in the `Recorder` that came with the arrival.

Latencies: a sample is `service_ns + (late_us << LATE_SHIFT)`, one integer, where late_us is how long after its intended
start the arrival began. Service time is counted from our write to the read that completed the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smtpbench.engine import api
from smtpbench.session import reply_cache
from smtpbench.session import script as s
from smtpbench.session.context import LATE_SHIFT, START, STOP, WAIT, SessionContext, SessionRecorder
from smtpbench.session.output import joined, segments, text, visible
from smtpbench.session.reply_cache import EMPTY_CACHE, NO_PREFIXES, PREFIXES, CacheEntry
from smtpbench.session.script import ExpectedReply, Step
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript
from smtpbench.smtp import sasl
from smtpbench.smtp.reply import PREFIX_BYTES, Reply, ReplyReader

_NO_RECORDER: Any = None  # a session has no book before it is assigned an arrival


class ClientSession:
    """One connection's dialogue; implements `engine.api.Session`.

    Give it an arrival (`assign`) before the engine opens its connection.

    connection: a place for the engine's handle, so that a conductor can push what `resume` returns.
    broken: the session ended otherwise than by its script.
    strikes: how many sessions in a row broke before this one; a message accepted makes it 0. The conductor's to set.
    """

    __slots__ = (
        "_at",
        "_context",
        "_done",
        "_group",
        "_idle",
        "_intended_ns",
        "_iterating",
        "_iterations_left",
        "_lateness",
        "_messages_open",
        "_n",
        "_reader",
        "_recipients_accepted",
        "_recipients_rejected",
        "_recorder",
        "_replies_due",
        "_reply_cache",
        "_reply_caches",
        "_sasl",
        "_sent_ns",
        "_started_ns",
        "_step",
        "_timeout_ns",
        "_transaction_ns",
        "_transactions",
        "_wrote_in_this_read",
        "broken",
        "connection",
        "consecutive_failures",
        "pending_action",
        "transcript",
        "wake_ns",
    )  # fmt: skip

    def __init__(self, context: SessionContext, transcript: Transcript | None = None) -> None:
        self._context = context
        self.transcript = transcript
        self.connection: Any = None
        self.broken = False
        self.consecutive_failures = 0
        self.pending_action = api.NOTHING
        self.wake_ns = 0
        self._timeout_ns = api.NEVER
        self._reader = ReplyReader()
        self._recorder: SessionRecorder = _NO_RECORDER
        self._reply_cache = EMPTY_CACHE
        self._step = context.greeting_step
        self._at = 0
        self._replies_due = 0
        self._lateness = 0
        self._sent_ns = 0
        self._transaction_ns = 0
        self._recipients_accepted = 0
        self._recipients_rejected = 0
        self._group: list[Reply] = []
        self._sasl: sasl.Client | None = None
        self._iterations_left = context.script.iterations
        self._iterating = False
        self._idle = False
        self._done = False
        self._wrote_in_this_read = False
        self._messages_open = 0
        self._n = 0

    # -- arrivals ------------------------------------------------------------------------------------------

    def assign(self, n: int, intended_ns: int, recorder: SessionRecorder) -> None:
        """Arrival number n, meant to begin at intended_ns, counted in book. Called before opening or at the gate.

        intended_ns may be UNSCHEDULED.
        """
        self._n = n
        self._intended_ns = intended_ns
        if recorder is not self._recorder:
            self._recorder = recorder
            # a session that keeps its transcript must see each reply in the slow path: it shares no memo
            self._reply_caches = recorder.reply_caches if self.transcript is None else []
            self._transactions = recorder.timing("transaction")
        messages = self._context.messages
        self._messages_open = self._context.script.messages(n) if messages is None else messages

    def open(self, now_ns: int) -> None:
        """The engine begins to connect."""
        self._started_ns = now_ns
        self._sent_ns = now_ns
        self._timeout_ns = self._context.timeout_ns
        self._record_lateness(now_ns)

    @property
    def deadline_ns(self) -> int:
        """When its patience ends; far beyond all times where it waits for nothing."""
        return self._sent_ns + self._timeout_ns

    def resume(self, now_ns: int) -> api.Out:
        """A session that was told to WAIT at the gate begins the arrival it has been assigned."""
        self._idle = False
        self._begin_iteration(now_ns)
        return self._advance(now_ns)

    def finish_waiting(self, now_ns: int) -> api.Out:
        """A session that was told to WAIT at the gate says farewell."""
        self._idle = False
        self._iterating = False
        self._at = self._context.script.teardown
        return self._advance(now_ns)

    def _record_lateness(self, now_ns: int) -> None:
        late_ns = now_ns - self._intended_ns
        self._lateness = late_ns // 1000 << LATE_SHIFT if late_ns > 0 else 0  # UNSCHEDULED is never in the past

    def _begin_iteration(self, now_ns: int) -> None:
        self._iterating = True
        self._iterations_left -= 1
        self._at = self._context.script.loop_start
        self._record_lateness(now_ns)

    def _complete_transaction(self, accepted: bool, now_ns: int) -> None:
        """One mail transaction of the arrival has come to its end."""
        if not self._messages_open:
            return  # it had no message step, so it was never counted as a message to come
        self._messages_open -= 1
        sample = now_ns - self._transaction_ns + self._lateness
        if accepted:
            self._recorder.accepted += 1
            self.consecutive_failures = 0
            self._transactions.append(sample)
        else:
            self._recorder.rejected += 1
            self._recorder.timing("transaction", False).append(sample)

    # -- what the engine calls -----------------------------------------------------------------------------

    def connected(self, now_ns: int) -> api.Out:
        self._time("connect", now_ns)
        if self._context.script.implicit_tls:
            return self._handshake(now_ns)
        return self._await_greeting(now_ns)

    def tls_started(self, now_ns: int) -> api.Out:
        self._time("tls", now_ns)
        self._log_event(b"tls", now_ns)
        if self._step is self._context.greeting_step:
            return self._await_greeting(now_ns)
        return self._advance(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        known = self._reply_cache
        entry: CacheEntry | None = known.get(data)
        if entry is None:
            entry = known.get(PREFIXES, NO_PREFIXES).get(data[:PREFIX_BYTES])
            if entry is None or data.find(b"\n") + 1 != len(data):
                return self._receive(data, now_ns)
        append, step, self._reply_cache, at, taken = entry
        append(now_ns - self._sent_ns + self._lateness)
        if taken:
            self._recipients_accepted += taken
        if step is None:
            return self._step_succeeded(now_ns)
        self._step = step
        self._at = at
        self._sent_ns = now_ns
        return step.wire if step.render is None else step.render(self._n)

    def wake(self, now_ns: int) -> api.Out:
        return self._advance(now_ns)

    def eof_received(self, now_ns: int) -> api.Out:
        self.pending_action = api.CLOSE
        return b""

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        self._log_event(why.encode(), now_ns)
        self._timeout_ns = api.NEVER
        if self._done:
            pass
        elif why == api.STOPPED:
            self._recorder.interrupted += self._messages_open
        elif self._idle:
            self._recorder.error("closed_idle", f"{why} between two arrivals")
        else:
            self.broken = True
            if self._reader.pending:
                detail = detail or "in the middle of a reply"
            self._recorder.error(why, f"{detail or 'while waiting'} ({self._step.metric or s.KIND_NAMES[self._step.kind]})")
            self._recorder.failed += self._messages_open
        self._messages_open = 0
        self._context.scheduler.session_ended(self, now_ns)

    # -- replies -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.transcript is not None:
            self.transcript.add(now_ns, SERVER, data)
        elif self._replies_due == len(self._step.expected_replies) > 1:
            appends = self._reply_caches[self._step.first_reply_index].get(data)
            if appends is not None:
                return self._known_group(appends, now_ns)
        reader = self._reader
        outs: list[bytes] = []
        self._wrote_in_this_read = False
        replies = reader.feed(data)
        if len(replies) == self._replies_due == len(self._step.expected_replies) > 1 and not reader.pending:
            self._cache_group(data, replies)
        for reply in replies:
            # what came in one read with the reply before it cannot answer what we wrote only now
            if self._replies_due and not self._wrote_in_this_read and not self._done:
                out = self._reply(reply, now_ns)
                if out:
                    if not reader.pending and isinstance(out, tuple):
                        return out
                    outs += segments(out)
                    self._wrote_in_this_read = True
            elif not self._done:
                self._unsolicited_reply(reply)
        if reader.overflow and not self._done:
            self._fail("reply_too_long", f"{len(reader.pending)} octets without an end")
        if reader.pending:
            self._reply_cache = EMPTY_CACHE
        return joined(outs)

    def _reply(self, reply: Reply, now_ns: int) -> api.Out:
        """The reply to the ask that is open."""
        step = self._step
        index = len(step.expected_replies) - self._replies_due if step.kind != s.MESSAGE else 0
        ask = step.expected_replies[index]
        if step.kind == s.AUTH and reply.code == 334 and self._sasl is not None:
            return self._challenged(reply, now_ns)
        ok = ask.matches(reply.code)
        single = len(step.expected_replies) == 1
        samples = self._recorder.samples(ask.verb, step.metric if single else "", reply.raw, ok)
        samples.append(now_ns - self._sent_ns + self._lateness)
        self._replies_due -= 1
        if ask.verb == "RCPT":
            self._recipients_accepted += ok
            self._recipients_rejected += not ok
        if not single or (step.kind == s.MESSAGE and self._context.script.lmtp):
            return self._group_reply(step, reply, ok, now_ns)
        if not ok:
            return self._unexpected_reply(step, reply, now_ns)
        if self.transcript is None:
            self._cache_reply(step, reply.raw, samples)
        return self._step_succeeded(now_ns)

    def _cache_reply(self, step: Step, raw: bytes, samples: list[int]) -> None:
        """Write the memo for a single reply that said yes."""
        known = self._reply_caches[step.first_reply_index]
        if (
            not reply_cache.has_room(known, raw)
            or step.kind in (s.AUTH, s.STARTTLS)
            or step.first_reply_index == reply_cache.RSET_REPLY_INDEX
        ):
            return
        at, recipients_added = self._at, int(step.kind == s.RCPT)
        after = reply_cache.following_step(self._context.script, step, at)
        if after is None:
            reply_cache.store(known, raw, (samples.append, None, EMPTY_CACHE, at, recipients_added))
        else:
            reply_cache.store(
                known, raw, (samples.append, after, self._reply_caches[after.first_reply_index], at + 1, recipients_added)
            )

    def _cache_group(self, data: bytes, replies: list[Reply]) -> None:
        """Write the memo for a whole group answered yes in one read, its replies together being the key."""
        step = self._step
        if self.transcript is not None or self._context.script.lmtp or step.kind != s.GROUP:
            return
        known = self._reply_caches[step.first_reply_index]
        if reply_cache.has_room(known, data) and all(
            map(ExpectedReply.matches, step.expected_replies, (reply.code for reply in replies))
        ):
            pairs = zip(step.expected_replies, replies, strict=True)
            lists = [self._recorder.samples(ask.verb, "", reply.raw, True) for ask, reply in pairs]
            known[data] = [samples.append for samples in [*lists, self._recorder.timing(step.metric)]]

    def _known_group(self, appends: list[Callable[[int], None]], now_ns: int) -> api.Out:
        """All replies of a group came at once, and all said yes, as they did before."""
        sample = now_ns - self._sent_ns + self._lateness
        for append in appends:
            append(sample)
        self._recipients_accepted = 1  # at least; only LMTP counts them, and there a group is never remembered
        return self._advance(now_ns)

    def _step_succeeded(self, now_ns: int) -> api.Out:
        """The step's one reply said yes."""
        kind = self._step.kind
        if kind == s.MESSAGE:
            self._complete_transaction(True, now_ns)
            if self._at == self._context.script.teardown and self._iterating:
                opening = self._context.opening_mail
                if self._end_iteration(now_ns) == START and opening is not None and self._reply_caches:
                    return self._start_next_message(opening, now_ns)
                if self._idle:
                    return b""
        elif kind == s.STARTTLS:
            return self._handshake(now_ns)
        return self._advance(now_ns)

    def _start_next_message(self, opening: Step, now_ns: int) -> api.Out:
        """The commonest step of all, from one message to the next: what `_enter` would do, without looking for it."""
        self._at += 1
        self._transaction_ns = now_ns
        self._recipients_accepted = self._recipients_rejected = 0
        self._await_replies(opening, now_ns)
        return opening.wire if opening.render is None else opening.render(self._n)

    def _group_reply(self, step: Step, reply: Reply, ok: bool, now_ns: int) -> api.Out:
        """One reply of several that a step waits for: decide when the last one is in."""
        if reply.code in (0, 421) and step.on_unexpected != s.CONTINUE:
            return self._unexpected_reply(step, reply, now_ns)  # no others will follow it
        self._group.append(reply)
        self._restart_timeout(now_ns)
        if self._replies_due:
            return b""
        codes, self._group = [member.code for member in self._group], []
        if step.kind == s.MESSAGE:
            self._complete_transaction(any(code // 100 == 2 for code in codes), now_ns)
            return self._advance(now_ns)
        satisfied = all(ask.matches(code) for ask, code in zip(step.expected_replies, codes, strict=True))
        self._recorder.timing(step.metric, satisfied).append(now_ns - self._sent_ns + self._lateness)
        if satisfied or step.on_unexpected == s.CONTINUE:
            return self._advance(now_ns)
        return self._group_refused(step, codes, reply, now_ns)

    def _group_refused(self, step: Step, codes: list[int], last: Reply, now_ns: int) -> api.Out:
        """A pipelined group in which something was refused (RFC 2920 §3.1: DATA may still be answered 354)."""
        if step.on_unexpected == s.ABORT_SESSION:
            return self._unexpected_reply(step, last, now_ns)
        by_verb = dict(zip((ask.verb for ask in step.expected_replies), codes, strict=True))
        begun = by_verb.get("MAIL", 250) // 100 == 2
        if by_verb.get("DATA", 0) // 100 == 3:
            if begun and self._recipients_accepted:
                return self._advance(now_ns)
            self._complete_transaction(False, now_ns)
            return self._recover(s.EMPTY_MESSAGE, step.abort_target, now_ns)
        if begun and self._recipients_accepted and "DATA" not in by_verb:
            return self._advance(now_ns)
        self._complete_transaction(False, now_ns)
        return (
            self._recover(self._context.script.rset, step.abort_target, now_ns)
            if begun
            else self._jump(step.abort_target, now_ns)
        )

    def _unexpected_reply(self, step: Step, reply: Reply, now_ns: int) -> api.Out:
        """A reply that was not expected; what follows is the step's `on_unexpected`."""
        if step.on_unexpected == s.CONTINUE:
            if step.kind == s.MESSAGE:
                self._complete_transaction(False, now_ns)
            return self._advance(now_ns)
        if reply.code == 0:
            return self._fail("malformed_reply", text(reply))
        if reply.code == 421:
            if step.on_unexpected == s.ABORT_TRANSACTION:
                self._complete_transaction(False, now_ns)
            return self._fail("closed_421", text(reply))
        if step.on_unexpected == s.ABORT_SESSION:
            return self._abort_session(step, reply, now_ns)
        if step.kind == s.RCPT:
            return self._advance(now_ns)
        self._complete_transaction(False, now_ns)
        if step.kind in (s.MAIL, s.MESSAGE):
            return self._jump(step.abort_target, now_ns)
        return self._recover(self._context.script.rset, step.abort_target, now_ns)

    def _abort_session(self, step: Step, reply: Reply, now_ns: int) -> api.Out:
        """The session has no future (no greeting, no AUTH, no TLS): its messages failed; QUIT and close."""
        self.broken = True
        self._recorder.error(f"{step.metric.lower()}_refused", text(reply))
        self._recorder.failed += self._messages_open
        self._messages_open = 0
        self._iterating = False
        return self._jump(self._context.script.teardown, now_ns)

    def _fail(self, kind: str, detail: str) -> api.Out:
        """Nothing more can be made of this connection."""
        self.broken = True
        self._recorder.error(kind, detail)
        self._recorder.failed += self._messages_open
        self._messages_open = 0
        self._finish()
        return b""

    def _unsolicited_reply(self, reply: Reply) -> None:
        """A reply that no command asked for."""
        if reply.code == 421:
            if not self._idle:
                self._fail("closed_421", text(reply))
            else:
                self._recorder.error("closed_idle", text(reply))
                self._finish()
        else:
            self._recorder.error("unsolicited_reply", text(reply))

    # -- steps ---------------------------------------------------------------------------------------------

    def _jump(self, at: int, now_ns: int) -> api.Out:
        self._at = at
        return self._advance(now_ns)

    def _recover(self, step: Step, at: int, now_ns: int) -> api.Out:
        """Say a step that is not in the script, then go on at `at`."""
        self._at = at
        self._log_sent(step.wire, now_ns)
        self._await_replies(step, now_ns)
        self._reply_cache = EMPTY_CACHE  # where it leads depends on what it recovers from
        return step.wire

    def _advance(self, now_ns: int) -> api.Out:
        """Walk on from the program counter until something is waited for."""
        script = self._context.script
        steps = script.steps
        outs: list[bytes] = []
        self._replies_due = 0
        self._reply_cache = EMPTY_CACHE
        while True:
            at = self._at
            if at == script.teardown and self._iterating:
                verdict = self._end_iteration(now_ns)
                if verdict == WAIT:
                    return joined(outs)
                if verdict == START:
                    continue
            elif at == script.loop_start and script.repeats and self._iterations_left == script.iterations:
                self._begin_iteration(now_ns)
            if at >= len(steps):
                self._time_session(now_ns)
                self._finish()
                return joined(outs)
            step = steps[at]
            self._at = at + 1
            kind = step.kind
            if kind <= s.STARTTLS:
                if kind == s.MAIL or (kind == s.GROUP and step.expected_replies[0].verb == "MAIL"):
                    self._transaction_ns = now_ns
                    self._recipients_accepted = self._recipients_rejected = 0
                elif self._recipients_rejected and not self._recipients_accepted and step.needs_recipient:
                    self._complete_transaction(False, now_ns)
                    return joined(outs, self._recover(script.rset, step.abort_target, now_ns))
                wire = step.wire if step.render is None else step.render(self._n)
                if self.transcript is not None:
                    self._log_sent(wire, now_ns)
                if step.expected_replies:
                    self._await_replies(step, now_ns)
                    return joined(outs, list(step.split)) if step.split else joined(outs, wire) if outs else wire
                outs += step.split or segments(wire)
            elif kind == s.CHOOSE:
                self._at = s.choose(step, script.draw(self._n, at))
            elif kind == s.JUMP:
                self._at = step.targets[0]
            elif kind == s.AUTH:
                return joined(outs, self._authenticate(step, now_ns))
            else:
                self._request_action(step, now_ns)
                return joined(outs)

    def _end_iteration(self, now_ns: int) -> int:
        """A pass is over: GO with the next one begun, WAIT for it, or LEAVE."""
        if self._messages_open:
            self._close_arrival()
        verdict = self._context.scheduler.next_arrival(self, now_ns) if self._iterations_left else STOP
        if verdict == START:
            self._begin_iteration(now_ns)
        elif verdict == WAIT:
            self._idle = True
            self._replies_due = 0
            self._reply_cache = EMPTY_CACHE
            self._timeout_ns = api.NEVER
        else:
            self._iterating = False
        return verdict

    def _request_action(self, step: Step, now_ns: int) -> None:
        """A step that is the engine's to do."""
        self._step = step
        kind = step.kind
        if kind == s.TLS:
            self._handshake(now_ns)
        elif kind == s.PAUSE:
            self.pending_action = api.SLEEP
            self.wake_ns = now_ns + step.pause_ns
            # what was written before may be stuck in front of a server that does not read
            self._sent_ns = self.wake_ns
            self._timeout_ns = self._context.timeout_ns
        elif kind == s.HALF_CLOSE:
            self._log_event(b"half-close", now_ns)
            self.pending_action = api.HALF_CLOSE
        else:
            self._time_session(now_ns)
            self._finish()
            if kind == s.RESET:
                self.pending_action = api.RESET

    def _await_replies(self, step: Step, now_ns: int) -> None:
        """Wait for the step's replies; the clock of its latency starts."""
        self._step = step
        expected_replies = len(step.expected_replies)
        self._replies_due = expected_replies
        if expected_replies == 1:
            if step.kind == s.MESSAGE and self._context.script.lmtp:
                self._replies_due = max(1, self._recipients_accepted)
            self._reply_cache = self._reply_caches[step.first_reply_index] if self._reply_caches else EMPTY_CACHE
        self._sent_ns = now_ns
        self._timeout_ns = self._context.timeout_ns

    def _restart_timeout(self, now_ns: int) -> None:
        """Something came: the time that a reply may take begins anew, and its latency does not."""
        self._timeout_ns = now_ns - self._sent_ns + self._context.timeout_ns

    def _await_greeting(self, now_ns: int) -> api.Out:
        if self._context.script.greeting is None:
            return self._advance(now_ns)
        self._await_replies(self._context.greeting_step, now_ns)
        return b""

    def _handshake(self, now_ns: int) -> api.Out:
        """Ask for TLS. What the server said behind its 220 is not carried over (RFC 3207 §4.2)."""
        if self._reader.pending:
            self._recorder.error("injected_before_tls", visible(self._reader.pending))
            self._reader = ReplyReader()
        self._replies_due = 0
        self._reply_cache = EMPTY_CACHE
        self._sent_ns = now_ns
        self._timeout_ns = self._context.timeout_ns
        self.pending_action = api.START_TLS
        return b""

    def _close_arrival(self) -> None:
        """The pass is over; a transaction that never came to its end has failed."""
        if self._messages_open:
            self._recorder.error("incomplete", "the script ended before the message was sent", self._messages_open)
            self._recorder.failed += self._messages_open
            self._messages_open = 0

    def _finish(self) -> None:
        """The session has said what it had to say: close."""
        if self._done:
            return
        self._close_arrival()
        self._done = True
        self._replies_due = 0
        self._reply_cache = EMPTY_CACHE
        self.pending_action = api.CLOSE

    # -- SASL ----------------------------------------------------------------------------------------------

    def _authenticate(self, step: Step, now_ns: int) -> api.Out:
        """`AUTH mechanism [initial-response]` (RFC 4954 §4)."""
        user, password = step.credentials or self._context.credentials or ("", "")
        self._sasl = sasl.client(step.mechanism, user, password)
        initial = self._sasl.initial()
        line = b"AUTH " + step.mechanism.encode()
        self._log_sent(line + (b" (initial response)\r\n" if initial is not None else b"\r\n"), now_ns)
        self._await_replies(step, now_ns)
        return line + (b"" if initial is None else b" " + (sasl.encode_line(initial) or b"=")) + b"\r\n"

    def _challenged(self, reply: Reply, now_ns: int) -> api.Out:
        """334 and a challenge: the answer, or `*` where there is none to give."""
        self._recorder.samples("AUTH", "", reply.raw[:4], True).append(0)
        self._restart_timeout(now_ns)
        assert self._sasl is not None
        challenge = sasl.decode_line(reply.lines[0])
        try:
            answer = b"*" if challenge is None else sasl.encode_line(self._sasl.respond(challenge))
        except ValueError:  # one challenge too many
            answer = b"*"
        self._log_sent(b"(response)\r\n", now_ns)
        return answer + b"\r\n"

    # -- records -------------------------------------------------------------------------------------------

    def _time(self, metric: str, now_ns: int) -> None:
        self._recorder.timing(metric).append(now_ns - self._sent_ns + self._lateness)

    def _time_session(self, now_ns: int) -> None:
        if not self._done:
            self._recorder.timing("session").append(now_ns - self._started_ns + self._lateness)

    def _log_event(self, event: bytes, now_ns: int) -> None:
        if self.transcript is not None:
            self.transcript.add(now_ns, EVENT, event)

    def _log_sent(self, wire: s.Wire, now_ns: int) -> None:
        if self.transcript is not None:
            self.transcript.add(now_ns, CLIENT, wire if isinstance(wire, bytes) else b"".join(wire))
