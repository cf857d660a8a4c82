"""`.hgrm`: the percentiles of one histogram as HdrHistogram prints them, for its plotter and for tools that read it.

A line's value is that of the sample which its count ends with: of its bucket the highest, as in a result, and never more
than the greatest sample. (A result's percentiles round the rank; a line here is the first to reach its own.) Mean and
deviation are of the buckets' middles. The last line says whose histogram it is, and in which unit; readers skip it as they
skip the foot.

Source: `AbstractHistogram.outputPercentileDistribution` of HdrHistogram 2.2, and plotFiles.html beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from smtpbench.errors import UsageError
from smtpbench.measure.histogram import Histogram
from smtpbench.measure.saved import Saved
from smtpbench.report.reading import metrics as facts
from smtpbench.text import visible

_TICKS: Final = 5  #: a half distance
_US_PER_MS: Final = 1000


def hgrm(saved: Sequence[Saved], slot: str = "message", time: str = "response") -> str:
    """The percentiles of a slot's `service` or `response` time. Raises UsageError where it is not of one result."""
    wanted = f"{visible(slot)} {time}"
    everything = [(head, times) for head, one in facts.heads(saved) for times in facts.times(one) if times.ok]
    having = [(head, times) for head, times in everything if (times.slot, times.time) == (slot, time)]
    if not having:
        slots = sorted({times.slot for _, times in everything})
        there = f"; there are {', '.join(slots[:20])}" if slots else ", and no latency of anything else"
        raise UsageError(f"no histogram of {wanted} is in these results{there}")
    if len(having) > 1:
        raise UsageError(f"{len(having)} results hold {wanted}, and a .hgrm file holds one histogram: name one result")
    ((head, times),) = having
    try:
        histogram = Histogram.decode(times.histogram)
    except ValueError:
        raise UsageError(f"the histogram of {wanted} cannot be read: it is not as HdrHistogram encodes one") from None
    max_ms = times.ms["max_ms"]
    if max_ms is not None and max_ms >= 0:
        histogram.max_ns = round(max_ms * 1e6)
    return percentile_lines(histogram, f"Values in milliseconds: {wanted} time of {head.label}")


def percentile_lines(histogram: Histogram, note: str) -> str:
    """The file: a head, a line a step of the percentiles, a foot of three, and the note."""
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
    """Bucket, percentage and count so far; the steps are a fifth of half of what is left to 100."""
    percent, so_far = 0.0, 0
    index = 0
    for index in sorted(histogram.counts):
        so_far += histogram.counts[index]
        while percent < 100 and 100 * so_far >= percent * histogram.count:
            yield index, percent, so_far
            left = 2.0 ** (math.floor(math.log2(100 / (100 - percent))) + 1)
            after = percent + 100 / (_TICKS * left)
            percent = after if after > percent else 100.0
            if so_far == histogram.count:
                break
    if histogram.count:
        yield index, 100.0, so_far
