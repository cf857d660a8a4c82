"""Servers that misread arguments, or whose limits are too low or missing."""

from __future__ import annotations

import re
from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session import server
from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.smtp import state
from smtpbench.smtp.command import MESSAGE_BYTES, RECIPIENTS

_TOO_BIG = b"552 5.3.4 Message too big\r\n"


def rewrites_commands(rewrite: Callable[[bytes], bytes]) -> type[ServerSession]:
    """Return a session class that answers `rewrite(line)` in place of each command line."""

    class RewritesCommands(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return super().handle_command(rewrite(line))

    return RewritesCommands


def refuses_commands(pattern: bytes, reply: bytes) -> type[ServerSession]:
    """Return a session class that gives this reply to command lines that match the pattern."""
    refused = re.compile(pattern, re.DOTALL)

    class RefusesCommands(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return reply if refused.match(line) else super().handle_command(line)

    return RefusesCommands


def _refuses_texts(pattern: bytes, reply: bytes) -> type[ServerSession]:
    """Return a session class that gives this reply to texts that match the pattern within one read."""
    refused = re.compile(pattern, re.DOTALL)

    class RefusesTexts(ServerSession):
        __slots__ = ()

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            matches = self.state == state.DATA and refused.search(self.buffer + data) is not None
            out = super().receive(data, now_ns)
            return reply if matches and out else out

    return RefusesTexts


class _UnlimitedLines(ServerSession):
    """Accepts command lines of any length."""

    __slots__ = ()

    max_line_bytes = 1 << 62

    def handle_command(self, line: bytes) -> bytes:
        if len(line) > server.MAX_LINE_BYTES:
            line = re.sub(rb" {9,}", b"" if line[:4] == b"MAIL" else b" ", line)
        return super().handle_command(line)


class _RefusesInsideText(ServerSession):
    """Refuses a text as soon as it is too big, and does not answer its end."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        before = self.content_bytes
        out = super().receive(data, now_ns)
        limit_bytes = self.context.size_bytes
        if self.state == state.DATA and before <= limit_bytes < self.content_bytes:
            return _TOO_BIG
        return b"" if out == _TOO_BIG else out


class _EndsTextAtSize(ServerSession):
    """Ends a text after the octets that SIZE declared, and reads the rest as commands."""

    __slots__ = ("_size_declared",)

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self._size_declared = False

    def handle_command(self, line: bytes) -> bytes:
        self._size_declared = self._size_declared or b"SIZE=60" in line
        return super().handle_command(line)

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.state == state.DATA and self._size_declared:
            data = data[:60] + b"\r\n.\r\n" + data[60:]
        return super().receive(data, now_ns)


class _SmallMessageLimit(ServerSession):
    """Refuses messages of a size that every server must accept."""

    __slots__ = ()

    def complete_message(self, size_bytes: int, *, dot_stuffed: bool) -> bytes:
        reply = super().complete_message(size_bytes, dot_stuffed=dot_stuffed)
        return _TOO_BIG if MESSAGE_BYTES <= size_bytes < MESSAGE_BYTES + 100 else reply


class _FewRecipients(ServerSession):
    """Accepts fewer recipients than every server must accept."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if line[:4] == b"RCPT" and len(self.recipients) >= RECIPIENTS // 2:
            return b"452 4.5.3 Too many recipients\r\n"
        return super().handle_command(line)


class _SizeWithUnit(ServerSession):
    """Offers SIZE with a unit."""

    __slots__ = ()

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        return re.sub(rb"SIZE [0-9]+", b"SIZE 100k", super().handle_hello(verb, argument))


class _IgnoresDeclaredSize(ServerSession):
    """Ignores the size that MAIL declares."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        return super().handle_command(re.sub(rb" SIZE=100001\b", b" SIZE=1", line))


MUTANTS: dict[str, type[ServerSession]] = {
    "null-sender": refuses_commands(rb"MAIL FROM:<>\r\n", b"550 5.7.1 Sender address required\r\n"),
    "postmaster": refuses_commands(rb"RCPT TO:<Postmaster>\r\n", b"501 5.1.3 Bad address\r\n"),
    "path-brackets": rewrites_commands(
        lambda line: re.sub(rb"^(MAIL FROM:)([^<>\r ]+@[^<>\r ]+)\r\n", rb"\1<\2>\r\n", line)
    ),
    "control-octet": rewrites_commands(lambda line: re.sub(rb"[\x00-\x08]", b"", line) if line[:4] == b"MAIL" else line),
    "bad-param-555": rewrites_commands(lambda line: line.replace(b" FOO=1", b"")),
    "command-512": refuses_commands(rb"NOOP .{480,}", b"500 5.5.2 Too long\r\n"),
    "min-sizes": refuses_commands(rb"MAIL FROM:<l{64}", b"501 5.1.7 Too long\r\n"),
    "text-1000": _refuses_texts(rb"\nx{998}\r", b"554 5.6.0 Line too long\r\n"),
    "message-64K": _SmallMessageLimit,
    "rcpt-100": _FewRecipients,
    "literal": refuses_commands(rb"MAIL FROM:<a@\[", b"501 5.1.7 Address literals are not accepted\r\n"),
    "source-route": refuses_commands(rb"MAIL FROM:<@[^>]", b"501 5.1.7 Source routes are not accepted\r\n"),
    "overlong-resync": _UnlimitedLines,
    "lf-command": rewrites_commands(lambda line: b"NOOP\r\n" if line == b"NOOP\n" else line),
    "oversize-clean": _RefusesInsideText,
    "size-argument": _SizeWithUnit,
    "size-552": _IgnoresDeclaredSize,
    "size-framing": _EndsTextAtSize,
}
