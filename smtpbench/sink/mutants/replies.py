"""Servers whose replies are wrong."""

from __future__ import annotations

from collections.abc import Callable

from smtpbench.engine import api
from smtpbench.session.server import ServerSession


def _says(rewrite: Callable[[bytes, bytes], bytes]) -> type[ServerSession]:
    """A session that says rewrite(command line, its own reply)."""

    class Says(ServerSession):
        __slots__ = ()

        def _command(self, line: bytes) -> bytes:
            return rewrite(line, super()._command(line))

    return Says


def _greets(greeting: bytes) -> type[ServerSession]:
    """A session with this greeting."""

    class Greets(ServerSession):
        __slots__ = ()

        def _greet(self, now_ns: int) -> bytes:
            super()._greet(now_ns)
            return greeting

    return Greets


def _to(verb: bytes, reply: Callable[[bytes], bytes]) -> type[ServerSession]:
    """A session that says reply(its own reply) to one verb."""
    return _says(lambda line, own: reply(own) if line[: len(verb)].upper() == verb else own)


class _TurnsAway(ServerSession):
    """554, and the door."""

    __slots__ = ()

    def _greet(self, now_ns: int) -> bytes:
        super()._greet(now_ns)
        self.pending_action = api.LINGER
        return b"554 5.3.2 No service here\r\n"


def _echo(line: bytes, own: bytes) -> bytes:
    return b"500 5.5.2 I do not know " + line if line.startswith(b"XXX") else own


def _echo_octets(line: bytes, own: bytes) -> bytes:
    return b"500 5.5.2 I do not know " + line if line[:1] > b"\x7f" else own


def _echo_names(line: bytes, own: bytes) -> bytes:
    return b"252 2.0.0 Perhaps " + line[5:] if line[:4] == b"VRFY" else own


MUTANTS: dict[str, type[ServerSession]] = {
    "reply-syntax": _to(b"HELP", lambda own: b"214*2.0.0 See elsewhere\r\n"),
    "code-range": _to(b"XYZZY", lambda own: b"600 5.5.1 No\r\n"),
    "multiline-code": _to(b"HELP", lambda own: b"214-2.0.0 See\r\n211 2.0.0 elsewhere\r\n"),
    "unlisted-code": _to(b"XYZZY", lambda own: b"519 5.5.1 No\r\n"),
    "reply-crlf": _to(b"HELP", lambda own: b"214-2.0.0 See\n214 2.0.0 elsewhere\r\n"),
    "reply-512": _says(_echo),
    "reply-ascii": _says(_echo_octets),
    "one-reply": _to(b"EXPN", lambda own: own + b"252 2.0.0 Again\r\n"),
    "greeting": _greets(b"220 *** ready ***\r\n"),
    "helo-plain": _to(b"HELO", lambda own: b"250-sink.example\r\n250 PIPELINING\r\n"),
    "ehlo-grammar": _to(b"EHLO", lambda own: own.replace(b"250-DSN", b"250-X_Y\r\n250-DSN")),
    "enhanced-code": _to(b"EXPN", lambda own: b"252 Cannot expand\r\n"),
    "enhanced-multiline": _to(b"HELP", lambda own: b"214-2.0.0 See\r\n214 2.0.1 elsewhere\r\n"),
    "greet-554": _TurnsAway,
    "utf8-reply": _says(_echo_names),
}
