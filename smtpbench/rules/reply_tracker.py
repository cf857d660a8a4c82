"""The account of a session: which replies a server owes, and which of those it gave stand against the state table.

Theory of operation
===================

A `ReplyTracker` is a server that only counts. It is told what was written and which replies were received, in that order,
and cuts
the writes into what a server owes a reply for: command lines, ends of data, chunks, SASL responses. How the octets behind
DATA, AUTH or STARTTLS are to be read hangs on the reply to that command, so they wait for it. `due` is the number of
replies still owed: a client that waits for exactly those speaks with any server, whatever it says.

Each reply that comes is put to what it answers, and judged by the one table of `smtp.state`: a success where the verb is
out of order, a 503 where it is in order, a reply that nothing asked for. What is judged stands in `violations`.

Where the protocol leaves open what a server makes of octets (a bare LF in a command, a line beyond the limits, a malformed
BDAT) the account is `lenient` from there on: nothing more is held against the server for number or order.
"""

from __future__ import annotations

import re
from collections import deque
from functools import cache, lru_cache
from typing import Final, NamedTuple

from smtpbench.engine import api
from smtpbench.session.dialogue import HALF_CLOSE_EVENT, TLS_EVENT
from smtpbench.session.transcript import CLIENT, SERVER, Transcript
from smtpbench.smtp import command as c
from smtpbench.smtp import state
from smtpbench.smtp.command import Refusal
from smtpbench.smtp.reply import Reply, ReplyReader

_END: Final = b"\r\n.\r\n"
#: Beyond this a server may refuse a line, cut it, or hang up.
_SURE_BYTES: Final = c.COMMAND_LINE_BYTES
_REFUSED_AS_ORDER: Final = frozenset({500, 502, 503})
#: What ends a text for a server that is wrong about it, and the rule that says so.
_WRONG_ENDS: Final = (
    (re.compile(rb"(?<!\r)\n\.\r\n"), "eod-lf-crlf"),
    (re.compile(rb"(?<!\r)\n\.\n"), "eod-lf-lf"),
    (re.compile(rb"\r\n\.\n"), "eod-crlf-lf"),
    (re.compile(rb"\r\.\r"), "eod-cr"),
    (re.compile(rb"[\r\n\0](?:[ \t\0]+\.[ \t\0\r]*|\.(?:[ \t\0]+\r?|\r\r+))\n"), "eod-odd"),
)


#: Those of a server that says more than is owed.
_MISALIGNING: Final = frozenset({
    "eod-lf-crlf", "eod-lf-lf", "eod-crlf-lf", "eod-cr", "eod-odd", "data-desync", "one-reply", "tls-inject", "tls-partial",
})  # fmt: skip
#: The rules that an account can find broken.
TRACKED_RULES: Final = _MISALIGNING | frozenset({
    "health", "rcpt-first", "bad-mail-state", "post-data-clear", "rset-clears", "nested-mail", "auth-order", "bdat-mix",
    "bdat-reject", "tls-reset", "no-rcpt", "rset-250", "noop-250", "quit", "re-ehlo", "ehlo-refused-state", "no-side-effect",
})  # fmt: skip
#: The rule that RCPT breaks in state READY, by what came before it; where it is none of these, `rcpt-first`.
_RCPT_AFTER: Final = {
    "MAIL 4": "bad-mail-state",
    "MAIL 5": "bad-mail-state",
    "message 2": "post-data-clear",
    "RSET 2": "rset-clears",
}


#: Verbs whose reply decides how what follows is read.
_BLOCKING: Final = frozenset({"DATA", "AUTH", "STARTTLS", "RCPT", "EHLO", "LHLO", "HELO", "QUIT"})


class Violation(NamedTuple):
    """One thing held against a server. cause: what tells it from others of its rule."""

    rule: str
    actual: str
    cause: str


class _ReplyDue(NamedTuple):
    """What a reply is owed for."""

    verb: str
    line: bytes


