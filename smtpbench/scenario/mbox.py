"""Message files that are in mbox format (RFC 4155): a file of one message with an envelope line, or of many.

A message begins with an envelope line, `From sender date`, which belongs to the mailbox and not to the message. A mail tool
strips it before it sends the message. Lines of a message that begin with `From ` are quoted by `>`, and so are lines that
begin with quotes and `From ` (the form `mboxrd`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: An envelope line at the start of a file; some exports quote it.
_FIRST_ENVELOPE = re.compile(rb"(?:>*From [^\r\n]*(?:\r\n|\r|\n))+")
#: An envelope line between two messages: it follows an empty line, and a header field follows it. Prose seldom does that.
_ENVELOPE = re.compile(rb"(?:(?<=\n\n)|(?<=\r\n\r\n))From [^\r\n]*\r?\n(?=[!-9;-~]+:)")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


def messages_in(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a file: its content, or the messages of an mbox file without envelope lines and quoting."""
    envelope = _FIRST_ENVELOPE.match(content)
    if envelope is None:
        yield content
        return
    begin = envelope.end()
    for following in _ENVELOPE.finditer(content, begin):
        yield _QUOTED.sub(rb"\1", _without_separator(content[begin : following.start()]))
        begin = following.end()
    yield _QUOTED.sub(rb"\1", _without_separator(content[begin:]))


def _without_separator(part: bytes) -> bytes:
    """Return a message without the empty line that ends it in an mbox file."""
    for line_end in (b"\r\n", b"\n"):
        if part.endswith(line_end * 2):
            return part[: -len(line_end)]
    return part
