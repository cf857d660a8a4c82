"""Command lines as a server reads them: what each parses to, whatever the state of the session.

Theory of operation
===================

A client sends the same few lines again and again: EHLO, DATA, and often the same addresses. A `CommandLineCache` keeps what
lines parsed to. What a session makes of a line depends on the session's state and is never kept.

A line that is not in the cache is matched with the common forms of MAIL and RCPT first. These are a part of the grammar in
`smtp.command`, which parses all other lines. So addresses that never repeat cost little too.

The cache is bounded in lines and in octets. While it is full, it takes no line. After `_MISSES_BETWEEN_CLEARS` lines that it
did not have, it is cleared and takes lines anew. So lines that never repeat do not make it grow, and most of them do not
cost the storing.
"""

from __future__ import annotations

import re

from smtpbench.smtp import command as c
from smtpbench.smtp.command import Refusal

#: What a line parses to: the verb in upper case (empty for a refused line), the mailbox of a well-formed MAIL or RCPT in
#: ASCII (else None), the size that MAIL declares, whether it requests SMTPUTF8, the argument (empty beside a mailbox), and
#: the refusal of a line that is no command.
CommandLine = tuple[str, bytes | None, int, bool, bytes, Refusal | None]

#: Longer lines are not cached: the longest that every server accepts (RFC 5321 §4.5.3.1.4).
_MAX_CACHED_BYTES = c.COMMAND_LINE_BYTES
#: Room of the cache. A line takes its own length and `_ENTRY_BYTES`: 1024 lines at most.
_ROOM_BYTES = 192 * 1024
_ENTRY_BYTES = 192
_MISSES_BETWEEN_CLEARS = 8192

# The common forms. In a line this short no local part, label or domain is too long (RFC 5321 §4.5.3.1, RFC 1035 §2.3.4).
_MAX_COMMON_BYTES = 77
_R = ord("R")
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_WORD = rb"[A-Za-z0-9]++"
_MAILBOX = rb"<(" + _ATOM + rb"(?:\." + _ATOM + rb")*+@" + _WORD + rb"(?:[.-]" + _WORD + rb")*+)>"
_common_mail = re.compile(
    rb"MAIL FROM:" + _MAILBOX + rb"(?: SIZE=([0-9]{1,20}+))?+(?: BODY=(?:8BITMIME|7BIT))?+\r\n"
).fullmatch
_common_rcpt = re.compile(rb"RCPT TO:" + _MAILBOX + rb"\r\n").fullmatch


class CommandLineCache:
    """What the command lines of all sessions parsed to.

    Attributes:
        get: Returns what a line parsed to if it is in the cache, else None.
    """

    __slots__ = ("_lines", "_misses_left", "_room_bytes", "get")

    def __init__(self) -> None:
        self._lines: dict[bytes, CommandLine] = {}
        self._room_bytes = _ROOM_BYTES
        self._misses_left = _MISSES_BETWEEN_CLEARS
        self.get = self._lines.get

    def __len__(self) -> int:
        return len(self._lines)

    def parse(self, line: bytes) -> CommandLine:
        """Return what a line that is not in the cache parses to, line end included; cache it if there is room."""
        parsed: CommandLine | None = None
        if 1 < len(line) <= _MAX_COMMON_BYTES:
            if line[0] == _R:
                if match := _common_rcpt(line):
                    parsed = ("RCPT", match[1], 0, False, b"", None)
            elif match := _common_mail(line):
                parsed = ("MAIL", match[1], int(match[2] or 0), False, b"", None)
        if parsed is None:
            parsed = _parse(line)
        if self._misses_left:
            self._misses_left -= 1
        else:
            self._lines.clear()
            self._room_bytes = _ROOM_BYTES
            self._misses_left = _MISSES_BETWEEN_CLEARS
        if self._room_bytes > 0 and len(line) <= _MAX_CACHED_BYTES:
            self._room_bytes -= len(line) + _ENTRY_BYTES
            self._lines[line] = parsed
        return parsed


def _parse(line: bytes) -> CommandLine:
    parsed = c.parse_line(line)
    if isinstance(parsed, Refusal):
        return "", None, 0, False, b"", parsed
    verb, argument = parsed
    # whether a RCPT with other characters is accepted depends on the transaction's MAIL
    if verb == "MAIL" and argument.isascii():
        mail = c.parse_mail(argument, c.MAIL_PARAMETERS)
        if not isinstance(mail, Refusal):
            return verb, mail.path.mailbox, mail.size_bytes, mail.utf8, b"", None
    elif verb == "RCPT" and argument.isascii():
        rcpt = c.parse_rcpt(argument, c.RCPT_PARAMETERS, utf8=False)
        if not isinstance(rcpt, Refusal):
            return verb, rcpt.path.mailbox, 0, False, b"", None
    return verb, None, 0, False, argument, None
