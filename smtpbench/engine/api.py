"""What the engine and a session agree on: octets and a time in, octets out, and a few wishes.

The engine moves octets and knows no SMTP; a session knows SMTP and touches no socket and no clock. After each
call the engine writes what was returned and then looks at `pending_action`: 0 nearly always, else what it shall do
once everything is written.
"""

from __future__ import annotations

from typing import Protocol

#: Octets to write: as one segment (bytes, or a pair that is not worth joining), or a list of segments.
Out = bytes | tuple[bytes, bytes] | list[bytes]

# Wishes of a session, done after its octets are written.
NOTHING = 0
START_TLS = 1  #: handshake, then call `tls_started`
SLEEP = 2  #: call `wake` at `wake_ns`
HALF_CLOSE = 3  #: shut down the writing side, go on reading, call `wake`
CLOSE = 4  #: close (FIN), then nothing more is called but `connection_lost`
RESET = 5  #: close with a reset (RST)
LINGER = 6  #: shut down the writing side, throw away what still comes, close when the peer has closed

#: `deadline_ns` of a session that waits for nothing.
NEVER = 1 << 62

# Why a connection ended, as told to `connection_lost`; these are the words of `errors.<kind>`.
ENDED = "ended"  # by the session's own wish
CLOSED = "closed"  # the peer closed (FIN)
CONNECTION_RESET = "reset"  # the peer reset (RST), or the pipe broke
TIMEOUT = "timeout"  # the session's deadline passed
CONNECT_REFUSED = "connect_refused"
CONNECT_TIMEOUT = "connect_timeout"
CONNECT_FAILED = "connect_failed"
TLS_FAILED = "tls_failed"
NO_DESCRIPTORS = "no_descriptors"
NO_PORTS = "no_ports"
STOPPED = "stopped"  # the run was cut off


class Session(Protocol):
    """A session as the engine sees it. Times are nanoseconds of one monotonic clock.

    wants: one of the wishes above; the engine sets it back to NOTHING before it fulfils it.
    wake_ns: when to wake it, where it wants SLEEP.
    deadline_ns: when its patience ends; a sweep reads it a few times a second. NEVER for no deadline.
    """

    pending_action: int
    wake_ns: int

    @property
    def deadline_ns(self) -> int: ...

    def connected(self, now_ns: int) -> Out:
        """The connection stands (before any TLS)."""

    def tls_started(self, now_ns: int) -> Out:
        """The TLS handshake that it wanted is done."""

    def receive(self, data: bytes, now_ns: int) -> Out:
        """Octets from the peer, never empty."""

    def wake(self, now_ns: int) -> Out:
        """The time it wanted to sleep until has come, or its half-close is done."""

    def eof_received(self, now_ns: int) -> Out:
        """The peer closed its writing side: no more octets will come. CLOSE follows unless it wants more."""

    def connection_lost(self, why: str, detail: str, now_ns: int) -> None:
        """The connection is gone; called exactly once, and nothing after it."""
