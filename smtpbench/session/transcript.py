"""A transcript: every octet of a session, who sent it and when, with nothing left out and nothing repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

CLIENT = "C"
SERVER = "S"
EVENT = "*"


class TranscriptEntry(NamedTuple):
    """Octets of one side (`C`, `S`), as one write or one read had them; or an event (`*`) such as `tls`."""

    at_ns: int
    who: str
    data: bytes


@dataclass(slots=True)
class Transcript:
    """What one session heard and said, in order."""

    entries: list[TranscriptEntry] = field(default_factory=list)

    def add(self, at_ns: int, who: str, data: bytes) -> None:
        """Append one read, one write or one event."""
        self.entries.append(TranscriptEntry(at_ns, who, data))

    def received(self) -> bytes:
        """All the server's octets, joined."""
        return b"".join(entry.data for entry in self.entries if entry.who == SERVER)
