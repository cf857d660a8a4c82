"""Delayed acknowledgements in a run: latencies that are late by the 40 ms for which Linux delays an acknowledgement.

Theory of operation
===================

A server that writes a reply in several segments keeps the last, small one back until the client has acknowledged those
before it (Nagle's algorithm, RFC 9293 §3.7.4). The client delays its acknowledgement, because it has nothing to write: Linux
by 40 ms. So the latencies have two modes, one below and one at 40 ms, and hardly anything between. The reply to EHLO inside
TLS 1.3 is the commonest place, because the session tickets are the segments before it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from smtpbench.measure.saved import RUN, Saved
from smtpbench.report.reading.formatting import format_share
from smtpbench.report.reading.lenient import mapping, text
from smtpbench.report.reading.metrics import SERVICE, MetricLatency, latencies_of

#: The mode of late replies, milliseconds: 40, a tick of the kernel's timer, and what the reply itself takes.
_LATE_MS: Final = (39.0, 50.0)
#: Around that mode hardly anything lies, milliseconds. Wider than the mode itself, so that a smooth curve has more there.
_BELOW_MS: Final = (20.0, 39.0)
_ABOVE_MS: Final = (50.0, 80.0)
#: Replies in the mode, at least: a number, and a share of all.
_MIN_COUNT: Final = 5
_MIN_SHARE: Final = 0.02
#: Replies in the mode for each reply on either side of it, at least.
_MIN_CONTRAST: Final = 4
_MAX_METRICS: Final = 3
#: Metrics that are no single reply's.
_SPANS: Final = frozenset({"session", "transaction", "pipeline", "connect", "tls"})


class DelayedReplies(NamedTuple):
    """Replies that came late by a delayed acknowledgement.

    Attributes:
        metric: What was timed.
        replies: Number of late replies.
        share: Their share of all replies.
    """

    metric: str
    replies: int
    share: float


def delayed_replies_of(saved: Saved) -> list[DelayedReplies]:
    """Return the metrics of a run that delayed acknowledgements made bimodal, the most delayed first."""
    if saved.kind != RUN or mapping(saved.result, "load").get("quickack") is True or _is_local_socket(saved):
        return []
    found = []
    for latency in latencies_of(saved):
        if latency.time == SERVICE and latency.expected and latency.metric not in _SPANS:
            late = _late_count(latency)
            if late:
                found.append(DelayedReplies(latency.metric, late, late / max(latency.samples, late)))
    return sorted(found, key=lambda one: -one.replies)


def delayed_ack_note(saved: Saved) -> str:
    """Return what a reader must know of delayed acknowledgements in a run; empty where there are none."""
    found = delayed_replies_of(saved)
    if not found:
        return ""
    shown = ", ".join(f"{one.metric} {format_share(one.share, 0)}" for one in found[:_MAX_METRICS])
    return (
        f"40 ms steps: delayed acknowledgement. A share of the replies came 40 ms late ({shown}), and hardly any a little "
        "earlier or later. The server seems to wait for the client's acknowledgement before it sends a reply (Nagle's "
        "algorithm), and the client's kernel delays that; --quickack takes the client's part away."
    )


def _late_count(latency: MetricLatency) -> int:
    """Return how many replies a delayed acknowledgement made late; 0 where the latencies do not have its two modes."""
    slowest_ms = latency.ms["max_ms"]
    if slowest_ms is None or slowest_ms < _LATE_MS[0]:
        return 0
    histogram = latency.decoded()
    if histogram is None:
        return 0
    early = late = beside_below = beside_above = 0
    for low_us, high_us, count in histogram.buckets():
        ms = (low_us + high_us) / 2000
        if ms < _BELOW_MS[0]:
            early += count
        elif ms < _BELOW_MS[1]:
            beside_below += count
        elif _LATE_MS[0] <= ms < _LATE_MS[1]:
            late += count
        elif _ABOVE_MS[0] <= ms < _ABOVE_MS[1]:
            beside_above += count
    enough = max(_MIN_COUNT, histogram.count * _MIN_SHARE)
    isolated = late >= _MIN_CONTRAST * max(beside_below, beside_above)
    return late if late >= enough and early >= enough and isolated else 0


def _is_local_socket(saved: Saved) -> bool:
    """Return whether the target is a unix socket, which has no acknowledgements."""
    return "+unix" in text(mapping(saved.result, "target").get("url")).partition("://")[0]
