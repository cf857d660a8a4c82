"""A server whose replies look like those of a real one, for `make bench`: `python -m bench.replies STYLE PORT`.

It is the sink with other texts: queue ids that never repeat, addresses in the replies, and a reply to EHLO of several lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import trio

from smtpbench.session.server import ServerSession
from smtpbench.session.server_context import ServerContext
from smtpbench.sink.serve import serve
from smtpbench.smtp import state


class Style(NamedTuple):
    """Texts of one server's replies.

    Attributes:
        extensions: Lines of the reply to EHLO, without the first.
        mail, rcpt: Reply to MAIL and to RCPT, given the mailbox.
        data: Reply to DATA.
        accepted: Reply to a message, given its number.
    """

    extensions: tuple[bytes, ...]
    mail: Callable[[bytes], bytes]
    rcpt: Callable[[bytes], bytes]
    data: bytes
    accepted: Callable[[int], bytes]


_POSTFIX_EXTENSIONS = (
    b"PIPELINING",
    b"SIZE 10240000",
    b"VRFY",
    b"ETRN",
    b"ENHANCEDSTATUSCODES",
    b"8BITMIME",
    b"DSN",
    b"CHUNKING",
)
_SCRAMBLE = 0x9E3779B97F4A7C15  # spreads consecutive numbers over all digits, as random ids do

STYLES = {
    "postfix": Style(
        (*_POSTFIX_EXTENSIONS, b"SMTPUTF8"),
        lambda mailbox: b"250 2.1.0 Ok\r\n",
        lambda mailbox: b"250 2.1.5 Ok\r\n",
        b"354 End data with <CR><LF>.<CR><LF>\r\n",
        lambda number: b"250 2.0.0 Ok: queued as 4Xk3Zq%07dz7X\r\n" % number,
    ),
    "exim": Style(
        (b"SIZE 52428800", b"8BITMIME", b"PIPELINING", b"PIPECONNECT", b"CHUNKING", b"PRDR", b"HELP"),
        lambda mailbox: b"250 OK\r\n",
        lambda mailbox: b"250 Accepted\r\n",
        b'354 Enter message, ending with "." on a line by itself\r\n',
        lambda number: b"250 OK id=1tFwXq-%010d-1abc\r\n" % number,
    ),
    "echo": Style(  # as Sendmail and OpenSMTPD do
        (b"ENHANCEDSTATUSCODES", b"PIPELINING", b"8BITMIME", b"SIZE", b"DSN", b"DELIVERBY", b"HELP"),
        lambda mailbox: b"250 2.1.0 <%s>... Sender ok\r\n" % mailbox,
        lambda mailbox: b"250 2.1.5 <%s>... Recipient ok\r\n" % mailbox,
        b'354 Enter mail, end with "." on a line by itself\r\n',
        lambda number: b"250 2.0.0 %016x Message accepted for delivery\r\n" % (number * _SCRAMBLE % 2**64),
    ),
}


def session_class(style: Style) -> type[ServerSession]:
    """Return the class of sessions that reply in a style."""
    numbers = count()
    hello = b"".join(b"250-" + line + b"\r\n" for line in (b"mail.server.example", *style.extensions[:-1]))
    hello += b"250 " + style.extensions[-1] + b"\r\n"

    class RepliesInStyle(ServerSession):
        __slots__ = ()

        def handle_command(self, line: bytes) -> bytes:
            reply = super().handle_command(line)
            verb = line[:4].upper()
            if verb == b"MAIL" and self.state == state.MAIL:
                return style.mail(self.sender)
            if verb == b"RCPT" and self.state == state.RCPT:
                return style.rcpt(self.recipients[-1])
            return hello if verb == b"EHLO" else reply

        def begin_text(self) -> bytes:
            super().begin_text()
            return style.data

        def complete_message(self, size_bytes: int, *, dot_stuffed: bool) -> bytes:
            super().complete_message(size_bytes, dot_stuffed=dot_stuffed)
            return style.accepted(next(numbers))

    return RepliesInStyle


def main() -> None:
    style, port = STYLES[sys.argv[1]], sys.argv[2]
    trio.run(
        lambda: serve(
            ServerContext(),
            [f"127.0.0.1:{port}"],
            tls=None,
            max_connections=None,
            duration_ns=None,
            authorized=False,
            on_ready=lambda names: None,
            session_class=session_class(style),
        )
    )


if __name__ == "__main__":
    main()
