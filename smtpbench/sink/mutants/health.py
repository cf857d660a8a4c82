"""A server that stops answering."""

from __future__ import annotations

from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext


class _StopsAnswering(ServerSession):
    """Answers no command of a session any more after a parameter without its value."""

    __slots__ = ("_hanging",)

    def __init__(self, context: ServerContext) -> None:
        super().__init__(context)
        self._hanging = False

    def handle_command(self, line: bytes) -> bytes:
        if self._hanging:
            return b""
        reply = super().handle_command(line)
        if not line.endswith(b" BODY\r\n"):
            return reply
        self._hanging = True
        return b"501 5.5.4 Syntax error\r\n"


MUTANTS: dict[str, type[ServerSession]] = {"health": _StopsAnswering}
