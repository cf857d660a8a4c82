"""Servers that do nothing wrong in an unusual way, or one thing wrong that looks like another."""

from __future__ import annotations

from smtpbench.session.server import ServerSession

_ANYWHERE_IN_A_GROUP = (b"MAIL", b"RCPT", b"RSET", b"BDAT")


class SynchronizedSession(ServerSession):
    """Closes with 554 when a client does not wait for a reply that it must wait for (RFC 2920 §3.1)."""

    __slots__ = ()

    def handle_command(self, line: bytes) -> bytes:
        if self.buffer and line[:4].upper() not in _ANYWHERE_IN_A_GROUP:
            self.buffer = b""
            return self.close_with(b"554 5.5.0 Synchronization error\r\n")
        return super().handle_command(line)
