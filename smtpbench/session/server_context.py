"""What all sessions of a server share: what it offers, its limits, its manners, and what it counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from smtpbench.engine import api
from smtpbench.smtp import sasl

CLOSING_421 = b"421 4.3.2 Closing the connection\r\n"


class Envelope(NamedTuple):
    """A message that was accepted: reverse-path and forward-paths without brackets, and its content, dots unstuffed.

    tls, authenticated: how it came.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    tls: bool = False
    authenticated: bool = False


class ReplyOverride(NamedTuple):
    """What manners do to one reply.

    reply: said in place of the server's own; empty for its own. then: a wish of `engine.api` (CLOSE, RESET, LINGER) for
    after that reply, or at once where there is none. close: hang up after the server's own reply. hold_ns: how long the
    reply is held back. mute: it is never sent. drip_ns: it is sent an octet at a time, with this pause between.
    """

    reply: bytes = b""
    then_action: int = api.NOTHING
    hold_ns: int = 0
    suppress: bool = False
    drip_ns: int = 0
    close: bool = False


class FaultInjector(Protocol):
    """How a server behaves other than well."""

    def override(self, verb: str, sender: bytes, argument: bytes, now_ns: int) -> ReplyOverride | None:
        """What to do about the reply to a verb (`connect` for the greeting, `message` for the end of the data)."""


@dataclass(slots=True)
class ServerCounts:
    """What all sessions of a server did."""

    connections: int = 0
    connections_open: int = 0
    connections_peak: int = 0
    accepted: int = 0
    rejected: int = 0
    recipients_accepted: int = 0
    recipients_rejected: int = 0
    octets: int = 0
    tls: int = 0
    auth_ok: int = 0
    auth_failed: int = 0
    aborted: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    replies: Counter[bytes] = field(default_factory=Counter)

    def to_data(self) -> dict[str, object]:
        """For JSON."""
        return {
            "connections": self.connections,
            "connections_peak": self.connections_peak,
            "messages": {"accepted": self.accepted, "rejected": self.rejected},
            "recipients": {"accepted": self.recipients_accepted, "rejected": self.recipients_rejected},
            "message_bytes": self.octets,
            "commands": dict(sorted(self.commands.items())),
            "replies": {code.decode("latin-1"): count for code, count in sorted(self.replies.items())},
            "tls_handshakes": self.tls,
            "auth": {"ok": self.auth_ok, "failed": self.auth_failed},
            "transactions_aborted": self.aborted,
        }


@dataclass(slots=True)
class ServerContext:
    """What all sessions of a server share.

    users: names and passwords; AUTH is offered where there are any. starttls: whether it is offered.
    keep: given each accepted message; None saves the copying. idle_ns: how long a client may be silent.
    """

    name: str = "sink.example"
    lmtp: bool = False
    size_bytes: int = 64 * 1024 * 1024
    recipients: int = 1000
    messages: int | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    starttls: bool = False
    implicit_tls: bool = False
    require_tls: bool = False
    require_auth: bool = False
    idle_ns: int = 300_000_000_000
    faults: FaultInjector | None = None
    on_message: Callable[[Envelope], None] | None = None
    counts: ServerCounts = field(default_factory=ServerCounts)

    def extensions(self, *, tls: bool, authenticated: bool) -> bytes:
        """The reply to EHLO."""
        lines = [self.name, "PIPELINING", f"SIZE {self.size_bytes}", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
                 "ENHANCEDSTATUSCODES"]  # fmt: skip
        if self.starttls and not tls:
            lines.append("STARTTLS")
        if self.users and not authenticated:
            lines.append("AUTH " + " ".join(sasl.MECHANISMS))
        return b"".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n".encode() for line in lines)