class ReplyTracker:
    """See the module. wrongs: what was wrong so far. loose: nothing more can be held against the server."""

    def __init__(self, *, lmtp: bool = False) -> None:
        self._lmtp = lmtp
        self._state: state.State = state.CONNECTED
        self._mode = "greeting"
        self._buffer = b""
        self._text = b""
        self._replies_due: deque[_ReplyDue] = deque([_ReplyDue(state.BANNER, b"")])
        self._blocked = True
        self._quit_accepted = False
        self._chunk_left = 0
        self._chunk_last = False
        self._chunk_line = b""
        self._sent_before_tls = b""
        self._handshake_due = False
        self._closed = False
        self._extra: list[Reply] = []
        self._inside_extra = False
        self._in_text = False
        self._extra_text = b""
        self._last = ""
        self._recipients_accepted = 0
        self._no_recipient = False
        self._tls = False
        self._answered_in_tls = False
        self.lenient = False
        self.violations: list[Violation] = []

    @property
    def replies_due(self) -> int:
        """How many replies are owed."""
        return len(self._replies_due)

    @property
    def balanced(self) -> bool:
        """Whether each reply that came was owed, and each that was owed came; False where nobody can say."""
        return not (self._replies_due or self._extra or self.lenient)

    # -- what is written ---------------------------------------------------------------------------------------

    def sent(self, octets: bytes) -> None:
        """The client wrote this."""
        if self._mode == "greeting":
            self.lenient = True  # before the greeting nobody may speak (RFC 5321 §4.3.1)
        self._buffer += octets
        self._parse()

    def half_closed(self) -> None:
        """The client closed its writing side: a server may end the session at once."""
        self.lenient = True

    def tls_started(self) -> None:
        """A TLS handshake was done."""
        self._tls, self._buffer, self._blocked, self._handshake_due = True, b"", False, False
        self._state = state.GREETED if self._state != state.CONNECTED else self._state

    def _parse(self) -> None:
        while self._buffer and not (self._blocked or self.lenient or self._quit_accepted):
            if self._mode == "text":
                if not self._parse_text():
                    return
            elif self._mode == "chunk":
                if not self._parse_chunk():
                    return
            elif not self._parse_line():
                return

    def _parse_text(self) -> bool:
        self._text += self._buffer
        self._buffer = b""
        end = (b"\r\n" + self._text).find(_END)
        if end < 0:
            return False
        stop = end + len(_END) - 2
        self._buffer, self._text = self._text[stop:], self._text[:stop]
        self._mode = "command"
        for _ in range(max(1, self._recipients_accepted) if self._lmtp else 1):
            self._replies_due.append(_ReplyDue(state.MESSAGE, self._text))
        self._blocked = True
        return True

    def _parse_chunk(self) -> bool:
        piece = self._buffer[: self._chunk_left]
        self._buffer = self._buffer[len(piece) :]
        self._chunk_left -= len(piece)
        if self._chunk_left:
            return False
        self._mode = "command"
        verb = state.MESSAGE if self._chunk_last and self._state in (state.RCPT, state.BDAT) else "BDAT"
        for _ in range(max(1, self._recipients_accepted) if self._lmtp and verb == state.MESSAGE else 1):
            self._replies_due.append(_ReplyDue(verb, self._chunk_line))
        return True

    def _parse_line(self) -> bool:
        end = self._buffer.find(b"\n") + 1
        whole = self._buffer[:end] if end else self._buffer
        if len(whole) > _SURE_BYTES or (end and not whole.endswith(b"\r\n")) or b"\r" in whole[:-2]:
            self.lenient = True
            return False
        if not end:
            return False
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        if self._mode == "sasl":
            self._mode, self._blocked = "command", True
            self._replies_due.append(_ReplyDue("AUTH", line))
            return True
        verb = _verb_of_line(line)
        if verb is None:
            self.lenient = True  # a server may see a command in it, and it may change what follows
            return False
        if verb == "BDAT":
            return self._begin_chunk(line)
        self._replies_due.append(_ReplyDue(verb, line))
        self._blocked = verb in _BLOCKING
        return True

    def _begin_chunk(self, line: bytes) -> bool:
        read = c.parse_bdat(line[5:].strip())
        if isinstance(read, Refusal) or read[0] > 1 << 24:
            self.lenient = True  # how many octets are its chunk?
            return False
        self._chunk_left, self._chunk_last = read
        self._chunk_line = line
        self._mode = "chunk"
        return self._parse_chunk() if self._buffer or not self._chunk_left else False

    # -- what is heard -----------------------------------------------------------------------------------------

    def received(self, reply: Reply) -> None:
        """A reply came."""
        if self.lenient or self._closed or self._handshake_due:
            self.lenient = self.lenient or self._handshake_due  # what comes in place of a handshake is TLS's own affair
            self._replies_due.clear()
            return
        if self._mode == "chunk" and not self._replies_due:
            self.lenient = True  # the reply came before its chunk had: who does not know BDAT reads on in commands
            return
        if not self._replies_due:
            if not self._extra:
                self._extra_text = self._text + self._buffer if self._mode == "text" else self._text
            self._extra.append(reply)
            self._inside_extra = self._inside_extra or (self._tls and not self._answered_in_tls)
            self._in_text = self._in_text or self._mode == "text"
            return
        due = self._replies_due.popleft()
        if _answers_something_else(due, reply.code):
            self.lenient = True
            self._replies_due.clear()
            return
        self._check_order(due, reply.code)
        self._advance(due, reply.code)
        self._answered_in_tls = self._answered_in_tls or self._tls
        self._closed = reply.code == 421
        self._parse()

    def _advance(self, due: _ReplyDue, code: int) -> None:
        verb, before = due.verb, self._state
        self._blocked = bool(self._replies_due)  # what blocks is always the last that a reply is owed for
        if verb == state.BANNER:
            self._mode = "command"
        if verb == "QUIT" and code == 221:
            self._quit_accepted = True
        if verb == "AUTH" and code == 334:
            self._mode = "sasl"
            return
        if verb == "STARTTLS" and code == 220:
            self._sent_before_tls, self._buffer, self._blocked, self._handshake_due = self._buffer, b"", True, True
            return
        self._state = _server_state_after(before, verb, code)
        if verb == "DATA" and code == 354:
            self._no_recipient = before in (state.READY, state.MAIL)
            self._mode, self._text = "text", b""
            self._state = state.DATA
        elif verb == "RCPT" and code // 100 == 2:
            self._recipients_accepted += 1
        if self._state not in state.TRANSACTION:
            self._recipients_accepted = 0
        self._last = f"{verb} {code // 100}"

    def _check_order(self, due: _ReplyDue, code: int) -> None:
        verb, at = due.verb, self._state
        good = code // 100 in (2, 3)
        if good and verb not in state.IN_ORDER[at]:
            self._out_of_order(verb, at, code)
        elif verb == state.MESSAGE and code // 100 == 2 and self._no_recipient:
            self._report("no-rcpt", "a message without a recipient was taken", "message")
        elif not good and code in _REFUSED_AS_ORDER and verb in state.IN_ORDER[at]:
            self._refused_in_order(due, at, code)

    def _out_of_order(self, verb: str, at: state.State, code: int) -> None:
        rule = ""
        if verb == "RCPT" and at == state.READY:
            rule = _RCPT_AFTER.get(self._last, "rcpt-first")
        elif verb == "MAIL" and at in (state.MAIL, state.RCPT):
            rule = "nested-mail"
        elif verb == "AUTH" and at in (state.MAIL, state.RCPT):
            rule = "auth-order"
        elif verb == "DATA" and at == state.BDAT:
            rule = "bdat-mix"
        elif verb == "BDAT" and at == state.READY:
            rule = "bdat-reject"
        elif verb in ("RCPT", "DATA") and at == state.GREETED and self._tls:
            # what was said before TLS may have been kept, or be answered only now: without it, it is told apart
            rule = "" if self._sent_before_tls else "tls-reset"
        if rule:
            self._report(rule, f"{verb} was answered {code}, which is out of order in state {at!r}", verb)

    def _refused_in_order(self, due: _ReplyDue, at: state.State, code: int) -> None:
        if self._sent_before_tls and self._tls and not self._answered_in_tls:
            self._report("tls-partial", f"{due.verb} was answered {code}, the first thing inside TLS", "first in TLS")
            return
        verb, bare = due.verb, due.line[:-2].upper() == due.verb.encode("latin-1")
        if bare and verb in ("QUIT", "NOOP", "RSET") and code != 503 and self._text:
            ends = _wrong_ends(self._text)
            if ends:  # what it answers is a line of the text
                self._report(*_of_ends(ends, f"{verb} behind a text was answered {code}: text was read as commands"))
                return
        if verb == "RSET" and bare and at != state.GREETED:
            self._report("rset-250", f"RSET was answered {code}", "RSET")
        elif verb == "NOOP" and bare:
            self._report("noop-250", f"NOOP was answered {code}", "NOOP")
        elif verb == "QUIT" and bare:
            self._report("quit", f"QUIT was answered {code}", "QUIT")
        elif verb == "EHLO" and code == 503 and at != state.GREETED and not isinstance(c.parse_line(due.line), Refusal):
            self._report("re-ehlo", "EHLO said again was answered 503", "EHLO again")
        elif verb == "RCPT" and code == 503:
            spoiler = self._last.split(" ")[0]
            rule = "ehlo-refused-state" if spoiler == "EHLO" else "no-side-effect"
            if spoiler in ("VRFY", "EXPN", "HELP", "NOOP", "EHLO"):
                self._report(rule, f"RCPT was answered 503 after MAIL and {spoiler}", f"RCPT after {spoiler}")

    def _report(self, rule: str, actual: str, cause: str) -> None:
        self.violations.append(Violation(rule, actual, cause))

    # -- the end -----------------------------------------------------------------------------------------------

    def close(self, end_reason: str) -> None:
        """The session is over: what was left open is judged."""
        if self.lenient:
            return
        hung_up = end_reason in (api.CLOSED, api.CONNECTION_RESET)
        if self._extra and not (hung_up and self._extra[0].code // 100 in (4, 5) and len(self._extra) == 1):
            count = len(self._extra)
            if self._inside_extra:
                self._report("tls-inject", f"{count} replies came inside TLS before anything was said there", "inside TLS")
            elif self._tls and b"\n" in self._sent_before_tls and not (self._in_text or _wrong_ends(self._extra_text)):
                self._report("tls-inject", f"{count} replies came inside TLS to what was said before it", "inside TLS")
            else:
                where = "inside a text" if self._in_text else "that nothing asked for"
                self._report(*self._of_extra(f"{count} replies came {where}, the first {self._extra[0].code}"))
        if any(violation.rule in _MISALIGNING for violation in self.violations):
            # a reply too many is put to the next command, which then seems wrong as well
            self.violations = [violation for violation in self.violations if violation.rule in _MISALIGNING]
        # who was refused a login is kept waiting by many servers, and on purpose
        if end_reason == api.TIMEOUT and self._replies_due and not self._closed and self._replies_due[0].verb != "AUTH":
            verb = self._replies_due[0].verb
            shown = verb if verb in c.EXPECTED or verb in (state.MESSAGE, state.BANNER) else "an unknown command"
            self._report("health", f"{shown} got no reply in state {self._state!r}", f"no reply to {shown}")

    def _of_extra(self, actual: str) -> Violation:
        if not (self._in_text or self._extra_text):
            return Violation("one-reply", actual, "")
        refused = self._extra[0].code // 100 != 2 if self._in_text else self._last in ("message 4", "message 5")
        # a text that was refused half-way had no end, be it right or wrong: its rest was read as commands
        return _of_ends([] if refused else _wrong_ends(self._extra_text), actual)


def _wrong_ends(text: bytes) -> list[str]:
    """The rules about the doubtful ends in a text."""
    inside = (b"\r\n" + text)[:-5] if text.endswith(_END) else b"\r\n" + text
    return [rule for pattern, rule in _WRONG_ENDS if pattern.search(inside)]


def _of_ends(ends: list[str], actual: str) -> Violation:
    """What is wrong where a text with these ends was taken for commands; with several, nobody can tell which it was."""
    if len(ends) == 1:
        return Violation(ends[0], actual, "")
    return Violation("data-desync", actual, " or ".join(ends))


@lru_cache(maxsize=4096)  # the same few lines are said again and again
def _verb_of_line(line: bytes) -> str | None:
    """The verb of a command line; None where it is none, but a tolerant server may read one in it."""
    verb = line[:-2].split(b" ")[0].upper().decode("latin-1")
    return None if verb not in c.EXPECTED and _lenient_verb(line) in c.EXPECTED else verb


def _lenient_verb(line: bytes) -> str:
    """The verb that a tolerant server may read in a line: behind white space, before a tab or a control character."""
    words = re.split(rb"[\x00-\x20:=]+", line.strip(b"\0\t\r\n\v\f "))
    return words[0].upper().decode("latin-1")


def _answers_something_else(due: _ReplyDue, code: int) -> bool:
    """A reply that says that the server read something else than was said: nobody knows what it does with the rest."""
    if due.line[:4].upper() == b"BDAT":
        return code in (500, 502)  # it does not know chunks, and reads theirs as commands
    if due.verb == "AUTH" and code // 100 == 2:
        return code != 235  # a line of an exchange, read as a command
    meant = {354: "DATA", 334: "AUTH"}.get(code, due.verb)
    return due.verb != meant or (code == 220 and due.verb not in ("STARTTLS", state.BANNER))


@cache
def _server_state_after(at: state.State, verb: str, code: int) -> state.State:
    """The state after a reply, as the server has it: one that takes what is out of order is where it then says it is."""
    if code // 100 == 2 and verb in ("MAIL", "RCPT") and at in (state.GREETED, state.READY, state.MAIL, state.RCPT):
        return state.MAIL if verb == "MAIL" else state.RCPT
    return state.after(at, verb, code)


def find_violations(transcript: Transcript, *, lmtp: bool = False) -> list[Violation]:
    """What a whole transcript holds against the server."""
    tracker, reader = ReplyTracker(lmtp=lmtp), ReplyReader()
    for entry in transcript.entries:
        if entry.who == CLIENT:
            tracker.sent(entry.data)
        elif entry.who == SERVER:
            for reply in reader.feed(entry.data):
                tracker.received(reply)
        elif entry.data == TLS_EVENT:
            tracker.tls_started()
            reader = ReplyReader()
        elif entry.data == HALF_CLOSE_EVENT:
            tracker.half_closed()
        else:
            tracker.close(entry.data.decode())
    return tracker.violations
