"""Servers that lose track of the state of a session."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.smtp import state


def _only_answers(verb: bytes, reply: bytes, *states: str) -> type[ServerSession]:
    """Return a session class that answers a verb with this reply and does nothing else, in these states or in all."""

    class OnlyAnswers(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            if line.upper().startswith(verb) and (not states or self.state in states):
                return reply
            return super().handle_command(line)

    return OnlyAnswers


def _changes_state(verb: bytes, target: str, reply: bytes) -> type[ServerSession]:
    """Return a session class whose state changes if this verb comes inside a transaction."""

    class ChangesState(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            if line.upper().startswith(verb) and self.state in state.TRANSACTION:
                self.state = target
                return reply
            return super().handle_command(line)

    return ChangesState


def _closes_on(beginning: bytes, reply: bytes) -> type[ServerSession]:
    """Return a session class that closes the connection after a command line, with this reply or none."""

    class ClosesOn(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            if line.startswith(beginning):
                self.pending_action = api.CLOSE
                return reply
            return super().handle_command(line)

    return ClosesOn


class _RsetClearsNothing(ServerSession):
    """Answers RSET with 250 and keeps the transaction."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return b"250 2.0.0 Ok\r\n" if line == b"RSET\r\n" else super().handle_command(line)


class _EhloKeepsTransaction(ServerSession):
    """Keeps a mail transaction open across EHLO."""

    __slots__ = ()

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        at, sender = self.state, self.sender
        reply = super().handle_hello(verb, argument)
        if at == state.MAIL and reply.startswith(b"250"):
            self.state, self.sender = at, sender
        return reply


class _RefusedEhloClears(ServerSession):
    """Clears the transaction on an EHLO that it refuses."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line == b"EHLO\r\n":
            self.state = state.READY
        return super().handle_command(line)


class _OpenAfterQuit(ServerSession):
    """Answers QUIT with 221 and keeps the connection open."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        reply = super().handle_command(line)
        if reply.startswith(b"221"):
            self.pending_action = api.NOTHING
        return reply


class _RcptWithoutMail(ServerSession):
    """Accepts RCPT before the first MAIL of a session."""

    __slots__ = ("_mail_received",)

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self._mail_received = False

    def handle_command(self, line: bytes) -> bytes:
        self._mail_received = self._mail_received or line[:4].upper() == b"MAIL"
        if line[:4] == b"RCPT" and self.state == state.READY and not self._mail_received:
            return b"250 2.1.5 Recipient ok\r\n"
        return super().handle_command(line)


class _DataWithoutRcpt(ServerSession):
    """Accepts DATA and its message without a recipient."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line == b"DATA\r\n" and self.state == state.MAIL:
            return self.begin_text()
        return super().handle_command(line)


class _RefusedMailBegins(ServerSession):
    """Begins a transaction with a MAIL that it refuses."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        at, reply = self.state, super().handle_command(line)
        if line[:4] == b"MAIL" and reply[:1] == b"5" and at == state.READY:
            self.state = state.MAIL
        return reply


class _CaseSensitiveVerbs(ServerSession):
    """Knows verbs in upper case only."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return b"500 5.5.2 Command not recognised\r\n" if line[:1].islower() else super().handle_command(line)


class _MessageKeepsTransaction(ServerSession):
    """Keeps the transaction open after its message."""

    __slots__ = ()

    def complete_message(self, size_bytes: int, *, dot_stuffed: bool) -> bytes:
        reply = super().complete_message(size_bytes, dot_stuffed=dot_stuffed)
        if dot_stuffed:
            self.state = state.MAIL
        return reply


_EHLO_FIRST = b"503 5.5.1 Send EHLO first\r\n"

MUTANTS: dict[str, type[ServerSession]] = {
    "rset-250": _only_answers(b"RSET\r\n", _EHLO_FIRST, state.GREETED),
    "rset-clears": _RsetClearsNothing,
    "rset-open": _closes_on(b"RSET\r\n", b"250 2.0.0 Ok\r\n"),
    "re-ehlo": _EhloKeepsTransaction,
    "ehlo-refused-state": _RefusedEhloClears,
    "noop-250": _only_answers(b"NOOP\r\n", b"503 5.5.1 Bad sequence of commands\r\n", state.MAIL),
    "noop-arg": _only_answers(b"NOOP SOME", b"501 5.5.4 NOOP takes no argument\r\n"),
    "quit": _OpenAfterQuit,
    "rcpt-first": _RcptWithoutMail,
    "no-rcpt": _DataWithoutRcpt,
    "nested-mail": _only_answers(b"MAIL FROM:<PROBE", b"250 2.1.0 Ok\r\n", state.MAIL),
    "nested-mail-rcpt": _only_answers(b"MAIL FROM:<", b"250 2.1.0 Ok\r\n", state.RCPT),
    "bad-mail-state": _RefusedMailBegins,
    "required-verbs": _only_answers(b"HELO", b"502 5.5.1 Command not implemented\r\n"),
    "no-side-effect": _changes_state(b"EXPN", state.READY, b"252 2.0.0 Cannot expand\r\n"),
    "verb-case": _CaseSensitiveVerbs,
    "unknown-500": _closes_on(b"XYZZY", b"554 5.5.1 Command not recognised\r\n"),
    "close-without-421": _closes_on(b"\xff", b""),
    "arg-501": _only_answers(b"RSET NOW", b"250 2.0.0 Ok\r\n"),
    "pre-ehlo": _only_answers(b"EXPN", _EHLO_FIRST, state.GREETED),
    "post-data-clear": _MessageKeepsTransaction,
}
