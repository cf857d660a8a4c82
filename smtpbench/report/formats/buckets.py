"""Latency histograms with the few buckets that Prometheus needs: of a run in progress, and of its result."""

from __future__ import annotations

from bisect import bisect_left

from smtpbench.measure.histogram import Histogram, index_of

#: Upper edges of the buckets. Samples are counted by the buckets of our own histogram, so a sample up to 0.1 % above an edge
#: may be counted as below it.
EDGES_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
_LAST_INDEX = [index_of(round(edge_ms * 1000)) for edge_ms in EDGES_MS]
EDGES_TEXT = [f"{edge_ms / 1000:g}" for edge_ms in EDGES_MS] + ["+Inf"]


class Buckets:
    """One latency histogram in Prometheus's buckets.

    Attributes:
        counts: Samples by bucket; the last one holds those above all edges.
        sum_ns: Sum of all samples, nanoseconds.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(_LAST_INDEX) + 1)
        self.sum_ns = 0

    def add(self, histogram: Histogram) -> None:
        """Add the samples of a histogram."""
        counts = self.counts
        for index, count in histogram.counts.items():
            counts[bisect_left(_LAST_INDEX, index)] += count
        self.sum_ns += histogram.sum_ns
