"""Servers that are wrong about the end of a message."""

from __future__ import annotations

import re

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.smtp import state


def _ends_text_at(pattern: bytes) -> type[ServerSession]:
    """Return a session class that takes the pattern for the end of the data."""
    ending = re.compile(pattern, re.DOTALL)

    class EndsTextAt(ServerSession):
        __slots__ = ()

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            if self.state == state.DATA:
                data = ending.sub(b"\r\n.\r\n", data, count=1)
            return super().receive(data, now_ns)

    return EndsTextAt


class _UnstuffsBeforeEnd(ServerSession):
    """Takes a read of two dots for the end of the data."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self.state == state.DATA and data == b"..\r\n":
            data = b".\r\n"
        return super().receive(data, now_ns)


class _NoEmptyText(ServerSession):
    """Takes a dot for the end of the data only behind a line of text."""

    __slots__ = ()

    def begin_text(self) -> bytes:
        reply = super().begin_text()
        self.text_tail = b""
        return reply


MUTANTS: dict[str, type[ServerSession]] = {
    "eod-lf-lf": _ends_text_at(rb"(?<!\r)\n\.\n"),
    "eod-lf-crlf": _ends_text_at(rb"(?<!\r)\n\.\r\n"),
    "eod-crlf-lf": _ends_text_at(rb"\r\n\.\n"),
    "eod-cr": _ends_text_at(rb"\r\.\r(?!\n)"),
    "eod-odd": _ends_text_at(rb"\r\n\.\0\r\n"),
    "data-desync": _UnstuffsBeforeEnd,
    "empty-message": _NoEmptyText,
}
