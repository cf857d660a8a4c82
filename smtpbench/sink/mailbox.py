"""Where a sink keeps what it took, within bounds, and where another thread waits for it."""

from __future__ import annotations

import threading
from collections import deque

from smtpbench.session.server_context import Envelope

MOST_MESSAGES = 10_000
MOST_BYTES = 64 * 1024 * 1024


class Mailbox:
    """The newest messages of a sink; give `add` to `Service.keep`. Any thread may use it.

    most_messages, most_bytes: beyond either the oldest are forgotten; the newest is always kept.
    """

    def __init__(self, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._kept: deque[Envelope] = deque()
        self._bytes = 0
        self._forgotten = 0
        self._changed = threading.Condition()

    def add(self, envelope: Envelope) -> None:
        """Take a message."""
        with self._changed:
            kept = self._kept
            kept.append(envelope)
            self._bytes += len(envelope.content)
            while len(kept) > 1 and (len(kept) > self._most_messages or self._bytes > self._most_bytes):
                self._bytes -= len(kept.popleft().content)
                self._forgotten += 1
            self._changed.notify_all()

    @property
    def forgotten(self) -> int:
        """How many of the oldest there was no room for."""
        return self._forgotten

    def messages(self) -> list[Envelope]:
        """What is kept, oldest first."""
        with self._changed:
            return list(self._kept)

    def clear(self) -> None:
        """Begin again with none."""
        with self._changed:
            self._kept.clear()
            self._bytes = self._forgotten = 0

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Whether so many have come, those that were forgotten among them; waits until they have, or for so long."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._kept) + self._forgotten >= count, timeout_s)
