"""Servers with faults in AUTH."""

from __future__ import annotations

from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import refuses_commands
from smtpbench.smtp import sasl, state


class _AuthInTransaction(ServerSession):
    """Accepts AUTH inside a mail transaction."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line[:5] == b"AUTH " and self.state == state.MAIL:
            return self.handle_auth(line[5:].rstrip())
        return super().handle_command(line)


class _InvalidBase64IsWrongPassword(ServerSession):
    """Answers a response that is not base64 as if the password were wrong."""

    __slots__ = ()

    def handle_sasl_response(self, line: bytes) -> bytes:
        reply = super().handle_sasl_response(line)
        return reply.replace(b"501 5.5.2", b"535 5.7.8")


class _EmptyPasswordLogsIn(ServerSession):
    """Accepts an empty password for a user that does not exist."""

    __slots__ = ()

    def continue_auth(self, exchange: sasl.ServerExchange, response: bytes | None) -> bytes:
        if response == b"\0constructor\0":
            return b"235 2.7.0 Authentication succeeded\r\n"
        return super().continue_auth(exchange, response)


MUTANTS: dict[str, type[ServerSession]] = {
    "auth-parameter": refuses_commands(rb"MAIL .* AUTH=<>", b"553 5.1.7 Bad mailbox\r\n"),
    "auth-order": _AuthInTransaction,
    "auth-input": _InvalidBase64IsWrongPassword,
    "auth-mechanism": refuses_commands(rb"AUTH X-NO-SUCH", b"500 5.5.2 Syntax error\r\n"),
    "auth-bypass": _EmptyPasswordLogsIn,
}
