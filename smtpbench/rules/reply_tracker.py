"""Reply tracker: which replies a server owes, and which of its replies violate the SMTP state table.

Theory of operation
===================

A `ReplyTracker` follows a session from outside. It is given the octets that were sent and the replies that were received,
in that order. It cuts the octets into units that each get a reply: command lines, message texts, chunks, SASL responses.
How the octets after DATA, AUTH or STARTTLS must be read depends on the reply to that command, so they wait for the reply.
`replies_due` is the number of replies that are still missing. A client that waits for exactly those replies works with any
server, whatever it sends.

Each reply is matched to the unit that it answers, and compared with the table of `smtp.state`. A violation is a success
where the verb is out of order, a 503 where it is in order, or a reply that nothing asked for. Violations are kept in
`violations`.

In some cases SMTP leaves open how a server reads octets: a bare LF in a command, a line beyond the size limits, a malformed
BDAT. From there on the tracker is `lenient`, and reports no violations of number or order.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from dataclasses import replace
from functools import cache, lru_cache
from typing import Final, NamedTuple

from smtpbench.engine import api
from smtpbench.rules.rule import HANG
from smtpbench.session.dialogue import CLOSING_CODES, Dialogue
from smtpbench.smtp import command as c
from smtpbench.smtp import state
from smtpbench.smtp.command import Refusal
from smtpbench.smtp.reply import MAX_KEPT_REPLY_BYTES, Reply
from smtpbench.text import plural

_END: Final = b"\r\n.\r\n"
#: A server may refuse or cut a longer line, or close the connection.
_MAX_LINE_BYTES: Final = c.COMMAND_LINE_BYTES
_BAD_SEQUENCE_CODES: Final = frozenset({500, 502, 503})
#: Octets that a server may wrongly take as the end of the message text, and the rule that it then violates.
_WRONG_ENDS: Final = (
    (re.compile(rb"(?<!\r)\n\.\r\n"), "eod-lf-crlf"),
    (re.compile(rb"(?<!\r)\n\.\n"), "eod-lf-lf"),
    (re.compile(rb"\r\n\.\n"), "eod-crlf-lf"),
    (re.compile(rb"\r\.\r"), "eod-cr"),
    (re.compile(rb"[\r\n\0](?:[ \t\0]+\.[ \t\0\r]*|\.(?:[ \t\0]+\r?|\r\r+))\n"), "eod-odd"),
)
#: Rules about wrong ends of the message text.
WRONG_END_RULES: Final = frozenset(rule for _, rule in _WRONG_ENDS)
#: Rules that a server violates by sending too many replies.
_EXTRA_REPLY_RULES: Final = frozenset({
    "eod-lf-crlf", "eod-lf-lf", "eod-crlf-lf", "eod-cr", "eod-odd", "data-desync", "one-reply", "tls-inject", "tls-partial",
})  # fmt: skip
#: All rules whose violation a tracker can find.
TRACKED_RULES: Final = _EXTRA_REPLY_RULES | frozenset({
    "health", "rcpt-first", "bad-mail-state", "post-data-clear", "rset-clears", "nested-mail", "auth-order", "bdat-mix",
    "bdat-reject", "tls-reset", "no-rcpt", "rset-250", "noop-250", "quit", "re-ehlo", "ehlo-refused-state", "no-side-effect",
})  # fmt: skip
#: What came before an accepted RCPT in state READY → the rule that is violated; `rcpt-first` for anything else.
_RCPT_RULES: Final = {
    "MAIL 4": "bad-mail-state",
    "MAIL 5": "bad-mail-state",
    "message 2": "post-data-clear",
    "RSET 2": "rset-clears",
}
#: Argument of EHLO that no server has a reason to refuse.
_CLEAN_DOMAIN: Final = re.compile(rb"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,3}\r\n")
#: Verbs whose reply decides how the following octets are read.
_BLOCKING: Final = frozenset({"DATA", "AUTH", "STARTTLS", "RCPT", "EHLO", "LHLO", "HELO", "QUIT"})


class Violation(NamedTuple):
    """A violation in one session.

    Attributes:
        rule: Name of the rule.
        actual: What the server did.
        cause: Tells it from other violations of the same rule.
        severity: Severity of the violation; empty for that of the rule.
    """

    rule: str
    actual: str
    cause: str
    severity: str = ""


class _ReplyDue(NamedTuple):
    """A reply that the server owes.

    Attributes:
        verb: Verb or event.
        line: The line or text that it answers.
        write: Number of the write that completed this line or text; -1 for the connection itself.
    """

    verb: str
    line: bytes
    write: int = -1


class ReplyTracker:
    """Follows one session; see the module.

    Args:
        lmtp: Whether the session speaks LMTP.

    Attributes:
        violations: Violations so far.
        write_answered: Number of the write that the latest reply answers, from 0; -1 if it answers none, or if that cannot
            be told.
        answered: Verbs and events (`state.MESSAGE`) that had a reply with a code.
        lenient: Whether the replies can no longer be predicted, so that no further violations are reported.
    """

    def __init__(self, *, lmtp: bool = False) -> None:
        self._lmtp = lmtp
        self._state: state.State = state.CONNECTED
        self._mode = "greeting"
        self._buffer = b""
        self._text = b""
        self._sent_bytes = 0
        self._write_ends: list[int] = []
        self._replies_due: deque[_ReplyDue] = deque([_ReplyDue(state.BANNER, b"")])
        self._blocked = True
        self._quit_accepted = False
        self._chunk_left = 0
        self._chunk_last = False
        self._chunk_line = b""
        self._offers_chunking = False
        self._sent_before_tls = b""
        self._handshake_due = False
        self._closed = False
        self._refused_ahead = False
        self._extra: list[Reply] = []
        self._extra_in_tls = False
        self._extra_in_text = False
        self._extra_text = b""
        self._last = ""
        self._recipients_accepted = 0
        self._without_recipient = False
        self._tls = False
        self._answered_in_tls = False
        self.lenient = False
        self.write_answered = -1
        self.violations: list[Violation] = []
        self.answered: set[str] = set()

    @property
    def replies_due(self) -> int:
        """Return the number of replies that the server owes."""
        return len(self._replies_due)

    @property
    def next_due(self) -> str:
        """Return the verb or event whose reply is due next; empty if none is due, or if that cannot be told."""
        return self._replies_due[0].verb if self._replies_due and not self.lenient else ""

    @property
    def balanced(self) -> bool:
        """Return whether the server sent exactly the replies that were due. False if that cannot be predicted."""
        return not (self._replies_due or self._extra or self.lenient)

    # -- octets sent -------------------------------------------------------------------------------------------

    def sent(self, octets: bytes) -> None:
        """The client sent these octets."""
        if self._mode == "greeting":
            self.lenient = True  # a client must wait for the greeting (RFC 5321 §4.3.1)
        self._buffer += octets
        self._sent_bytes += len(octets)
        self._write_ends.append(self._sent_bytes)
        self._parse()

    def half_closed(self) -> None:
        """The client closed its sending direction. A server may then end the session at once."""
        self.lenient = True

    def tls_started(self) -> None:
        """The TLS handshake is complete."""
        self._tls, self._buffer, self._blocked, self._handshake_due = True, b"", False, False
        self._state = state.GREETED if self._state != state.CONNECTED else self._state

    def _expect_reply(self, verb: str, line: bytes) -> None:
        """Record that the server owes a reply to what was parsed last."""
        write = bisect_left(self._write_ends, self._sent_bytes - len(self._buffer))
        self._replies_due.append(_ReplyDue(verb, line, write))

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
            self._expect_reply(state.MESSAGE, self._text)
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
            self._expect_reply(verb, self._chunk_line)
        return True

    def _parse_line(self) -> bool:
        end = self._buffer.find(b"\n") + 1
        whole = self._buffer[:end] if end else self._buffer
        if len(whole) > _MAX_LINE_BYTES or (end and not whole.endswith(b"\r\n")) or b"\r" in whole[:-2]:
            self.lenient = True
            return False
        if not end:
            return False
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        if self._mode == "sasl":
            self._mode, self._blocked = "command", True
            self._expect_reply("AUTH", line)
            return True
        verb = _verb_of_line(line)
        if verb is None:
            self.lenient = True  # a server may read a command in it, which changes how it reads what follows
            return False
        if verb == "BDAT":
            return self._begin_chunk(line)
        self._expect_reply(verb, line)
        self._blocked = verb in _BLOCKING
        return True

    def _begin_chunk(self, line: bytes) -> bool:
        read = c.parse_bdat(line[5:].strip())
        if isinstance(read, Refusal) or read[0] > 1 << 24:
            self.lenient = True  # the size of the chunk is unknown
            return False
        self._chunk_left, self._chunk_last = read
        self._chunk_line = line
        self._mode = "chunk"
        return self._parse_chunk() if self._buffer or not self._chunk_left else False

    # -- replies received --------------------------------------------------------------------------------------

    def received(self, reply: Reply) -> str:
        """The server sent a reply.

        Returns:
            The verb or event that it answers; empty if nothing asked for it, or if that cannot be told.
        """
        self.write_answered = -1
        if self.lenient or self._closed or self._handshake_due:
            self.lenient = self.lenient or self._handshake_due  # octets in place of a handshake are not replies
            self._replies_due.clear()
            return ""
        if self._mode == "chunk" and not self._replies_due:
            self.lenient = (
                True  # the reply came before the chunk was complete: a server without BDAT reads the chunk as commands
            )
            return ""
        if not self._replies_due:
            if not self._extra:
                self._extra_text = self._text + self._buffer if self._mode == "text" else self._text
            self._extra.append(reply)
            self._extra_in_tls = self._extra_in_tls or (self._tls and not self._answered_in_tls)
            self._extra_in_text = self._extra_in_text or self._mode == "text"
            return ""
        due = self._replies_due.popleft()
        if due.verb in ("EHLO", "LHLO") and reply.code == 250:
            self._offers_chunking = b"CHUNKING" in reply.raw.upper()
        if _answers_something_else(due, reply.code, offers_chunking=self._offers_chunking):
            self.lenient = True
            self._replies_due.clear()
            return ""
        self.write_answered = due.write
        if reply.code:
            self.answered.add(due.verb)
        self._check_order(due, reply.code)
        self._advance(due, reply.code)
        self._answered_in_tls = self._answered_in_tls or self._tls
        self._closed = reply.code == 421
        # a server that refuses commands sent ahead of their turn closes the connection, which may take it a while
        self._refused_ahead = reply.code in CLOSING_CODES and bool(self._replies_due or self._buffer)
        self._parse()
        return due.verb

    def _advance(self, due: _ReplyDue, code: int) -> None:
        verb, before = due.verb, self._state
        self._blocked = bool(self._replies_due)  # the unit that blocks is always the last one that is due
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
            self._without_recipient = before in (state.READY, state.MAIL)
            self._mode, self._text = "text", b""
            self._state = state.DATA
        elif verb == "RCPT" and code // 100 == 2:
            self._recipients_accepted += 1
        if self._state not in state.TRANSACTION:
            self._recipients_accepted = 0
        self._last = f"{verb} {code // 100}"

    def _check_order(self, due: _ReplyDue, code: int) -> None:
        verb, at = due.verb, self._state
        success = code // 100 in (2, 3)
        if success and verb not in state.IN_ORDER[at]:
            self._report_accepted(verb, at, code)
        elif verb == state.MESSAGE and code // 100 == 2 and self._without_recipient:
            self._report("no-rcpt", "the server accepted a message without a recipient", "message")
        elif not success and code in _BAD_SEQUENCE_CODES and verb in state.IN_ORDER[at]:
            self._report_refused(due, at, code)

    def _report_accepted(self, verb: str, at: state.State, code: int) -> None:
        """Report a command that was accepted out of order."""
        rule = ""
        if verb == "RCPT" and at == state.READY:
            rule = _RCPT_RULES.get(self._last, "rcpt-first")
        elif verb == "MAIL" and at in (state.MAIL, state.RCPT):
            rule = "nested-mail"
        elif verb == "AUTH" and at in (state.MAIL, state.RCPT):
            rule = "auth-order"
        elif verb == "DATA" and at == state.BDAT:
            rule = "bdat-mix"
        elif verb == "BDAT" and at == state.READY:
            rule = "bdat-reject"
        elif verb in ("RCPT", "DATA") and at == state.GREETED and self._tls:
            # octets that came with STARTTLS may have been kept, so the state after TLS is not known
            rule = "" if self._sent_before_tls else "tls-reset"
        if rule:
            self._report(rule, f"the server replied {code} to {verb}, which is out of order in state {at!r}", verb)

    def _report_refused(self, due: _ReplyDue, at: state.State, code: int) -> None:
        """Report a command that was refused although it is in order."""
        first_in_tls = self._sent_before_tls and self._tls and not self._answered_in_tls
        if first_in_tls and self._is_clean_hello(due.line):
            self._report(
                "tls-partial", f"the server replied {code} to {due.verb}, the first command inside TLS", "first in TLS"
            )
        if first_in_tls:
            return  # what came before TLS may have changed the state, and the command itself may be refused
        verb, bare = due.verb, due.line[:-2].upper() == due.verb.encode("latin-1")
        if bare and verb in ("QUIT", "NOOP", "RSET") and code != 503 and self._text:
            ends = _wrong_ends(self._text)
            if ends:  # the reply answers a line of the text
                actual = f"the server read message text as commands: it replied {code} to {verb} after the text"
                self._report(*_wrong_end_violation(ends, actual))
                return
        if verb == "RSET" and bare and at != state.GREETED:
            self._report("rset-250", f"the server replied {code} to RSET", "RSET")
        elif verb == "NOOP" and bare:
            self._report("noop-250", f"the server replied {code} to NOOP", "NOOP")
        elif verb == "QUIT" and bare:
            self._report("quit", f"the server replied {code} to QUIT", "QUIT")
        elif verb == "EHLO" and code == 503 and at != state.GREETED and not isinstance(c.parse_line(due.line), Refusal):
            self._report("re-ehlo", "the server replied 503 to a second EHLO", "EHLO again")
        elif verb == "RCPT" and code == 503:
            previous = self._last.split(" ")[0]
            rule = "ehlo-refused-state" if previous == "EHLO" else "no-side-effect"
            if previous in ("VRFY", "EXPN", "HELP", "NOOP", "EHLO"):
                self._report(rule, f"the server replied 503 to RCPT after MAIL and {previous}", f"RCPT after {previous}")

    def _is_clean_hello(self, line: bytes) -> bool:
        """Return whether a line is an EHLO that every server must accept (LHLO in LMTP)."""
        verb = b"LHLO " if self._lmtp else b"EHLO "
        return line.startswith(verb) and _CLEAN_DOMAIN.fullmatch(line[5:]) is not None

    def _report(self, rule: str, actual: str, cause: str, severity: str = "") -> None:
        self.violations.append(Violation(rule, actual, cause, severity))

    # -- the end -----------------------------------------------------------------------------------------------

    def close(self, end_reason: str, *, endless: bool = False) -> None:
        """The session is over. Report replies that nothing asked for, and a reply that did not come.

        Args:
            end_reason: How the session ended, a reason of `engine.api`.
            endless: The session was ended because a reply had no end.
        """
        if endless:
            self._report("health", "the server sent a reply without an end", "a reply without an end", HANG)
        if self.lenient:
            return
        closed_by_server = end_reason in (api.CLOSED, api.CONNECTION_RESET)
        is_closing_error = closed_by_server and len(self._extra) == 1 and self._extra[0].code // 100 in (4, 5)
        if self._extra and not is_closing_error:
            count = f"the server sent {plural(len(self._extra), 'reply')}"
            if self._extra_in_tls:
                self._report("tls-inject", f"{count} inside TLS before any command was sent there", "inside TLS")
            elif self._tls and b"\n" in self._sent_before_tls and not (self._extra_in_text or _wrong_ends(self._extra_text)):
                self._report("tls-inject", f"{count} inside TLS to octets that were sent before TLS", "inside TLS")
            else:
                where = "before the end of the message text" if self._extra_in_text else "without a corresponding command"
                code = self._extra[0].code
                first = f"the first with code {code}" if len(self._extra) > 1 else f"with code {code}"
                self._report(*self._extra_reply_violation(f"{count} {where}, {first}"))
        if any(violation.rule in _EXTRA_REPLY_RULES for violation in self.violations):
            # an extra reply is matched to the next command, which then seems to violate another rule
            self.violations = [violation for violation in self.violations if violation.rule in _EXTRA_REPLY_RULES]
        closing = self._closed or self._refused_ahead
        # many servers delay the reply to a failed login on purpose
        if end_reason == api.TIMEOUT and self._replies_due and not closing and self._replies_due[0].verb != "AUTH":
            verb = self._replies_due[0].verb
            name = verb if verb in c.EXPECTED or verb in (state.MESSAGE, state.BANNER) else "an unknown command"
            what = {state.MESSAGE: "the end of the message text", state.BANNER: "the connection"}.get(verb, name)
            actual = f"the server did not reply to {what} in state {self._state!r}"
            self._report("health", actual, f"no reply to {name}", HANG)

    def _extra_reply_violation(self, actual: str) -> Violation:
        if not (self._extra_in_text or self._extra_text):
            return Violation("one-reply", actual, "")
        refused = self._extra[0].code // 100 != 2 if self._extra_in_text else self._last in ("message 4", "message 5")
        # a text that was refused before its end: its remaining lines were read as commands, whatever ends it contains
        return _wrong_end_violation([] if refused else _wrong_ends(self._extra_text), actual)


def _wrong_ends(text: bytes) -> list[str]:
    """Return the rules about the wrong ends that a text contains."""
    inside = (b"\r\n" + text)[:-5] if text.endswith(_END) else b"\r\n" + text
    return [rule for pattern, rule in _WRONG_ENDS if pattern.search(inside)]


def without_wrong_ends(octets: bytes) -> bytes:
    """Return octets in which `x` stands in place of the dot of each wrong end. The length stays the same."""
    for pattern, _ in _WRONG_ENDS:
        while pattern.search(octets):
            octets = pattern.sub(lambda match: match[0].replace(b".", b"x"), octets)
    return octets


def names_wrong_end(violation: Violation) -> bool:
    """Return whether a violation blames a wrong end of the message text."""
    return violation.rule in WRONG_END_RULES or (violation.rule == "data-desync" and bool(violation.cause))


def _wrong_end_violation(ends: list[str], actual: str) -> Violation:
    """Return the violation of a server that read as commands a text with these ends. Of several, any may be the cause."""
    if len(ends) == 1:
        return Violation(ends[0], actual, "")
    return Violation("data-desync", actual, " or ".join(ends))


@lru_cache(maxsize=4096)  # a campaign sends the same few lines again and again
def _verb_of_line(line: bytes) -> str | None:
    """Return the verb of a line; None if it is unknown but a tolerant server may read a known verb in it."""
    verb = line[:-2].split(b" ")[0].upper().decode("latin-1")
    return None if verb not in c.EXPECTED and _lenient_verb(line) in c.EXPECTED else verb


def _lenient_verb(line: bytes) -> str:
    """Return the verb that a tolerant server may read in a line: after white space, before a tab or control character."""
    parts = re.split(rb"[\x00-\x20:=]+", line.strip(b"\0\t\r\n\v\f "))
    return parts[0].upper().decode("latin-1")


def _answers_something_else(due: _ReplyDue, code: int, *, offers_chunking: bool) -> bool:
    """Return whether the reply belongs to another command than the one sent, so that the server's state is unknown."""
    if due.line[:4].upper() == b"BDAT":
        # a server without BDAT reads the chunk as commands; Exim has it, and refuses it with 503 where it does not offer it
        return code in (500, 502) or (code == 503 and not offers_chunking)
    if due.verb == "AUTH" and code // 100 == 2:
        return code != 235  # the server read a line of the SASL exchange as a command
    expected_verb = {354: "DATA", 334: "AUTH"}.get(code, due.verb)
    return due.verb != expected_verb or (code == 220 and due.verb not in ("STARTTLS", state.BANNER))


