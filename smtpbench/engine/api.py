"""The interface of engine and session: octets and a time in, octets out, and actions that a session requests.

The engine moves octets and knows no SMTP. A session knows SMTP and touches neither socket nor clock. After each call the
engine writes what was returned and then looks at `pending_action`. Nearly always that is NOTHING; otherwise the engine
performs the action once everything is written.
"""

from __future__ import annotations

from typing import Protocol

#: Octets to write: one segment (bytes, or a pair that is not joined), or a list of segments.
Out = bytes | tuple[bytes, bytes] | list[bytes]

# Actions that a session requests, performed after its octets are written.
NOTHING = 0
START_TLS = 1  #: handshake, then call `tls_started`
SLEEP = 2  #: call `wake` at `wake_ns`
HALF_CLOSE = 3  #: shut down the writing side (TLS: close_notify), continue reading, call `wake`
CLOSE = 4  #: close (FIN); only `connection_lost` is called after it
RESET = 5  #: close with a reset (RST)
LINGER = 6  #: shut down the writing side, discard what still comes, close when the peer has closed
FIN = 7  #: shut down the writing side of the TCP connection, in TLS without close_notify; then as HALF_CLOSE

#: `deadline_ns` of a session without a deadline.
NEVER = 1 << 62

# Reasons of `connection_lost`; they are the kinds of `errors.<kind>`.
ENDED = "ended"  # the session requested it
CLOSED = "closed"  # the peer closed (FIN)
CONNECTION_RESET = "reset"  # the peer reset (RST), or the pipe broke
TIMEOUT = "timeout"  # the session's deadline passed
CONNECT_REFUSED = "connect_refused"
CONNECT_TIMEOUT = "connect_timeout"
CONNECT_FAILED = "connect_failed"
TLS_FAILED = "tls_failed"
NO_DESCRIPTORS = "no_descriptors"
NO_PORTS = "no_ports"
STOPPED = "stopped"  # the run was stopped


class Session(Protocol):
    """A session as the engine sees it. Times are nanoseconds of one monotonic clock.

    Attributes:
        pending_action: One of the actions above. The engine resets it to NOTHING before it performs it.
        wake_ns: When to call `wake` for SLEEP.
        deadline_ns: When the connection is closed with TIMEOUT; checked a few times a second. NEVER for no deadline.
    """

    pending_action: int
    wake_ns: int

    @property
    def deadline_ns(self) -> int: ...

    def connected(self, now_ns: int) -> Out:
        """The connection is established; TLS has not begun."""

    def tls_started(self, now_ns: int) -> Out:
        """The TLS handshake that was requested is done."""

    def receive(self, data: bytes, now_ns: int) -> Out:
        """Octets came from the peer; never empty."""

    def wake(self, now_ns: int) -> Out:
        """The time of `wake_ns` has come, or a half-close is done."""

    def eof_received(self, now_ns: int) -> Out:
        """The peer closed its writing side: no more octets will come."""

    def connection_lost(self, reason: str, detail: str, now_ns: int) -> None:
        """The connection is gone. Called exactly once, and nothing is called after it.

        Args:
            reason: One of the reasons above.
            detail: Text about it; may be empty.
            now_ns: Time, nanoseconds.
        """


class OutgoingSession(Session, Protocol):
    """A session whose connection the engine opens. The engine tells it when the kernel sent and received.

    Attributes:
        sent_ns: When the last write was given to the kernel; set after the call that returned its octets. When `connected`
            is called: when the connection was requested.
        received_ns: When the kernel received what the next call is about; set before `receive`, `connected` and
            `tls_started`. Not later than `now_ns`.
    """

    sent_ns: int
    received_ns: int

    def write_progressed(self, now_ns: int, left_bytes: int) -> None:
        """The kernel did not take an output at once, and this is how it goes on.

        Called when the output is kept, whenever the kernel has taken more of it, and when it has taken the last octet. Never
        called for an output that the kernel takes at once.

        Args:
            now_ns: Time, nanoseconds.
            left_bytes: Octets that the kernel has not taken yet; 0 if it has the last.
        """

    def octets_acknowledged(self, now_ns: int) -> None:
        """The peer has acknowledged octets of an output that the kernel took in parts. Checked a few times a second."""
