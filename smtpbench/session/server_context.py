"""What all sessions of a server share: what it offers, its limits, its injected faults and its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

from smtpbench.engine import api
from smtpbench.smtp import sasl

CLOSING_421 = b"421 4.3.2 Closing the connection\r\n"


class Envelope(NamedTuple):
    """A message that was accepted.

    Attributes:
        sender: Reverse-path, without its brackets.
        recipients: Forward-paths, without their brackets.
        content: Octets of the message, without dot-stuffing.
        tls: It came inside TLS.
        authenticated: The client was authenticated.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    tls: bool = False
    authenticated: bool = False


class ReplyOverride(NamedTuple):
    """What is done to one reply.

    Attributes:
        reply: Sent in place of the server's own reply; empty for its own.
        action: An action of `engine.api` (CLOSE, RESET, LINGER) behind that reply, or at once if `reply` is empty.
        delay_ns: Delay of the reply, nanoseconds.
        suppress: The reply is never sent.
        drip_ns: The reply is sent one octet at a time, with this pause between two; 0 for one write.
        close: The connection is closed behind the server's own reply.
    """

    reply: bytes = b""
    action: int = api.NOTHING
    delay_ns: int = 0
    suppress: bool = False
    drip_ns: int = 0
    close: bool = False


class FaultInjector(Protocol):
    """Decides which replies of a server are replaced, delayed or left out."""

    def override(self, verb: str, sender: bytes, argument: bytes, now_ns: int) -> ReplyOverride | None:
        """Return what is done to the reply to a verb; None for nothing.

        Args:
            verb: A verb of SMTP, `connect` for the greeting, or `message` for the end of the data.
            sender: Reverse-path of the transaction.
            argument: The command line; for `message` the forward-paths, joined by commas.
            now_ns: Time of the command, nanoseconds.
        """


@dataclass(slots=True)
class ServerCounts:
    """Counts of all sessions of a server."""

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
        """Return the counts for JSON."""
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

    Attributes:
        name: Host name in the greeting and the EHLO reply.
        lmtp: Speak LMTP (RFC 2033).
        size_bytes: Largest message that is accepted, octets.
        recipients: Most recipients of one message.
        messages: Most messages of one connection; None for no limit.
        users: Passwords by user name; AUTH is offered if there are any.
        starttls: STARTTLS is offered.
        implicit_tls: TLS begins before the greeting (RFC 8314 §3.3).
        require_tls, require_auth: MAIL is refused without TLS, or before AUTH.
        idle_ns: Longest pause of a client before its connection is closed, nanoseconds.
        faults: Replaces and delays replies; None for no faults.
        on_message: Called with each accepted message; None saves copying it.
        counts: What all sessions did.
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

    def greeting(self) -> bytes:
        """Return the greeting."""
        return _greeting(self.name, self.lmtp)

    def extensions(self, *, tls: bool, authenticated: bool) -> bytes:
        """Return the reply to EHLO."""
        starttls, auth = self.starttls and not tls, bool(self.users) and not authenticated
        return _ehlo_reply(self.name, self.size_bytes, starttls, tuple(sasl.MECHANISMS) if auth else ())


@lru_cache(maxsize=64)
def _greeting(name: str, lmtp: bool) -> bytes:
    return f"220 {name} {'LMTP' if lmtp else 'ESMTP'} smtpbench sink\r\n".encode()


@lru_cache(maxsize=64)  # sessions with the same offer get the same octets
def _ehlo_reply(name: str, size_bytes: int, starttls: bool, mechanisms: tuple[str, ...]) -> bytes:
    lines = [name, "PIPELINING", f"SIZE {size_bytes}", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES"]
    if starttls:
        lines.append("STARTTLS")
    if mechanisms:
        lines.append("AUTH " + " ".join(mechanisms))
    return b"".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n".encode() for line in lines)
