"""Servers whose replies break the grammar or the conventions."""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session.server import ServerSession


def _rewrites_replies(rewrite: Callable[[bytes, bytes], bytes]) -> type[ServerSession]:
    """Return a session class that answers `rewrite(command line, reply)` in place of each reply."""

    class RewritesReplies(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            return rewrite(line, super().handle_command(line))

    return RewritesReplies


def _rewrites_reply_to(verb: bytes, rewrite: Callable[[bytes], bytes]) -> type[ServerSession]:
    """Return a session class that answers `rewrite(reply)` to one verb."""
    return _rewrites_replies(lambda line, reply: rewrite(reply) if line[: len(verb)].upper() == verb else reply)


def _greets_with(greeting: bytes) -> type[ServerSession]:
    """Return a session class with this greeting."""

    class GreetsWith(ServerSession):
        __slots__ = ()

        def greet(self, now_ns: int) -> bytes:
            super().greet(now_ns)
            return greeting

    return GreetsWith


class _ClosesAfter554(ServerSession):
    """Greets with 554 and closes the connection."""

    __slots__ = ()

    def greet(self, now_ns: int) -> bytes:
        super().greet(now_ns)
        self.pending_action = api.LINGER
        return b"554 5.3.2 No service here\r\n"


def _echo_line(line: bytes, reply: bytes) -> bytes:
    return b"500 5.5.2 Not recognised: " + line if line.startswith(b"XXX") else reply


def _echo_octets(line: bytes, reply: bytes) -> bytes:
    return b"500 5.5.2 Not recognised: " + line if line[:1] > b"\x7f" else reply


def _echo_name(line: bytes, reply: bytes) -> bytes:
    return b"252 2.0.0 User " + line[5:] if line[:4] == b"VRFY" else reply


MUTANTS: dict[str, type[ServerSession]] = {
    "reply-syntax": _rewrites_reply_to(b"HELP", lambda reply: b"214*2.0.0 See elsewhere\r\n"),
    "code-range": _rewrites_reply_to(b"XYZZY", lambda reply: b"600 5.5.1 No\r\n"),
    "multiline-code": _rewrites_reply_to(b"HELP", lambda reply: b"214-2.0.0 See\r\n211 2.0.0 elsewhere\r\n"),
    "unlisted-code": _rewrites_reply_to(b"XYZZY", lambda reply: b"519 5.5.1 No\r\n"),
    "reply-crlf": _rewrites_reply_to(b"HELP", lambda reply: b"214-2.0.0 See\n214 2.0.0 elsewhere\r\n"),
    "reply-512": _rewrites_replies(_echo_line),
    "reply-ascii": _rewrites_replies(_echo_octets),
    "one-reply": _rewrites_reply_to(b"EXPN", lambda reply: reply + b"252 2.0.0 Again\r\n"),
    "greeting": _greets_with(b"220 *** ready ***\r\n"),
    "helo-plain": _rewrites_reply_to(b"HELO", lambda reply: b"250-sink.example\r\n250 PIPELINING\r\n"),
    "ehlo-grammar": _rewrites_reply_to(b"EHLO", lambda reply: reply.replace(b"250-DSN", b"250-X_Y\r\n250-DSN")),
    "enhanced-code": _rewrites_reply_to(b"EXPN", lambda reply: b"252 Cannot expand\r\n"),
    "enhanced-multiline": _rewrites_reply_to(b"HELP", lambda reply: b"214-2.0.0 See\r\n214 2.0.1 elsewhere\r\n"),
    "greet-554": _ClosesAfter554,
    "utf8-reply": _rewrites_replies(_echo_name),
}
