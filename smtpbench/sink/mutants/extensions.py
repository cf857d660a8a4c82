"""Servers whose extensions are not what they offer."""

from __future__ import annotations

import re

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import reads, refuses
from smtpbench.smtp import state


class _ReadsAreLines(ServerSession):
    """What comes in one read is a whole line, if it is no text."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self._state not in state.TRANSACTION and not data.endswith(b"\n") and 2 < len(data) < 99:
            data += b"\r\n"
        return super().receive(data, now_ns)


class _ForgetsTheRest(ServerSession):
    """What stands behind the first command of a read is lost."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if data.startswith(b"NOOP\r\nMAIL") and self._state == state.READY:
            data = data.replace(b"NOOP\r\n", b"")
        return super().receive(data, now_ns)


class _LooksIntoChunks(ServerSession):
    """CRLF.CRLF ends a chunk."""

    __slots__ = ()

    def _chunk(self, now_ns: int) -> bytes | None:
        end = self._buffer.find(b"\r\n.\r\n")
        if self._state in state.TRANSACTION and 0 <= end < self._chunk_left and self._chunk_last:
            self._chunk_left = end + 5
        return super()._chunk(now_ns)


class _LeavesChunks(ServerSession):
    """A chunk that is refused is read as commands."""

    __slots__ = ()

    def _bdat(self, argument: bytes) -> bytes:
        if self._state == state.READY:
            return b"503 5.5.1 Bad sequence of commands\r\n"
        return super()._bdat(argument)


class _Mixes(ServerSession):
    """DATA is taken behind BDAT."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line == b"DATA\r\n" and self._state == state.BDAT:
            return self._begin_text()
        return super()._command(line)


class _OffersTime(ServerSession):
    """DELIVERBY with any value."""

    __slots__ = ()

    def _hello(self, verb: str, argument: bytes) -> bytes:
        return super()._hello(verb, argument).replace(b"250-DSN", b"250-DELIVERBY\r\n250-DSN")

    def _command(self, line: bytes) -> bytes:
        return super()._command(re.sub(rb" BY=[^ \r]+", b"", line))


class _AnswersOnce(ServerSession):
    """LMTP with one reply to a message."""

    __slots__ = ()

    def _end_of_text(self) -> bytes:
        reply = super()._end_of_text()
        return reply[: reply.find(b"\n") + 1]


MUTANTS: dict[str, type[ServerSession]] = {
    "advertised-dead": refuses(rb"BDAT 0 LAST", b"502 5.5.1 Not here\r\n"),
    "unadvertised-live": reads(lambda line: line.replace(b" MT-PRIORITY=1", b"")),
    "segmentation": _ReadsAreLines,
    "pipelining": _ForgetsTheRest,
    "bdat-octets": _LooksIntoChunks,
    "bdat-reject": _LeavesChunks,
    "bdat-mix": _Mixes,
    "body-param": refuses(rb"MAIL .* body=8bitmime\r\n", b"501 5.5.4 No\r\n"),
    "smtputf8": reads(lambda line: line.replace(b" SMTPUTF8=x", b"")),
    "dsn-arguments": reads(lambda line: line.replace(b"NOTIFY=NEVER,SUCCESS", b"NOTIFY=NEVER")),
    "rare-parameters": _OffersTime,
    "lmtp": _AnswersOnce,
}
