"""Replies: octets from a server, cut into lines and replies without ever refusing one.

A load tester wants the code; a fuzzer wants to know what was wrong with the octets. So a reply that breaks
RFC 5321 §4.2 is still a `Reply`, with `code` 0 where no code could be read, and its raw octets kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: A reply line may hold 512 octets (RFC 5321 §4.5.3.1.5); extensions go beyond it. Where we stop reading on.
MAX_LINE_BYTES = 64 * 1024
#: And the whole of a multi-line reply.
MAX_REPLY_BYTES = 1024 * 1024
#: Reads up to this size are remembered with their replies.
_READ_BYTES = 2048

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(rb"[2-5][0-9][0-9][ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=[ \r\n]|$)")
#: The head of a reply line: any code and enhanced code (RFC 2034 §4) with its end fits in this many octets.
PREFIX_BYTES = 14


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as it came.

    code: 200–599, or 0 where the first line holds none (`malformed` is then true).
    raw: its octets, line ends included.
    malformed: a line broke the grammar of RFC 5321 §4.2, or its lines disagree on the code (§4.2.1).
    """

    code: int
    raw: bytes
    malformed: bool = False

    @property
    def lines(self) -> tuple[bytes, ...]:
        """The texts of the lines, code and line end taken off; a malformed line stands as it came."""
        texts = []
        for line in self.raw.split(b"\n"):
            bare = line.removesuffix(b"\r")
            match = _LINE.fullmatch(bare)
            texts.append((match[3] or b"") if match else bare)
        return tuple(texts[:-1]) if self.raw.endswith(b"\n") else tuple(texts)

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the first line, `2.1.0`, or nothing (RFC 2034 §4)."""
        return enhanced_code(self.raw)


def enhanced_code(raw: bytes) -> str:
    """`250 2.1.0 Ok` → `2.1.0`; empty where there is none (RFC 2034 §4, RFC 3463 §2)."""
    match = _ENHANCED.match(raw)
    return match[1].decode("ascii") if match else ""


def first_code(line: bytes) -> int:
    """The code of one reply line, 0 where the line is malformed."""
    match = _LINE.fullmatch(line.rstrip(b"\r\n"))
    return int(match[1]) if match else 0


class ReplyReader:
    """Octets in, replies out, however the octets are split (RFC 5321 §4.2.1).

    `pending` holds what is not yet a whole reply; `overflow` says that a reply grew past the limits
    and that nothing after it can be told apart.
    """

    __slots__ = ("_lines_bytes", "_scanned", "overflow", "pending")

    def __init__(self) -> None:
        self.pending = b""
        self.overflow = False
        self._scanned = 0  # pending[:_scanned] holds no line end past _lines_bytes: it is not searched again
        self._lines_bytes = 0  # pending[:_lines_bytes] is continuation lines of one unfinished reply

    def feed(self, data: bytes) -> list[Reply]:
        """Take octets and return the replies they complete, in order."""
        if not self.pending and len(data) <= _READ_BYTES:
            known = _whole(data)
            if known is not None:
                return list(known)
        return self._feed(data)

    def _feed(self, data: bytes) -> list[Reply]:
        buffer = self.pending + data if self.pending else data
        replies: list[Reply] = []
        start, line_start = 0, self._lines_bytes
        while (end := buffer.find(b"\n", max(self._scanned, line_start))) >= 0:
            self._scanned = 0
            if buffer[line_start + 3 : line_start + 4] != b"-" or not _LINE.match(buffer[line_start:end]):
                raw = buffer[start : end + 1]
                replies.append(_known(raw) if len(raw) <= _READ_BYTES else _reply(raw))
                start = end + 1
            line_start = end + 1
        self.pending = buffer[start:]
        self._lines_bytes = line_start - start
        self._scanned = len(self.pending)
        if len(self.pending) > MAX_REPLY_BYTES or len(self.pending) - self._lines_bytes > MAX_LINE_BYTES:
            self.overflow = True
        return replies


@lru_cache(maxsize=4096)  # servers say the same few things again and again
def _whole(data: bytes) -> tuple[Reply, ...] | None:
    """The replies in one read, None where the last is not whole."""
    reader = ReplyReader()
    replies = tuple(reader._feed(data))
    return None if reader.pending else replies


def _reply(raw: bytes) -> Reply:
    lines = raw.split(b"\n")[:-1]
    codes = [first_code(line) for line in lines]
    return Reply(codes[0], raw, malformed=0 in codes or len(set(codes)) > 1)


_known = lru_cache(maxsize=4096)(_reply)
