"""When the kernel received octets, on the clock of the sessions.

Linux stamps each TCP segment when it is received (`SO_TIMESTAMPNS`, socket(7)), and `recvmsg` returns the time of the last
segment that it read. A process that reads later does not make the server slower. The stamps are of CLOCK_REALTIME. They
are converted with the difference of that clock and the clock of the sessions. The kernel adjusts the speed of both alike,
so the difference changes only if somebody sets the time of the machine. It is measured again several times a second.

TLS hides the stamp, because the TLS library reads from the socket itself. There, the octets are looked at before
(`MSG_PEEK`). Unix sockets have no stamps: the time of the read counts. A connection is established when the kernel has the
SYN-ACK: the time since the SYN is the first round-trip time of `TCP_INFO`.

Every reply is stamped, and not those of a sample of the connections: counts and maxima would then not be those of all
messages. A stamp costs 0.6 µs a reply, 6 % of the CPU time of a message on a connection that is kept. The larger groups that
the stamps allow (`engine.shard`) save nearly as much.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence

#: Size of the ancillary data of a read: one control message with a `struct timespec`.
STAMP_BYTES = socket.CMSG_SPACE(16)
#: What `recvmsg` returns as ancillary data.
Ancillary = Sequence[tuple[int, int, bytes]]

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; not in the socket module
_NS_PER_S = 1_000_000_000
#: Seconds and nanoseconds of a stamp.
unpack_timespec = struct.Struct("qq").unpack
#: A pair of clock readings that are further apart says nothing of the difference of the clocks.
_MAX_GAP_NS = 20_000
_TRIES = 5
#: `tcpi_state`, `tcpi_rtt` and `tcpi_total_retrans` (struct tcp_info, linux/tcp.h).
_tcp_info = struct.Struct("=B67xI28xI")
_TCP_INFO_BYTES = _tcp_info.size
#: TCP_ESTABLISHED and TCP_CLOSE_WAIT (net/tcp_states.h): the connection was established, and no error has ended it.
_CONNECTED_STATES = (1, 8)


class KernelClock:
    """Converts the kernel's stamps.

    Args:
        clock: Returns nanoseconds of the clock of the sessions.
        realtime: Returns nanoseconds of CLOCK_REALTIME.

    Attributes:
        offset_ns: Difference of the clocks.
        steps: How often the time of the machine was set.
    """

    __slots__ = ("_clock", "_realtime", "offset_ns", "steps")

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        realtime: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._realtime = realtime
        self.steps = 0
        self.offset_ns, _ = self._measure()

    def _measure(self) -> tuple[int, int]:
        """Return the difference of the clocks, and the time between the readings that it is from."""
        best_gap_ns, offset_ns = 1 << 62, 0
        for _ in range(_TRIES):
            before_ns = self._clock()
            realtime_ns = self._realtime()
            gap_ns = self._clock() - before_ns
            if gap_ns < best_gap_ns:
                best_gap_ns, offset_ns = gap_ns, realtime_ns - before_ns - gap_ns // 2
        return offset_ns, best_gap_ns

    def update(self) -> None:
        """Measure the difference again; notice whether the time of the machine was set."""
        offset_ns, gap_ns = self._measure()
        if abs(offset_ns - self.offset_ns) > _MAX_GAP_NS + gap_ns:
            self.steps += 1
        elif gap_ns > _MAX_GAP_NS:
            return
        self.offset_ns = offset_ns

    def received_ns(self, ancillary: Ancillary, sent_ns: int, now_ns: int) -> int:
        """Return when the kernel received octets.

        Args:
            ancillary: What `recvmsg` returned; without a stamp, the octets count as received now.
            sent_ns: When the last write was made: what comes earlier is no answer to it, and counts as received then.
            now_ns: Time after the read.
        """
        if not ancillary:
            return now_ns
        seconds, nanoseconds = unpack_timespec(ancillary[0][2])
        received_ns: int = seconds * _NS_PER_S + nanoseconds - self.offset_ns
        if sent_ns <= received_ns <= now_ns:
            return received_ns
        steps = self.steps
        self.update()
        if self.steps != steps or received_ns > now_ns:
            return now_ns
        return min(sent_ns, now_ns)


def request_stamps(sock: socket.SocketType) -> None:
    """Have the kernel stamp what a TCP socket receives."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def peek_stamp(sock: socket.SocketType, size_bytes: int) -> Ancillary:
    """Return the stamp of the octets that wait in a socket, as ancillary data; empty if there are none.

    Args:
        sock: A TCP socket, or the TLS socket that has taken its place.
        size_bytes: Number of octets to look at; the stamp is that of the last one.
    """
    try:
        # the method of SSLSocket refuses the call
        return socket.socket.recvmsg(sock, size_bytes, STAMP_BYTES, socket.MSG_PEEK)[1]
    except OSError:
        return ()


def handshake_ns(sock: socket.SocketType) -> int:
    """Return the time from the SYN to the SYN-ACK; 0 before the SYN-ACK, and after a retransmission, which hides it."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return 0
    if len(info) < _TCP_INFO_BYTES:
        return 0
    state, rtt_us, retransmits = _tcp_info.unpack(info)
    took_ns: int = rtt_us * 1000 if state in _CONNECTED_STATES and not retransmits else 0
    return took_ns
