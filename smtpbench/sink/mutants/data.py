"""Servers that are wrong about where a message ends."""

from __future__ import annotations

import re

from smtpbench.engine import api
from smtpbench.session.server import ServerSession
from smtpbench.smtp import state


def _ends_at(pattern: bytes) -> type[ServerSession]:
    """A session that takes the pattern for the end of the data."""
    ending = re.compile(pattern, re.DOTALL)

    class Ends(ServerSession):
        __slots__ = ()

        def receive(self, data: bytes, now_ns: int) -> api.Out:
            if self._state == state.DATA:
                data = ending.sub(b"\r\n.\r\n", data, count=1)
            return super().receive(data, now_ns)

    return Ends


class _LosesItsPlace(ServerSession):
    """Two dots at the head of a read are taken for one."""

    __slots__ = ()

    def receive(self, data: bytes, now_ns: int) -> api.Out:
        if self._state == state.DATA and data == b"..\r\n":
            data = b".\r\n"
        return super().receive(data, now_ns)


class _SwallowsTheDot(ServerSession):
    """A dot is the end of the data only behind a line of text."""

    __slots__ = ()

    def _begin_text(self) -> bytes:
        reply = super()._begin_text()
        self._tail = b""
        return reply


MUTANTS: dict[str, type[ServerSession]] = {
    "eod-lf-lf": _ends_at(rb"(?<!\r)\n\.\n"),
    "eod-lf-crlf": _ends_at(rb"(?<!\r)\n\.\r\n"),
    "eod-crlf-lf": _ends_at(rb"\r\n\.\n"),
    "eod-cr": _ends_at(rb"\r\.\r(?!\n)"),
    "eod-odd": _ends_at(rb"\r\n\.\0\r\n"),
    "data-desync": _LosesItsPlace,
    "empty-message": _SwallowsTheDot,
}
