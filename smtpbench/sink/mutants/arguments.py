"""Servers that read arguments wrong, or set limits too low, or none."""

from __future__ import annotations

import re
from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session import server
from smtpbench.session.server import ServerSession
from smtpbench.smtp import state
from smtpbench.smtp.command import MESSAGE_BYTES, RECIPIENTS


def reads(rewrite: Callable[[bytes], bytes]) -> type[ServerSession]:
    """A session that reads another line than was said."""

    class Reads(ServerSession):
        __slots__ = ()

        def _command(self, line: bytes) -> bytes:
            return super()._command(rewrite(line))

    return Reads


def refuses(pattern: bytes, reply: bytes) -> type[ServerSession]:
    """A session that refuses lines that match."""
    wrong = re.compile(pattern, re.DOTALL)

    class Refuses(ServerSession):
        __slots__ = ()

        def _command(self, line: bytes) -> bytes:
            return reply if wrong.match(line) else super()._command(line)

    return Refuses


def _refuses_texts(pattern: bytes, reply: bytes) -> type[ServerSession]:
    """A session that refuses a text in one read that matches."""
    wrong = re.compile(pattern, re.DOTALL)

    class RefusesTexts(ServerSession):
        __slots__ = ()

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            mine = self._state == state.DATA and wrong.search(self._buffer + data) is not None
            out = super().receive(data, now_ns)
            return reply if mine and out else out

    return RefusesTexts


class _Bottomless(ServerSession):
    """A line is kept, however long it is."""

    __slots__ = ()

    max_line_bytes = 1 << 62

    def _command(self, line: bytes) -> bytes:
        if len(line) > server.MAX_LINE_BYTES:
            line = re.sub(rb" {9,}", b"" if line[:4] == b"MAIL" else b" ", line)
        return super()._command(line)


class _InterruptsTexts(ServerSession):
    """Too much is refused as soon as it is too much, and the end of the data is not answered."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        before = self._octets
        out = super().receive(data, now_ns)
        limit_bytes = self._service.size_bytes
        if self._state == state.DATA and before <= limit_bytes < self._octets:
            return b"552 5.3.4 Message too big\r\n"
        return b"" if out == b"552 5.3.4 Message too big\r\n" else out


class _EndsAtSize(ServerSession):
    """A text ends where its SIZE said, or at its dot; the rest is commands."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        reply = super()._command(line)
        if b"SIZE=60" in line:
            self._utf8 = True  # a note to itself: nothing else here sets it without SMTPUTF8
        return reply

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self._state == state.DATA and self._utf8:
            data = data[:60] + b"\r\n.\r\n" + data[60:]
        return super().receive(data, now_ns)


class _TooSmall(ServerSession):
    """A limit below the one that all must keep."""

    __slots__ = ()

    def _settle(self, size_bytes: int, *, stuffed: bool) -> bytes:
        reply = super()._settle(size_bytes, stuffed=stuffed)
        return b"552 5.3.4 Message too big\r\n" if MESSAGE_BYTES <= size_bytes < MESSAGE_BYTES + 100 else reply


class _FewRecipients(ServerSession):
    """Fewer recipients than a server must take."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if line[:4] == b"RCPT" and len(self._recipients) >= RECIPIENTS // 2:
            return b"452 4.5.3 Too many recipients\r\n"
        return super()._command(line)


class _OddSize(ServerSession):
    """SIZE with a unit."""

    __slots__ = ()

    def _hello(self, verb: str, argument: bytes) -> bytes:
        return re.sub(rb"SIZE [0-9]+", b"SIZE 100k", super()._hello(verb, argument))


class _TakesAnySize(ServerSession):
    """What SIZE declares is ignored."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        return super()._command(re.sub(rb" SIZE=100001\b", b" SIZE=1", line))


MUTANTS: dict[str, type[ServerSession]] = {
    "null-sender": refuses(rb"MAIL FROM:<>\r\n", b"550 5.7.1 Say who you are\r\n"),
    "postmaster": refuses(rb"RCPT TO:<Postmaster>\r\n", b"501 5.1.3 Bad address\r\n"),
    "path-brackets": reads(lambda line: re.sub(rb"^(MAIL FROM:)([^<>\r ]+@[^<>\r ]+)\r\n", rb"\1<\2>\r\n", line)),
    "control-octet": reads(lambda line: re.sub(rb"[\x00-\x08]", b"", line) if line[:4] == b"MAIL" else line),
    "bad-param-555": reads(lambda line: line.replace(b" FOO=1", b"")),
    "command-512": refuses(rb"NOOP .{480,}", b"500 5.5.2 Too long\r\n"),
    "min-sizes": refuses(rb"MAIL FROM:<l{64}", b"501 5.1.7 Too long\r\n"),
    "text-1000": _refuses_texts(rb"\nx{998}\r", b"554 5.6.0 Line too long\r\n"),
    "message-64K": _TooSmall,
    "rcpt-100": _FewRecipients,
    "literal": refuses(rb"MAIL FROM:<a@\[", b"501 5.1.7 No literals\r\n"),
    "source-route": refuses(rb"MAIL FROM:<@[^>]", b"501 5.1.7 No routes\r\n"),
    "overlong-resync": _Bottomless,
    "lf-command": reads(lambda line: b"NOOP\r\n" if line == b"NOOP\n" else line),
    "oversize-clean": _InterruptsTexts,
    "size-argument": _OddSize,
    "size-552": _TakesAnySize,
    "size-framing": _EndsAtSize,
}
