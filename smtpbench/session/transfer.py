"""A write that the kernel does not take at once: most often the text of a large message."""

from __future__ import annotations

from smtpbench.session import script as s
from smtpbench.session.script import Step

#: Metric of the time from the first octet of a message, or of a chunk of it, to its last.
METRIC = "transfer"
#: A server that takes less in the time of one timeout is too slow in the long run, octets.
_LEAST_BYTES = 64 * 1024
#: How many timeouts it has beyond that.
_EXTRA_TIMEOUTS = 40


def longest_ns(size_bytes: int, timeout_ns: int) -> int:
    """Return how long a transfer may go on: each progress begins the timeout anew, and a few octets each time take for ever.

    Args:
        size_bytes: What is to be written.
        timeout_ns: The timeout.
    """
    return timeout_ns * (_EXTRA_TIMEOUTS + size_bytes // _LEAST_BYTES)


class Transfer:
    """A write whose end the kernel has not taken yet.

    Attributes:
        step: The step that is written.
        begun_ns: When the write began.
        progress_ns: When the kernel last took octets of it.
    """

    __slots__ = ("begun_ns", "progress_ns", "step")

    def __init__(self, step: Step, begun_ns: int, now_ns: int) -> None:
        self.step = step
        self.begun_ns = begun_ns
        self.progress_ns = now_ns

    @property
    def of_message(self) -> bool:
        """Whether the text of a message is written, or a chunk of it (RFC 3030)."""
        return self.step.kind == s.MESSAGE or self.step.metric == "BDAT"
