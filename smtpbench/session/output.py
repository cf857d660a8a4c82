"""Outputs of a session joined from several writes, and replies as text for the recorder."""

from __future__ import annotations

from smtpbench.engine import api
from smtpbench.smtp.reply import Reply


def segments(out: api.Out) -> list[bytes]:
    """Return the segments of an output, each a write of its own."""
    if isinstance(out, list):
        return out
    if isinstance(out, tuple):
        return [b"".join(out)]
    return [out] if out else []


def joined(outs: list[bytes], last: api.Out = b"") -> api.Out:
    """Return several writes as one output: a single one as it is, more as a list of segments."""
    if not outs:
        return last
    outs = outs + segments(last)
    return outs[0] if len(outs) == 1 else outs


def reply_text(reply: Reply) -> str:
    """Return a reply as text. It is not escaped."""
    return decoded(reply.raw)


def decoded(raw: bytes) -> str:
    """Return the first 200 octets as text. It is not escaped."""
    return raw[:200].decode("utf-8", "surrogateescape").rstrip("\r\n")
