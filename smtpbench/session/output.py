"""What a session hands out: writes put together, and the server's words for the book."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.smtp.reply import Reply


def segments(out: api.Out) -> list[bytes]:
    """The writes of what a session returns, each a segment of its own."""
    if isinstance(out, list):
        return out
    if isinstance(out, tuple):
        return [b"".join(out)]
    return [out] if out else []


def joined(outs: list[bytes], last: api.Out = b"") -> api.Out:
    """Several writes as the engine takes them: one stays what it is, more are segments of their own."""
    if not outs:
        return last
    outs = outs + segments(last)
    return outs[0] if len(outs) == 1 else outs


def text(reply: Reply) -> str:
    """A reply for the book; what shows it escapes it."""
    return visible(reply.raw)


def visible(raw: bytes) -> str:
    """The first 200 octets as text; what shows them escapes them."""
    return raw[:200].decode("utf-8", "surrogateescape").rstrip("\r\n")
