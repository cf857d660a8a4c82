"""Servers that carry something over into TLS."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import rewrites_commands
from smtpbench.smtp import state


class _KeepsPipelinedLines(ServerSession):
    """Answers inside TLS the whole lines that came behind STARTTLS."""

    __slots__ = ()

    def handle_starttls(self) -> bytes:
        behind = self.buffer
        reply = super().handle_starttls()
        self.buffer = behind[: behind.rfind(b"\n") + 1]
        return reply

    def tls_started(self, now_ns: int) -> api.Out:
        super().tls_started(now_ns)
        return self.process_buffer(now_ns)


class _KeepsUnfinishedLine(ServerSession):
    """Keeps the unfinished line that came behind STARTTLS."""

    __slots__ = ()

    def handle_starttls(self) -> bytes:
        behind = self.buffer
        reply = super().handle_starttls()
        self.buffer = behind[behind.rfind(b"\n") + 1 :]
        return reply


class _KeepsState(ServerSession):
    """Keeps EHLO and the envelope across STARTTLS."""

    __slots__ = ()

    def tls_started(self, now_ns: int) -> api.Out:
        at, sender = self.state, self.sender
        out = super().tls_started(now_ns)
        if at in (state.READY, state.MAIL):
            self.state, self.sender = at, sender
        return out


class _OffersStarttlsAgain(ServerSession):
    """Offers STARTTLS inside TLS."""

    __slots__ = ()

    def handle_hello(self, verb: str, argument: bytes) -> bytes:
        reply = super().handle_hello(verb, argument)
        return reply if b"STARTTLS" in reply else reply.replace(b"250-DSN", b"250-STARTTLS\r\n250-DSN")


MUTANTS: dict[str, type[ServerSession]] = {
    "tls-inject": _KeepsPipelinedLines,
    "tls-partial": _KeepsUnfinishedLine,
    "tls-reset": _KeepsState,
    "tls-readvertise": _OffersStarttlsAgain,
    "tls-syntax": rewrites_commands(lambda line: line.replace(b"STARTTLS now", b"STARTTLS")),
}
