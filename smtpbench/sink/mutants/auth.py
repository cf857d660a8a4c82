"""Servers that are careless about who logs in."""

from __future__ import annotations

from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import refuses
from smtpbench.smtp import sasl, state


class _AtAnyTime(ServerSession):
    """AUTH is taken in a mail transaction."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line[:5] == b"AUTH " and self._state == state.MAIL:
            return self._auth(line[5:].rstrip())
        return super()._command(line)


class _TakesAnything(ServerSession):
    """What is no base64 is a wrong password."""

    __slots__ = ()

    def _sasl_line(self, line: bytes) -> bytes:
        reply = super()._sasl_line(line)
        return reply.replace(b"501 5.5.2", b"535 5.7.8")


class _LetsAnybodyIn(ServerSession):
    """An empty password is anybody's."""

    __slots__ = ()

    def _challenge(self, exchange: sasl.Server, response: bytes | None) -> bytes:
        if response is not None and response == b"\0constructor\0":
            return b"235 2.7.0 Welcome\r\n"
        return super()._challenge(exchange, response)


MUTANTS: dict[str, type[ServerSession]] = {
    "auth-order": _AtAnyTime,
    "auth-input": _TakesAnything,
    "auth-mechanism": refuses(rb"AUTH X-NO-SUCH", b"500 5.5.2 What?\r\n"),
    "auth-bypass": _LetsAnybodyIn,
}