@cache
def _server_state_after(at: state.State, verb: str, code: int) -> state.State:
    """Return the server's state after a reply. A server that accepts a command out of order is in the state after it."""
    if code // 100 == 2 and verb in ("MAIL", "RCPT") and at in (state.GREETED, state.READY, state.MAIL, state.RCPT):
        return state.MAIL if verb == "MAIL" else state.RCPT
    return state.after(at, verb, code)


class TrackedDialogue(NamedTuple):
    """What a tracker says of a whole dialogue.

    Attributes:
        tracker: The tracker, after the end of the session.
        verbs: For each reply the verb or event that it answers, as `ReplyTracker.received` returns it.
        writes: For each reply the index of the exchange whose octets it answers; -1 if that cannot be told.
    """

    tracker: ReplyTracker
    verbs: list[str]
    writes: list[int]


def track(dialogue: Dialogue, *, lmtp: bool = False) -> TrackedDialogue:
    """Follow a whole dialogue with a tracker."""
    tracker, tls = ReplyTracker(lmtp=lmtp), False
    verbs, writes, exchange_of_write = list[str](), list[int](), list[int]()

    def follow_tls(in_tls: bool) -> None:
        nonlocal tls
        if in_tls and not tls:
            tls = True
            tracker.tls_started()

    for index, exchange in enumerate(dialogue.exchanges):
        follow_tls(exchange.tls)
        if exchange.sent:
            exchange_of_write.append(index)
            tracker.sent(exchange.sent)
        for number, received in enumerate(exchange.replies):
            if (index, number) == dialogue.half_closed_at:
                tracker.half_closed()
            follow_tls(received.tls)
            verbs.append(tracker.received(received.reply))
            write = tracker.write_answered
            writes.append(exchange_of_write[write] if write >= 0 else 0 if verbs[-1] == state.BANNER else -1)
        if (index, len(exchange.replies)) == dialogue.half_closed_at:
            tracker.half_closed()
    tracker.close(dialogue.end_reason, endless=len(dialogue.exchanges[-1].incomplete) > MAX_KEPT_REPLY_BYTES)
    return TrackedDialogue(tracker, verbs, writes)


def verbs_answered(dialogue: Dialogue, *, lmtp: bool = False) -> list[str]:
    """Return for each reply of a dialogue the verb or event that it answers, as `ReplyTracker.received` does."""
    return track(dialogue, lmtp=lmtp).verbs


def match_replies(dialogue: Dialogue, *, lmtp: bool = False) -> Dialogue:
    """Return a dialogue in which each reply stands with the write that it answers.

    A reply that came after a later write moves to its own one. If the server sent too few replies or too many, nobody can
    tell which is missing, and all stay where they came.
    """
    tracked = track(dialogue, lmtp=lmtp)
    if not tracked.tracker.balanced:
        return dialogue
    matched = [replace(exchange, replies=[]) for exchange in dialogue.exchanges]
    places = iter(tracked.writes)
    for index, exchange in enumerate(dialogue.exchanges):
        for received in exchange.replies:
            write = next(places)
            matched[write if write >= 0 else index].replies.append(received)
    return replace(dialogue, exchanges=tuple(matched))


def find_violations(dialogue: Dialogue, *, lmtp: bool = False) -> list[Violation]:
    """Return the violations in a complete dialogue."""
    return track(dialogue, lmtp=lmtp).tracker.violations
