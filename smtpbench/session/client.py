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

A session does not know the load model. When a pass begins it asks its `Conductor` for an arrival; when it is over
it tells it so. What it counts, it counts in the `Book` that came with the arrival.

Latencies: a sample is `service_ns + (late_us << LATE_SHIFT)`, one integer, where late_us is how long after its intended
start the arrival began. Service time is counted from our write to the read that completed the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smtpbench.engine import api
from smtpbench.session import memo
from smtpbench.session import script as s
from smtpbench.session.cast import GO, LATE_SHIFT, LEAVE, WAIT, Cast, Scores
from smtpbench.session.memo import HEADS, IDLE, NO_HEADS, Entry
from smtpbench.session.out import joined, segments, text, visible
from smtpbench.session.script import Ask, Step
from smtpbench.session.transcript import CLIENT, EVENT, SERVER, Transcript
from smtpbench.smtp import sasl
from smtpbench.smtp.reply import HEAD_BYTES, Reply, ReplyReader

_NO_BOOK: Any = None  # a session has no book before it is assigned an arrival


class ClientSession:
    """One connection's dialogue; implements `engine.api.Session`.

    Give it an arrival (`assign`) before the engine opens its connection.

    connection: a place for the engine's handle, so that a conductor can push what `resume` returns.
    broken: the session ended otherwise than by its script.
    strikes: how many sessions in a row broke before this one; a message accepted makes it 0. The conductor's to set.
    """

    __slots__ = (
        "_at", "_book", "_cast", "_done", "_fresh", "_group", "_idle", "_intended_ns", "_late",
        "_memo", "_n", "_owed", "_passes_left", "_passing", "_patience_ns", "_reader", "_refused", "_rows", "_sasl",
        "_sent_ns", "_started_ns", "_step", "_taken", "_transaction_ns", "_transactions", "_unsettled",
        "broken", "connection", "strikes", "tape", "wake_ns", "wants",
    )  # fmt: skip

    def __init__(self, cast: Cast, tape: Transcript | None = None) -> None:
        self._cast = cast
        self.tape = tape
        self.connection: Any = None
        self.broken = False
        self.strikes = 0
        self.wants = api.NOTHING
        self.wake_ns = 0
        self._patience_ns = api.NEVER
        self._reader = ReplyReader()
        self._book: Scores = _NO_BOOK
        self._memo = IDLE
        self._step = cast.greet
        self._at = 0
        self._owed = 0
        self._late = 0
        self._sent_ns = 0
        self._transaction_ns = 0
        self._taken = 0
        self._refused = 0
        self._group: list[Reply] = []
        self._sasl: sasl.Client | None = None
        self._passes_left = cast.script.passes
        self._passing = False
        self._idle = False
        self._done = False
        self._fresh = False
        self._unsettled = 0
        self._n = 0

    # -- arrivals ------------------------------------------------------------------------------------------

    def assign(self, n: int, intended_ns: int, book: Scores) -> None:
        """Arrival number n, meant to begin at intended_ns, counted in book. Called before opening or at the gate.

        intended_ns may be UNSCHEDULED.
        """
        self._n = n
        self._intended_ns = intended_ns
        if book is not self._book:
            self._book = book
            # a session that keeps its transcript must see each reply in the slow path: it shares no memo
            self._rows = book.rows if self.tape is None else []
            self._transactions = book.timing("transaction")
        messages = self._cast.messages
        self._unsettled = self._cast.script.messages(n) if messages is None else messages

    def open(self, now_ns: int) -> None:
        """The engine begins to connect."""
        self._started_ns = now_ns
        self._sent_ns = now_ns
        self._patience_ns = self._cast.timeout_ns
        self._be_late(now_ns)

    @property
    def deadline_ns(self) -> int:
        """When its patience ends; far beyond all times where it waits for nothing."""
        return self._sent_ns + self._patience_ns

    def resume(self, now_ns: int) -> api.Out:
        """A session that was told to WAIT at the gate begins the arrival it has been assigned."""
        self._idle = False
        self._begin_pass(now_ns)
        return self._enter(now_ns)

    def depart(self, now_ns: int) -> api.Out:
        """A session that was told to WAIT at the gate says farewell."""
        self._idle = False
        self._passing = False
        self._at = self._cast.script.farewell
        return self._enter(now_ns)

    def _be_late(self, now_ns: int) -> None:
        late_ns = now_ns - self._intended_ns
        self._late = late_ns // 1000 << LATE_SHIFT if late_ns > 0 else 0  # UNSCHEDULED is never in the past

    def _begin_pass(self, now_ns: int) -> None:
        self._passing = True
        self._passes_left -= 1
        self._at = self._cast.script.gate
        self._be_late(now_ns)

    def _settle(self, accepted: bool, now_ns: int) -> None:
        """One mail transaction of the arrival has come to its end."""
        if not self._unsettled:
            return  # it had no message step, so it was never counted as a message to come
        self._unsettled -= 1
        sample = now_ns - self._transaction_ns + self._late
        if accepted:
            self._book.accepted += 1
            self.strikes = 0
            self._transactions.append(sample)
        else:
            self._book.rejected += 1
            self._book.timing("transaction", False).append(sample)

    # -- what the engine calls -----------------------------------------------------------------------------

    def opened(self, now_ns: int) -> api.Out:
        self._time("connect", now_ns)
        if self._cast.script.implicit_tls:
            return self._handshake(now_ns)
        return self._await_greeting(now_ns)

    def secured(self, now_ns: int) -> api.Out:
        self._time("tls", now_ns)
        self._note(b"tls", now_ns)
        if self._step is self._cast.greet:
            return self._await_greeting(now_ns)
        return self._enter(now_ns)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        known = self._memo
        entry: Entry | None = known.get(data)
        if entry is None:
            entry = known.get(HEADS, NO_HEADS).get(data[:HEAD_BYTES])
            if entry is None or data.find(b"\n") + 1 != len(data):
                return self._receive(data, now_ns)
        append, step, self._memo, at, taken = entry
        append(now_ns - self._sent_ns + self._late)
        if taken:
            self._taken += taken
        if step is None:
            return self._satisfied(now_ns)
        self._step = step
        self._at = at
        self._sent_ns = now_ns
        return step.wire if step.render is None else step.render(self._n)

    def wake(self, now_ns: int) -> api.Out:
        return self._enter(now_ns)

    def ended(self, now_ns: int) -> api.Out:
        self.wants = api.CLOSE
        return b""

    def lost(self, why: str, detail: str, now_ns: int) -> None:
        self._note(why.encode(), now_ns)
        self._patience_ns = api.NEVER
        if self._done:
            pass
        elif why == api.STOPPED:
            self._book.interrupted += self._unsettled
        elif self._idle:
            self._book.error("closed_idle", f"{why} between two arrivals")
        else:
            self.broken = True
            if self._reader.pending:
                detail = detail or "in the middle of a reply"
            self._book.error(why, f"{detail or 'while waiting'} ({self._step.slot or s.KIND_NAMES[self._step.kind]})")
            self._book.failed += self._unsettled
        self._unsettled = 0
        self._cast.conductor.over(self, now_ns)

    # -- replies -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.tape is not None:
            self.tape.add(now_ns, SERVER, data)
        elif self._owed == len(self._step.asks) > 1:
            appends = self._rows[self._step.first_row].get(data)
            if appends is not None:
                return self._whole_group(appends, now_ns)
        reader = self._reader
        outs: list[bytes] = []
        self._fresh = False
        replies = reader.feed(data)
        if len(replies) == self._owed == len(self._step.asks) > 1 and not reader.pending:
            self._remember_group(data, replies)
        for reply in replies:
            # what came in one read with the reply before it cannot answer what we wrote only now
            if self._owed and not self._fresh and not self._done:
                out = self._reply(reply, now_ns)
                if out:
                    if not reader.pending and isinstance(out, tuple):
                        return out
                    outs += segments(out)
                    self._fresh = True
            elif not self._done:
                self._unasked(reply)
        if reader.overflow and not self._done:
            self._fail("reply_too_long", f"{len(reader.pending)} octets without an end")
        if reader.pending:
            self._memo = IDLE
        return joined(outs)

    def _reply(self, reply: Reply, now_ns: int) -> api.Out:
        """The reply to the ask that is open."""
        step = self._step
        index = len(step.asks) - self._owed if step.kind != s.BODY else 0
        ask = step.asks[index]
        if step.kind == s.AUTH and reply.code == 334 and self._sasl is not None:
            return self._challenged(reply, now_ns)
        ok = ask.satisfied(reply.code)
        single = len(step.asks) == 1
        samples = self._book.samples(ask.verb, step.slot if single else "", reply.raw, ok)
        samples.append(now_ns - self._sent_ns + self._late)
        self._owed -= 1
        if ask.verb == "RCPT":
            self._taken += ok
            self._refused += not ok
        if not single or (step.kind == s.BODY and self._cast.script.lmtp):
            return self._member(step, reply, ok, now_ns)
        if not ok:
            return self._refusal(step, reply, now_ns)
        if self.tape is None:
            self._remember(step, reply.raw, samples)
        return self._satisfied(now_ns)

    def _remember(self, step: Step, raw: bytes, samples: list[int]) -> None:
        """Write the memo for a single reply that said yes."""
        known = self._rows[step.first_row]
        if not memo.room(known, raw) or step.kind in (s.AUTH, s.STARTTLS) or step.first_row == memo.RSET_ROW:
            return
        at, took = self._at, int(step.kind == s.RCPT)
        after = memo.follower(self._cast.script, step, at)
        if after is None:
            memo.remember(known, raw, (samples.append, None, IDLE, at, took))
        else:
            memo.remember(known, raw, (samples.append, after, self._rows[after.first_row], at + 1, took))

    def _remember_group(self, data: bytes, replies: list[Reply]) -> None:
        """Write the memo for a whole group answered yes in one read, its replies together being the key."""
        step = self._step
        if self.tape is not None or self._cast.script.lmtp or step.kind != s.GROUP:
            return
        known = self._rows[step.first_row]
        if memo.room(known, data) and all(map(Ask.satisfied, step.asks, (reply.code for reply in replies))):
            pairs = zip(step.asks, replies, strict=True)
            lists = [self._book.samples(ask.verb, "", reply.raw, True) for ask, reply in pairs]
            known[data] = [samples.append for samples in [*lists, self._book.timing(step.slot)]]

    def _whole_group(self, appends: list[Callable[[int], None]], now_ns: int) -> api.Out:
        """All replies of a group came at once, and all said yes, as they did before."""
        sample = now_ns - self._sent_ns + self._late
        for append in appends:
            append(sample)
        self._taken = 1  # at least; only LMTP counts them, and there a group is never remembered
        return self._enter(now_ns)

    def _satisfied(self, now_ns: int) -> api.Out:
        """The step's one reply said yes."""
        kind = self._step.kind
        if kind == s.BODY:
            self._settle(True, now_ns)
            if self._at == self._cast.script.farewell and self._passing:
                opening = self._cast.opening
                if self._gate(now_ns) == GO and opening is not None and self._rows:
                    return self._reopen(opening, now_ns)
                if self._idle:
                    return b""
        elif kind == s.STARTTLS:
            return self._handshake(now_ns)
        return self._enter(now_ns)

    def _reopen(self, opening: Step, now_ns: int) -> api.Out:
        """The commonest step of all, from one message to the next: what `_enter` would do, without looking for it."""
        self._at += 1
        self._transaction_ns = now_ns
        self._taken = self._refused = 0
        self._await(opening, now_ns)
        return opening.wire if opening.render is None else opening.render(self._n)

    def _member(self, step: Step, reply: Reply, ok: bool, now_ns: int) -> api.Out:
        """One reply of several that a step waits for: decide when the last one is in."""
        if reply.code in (0, 421) and step.otherwise != s.GO_ON:
            return self._refusal(step, reply, now_ns)  # no others will follow it
        self._group.append(reply)
        self._stay_patient(now_ns)
        if self._owed:
            return b""
        codes, self._group = [member.code for member in self._group], []
        if step.kind == s.BODY:
            self._settle(any(code // 100 == 2 for code in codes), now_ns)
            return self._enter(now_ns)
        satisfied = all(ask.satisfied(code) for ask, code in zip(step.asks, codes, strict=True))
        self._book.timing(step.slot, satisfied).append(now_ns - self._sent_ns + self._late)
        if satisfied or step.otherwise == s.GO_ON:
            return self._enter(now_ns)
        return self._group_refused(step, codes, reply, now_ns)

    def _group_refused(self, step: Step, codes: list[int], last: Reply, now_ns: int) -> api.Out:
        """A pipelined group in which something was refused (RFC 2920 §3.1: DATA may still be answered 354)."""
        if step.otherwise == s.GIVE_UP:
            return self._refusal(step, last, now_ns)
        by_verb = dict(zip((ask.verb for ask in step.asks), codes, strict=True))
        begun = by_verb.get("MAIL", 250) // 100 == 2
        if by_verb.get("DATA", 0) // 100 == 3:
            if begun and self._taken:
                return self._enter(now_ns)
            self._settle(False, now_ns)
            return self._recover(s.EMPTY_MESSAGE, step.escape, now_ns)
        if begun and self._taken and "DATA" not in by_verb:
            return self._enter(now_ns)
        self._settle(False, now_ns)
        return self._recover(self._cast.script.rset, step.escape, now_ns) if begun else self._go(step.escape, now_ns)

    def _refusal(self, step: Step, reply: Reply, now_ns: int) -> api.Out:
        """A reply that was not expected; what follows is the step's `otherwise`."""
        if step.otherwise == s.GO_ON:
            if step.kind == s.BODY:
                self._settle(False, now_ns)
            return self._enter(now_ns)
        if reply.code == 0:
            return self._fail("malformed_reply", text(reply))
        if reply.code == 421:
            if step.otherwise == s.ABANDON:
                self._settle(False, now_ns)
            return self._fail("closed_421", text(reply))
        if step.otherwise == s.GIVE_UP:
            return self._give_up(step, reply, now_ns)
        if step.kind == s.RCPT:
            return self._enter(now_ns)
        self._settle(False, now_ns)
        if step.kind in (s.MAIL, s.BODY):
            return self._go(step.escape, now_ns)
        return self._recover(self._cast.script.rset, step.escape, now_ns)

    def _give_up(self, step: Step, reply: Reply, now_ns: int) -> api.Out:
        """The session has no future (no greeting, no AUTH, no TLS): its messages failed; QUIT and close."""
        self.broken = True
        self._book.error(f"{step.slot.lower()}_refused", text(reply))
        self._book.failed += self._unsettled
        self._unsettled = 0
        self._passing = False
        return self._go(self._cast.script.farewell, now_ns)

    def _fail(self, kind: str, detail: str) -> api.Out:
        """Nothing more can be made of this connection."""
        self.broken = True
        self._book.error(kind, detail)
        self._book.failed += self._unsettled
        self._unsettled = 0
        self._finish()
        return b""

    def _unasked(self, reply: Reply) -> None:
        """A reply that no command asked for."""
        if reply.code == 421:
            if not self._idle:
                self._fail("closed_421", text(reply))
            else:
                self._book.error("closed_idle", text(reply))
                self._finish()
        else:
            self._book.error("unsolicited_reply", text(reply))

    # -- steps ---------------------------------------------------------------------------------------------

    def _go(self, at: int, now_ns: int) -> api.Out:
        self._at = at
        return self._enter(now_ns)

    def _recover(self, step: Step, at: int, now_ns: int) -> api.Out:
        """Say a step that is not in the script, then go on at `at`."""
        self._at = at
        self._note_sent(step.wire, now_ns)
        self._await(step, now_ns)
        self._memo = IDLE  # where it leads depends on what it recovers from
        return step.wire

    def _enter(self, now_ns: int) -> api.Out:
        """Walk on from the program counter until something is waited for."""
        script = self._cast.script
        steps = script.steps
        outs: list[bytes] = []
        self._owed = 0
        self._memo = IDLE
        while True:
            at = self._at
            if at == script.farewell and self._passing:
                verdict = self._gate(now_ns)
                if verdict == WAIT:
                    return joined(outs)
                if verdict == GO:
                    continue
            elif at == script.gate and script.repeats and self._passes_left == script.passes:
                self._begin_pass(now_ns)
            if at >= len(steps):
                self._time_session(now_ns)
                self._finish()
                return joined(outs)
            step = steps[at]
            self._at = at + 1
            kind = step.kind
            if kind <= s.STARTTLS:
                if kind == s.MAIL or (kind == s.GROUP and step.asks[0].verb == "MAIL"):
                    self._transaction_ns = now_ns
                    self._taken = self._refused = 0
                elif self._refused and not self._taken and step.needs_recipient:
                    self._settle(False, now_ns)
                    return joined(outs, self._recover(script.rset, step.escape, now_ns))
                wire = step.wire if step.render is None else step.render(self._n)
                if self.tape is not None:
                    self._note_sent(wire, now_ns)
                if step.asks:
                    self._await(step, now_ns)
                    return joined(outs, list(step.split)) if step.split else joined(outs, wire) if outs else wire
                outs += step.split or segments(wire)
            elif kind == s.CHOOSE:
                self._at = s.choose(step, script.draw(self._n, at))
            elif kind == s.JUMP:
                self._at = step.targets[0]
            elif kind == s.AUTH:
                return joined(outs, self._authenticate(step, now_ns))
            else:
                self._wish(step, now_ns)
                return joined(outs)

    def _gate(self, now_ns: int) -> int:
        """A pass is over: GO with the next one begun, WAIT for it, or LEAVE."""
        if self._unsettled:
            self._close_arrival()
        verdict = self._cast.conductor.at_gate(self, now_ns) if self._passes_left else LEAVE
        if verdict == GO:
            self._begin_pass(now_ns)
        elif verdict == WAIT:
            self._idle = True
            self._owed = 0
            self._memo = IDLE
            self._patience_ns = api.NEVER
        else:
            self._passing = False
        return verdict

    def _wish(self, step: Step, now_ns: int) -> None:
        """A step that is the engine's to do."""
        self._step = step
        kind = step.kind
        if kind == s.TLS:
            self._handshake(now_ns)
        elif kind == s.PAUSE:
            self.wants = api.SLEEP
            self.wake_ns = now_ns + step.pause_ns
            # what was written before may be stuck in front of a server that does not read
            self._sent_ns = self.wake_ns
            self._patience_ns = self._cast.timeout_ns
        elif kind == s.HALF_CLOSE:
            self._note(b"half-close", now_ns)
            self.wants = api.HALF_CLOSE
        else:
            self._time_session(now_ns)
            self._finish()
            if kind == s.RESET:
                self.wants = api.RESET

    def _await(self, step: Step, now_ns: int) -> None:
        """Wait for the step's replies; the clock of its latency starts."""
        self._step = step
        asks = len(step.asks)
        self._owed = asks
        if asks == 1:
            if step.kind == s.BODY and self._cast.script.lmtp:
                self._owed = max(1, self._taken)
            self._memo = self._rows[step.first_row] if self._rows else IDLE
        self._sent_ns = now_ns
        self._patience_ns = self._cast.timeout_ns

    def _stay_patient(self, now_ns: int) -> None:
        """Something came: the time that a reply may take begins anew, and its latency does not."""
        self._patience_ns = now_ns - self._sent_ns + self._cast.timeout_ns

    def _await_greeting(self, now_ns: int) -> api.Out:
        if self._cast.script.greeting is None:
            return self._enter(now_ns)
        self._await(self._cast.greet, now_ns)
        return b""

    def _handshake(self, now_ns: int) -> api.Out:
        """Ask for TLS. What the server said behind its 220 is not carried over (RFC 3207 §4.2)."""
        if self._reader.pending:
            self._book.error("injected_before_tls", visible(self._reader.pending))
            self._reader = ReplyReader()
        self._owed = 0
        self._memo = IDLE
        self._sent_ns = now_ns
        self._patience_ns = self._cast.timeout_ns
        self.wants = api.START_TLS
        return b""

    def _close_arrival(self) -> None:
        """The pass is over; a transaction that never came to its end has failed."""
        if self._unsettled:
            self._book.error("incomplete", "the script ended before the message was sent", self._unsettled)
            self._book.failed += self._unsettled
            self._unsettled = 0

    def _finish(self) -> None:
        """The session has said what it had to say: close."""
        if self._done:
            return
        self._close_arrival()
        self._done = True
        self._owed = 0
        self._memo = IDLE
        self.wants = api.CLOSE

    # -- SASL ----------------------------------------------------------------------------------------------

    def _authenticate(self, step: Step, now_ns: int) -> api.Out:
        """`AUTH mechanism [initial-response]` (RFC 4954 §4)."""
        user, password = step.credentials or self._cast.credentials or ("", "")
        self._sasl = sasl.client(step.mechanism, user, password)
        initial = self._sasl.initial()
        line = b"AUTH " + step.mechanism.encode()
        self._note_sent(line + (b" (initial response)\r\n" if initial is not None else b"\r\n"), now_ns)
        self._await(step, now_ns)
        return line + (b"" if initial is None else b" " + (sasl.encode_line(initial) or b"=")) + b"\r\n"

    def _challenged(self, reply: Reply, now_ns: int) -> api.Out:
        """334 and a challenge: the answer, or `*` where there is none to give."""
        self._book.samples("AUTH", "", reply.raw[:4], True).append(0)
        self._stay_patient(now_ns)
        assert self._sasl is not None
        challenge = sasl.decode_line(reply.lines[0])
        try:
            answer = b"*" if challenge is None else sasl.encode_line(self._sasl.respond(challenge))
        except ValueError:  # one challenge too many
            answer = b"*"
        self._note_sent(b"(response)\r\n", now_ns)
        return answer + b"\r\n"

    # -- records -------------------------------------------------------------------------------------------

    def _time(self, slot: str, now_ns: int) -> None:
        self._book.timing(slot).append(now_ns - self._sent_ns + self._late)

    def _time_session(self, now_ns: int) -> None:
        if not self._done:
            self._book.timing("session").append(now_ns - self._started_ns + self._late)

    def _note(self, event: bytes, now_ns: int) -> None:
        if self.tape is not None:
            self.tape.add(now_ns, EVENT, event)

    def _note_sent(self, wire: s.Wire, now_ns: int) -> None:
        if self.tape is not None:
            self.tape.add(now_ns, CLIENT, wire if isinstance(wire, bytes) else b"".join(wire))
