"""Servers that carry something over into TLS."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.sink.mutants.arguments import reads
from smtpbench.smtp import state


class _KeepsLines(ServerSession):
    """Whole lines behind STARTTLS are carried out inside TLS."""

    __slots__ = ()

    def _starttls(self) -> bytes:
        behind = self._buffer
        reply = super()._starttls()
        self._buffer = behind[: behind.rfind(b"\n") + 1]
        return reply

    def tls_started(self, now_ns: int) -> api.Out:
        super().tls_started(now_ns)
        return self._work(now_ns)


class _KeepsAnUnfinishedLine(ServerSession):
    """What is no whole line is kept."""

    __slots__ = ()

    def _starttls(self) -> bytes:
        behind = self._buffer
        reply = super()._starttls()
        self._buffer = behind[behind.rfind(b"\n") + 1 :]
        return reply


class _Remembers(ServerSession):
    """EHLO and the envelope last."""

    __slots__ = ()

    def tls_started(self, now_ns: int) -> api.Out:
        at, sender = self._state, self._sender
        out = super().tls_started(now_ns)
        if at in (state.READY, state.MAIL):
            self._state, self._sender = at, sender
        return out


class _OffersAgain(ServerSession):
    """STARTTLS is offered for ever."""

    __slots__ = ()

    def _hello(self, verb: str, argument: bytes) -> bytes:
        reply = super()._hello(verb, argument)
        return reply if b"STARTTLS" in reply else reply.replace(b"250-DSN", b"250-STARTTLS\r\n250-DSN")


MUTANTS: dict[str, type[ServerSession]] = {
    "tls-inject": _KeepsLines,
    "tls-partial": _KeepsAnUnfinishedLine,
    "tls-reset": _Remembers,
    "tls-readvertise": _OffersAgain,
    "tls-syntax": reads(lambda line: line.replace(b"STARTTLS now", b"STARTTLS")),
}
