"""A server that falls silent."""

from __future__ import annotations

from smtpbench.session.server import ServerSession


class _FallsSilent(ServerSession):
    """A parameter without its value ends whatever answers commands."""

    __slots__ = ()

    def _command(self, line: bytes) -> bytes:
        if self._sender == b"lost":
            return b""
        if line.endswith(b" BODY\r\n"):
            super()._command(line)
            self._sender = b"lost"
            return b"501 5.5.4 Syntax error\r\n"
        return super()._command(line)


MUTANTS: dict[str, type[ServerSession]] = {"health": _FallsSilent}
