"""A dialogue: a transcript as it is judged, octets cut into what was said and the replies that were heard.

Theory of operation
===================

A transcript holds reads and writes as they happened. Judging asks other questions: how many replies did this write get,
which came before the next write, was it inside TLS, how did it end? A `Dialogue` answers those, once, for every
rule. It repairs nothing: a reply that breaks the grammar is a `Reply` with code 0, and replies beyond those that were
asked for stand where they came.

Replies are put to the write that they came after, and not to the command they seem to answer: in lockstep that is the
same, and where it is not (pipelining, smuggling) the number of replies is what is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpbench.engine import api
from smtpbench.session.transcript import CLIENT, SERVER, Transcript
from smtpbench.smtp.reply import Reply, ReplyReader

TLS_EVENT = b"tls"
HALF_CLOSE_EVENT = b"half-close"
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class ReceivedReply(NamedTuple):
    """One reply. tls: whether it came inside TLS."""

    reply: Reply
    at_ns: int
    tls: bool


@dataclass(slots=True)
class Exchange:
    """One write (empty for what came before the first) and the replies until the next.

    rest: octets behind the last whole reply.
    """

    sent: bytes
    at_ns: int
    tls: bool
    replies: list[ReceivedReply] = field(default_factory=list)
    incomplete: bytes = b""

    @property
    def codes(self) -> list[int]:
        """The codes of its replies, 0 for one without."""
        return [one.reply.code for one in self.replies]

    @property
    def code(self) -> int:
        """The code of its first reply, 0 where there was none (or it has none)."""
        return self.replies[0].reply.code if self.replies else 0

    @property
    def first(self) -> Reply | None:
        """Its first reply."""
        return self.replies[0].reply if self.replies else None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What one session said and heard.

    turns: the first is the greeting's, with nothing said. fate: how it ended, one of the words of `engine.api`.
    half_closed: the client closed its writing side before.
    """

    exchanges: tuple[Exchange, ...]
    end_reason: str
    half_closed: bool = False

    @classmethod
    def of(cls, transcript: Transcript) -> Dialogue:
        """Read a transcript."""
        exchanges = [Exchange(b"", 0, False)]
        reader, tls, end_reason, shut = ReplyReader(), False, "", False
        for entry in transcript.entries:
            if entry.who == CLIENT:
                exchanges[-1].incomplete = bytes(reader.pending)
                exchanges.append(Exchange(entry.data, entry.at_ns, tls))
            elif entry.who == SERVER and not tls and entry.data.startswith(_TLS_RECORDS):
                pass  # it began TLS, and the client said something else: this is an alert, and no reply
            elif entry.who == SERVER:
                exchanges[-1].replies += [ReceivedReply(reply, entry.at_ns, tls) for reply in reader.feed(entry.data)]
            elif entry.data == TLS_EVENT:
                tls = True
                exchanges[-1].incomplete = bytes(reader.pending)
                reader = ReplyReader()
            elif entry.data == HALF_CLOSE_EVENT:
                shut = True
            else:
                end_reason = entry.data.decode()
        exchanges[-1].incomplete = bytes(reader.pending)
        return cls(tuple(exchanges), end_reason, shut)

    @property
    def banner(self) -> Reply | None:
        """The greeting."""
        return self.exchanges[0].first

    def replies(self) -> Iterator[ReceivedReply]:
        """All replies in order."""
        for exchange in self.exchanges:
            yield from exchange.replies

    def exchange_of(self, command: bytes, nth: int = 0) -> Exchange | None:
        """The nth turn whose write begins with `sent`, whatever its case; None where it was never said."""
        found = [
            exchange
            for exchange in self.exchanges
            if exchange.sent[: len(command)].upper() == command.upper() and exchange.sent
        ]
        return found[nth] if nth < len(found) else None

    @property
    def last_code(self) -> int:
        """The code of the last reply."""
        codes = [one.reply.code for one in self.replies()]
        return codes[-1] if codes else 0

    @property
    def closed_by_server(self) -> bool:
        """Whether the server ended it."""
        return self.end_reason in (api.CLOSED, api.CONNECTION_RESET)

    @property
    def closed_without_221(self) -> bool:
        """Whether the server ended it otherwise than after 221."""
        return self.closed_by_server and self.last_code != 221

    @property
    def greeted(self) -> bool:
        """Whether there was a greeting at all."""
        return bool(self.exchanges[0].replies)
