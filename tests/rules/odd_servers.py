"""Servers that do nothing wrong in an unusual way, or one thing wrong that looks like another."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.session.server_commands import COMMAND_MODE, TEXT_MODE
from smtpbench.session.server_context import ServerContext
from smtpbench.smtp.state import READY

_ANYWHERE_IN_A_GROUP = (b"MAIL", b"RCPT", b"RSET", b"BDAT")


class SynchronizedSession(ServerSession):
    """Closes with 554 when a client does not wait for a reply that it must wait for (RFC 2920 §3.1)."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if self.buffer and line[:4].upper() not in _ANYWHERE_IN_A_GROUP:
            self.buffer = b""
            return self.close_with(b"554 5.5.0 Synchronization error\r\n")
        return super().handle_command(line)


class SilentSession(ServerSession):
    """Greets, and replies to no command."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return b""


class ClosingSession(ServerSession):
    """Replies to what is needed for a mail transaction, and closes the connection in place of any other reply."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        ordinary = line[:5] in (b"EHLO ", b"LHLO ", b"DATA\r") or line[:10] in (
            b"STARTTLS\r\n",
            b"MAIL FROM:",
            b"RCPT TO:<u",
        )
        if ordinary and b"@" not in line[11:12] and line.count(b" ") < 3:
            return super().handle_command(line)
        self.pending_action = api.CLOSE
        return b""


class PoliteSession(ServerSession):
    """Replies 421 to MAIL, and closes the connection."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return self.close_with(b"421 4.3.2 not now\r\n") if line[:4].upper() == b"MAIL" else super().handle_command(line)


class NoEhloInTlsSession(ServerSession):
    """Refuses EHLO inside TLS, whatever came before."""

    __slots__ = ()

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        return b"502 5.5.1 not again\r\n" if self.tls else super().handle_hello(verb, argument)


class GreetsInTlsSession(ServerSession):
    """Greets a second time inside TLS."""

    __slots__ = ()

    def tls_started(self, now_ns: int) -> api.Out:
        super().tls_started(now_ns)
        return b"220 sink.example ESMTP again\r\n"


class EchoSession(ServerSession):
    """Sends back what it receives."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return data


class EndlessReplySession(ServerSession):
    """Replies with a line that does not end."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return b"250-" + b"x" * 3_000_000


class EndlessLinesSession(ServerSession):
    """Replies with a reply of very many lines."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return b"250-more lines\r\n" * 200_000


class BinarySession(ServerSession):
    """Greets with random octets."""

    __slots__ = ()

    def greet(self, now_ns: int) -> bytes:
        return bytes(range(256)) * 10


class EhloOnlySession(ServerSession):
    """Replies to EHLO and QUIT only."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return super().handle_command(line) if line[:4].upper() in (b"EHLO", b"LHLO", b"QUIT") else b""


class LaterEndlessSession(EndlessLinesSession):
    """Replies with many lines after EHLO."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return ServerSession.receive(self, data, now_ns) if data[:4] == b"EHLO" else super().receive(data, now_ns)


class LaterEmptyLinesSession(ServerSession):
    """Replies with very many empty lines after EHLO."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        return super().receive(data, now_ns) if data[:4] == b"EHLO" else b"\n" * 600_000


class TlsFirstSession(ServerSession):
    """Refuses every AUTH because the connection is not safe enough."""

    __slots__ = ()
    code = 538

    def handle_command(self, line: bytes) -> bytes:
        if line[:4].upper() == b"AUTH":
            return b"%d 5.7.11 Encryption required for requested authentication mechanism\r\n" % self.code
        return super().handle_command(line)


class TlsFirst530Session(TlsFirstSession):
    """Refuses every AUTH with 530."""

    __slots__ = ()
    code = 530


class RunsTextSession(ServerSession):
    """Runs every line of a message text as a command."""

    __slots__ = ("in_text",)

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self.in_text = False

    def begin_text(self) -> bytes:
        reply = super().begin_text()
        self.mode = COMMAND_MODE
        self.in_text = True
        return reply

    def handle_command(self, line: bytes) -> bytes:
        if not self.in_text:
            return super().handle_command(line)
        if line == b".\r\n":
            self.in_text = False
            self.clear_transaction()
            self.state = READY
            return b"250 2.0.0 Ok\r\n"
        return b"250 2.0.0 Ok\r\n" if line.strip() == b"NOOP" else b""


class LineLimitSession(ServerSession):
    """Ends a message text at a line of more than 2,000 octets, and runs the lines after it as commands."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        lines = data.split(b"\r\n")
        long = next((at for at, line in enumerate(lines) if len(line) > 2000), None)
        if self.mode != TEXT_MODE or long is None:
            return super().receive(data, now_ns)
        self.mode = COMMAND_MODE
        self.clear_transaction()
        self.state = READY
        self.buffer = b"\r\n".join(lines[long + 1 :])
        return b"500 5.5.2 Line too long\r\n" + self.process_buffer(now_ns)


class NoNoopSession(ServerSession):
    """Does not know NOOP."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line[:4].upper() == b"NOOP":
            return b"502 5.5.1 Command not implemented\r\n"
        return super().handle_command(line)


class SilentNoopSession(ServerSession):
    """Replies to NOOP later than any client waits."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return b"" if line[:4].upper() == b"NOOP" else super().handle_command(line)
