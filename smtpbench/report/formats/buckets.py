"""Latency histograms with the few buckets that Prometheus wants: of a run while it goes on, and of its result."""

from __future__ import annotations

from bisect import bisect_left

from smtpbench.measure.histogram import Histogram, index_of

#: Upper edges of the latency histograms' buckets. An edge stands for the whole of our own bucket that it lies in, so a
#: sample up to 0.1 % above it may be counted as below.
EDGES_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
_LAST = [index_of(round(edge_ms * 1000)) for edge_ms in EDGES_MS]
EDGES_TEXT = [f"{edge_ms / 1000:g}" for edge_ms in EDGES_MS] + ["+Inf"]


class Buckets:
    """One latency histogram for Prometheus: counts by edge, the last of what lies above all; their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_LAST) + 1)
        self.sum_ns = 0

    def add(self, histogram: Histogram) -> None:
        """Add a histogram's samples."""
        counts = self.counts
        for index, count in histogram.counts.items():
            counts[bisect_left(_LAST, index)] += count
        self.sum_ns += histogram.sum_ns
