"""Servers that lose the thread of a session."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.smtp import state


def _answers(verb: bytes, reply: bytes, *states: str) -> type[ServerSession]:
    """A session that answers a verb, in these states (or in all), with this, and does nothing else."""

    class Answers(ServerSession):
        __slots__ = ()

        def _command(self, line: bytes) -> bytes:
            if line.upper().startswith(verb) and (not states or self._state in states):
                return reply
            return super()._command(line)

    return Answers


def _also(verb: bytes, at: str, reply: bytes) -> type[ServerSession]:
    """A session that goes to another state with a verb, whatever it was in, and answers with this."""

    class Also(ServerSession):
        __slots__ = ()

        def _command(self, line: bytes) -> bytes:
            if line.upper().startswith(verb) and self._state in state.TRANSACTION:
                self._state = at
                return reply
            return super()._command(line)

    return Also


_TRANSACTION = (state.MAIL, state.RCPT)


class _NeverForgets(ServerSession):
    """RSET says 250 and clears nothing."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        return b"250 2.0.0 Ok\r\n" if line == b"RSET\r\n" else super()._command(line)


class _SlamsOn(ServerSession):
    """One line closes the connection, with its reply or without."""

    __slots__ = ()
    line = b"RSET\r\n"
    reply = b"250 2.0.0 Ok\r\n"

    def _command(self, line: bytes) -> bytes:
        if line.startswith(self.line):
            self.pending_action = api.CLOSE
            return self.reply
        return super()._command(line)


class _SlamsOnUnknown(_SlamsOn):
    __slots__ = ()
    line = b"XYZZY"
    reply = b"554 5.5.1 Go away\r\n"


class _SlamsOnOctets(_SlamsOn):
    __slots__ = ()
    line = b"\xff"
    reply = b""


class _KeepsEnvelope(ServerSession):
    """EHLO leaves a mail transaction open."""

    __slots__ = ()

    def _hello(self, verb: str, argument: bytes) -> bytes:
        at, sender = self._state, self._sender
        reply = super()._hello(verb, argument)
        if at == state.MAIL and reply.startswith(b"250"):
            self._state, self._sender = at, sender
        return reply


class _ForgetsOnRefusal(ServerSession):
    """EHLO clears the envelope even where it is refused."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line == b"EHLO\r\n":
            self._state = state.READY
        return super()._command(line)


class _StaysOpen(ServerSession):
    """221, and no end."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        reply = super()._command(line)
        if reply.startswith(b"221"):
            self.pending_action = api.NOTHING
        return reply


class _NeedsNoMail(ServerSession):
    """RCPT is taken before the first MAIL of a session."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line[:4].upper() == b"MAIL":
            self._octets = 1  # a note to itself: before the first MAIL it is 0
        if line[:4] == b"RCPT" and self._state == state.READY and not self._octets:
            return b"250 2.1.5 Recipient ok\r\n"
        return super()._command(line)


class _NeedsNobody(ServerSession):
    """DATA is taken without a recipient, and its message too."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line == b"DATA\r\n" and self._state == state.MAIL:
            return self._begin_text()
        return super()._command(line)


class _BeginsAnyway(ServerSession):
    """A MAIL that is refused begins a transaction all the same."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        at, reply = self._state, super()._command(line)
        if line[:4] == b"MAIL" and reply[:1] == b"5" and at == state.READY:
            self._state = state.MAIL
        return reply


class _MindsCase(ServerSession):
    """Verbs are upper case."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        return b"500 5.5.2 What?\r\n" if line[:1].islower() else super()._command(line)


class _KeepsAfterMessage(ServerSession):
    """The end of a message leaves its envelope open."""

    __slots__ = ()

    def _end_of_text(self) -> bytes:
        reply = super()._end_of_text()
        self._state = state.MAIL
        return reply


MUTANTS: dict[str, type[ServerSession]] = {
    "rset-250": _answers(b"RSET\r\n", b"503 5.5.1 Say EHLO first\r\n", state.GREETED),
    "rset-clears": _NeverForgets,
    "rset-open": _SlamsOn,
    "re-ehlo": _KeepsEnvelope,
    "ehlo-refused-state": _ForgetsOnRefusal,
    "noop-250": _answers(b"NOOP\r\n", b"503 5.5.1 Not now\r\n", state.MAIL),
    "noop-arg": _answers(b"NOOP SOME", b"501 5.5.4 No argument\r\n"),
    "quit": _StaysOpen,
    "rcpt-first": _NeedsNoMail,
    "no-rcpt": _NeedsNobody,
    "nested-mail": _answers(b"MAIL FROM:<PROBE", b"250 2.1.0 Ok\r\n", state.MAIL),
    "bad-mail-state": _BeginsAnyway,
    "required-verbs": _answers(b"HELO", b"502 5.5.1 Not here\r\n"),
    "no-side-effect": _also(b"EXPN", state.READY, b"252 2.0.0 Cannot expand\r\n"),
    "verb-case": _MindsCase,
    "unknown-500": _SlamsOnUnknown,
    "close-without-421": _SlamsOnOctets,
    "arg-501": _answers(b"RSET NOW", b"250 2.0.0 Ok\r\n"),
    "pre-ehlo": _answers(b"EXPN", b"503 5.5.1 Say EHLO first\r\n", state.GREETED),
    "post-data-clear": _KeepsAfterMessage,
}
