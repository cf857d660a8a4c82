"""Message content: the octets between DATA and the final dot (RFC 5321 §4.1.1.4, §4.5.2; RFC 5322)."""

from __future__ import annotations

import re

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT_LINE = re.compile(rb"^\.", re.MULTILINE)

#: What ends the data: a line with nothing but a dot.
END_OF_DATA = b".\r\n"


def normalise_line_ends(content: bytes) -> bytes:
    """Every CR, LF and CRLF becomes CRLF, and the last line gets one (RFC 5321 §2.3.8)."""
    content = _ANY_LINE_END.sub(b"\r\n", content)
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def stuff_dots(content: bytes) -> bytes:
    """A dot more before each line that begins with one (RFC 5321 §4.5.2). Lines must end in CRLF."""
    return _DOT_LINE.sub(b"..", content) if b"." in content else content


def unstuff_dots(content: bytes) -> bytes:
    """The inverse of `stuff_dots`."""
    return re.sub(rb"(?:^|(?<=\r\n))\.", b"", content)


def header(name: str, value: str) -> bytes:
    """One header field, CRLF included. Raises ValueError for a name or value that would break out of it."""
    if not re.fullmatch(r"[!-9;-~]+", name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if "\r" in value or "\n" in value:
        raise ValueError(f"the value of {name} holds a line end")
    return f"{name}: {value}\r\n".encode()
