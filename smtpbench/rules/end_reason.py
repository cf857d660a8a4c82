"""Why a connection ended, in words."""

from __future__ import annotations

from smtpbench.engine import api

_END_TEXTS = {
    api.CONNECT_REFUSED: "connection refused",
    api.CONNECT_TIMEOUT: "connection timed out",
    api.CONNECT_FAILED: "connection failed",
    api.NO_DESCRIPTORS: "too many open files",
    api.NO_PORTS: "no free local port",
    api.TLS_FAILED: "TLS handshake failed",
    api.CLOSED: "the server closed the connection",
    api.CONNECTION_RESET: "the server reset the connection",
    api.TIMEOUT: "no reply in time",
    api.ENDED: "the session ended",
}


def describe_end(end_reason: str) -> str:
    """Return why a connection ended, in words."""
    return _END_TEXTS.get(end_reason, end_reason)
