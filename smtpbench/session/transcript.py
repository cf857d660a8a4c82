"""A transcript: every octet of a session, who sent it and when, with nothing left out and nothing repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

CLIENT = "C"
SERVER = "S"
EVENT = "*"
#: Most octets and most lines of a server that a session keeps. A server that sends more is cut off. A reply in memory takes
#: a hundred times what an empty line takes on the wire, so octets alone are no limit.
MAX_RECEIVED_BYTES = 256 * 1024
MAX_RECEIVED_LINES = 10_000
_LINE_MEMORY_BYTES = 200


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
        received_lines: Lines of all reads.
    """

    entries: list[TranscriptEntry] = field(default_factory=list)
    received_bytes: int = 0
    received_lines: int = 0

    def add(self, at_ns: int, who: str, data: bytes) -> None:
        """Append one read, one write or one event."""
        if who == SERVER:
            self.received_bytes += len(data)
            self.received_lines += data.count(b"\n")
        self.entries.append(TranscriptEntry(at_ns, who, data))

    @property
    def is_endless(self) -> bool:
        """Whether the server sent more than a session keeps."""
        return self.received_bytes > MAX_RECEIVED_BYTES or self.received_lines > MAX_RECEIVED_LINES

    @property
    def memory_bytes(self) -> int:
        """About what the server's part takes in memory, once it is divided into replies."""
        return self.received_bytes + _LINE_MEMORY_BYTES * self.received_lines

    def was_open(self, at_ns: int, late_ns: int) -> bool:
        """Return whether the session was open at a moment, or had ended at most `late_ns` before."""
        return bool(self.entries) and self.entries[0].at_ns <= at_ns <= self.entries[-1].at_ns + late_ns

    def received(self) -> bytes:
        """Return all octets of the server, joined."""
        return b"".join(entry.data for entry in self.entries if entry.who == SERVER)
