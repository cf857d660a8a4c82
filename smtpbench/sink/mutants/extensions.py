"""Servers whose extensions do not work as offered."""

from __future__ import annotations

import re

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import refuses_commands, rewrites_commands
from smtpbench.smtp import state


class _ReadIsWholeLine(ServerSession):
    """Takes one read outside a transaction for a whole command line."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.state not in state.TRANSACTION and not data.endswith(b"\n") and 2 < len(data) < 99:
            data += b"\r\n"
        return super().receive(data, now_ns)


class _LosesPipelinedCommand(ServerSession):
    """Answers one command less than a read contains."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if data.startswith(b"RSET\r\nMAIL") and self.state == state.READY:
            data = data.removeprefix(b"RSET\r\n")
        return super().receive(data, now_ns)


class _EndsChunkAtDot(ServerSession):
    """Takes CRLF.CRLF inside a chunk for its end."""

    __slots__ = ()

    def read_chunk(self, now_ns: int) -> bytes | None:
        end = self.buffer.find(b"\r\n.\r\n")
        if self.state in state.TRANSACTION and 0 <= end < self.chunk_left and self.chunk_is_last:
            self.chunk_left = end + 5
        return super().read_chunk(now_ns)


class _ReadsRefusedChunk(ServerSession):
    """Reads a refused chunk as commands."""

    __slots__ = ()

    def handle_bdat(self, argument: bytes) -> bytes:
        if self.state == state.READY:
            return b"503 5.5.1 Bad sequence of commands\r\n"
        return super().handle_bdat(argument)


class _DataAfterBdat(ServerSession):
    """Accepts DATA after BDAT."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line == b"DATA\r\n" and self.state == state.BDAT:
            return self.begin_text()
        return super().handle_command(line)


class _AnyDeliverBy(ServerSession):
    """Offers DELIVERBY and accepts any value of BY."""

    __slots__ = ()

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        return super().handle_hello(verb, argument).replace(b"250-DSN", b"250-DELIVERBY\r\n250-DSN")

    def handle_command(self, line: bytes) -> bytes:
        return super().handle_command(re.sub(rb" BY=[^ \r]+", b"", line))


class _OneReplyForAllRecipients(ServerSession):
    """Answers an LMTP message once, whatever the number of recipients."""

    __slots__ = ()

    def complete_message(self, size_bytes: int, *, dot_stuffed: bool) -> bytes:
        reply = super().complete_message(size_bytes, dot_stuffed=dot_stuffed)
        return reply[: reply.find(b"\n") + 1]


MUTANTS: dict[str, type[ServerSession]] = {
    "advertised-dead": refuses_commands(rb"BDAT 0 LAST", b"502 5.5.1 Command not implemented\r\n"),
    "unadvertised-live": rewrites_commands(lambda line: line.replace(b" MT-PRIORITY=1", b"")),
    "segmentation": _ReadIsWholeLine,
    "pipelining": _LosesPipelinedCommand,
    "bdat-octets": _EndsChunkAtDot,
    "bdat-reject": _ReadsRefusedChunk,
    "bdat-mix": _DataAfterBdat,
    "body-param": refuses_commands(rb"MAIL .* body=8bitmime\r\n", b"501 5.5.4 Bad value of BODY\r\n"),
    "smtputf8": rewrites_commands(lambda line: line.replace(b" SMTPUTF8=x", b"")),
    "dsn-arguments": rewrites_commands(lambda line: line.replace(b"NOTIFY=NEVER,SUCCESS", b"NOTIFY=NEVER")),
    "rare-parameters": _AnyDeliverBy,
    "lmtp": _OneReplyForAllRecipients,
}
