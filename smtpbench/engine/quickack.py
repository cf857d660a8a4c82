"""Sockets whose octets are acknowledged at once (TCP_QUICKACK, `tcp(7)`).

Linux delays acknowledgements by 40 ms where it expects that the program will write soon. A peer that keeps small segments
back until the last ones are acknowledged (Nagle's algorithm) then sends its reply 40 ms late. Linux returns to delaying on
its own after a write, so the option is set again after each read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any


class QuickAckSocket(socket.socket):
    """A TCP socket that acknowledges at once what it reads."""

    def recv(self, *args: Any) -> bytes:
        try:
            return super().recv(*args)
        finally:
            acknowledge_at_once(self)

    def recvmsg(self, *args: Any) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        try:
            return super().recvmsg(*args)
        finally:
            acknowledge_at_once(self)


def acknowledge_at_once(sock: socket.SocketType) -> None:
    """Send the acknowledgement that is due, and do not delay the next."""
    with contextlib.suppress(OSError):  # the connection is gone; the next read reports it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def acknowledging_recv(sock: ssl.SSLSocket) -> Callable[[int], bytes]:
    """Return the `recv` of a TLS socket that acknowledges at once, also what brings no octets, such as session tickets."""

    def recv(size: int) -> bytes:
        try:
            return sock.recv(size)
        finally:
            acknowledge_at_once(sock)

    return recv
