"""Lines of a SASL exchange: base64 and its limits (RFC 4954 §4)."""

from __future__ import annotations

import base64
import binascii
from typing import Final

#: The longest line of an exchange, CRLF included (RFC 4954 §4).
MAX_LINE_BYTES: Final = 12_288


def decode_line(line: bytes) -> bytes | None:
    """Return the octets that a base64 line stands for; None if it is not base64 (RFC 4954 §4: 501)."""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None


def encode_line(data: bytes) -> bytes:
    """Return octets as a base64 line, without its CRLF."""
    return base64.b64encode(data)
