"""`.hgrm`: the percentiles of one histogram as HdrHistogram prints them, for its plotter and for tools that read it.

The value of a line is that of the sample with which its count ends: the highest of its bucket, as in a result, and never
more than the greatest sample. A result's percentiles round the rank; a line here is the first to reach its own. Mean and
deviation are those of the buckets' middles. The last line names the histogram and its unit; readers skip it as they skip
the foot.

Source: `AbstractHistogram.outputPercentileDistribution` of HdrHistogram 2.2, and its plotFiles.html.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from smtpbench.errors import UsageError
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Saved
from smtpbench.report.reading.head import heads_of
from smtpbench.report.reading.metrics import latencies_of
from smtpbench.text import visible

#: Lines for each half of the distance that is left to 100 %.
_TICKS_PER_HALF_DISTANCE: Final = 5
_US_PER_MS: Final = 1000
_MAX_NAMES = 20


def hgrm(several: Sequence[Saved], metric: str = "message", time: str = "response") -> str:
    """Return the percentiles of a metric.

    Args:
        several: The results; exactly one of them may hold the metric.
        metric: A latency metric, such as `message` or `RCPT`.
        time: `service` or `response`.

    Raises:
        UsageError: No result holds the metric, or more than one does, or its histogram is damaged.
    """
    wanted = f"{visible(metric)} {time}"
    known = [(head, latency) for head, saved in heads_of(several) for latency in latencies_of(saved) if latency.expected]
    found = [(head, latency) for head, latency in known if (latency.metric, latency.time) == (metric, time)]
    if not found:
        names = sorted({latency.metric for _, latency in known})
        available = f"; available metrics: {', '.join(names[:_MAX_NAMES])}" if names else ", nor any other latency"
        raise UsageError(f"these results hold no histogram of {wanted}{available}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} results hold {wanted}, and a .hgrm file holds one histogram: name one result")
    ((head, latency),) = found
    histogram = latency.decoded()
    if histogram is None:
        raise UsageError(f"the histogram of {wanted} is not readable: it is not encoded as HdrHistogram does it")
    return percentile_lines(histogram, f"Values in milliseconds: {wanted} time of {head.label}")


def percentile_lines(histogram: Histogram, note: str) -> str:
    """Return the file: a head, a line for each step of the percentiles, a foot of three lines, and the note."""
    hdr, most_ms = histogram.to_hdr(), histogram.max_ns / 1e6
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for index, percent, count in _steps(histogram):
        value_ms = min(hdr.get_highest_equivalent_value(hdr.get_value_from_index(index)) / _US_PER_MS, most_ms)
        line = f"{value_ms:12.3f} {percent / 100:2.12f} {count:10d}"
        lines.append(line if percent >= 100 else f"{line} {1 / (1 - percent / 100):14.2f}")
    mean_ms, deviation_ms = (float(found) / _US_PER_MS for found in (hdr.get_mean_value(), hdr.get_stddev()))
    lines += [
        f"#[Mean    = {mean_ms:12.3f}, StdDeviation   = {deviation_ms:12.3f}]",
        f"#[Max     = {most_ms:12.3f}, Total count    = {histogram.count:12d}]",
        f"#[Buckets = {hdr.bucket_count:12d}, SubBuckets     = {hdr.sub_bucket_count:12d}]",
        f"#[{note}]",
    ]
    return "\n".join(lines) + "\n"


def _steps(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """Yield bucket, percentage and cumulative count; a step is a fifth of half of the distance that is left to 100."""
    percent, so_far = 0.0, 0
    index = 0
    for index in sorted(histogram.counts):
        so_far += histogram.counts[index]
        while percent < 100 and 100 * so_far >= percent * histogram.count:
            yield index, percent, so_far
            halvings = 2.0 ** (math.floor(math.log2(100 / (100 - percent))) + 1)
            following = percent + 100 / (_TICKS_PER_HALF_DISTANCE * halvings)
            percent = following if following > percent else 100.0
            if so_far == histogram.count:
                break
    if histogram.count:
        yield index, 100.0, so_far
