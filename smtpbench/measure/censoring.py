"""Samples of arrivals that were never answered: what is known of such a latency is a lower bound.

A histogram includes the bound of each sample that was cut off, so that its percentiles are bounds too. Leaving these samples
out would describe the survivors alone, and an estimator such as Kaplan–Meier needs samples that are cut off at random, which
overload does not do.
"""

from __future__ import annotations

import math

from smtpbench.measure.histogram import Histogram, highest_us

US_PER_MS = 1000
#: A percentile that may be higher by less than this factor is shown without a mark.
_NOTABLE_FACTOR = 1.01


def highest_possible_ms(whole: Histogram, censored: Histogram, percent: float) -> float:
    """Return what a percentile would be if the samples that were cut off were infinite, milliseconds.

    Args:
        whole: All samples, with the bounds of those that were cut off.
        censored: The bounds alone.
        percent: The percentile.
    """
    return _value_ms(whole, censored, percent)


def is_lower_bound(whole: Histogram, censored: Histogram | None, percent: float) -> bool:
    """Return whether a percentile may be higher than shown, by more than a hundredth, because of samples that were cut off.

    The arguments are those of `highest_possible_ms`; `censored` is None if no sample was cut off.
    """
    if censored is None or not censored.count:
        return False
    return _value_ms(whole, censored, percent) > _NOTABLE_FACTOR * _value_ms(whole, None, percent)


def _value_ms(whole: Histogram, without: Histogram | None, percent: float) -> float:
    index = _index_at(whole, without, max(1, round(percent / 100 * whole.count)))
    return math.inf if index is None else highest_us(index) / US_PER_MS


def _index_at(whole: Histogram, without: Histogram | None, rank: int) -> int | None:
    """Return the bucket of the sample of this rank; None if there are fewer samples."""
    seen = 0
    for index in sorted(whole.counts):
        seen += whole.counts[index] - (without.counts[index] if without is not None else 0)
        if seen >= rank:
            return index
    return None


def withheld(censored: Histogram, pace_ns: float, steps: int = 100) -> Histogram:
    """Return the bounds of the arrivals that a closed model did not issue while it waited for an answer in vain.

    A connection that waits for an answer begins no arrivals. Those that it would have begun at its pace would have waited
    too, each for as long as the rest of that time (HdrHistogram corrects for coordinated omission in the same way).

    Args:
        censored: How long the connections waited until they were cut off.
        pace_ns: Time from one arrival to the next on a connection that is answered.
        steps: Most different bounds for one wait.
    """
    found = Histogram()
    for low_us, _, count in censored.buckets():
        wait_ns = low_us * 1000
        missing = int(wait_ns / pace_ns) if pace_ns > 0 else 0
        parts = min(missing, steps)
        for part in range(1, parts + 1):
            weight = count * (missing * part // parts - missing * (part - 1) // parts)
            found.add(_repeated(wait_ns * (parts + 1 - part) // (parts + 1), weight))
    return found


def _repeated(value_ns: int, count: int) -> Histogram:
    one = Histogram.of([value_ns])
    one.counts = type(one.counts)(dict.fromkeys(one.counts, count))
    one.count, one.sum_ns = count, value_ns * count
    return one
