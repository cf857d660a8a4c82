"""Replies: a server's octets, divided into lines and replies. No reply is ever refused.

A load test needs the code; a fuzzer needs to know what was wrong. So a reply that breaks RFC 5321 §4.2 is still a `Reply`.
Its `code` is 0 if no code could be read, and its octets are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Longest reply line that is read. A line may have 512 octets (RFC 5321 §4.5.3.1.5), with extensions more.
MAX_LINE_BYTES = 64 * 1024
#: Longest reply that is read, all its lines together.
MAX_REPLY_BYTES = 1024 * 1024
#: The same where whole sessions are kept, to be judged.
MAX_KEPT_REPLY_BYTES = 64 * 1024
#: Reads up to this size are cached with their replies.
_MAX_CACHED_BYTES = 2048

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(rb"[2-5][0-9][0-9][ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=[ \r\n]|$)")
#: Any code and enhanced code (RFC 2034 §4), with the space behind it, fits in this many octets.
PREFIX_BYTES = 14


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as it came.

    Attributes:
        code: 200–599, or 0 if no line has one (`malformed` is then true). If lines have different codes, that of the last
            counts.
        raw: Its octets, line ends included.
        malformed: A line breaks the grammar of RFC 5321 §4.2, or the lines have different codes (§4.2.1).
    """

    code: int
    raw: bytes
    malformed: bool = False

    @property
    def lines(self) -> tuple[bytes, ...]:
        """The texts of the lines, without code and line end; a malformed line as it came."""
        texts = []
        for line in self.raw.split(b"\n"):
            bare = line.removesuffix(b"\r")
            match = _LINE.fullmatch(bare)
            texts.append((match[3] or b"") if match else bare)
        return tuple(texts[:-1]) if self.raw.endswith(b"\n") else tuple(texts)

    @property
    def decisive(self) -> bytes:
        """The octets that begin with the code that counts: `raw` or, of a malformed reply, its last line with a code."""
        if not self.malformed:
            return self.raw
        return next((line for line in reversed(self.raw.splitlines(keepends=True)) if first_code(line)), self.raw)

    @property
    def mixed_codes(self) -> bool:
        """Whether its lines have different codes, which RFC 5321 §4.2.1 forbids."""
        return self.malformed and len(set(map(first_code, self.raw.split(b"\n")[:-1])) - {0}) > 1

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the line that counts, such as `2.1.0`; empty if it has none (RFC 2034 §4)."""
        return enhanced_code(self.decisive)


def enhanced_code(raw: bytes) -> str:
    """Return the enhanced status code of a reply: `250 2.1.0 Ok` → `2.1.0`; empty if it has none (RFC 2034 §4)."""
    match = _ENHANCED.match(raw)
    return match[1].decode("ascii") if match else ""


def first_code(line: bytes) -> int:
    """Return the code of one reply line, 0 if the line is malformed."""
    match = _LINE.fullmatch(line.rstrip(b"\r\n"))
    return int(match[1]) if match else 0


class ReplyReader:
    """Divides octets into replies, however they are split (RFC 5321 §4.2.1).

    Args:
        max_bytes: Longest reply that is read.

    Attributes:
        pending: Octets that are not yet a whole reply.
        overflow: A reply grew beyond the limits; nothing after it can be told apart.
    """

    __slots__ = ("_lines_bytes", "_max_bytes", "_scanned", "overflow", "pending")

    def __init__(self, max_bytes: int = MAX_REPLY_BYTES) -> None:
        self._max_bytes = max_bytes
        self.pending = b""
        self.overflow = False
        self._scanned = 0  # pending[_lines_bytes:_scanned] has no line end: it is not searched again
        self._lines_bytes = 0  # pending[:_lines_bytes] are continuation lines of one unfinished reply

    def feed(self, data: bytes) -> list[Reply]:
        """Add octets; return the replies that they complete, in order."""
        if not self.pending and len(data) <= _MAX_CACHED_BYTES:
            cached = _whole_replies(data)
            if cached is not None:
                return list(cached)
        return self._feed(data)

    def _feed(self, data: bytes) -> list[Reply]:
        buffer = self.pending + data if self.pending else data
        replies: list[Reply] = []
        start, line_start = 0, self._lines_bytes
        while (end := buffer.find(b"\n", max(self._scanned, line_start))) >= 0:
            self._scanned = 0
            if buffer[line_start + 3 : line_start + 4] != b"-" or not _LINE.match(buffer[line_start:end]):
                raw = buffer[start : end + 1]
                replies.append(_cached_reply(raw) if len(raw) <= _MAX_CACHED_BYTES else _reply(raw))
                start = end + 1
            line_start = end + 1
        self.pending = buffer[start:]
        self._lines_bytes = line_start - start
        self._scanned = len(self.pending)
        if len(self.pending) > self._max_bytes or len(self.pending) - self._lines_bytes > MAX_LINE_BYTES:
            self.overflow = True
        return replies


@lru_cache(maxsize=4096)  # servers send the same few replies again and again
def _whole_replies(data: bytes) -> tuple[Reply, ...] | None:
    """Return the replies in one read; None if the last is not whole."""
    reader = ReplyReader()
    replies = tuple(reader._feed(data))
    return None if reader.pending else replies


def _reply(raw: bytes) -> Reply:
    lines = raw.split(b"\n")[:-1]
    codes = [first_code(line) for line in lines]
    code = next((code for code in reversed(codes) if code), 0)
    return Reply(code, raw, malformed=0 in codes or len(set(codes)) > 1)


_cached_reply = lru_cache(maxsize=4096)(_reply)
