"""A transcript: every octet of a session, who sent it and when, with nothing left out and nothing repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

CLIENT = "C"
SERVER = "S"
EVENT = "*"
#: Most octets of a server that a session keeps. A server that sends more is cut off.
MAX_RECEIVED_BYTES = 1024 * 1024


class TranscriptEntry(NamedTuple):
    """One write, one read or one event.

    Attributes:
        at_ns: Time, nanoseconds of the engine's clock.
        who: CLIENT, SERVER or EVENT.
        data: The octets; for an event its name, such as `tls`.
    """

    at_ns: int
    who: str
    data: bytes


@dataclass(slots=True)
class Transcript:
    """What one session sent and received, in order.

    Attributes:
        entries: Reads, writes and events.
        received_bytes: Octets of all reads.
    """

    entries: list[TranscriptEntry] = field(default_factory=list)
    received_bytes: int = 0

    def add(self, at_ns: int, who: str, data: bytes) -> None:
        """Append one read, one write or one event."""
        if who == SERVER:
            self.received_bytes += len(data)
        self.entries.append(TranscriptEntry(at_ns, who, data))

    def received(self) -> bytes:
        """Return all octets of the server, joined."""
        return b"".join(entry.data for entry in self.entries if entry.who == SERVER)
