"""A dialogue: a transcript prepared for judging, as writes of the client and the replies that followed each.

Theory of operation
===================

A transcript holds reads and writes as they happened. Rules ask other questions: how many replies did this write get, which
came before the next write, was it inside TLS, how did the session end? `Dialogue.of` answers them once, for every rule. It
repairs nothing. A reply that breaks the grammar is a `Reply` with code 0, and unsolicited replies stay where they came.

A reply belongs to the write before it, not to the command that it seems to answer. In lockstep both are the same. Where
they are not (pipelining, smuggling), the number of replies is what a rule judges.
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
#: Codes of replies with which a server refuses to go on with a session, and then closes it.
CLOSING_CODES = frozenset({421, 521, 554})
#: A refusal of a server that closes a connection, or keeps it, without a greeting.
NO_GREETING = "no greeting"
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


class ReceivedReply(NamedTuple):
    """One reply.

    Attributes:
        at_ns: Time of the read that completed it.
        tls: It came inside TLS.
    """

    reply: Reply
    at_ns: int
    tls: bool


@dataclass(slots=True)
class Exchange:
    """One write of the client and the replies until its next.

    Attributes:
        sent: The octets written; empty for what came before the first write.
        at_ns: Time of the write.
        tls: The write was made inside TLS.
        replies: The replies that followed.
        incomplete: Octets behind the last whole reply.
    """

    sent: bytes
    at_ns: int
    tls: bool
    replies: list[ReceivedReply] = field(default_factory=list)
    incomplete: bytes = b""

    @property
    def codes(self) -> list[int]:
        """The codes of the replies; 0 for a reply without a code."""
        return [one.reply.code for one in self.replies]

    @property
    def code(self) -> int:
        """The code of the first reply; 0 if there is no reply, or it has no code."""
        return self.replies[0].reply.code if self.replies else 0

    @property
    def first(self) -> Reply | None:
        """The first reply."""
        return self.replies[0].reply if self.replies else None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What one session sent and received.

    Attributes:
        exchanges: The first is that of the greeting, without a write.
        end_reason: How the session ended, a reason of `engine.api`.
        half_closed_at: Index of the exchange in which the client closed its writing side, and the number of its replies
            before that; None if the client did not.
    """

    exchanges: tuple[Exchange, ...]
    end_reason: str
    half_closed_at: tuple[int, int] | None = None

    @classmethod
    def of(cls, transcript: Transcript) -> Dialogue:
        """Return the dialogue of a transcript."""
        exchanges = [Exchange(b"", 0, False)]
        reader, tls, end_reason = ReplyReader(), False, ""
        half_closed_at = None
        for entry in transcript.entries:
            if entry.who == CLIENT:
                exchanges[-1].incomplete = bytes(reader.pending)
                exchanges.append(Exchange(entry.data, entry.at_ns, tls))
            elif entry.who == SERVER and not tls and entry.data.startswith(_TLS_RECORDS):
                pass  # the server began TLS and the client did not: this is an alert, not a reply
            elif entry.who == SERVER:
                exchanges[-1].replies += [ReceivedReply(reply, entry.at_ns, tls) for reply in reader.feed(entry.data)]
            elif entry.data == TLS_EVENT:
                tls = True
                exchanges[-1].incomplete = bytes(reader.pending)
                reader = ReplyReader()
            elif entry.data == HALF_CLOSE_EVENT:
                half_closed_at = len(exchanges) - 1, len(exchanges[-1].replies)
            else:
                end_reason = entry.data.decode()
        exchanges[-1].incomplete = bytes(reader.pending)
        return cls(tuple(exchanges), end_reason, half_closed_at)

    @property
    def banner(self) -> Reply | None:
        """The greeting."""
        return self.exchanges[0].first

    def replies(self) -> Iterator[ReceivedReply]:
        """Yield all replies in order."""
        for exchange in self.exchanges:
            yield from exchange.replies

    def exchange_of(self, command: bytes, nth: int = 0) -> Exchange | None:
        """Return the nth exchange whose write begins with a command, in any case; None if there is none."""
        found = [
            exchange
            for exchange in self.exchanges
            if exchange.sent[: len(command)].upper() == command.upper() and exchange.sent
        ]
        return found[nth] if nth < len(found) else None

    @property
    def half_closed(self) -> bool:
        """Whether the client closed its writing side before the end."""
        return self.half_closed_at is not None

    @property
    def last_code(self) -> int:
        """The code of the last reply."""
        codes = [one.reply.code for one in self.replies()]
        return codes[-1] if codes else 0

    @property
    def closed_by_server(self) -> bool:
        """Whether the server closed or reset the connection."""
        return self.end_reason in (api.CLOSED, api.CONNECTION_RESET)

    @property
    def closed_without_221(self) -> bool:
        """Whether the server closed or reset the connection without a 221 reply before."""
        return self.closed_by_server and self.last_code != 221

    @property
    def closed_with_reply(self) -> bool:
        """Whether the server closed the connection and said so: its last reply to the last write ends a session."""
        codes = self.exchanges[-1].codes[-1:]
        return self.closed_by_server and bool(codes) and (codes[0] == 221 or codes[0] in CLOSING_CODES)

    @property
    def greeted(self) -> bool:
        """Whether anything came before the first write."""
        return bool(self.exchanges[0].replies)

    @property
    def is_busy(self) -> bool:
        """Whether the greeting says that the server cannot serve the session now (4yz, such as 421)."""
        return self.exchanges[0].code // 100 == 4

    @property
    def refusal(self) -> str:
        """How the server refused the session in place of serving it, such as `a greeting of 421`; empty if it served it."""
        if not self.greeted:
            return NO_GREETING
        code = self.exchanges[0].code
        return f"a greeting of {code}" if code // 100 in (4, 5) else ""
