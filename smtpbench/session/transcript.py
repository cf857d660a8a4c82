"""A transcript: every octet of a session, who sent it and when, with nothing left out and nothing repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

CLIENT = "C"
SERVER = "S"
EVENT = "*"


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
    """What one session sent and received, in order."""

    entries: list[TranscriptEntry] = field(default_factory=list)

    def add(self, at_ns: int, who: str, data: bytes) -> None:
        """Append one read, one write or one event."""
        self.entries.append(TranscriptEntry(at_ns, who, data))

    def received(self) -> bytes:
        """Return all octets of the server, joined."""
        return b"".join(entry.data for entry in self.entries if entry.who == SERVER)
