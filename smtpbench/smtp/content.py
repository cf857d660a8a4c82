"""Message content: the octets between DATA and the final dot (RFC 5321 §4.1.1.4, §4.5.2; RFC 5322)."""

from __future__ import annotations

import re

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT_LINE = re.compile(rb"^\.", re.MULTILINE)

#: What ends the data: a line with nothing but a dot.
END_OF_DATA = b".\r\n"


def normalise_line_ends(content: bytes) -> bytes:
    """Return content in which every CR, LF and CRLF is CRLF and the last line ends in one (RFC 5321 §2.3.8)."""
    content = _ANY_LINE_END.sub(b"\r\n", content)
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def stuff_dots(content: bytes) -> bytes:
    """Return content with one more dot before each line that begins with a dot (RFC 5321 §4.5.2). Lines end in CRLF."""
    return _DOT_LINE.sub(b"..", content) if b"." in content else content


def unstuff_dots(content: bytes) -> bytes:
    """Return content as it was before `stuff_dots`."""
    return re.sub(rb"(?:^|(?<=\r\n))\.", b"", content)


def header(name: str, value: str) -> bytes:
    """Return one header field, CRLF included. Raises ValueError if the name is invalid or the value contains a line end."""
    if not re.fullmatch(r"[!-9;-~]+", name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if "\r" in value or "\n" in value:
        raise ValueError(f"the value of {name} contains a line end")
    return f"{name}: {value}\r\n".encode()
