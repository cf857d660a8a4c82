"""Keeps the messages that a sink accepted, within bounds, and lets another thread wait for them."""

from __future__ import annotations

import threading
from collections import deque

from smtpbench.session.server_context import Envelope

MAX_MESSAGES = 10_000
MAX_BYTES = 64 * 1024 * 1024


class Mailbox:
    """The newest messages of a sink. Set `ServerContext.on_message` to its `add`. Any thread may use it.

    Args:
        max_messages: Most messages that are kept.
        max_bytes: Most octets of content that are kept. Beyond either limit the oldest messages are discarded; the newest
            is always kept.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._envelopes: deque[Envelope] = deque()
        self._bytes = 0
        self._discarded = 0
        self._changed = threading.Condition()

    def add(self, envelope: Envelope) -> None:
        """Add a message."""
        with self._changed:
            envelopes = self._envelopes
            envelopes.append(envelope)
            self._bytes += len(envelope.content)
            while len(envelopes) > 1 and (len(envelopes) > self._max_messages or self._bytes > self._max_bytes):
                self._bytes -= len(envelopes.popleft().content)
                self._discarded += 1
            self._changed.notify_all()

    @property
    def discarded(self) -> int:
        """How many of the oldest messages were discarded."""
        return self._discarded

    def messages(self) -> list[Envelope]:
        """Return the messages kept, oldest first."""
        with self._changed:
            return list(self._envelopes)

    def clear(self) -> None:
        """Discard all messages and forget the number discarded."""
        with self._changed:
            self._envelopes.clear()
            self._bytes = self._discarded = 0

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until this many messages have come, discarded ones included; return whether they came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._envelopes) + self._discarded >= count, timeout_s)
