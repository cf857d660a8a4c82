"""Whether a server's memory, descriptors or threads grow with the number of cases. Pure functions.

Theory of operation
===================

A server that leaks and one that does not both use more memory at first: allocators, caches and pools of threads grow until
they suffice. Later the one goes on, and the other stays. What the server uses also goes up and down with the work that is
under way, in steps where an allocator takes memory from the kernel, and as a saw-tooth where it collects garbage.

So the first `_WARM_UP_SHARE` of the cases is left out. The rest is divided into at most `_BLOCKS` blocks of as many cases,
and the lowest value of each block stands for it: what is used while least work is under way, after garbage was collected.
The slopes between all pairs of blocks give the slope, their median (Theil and Sen), and its interval, from the variance of
Kendall's S. Neither assumes a distribution, and neither follows a single step or an outlier. A server that is started again
begins a new *life*. Only points of the same life form pairs, so a restart is never growth, and what several lives show adds
up (the seasonal test of Hirsch, Slack and Smith, 1982).

Something *grows* if four things hold. The lower end of the interval is above 0. The rise is at least the
`Resource.least_rise`. The slope of the second half is at least `_LASTING_SHARE` of the whole slope, so that a curve that
flattens is no growth. And at least `_RISING_SHARE` of the blocks are higher than the one before: a few steps are none.

Error rate: the interval has `CONFIDENCE` for independent noise, so a value that only varies is said to grow in at most
(1 - CONFIDENCE) / 2 of all cases, 0.5 %; `tests/supervisor/test_supervisor_growth.py` counts less. It is not that low
for noise that depends on its own past, such as a garbage collector whose period is longer than the measurement. A finding
therefore needs more than this test: a kind of case that grows alone, each time that it is measured, next to one that does
not (`supervisor.growth_search`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median
from typing import Final, NamedTuple

from smtpbench.measure.server_usage import UsageSample
from smtpbench.units import format_bytes

#: Confidence of an interval, and the quantile of the normal distribution for it.
CONFIDENCE: Final = 0.99
_QUANTILE: Final = 2.576
#: The same for a search that may find nothing.
_LENIENT_QUANTILE: Final = 1.0
_WARM_UP_SHARE: Final = 1 / 3
_BLOCKS: Final = 12
_LASTING_SHARE: Final = 1 / 2
_RISING_SHARE: Final = 0.4
#: Fewer pairs of points than this tell nothing of the second half.
_LEAST_LATE_PAIRS: Final = 3


class Usage(NamedTuple):
    """What the server used when a number of cases had been done.

    Attributes:
        done: Cases done so far.
        sample: What its processes used at that moment.
    """

    done: int
    sample: UsageSample


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that a server may hold more and more of.

    Attributes:
        name: `memory`, `descriptors` or `threads`, as in the file of a finding.
        verb: Form of the verb to it: `memory grows`, `descriptors grow`.
        least_rise: A smaller rise is none.
        value_of: Returns how much of it a sample has; None if that is not known.
        format: Returns an amount as text.
    """

    name: str
    verb: str
    least_rise: float
    value_of: Callable[[UsageSample], float | None]
    format: Callable[[float], str]


def _amount(value: float) -> str:
    """Return a number of descriptors or threads as text: `1`, `0.01`."""
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.3g}"


def _size(value: float) -> str:
    return f"-{format_bytes(-value)}" if value < 0 else format_bytes(value)


def _memory(sample: UsageSample) -> float | None:
    return sample.memory_bytes if sample.rss_bytes is None else sample.rss_bytes


MEMORY: Final = Resource("memory", "grows", 256 * 1024, _memory, _size)
DESCRIPTORS: Final = Resource("descriptors", "grow", 5, lambda sample: sample.fds, _amount)
THREADS: Final = Resource("threads", "grow", 5, lambda sample: sample.threads, _amount)
#: The resources; one of them that grows often makes those after it grow.
RESOURCES: Final = (THREADS, DESCRIPTORS, MEMORY)
RESOURCE_OF: Final = {resource.name: resource for resource in RESOURCES}


@dataclass(frozen=True, slots=True)
class Slope:
    """How a value changes with the number of cases.

    Attributes:
        each: Change for each case.
        low: Lower end of its interval.
        high: Upper end of its interval.
        rise: Change over all cases after the warm-up.
        lasting: Whether the second half of the cases changes it as the first does, and not in a few steps.
    """

    each: float
    low: float
    high: float
    rise: float
    lasting: bool

    def grows(self, least_rise: float) -> bool:
        """Return whether the value certainly grows. `least_rise`: a smaller rise is none."""
        return self.low > 0 and self.lasting and self.rise >= least_rise


def slope_of(
    lives: Iterable[Sequence[tuple[float, float]]],
    warm_up_share: float = _WARM_UP_SHARE,
    blocks: int = _BLOCKS,
    quantile: float = _QUANTILE,
) -> Slope | None:
    """Return how a value changes with the number of cases; None if there are too few points for an interval.

    Args:
        lives: For each life of the server, pairs (cases done, value), in order.
        warm_up_share: Share of the cases of each life to leave out at its beginning.
        blocks: Blocks for the rest of each life.
        quantile: Quantile of the normal distribution for the confidence of the interval.
    """
    slopes, late_slopes = list[float](), list[float]()
    variance, cases, rising, blocks_after_first = 0.0, 0.0, 0, 0
    for points in lives:
        kept = _lowest_of_blocks(_without_warm_up(points, warm_up_share), blocks)
        count = len(kept)
        if count < 2:
            continue
        slopes += _slopes(kept)
        late_slopes += _slopes([point for point in kept if point[0] >= (kept[0][0] + kept[-1][0]) / 2])
        variance += count * (count - 1) * (2 * count + 5) / 18
        cases += kept[-1][0] - kept[0][0]
        rising += sum(later > earlier for (_, earlier), (_, later) in pairwise(kept))
        blocks_after_first += count - 1
    rank = math.floor((len(slopes) - quantile * math.sqrt(variance)) / 2)
    if rank < 0 or not slopes:
        return None
    slopes.sort()
    each = median(slopes)
    lasting = len(late_slopes) < _LEAST_LATE_PAIRS or median(late_slopes) >= each * _LASTING_SHARE
    is_gradual = rising >= blocks_after_first * _RISING_SHARE
    return Slope(each, slopes[rank], slopes[-1 - rank], each * cases, lasting and is_gradual)


def _without_warm_up(points: Sequence[tuple[float, float]], share: float) -> Sequence[tuple[float, float]]:
    if not points:
        return points
    first, last = points[0][0], points[-1][0]
    return [point for point in points if point[0] >= first + (last - first) * share]


def _lowest_of_blocks(points: Sequence[tuple[float, float]], blocks: int) -> list[tuple[float, float]]:
    """Return the lowest point of each block; a block spans as many cases as the others."""
    if len(points) <= blocks:
        return list(points)
    first, last = points[0][0], points[-1][0]
    lowest: dict[int, tuple[float, float]] = {}
    for point in points:
        block = min(blocks - 1, int((point[0] - first) * blocks / (last - first))) if last > first else 0
        if block not in lowest or point[1] < lowest[block][1]:
            lowest[block] = point
    return list(lowest.values())


def _slopes(points: Sequence[tuple[float, float]]) -> list[float]:
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]]


def series(usages: Sequence[Usage], resource: Resource) -> list[list[tuple[float, float]]]:
    """Return the points of a resource, for each life of the server."""
    lives: list[list[tuple[float, float]]] = []
    restarts = -1
    for usage in usages:
        if usage.sample.restarts != restarts:
            restarts = usage.sample.restarts
            lives.append([])
        value = resource.value_of(usage.sample)
        if value is not None:
            lives[-1].append((usage.done, value))
    return lives


def growing(usages: Sequence[Usage]) -> list[Resource]:
    """Return the resources that certainly grew while cases ran."""
    found = []
    for resource in RESOURCES:
        slope = slope_of(series(usages, resource))
        if slope is not None and slope.grows(resource.least_rise):
            found.append(resource)
    return found


def may_grow(usages: Sequence[Usage]) -> list[Resource]:
    """Return the resources that are worth a search: those that seem to grow, and those of which too little is known.

    A leak that few cases of a campaign cause is not certain in it, and a search that finds nothing takes seconds. So a slope
    of which the lower end of the interval for `_LENIENT_QUANTILE` is above 0 is enough. Too little is known of a server that
    was started again all the time, and of a campaign of a moment. There a rise between the ends of the lives is enough.
    """
    found = []
    for resource in RESOURCES:
        lives = series(usages, resource)
        slope = slope_of(lives, quantile=_LENIENT_QUANTILE)
        if slope is None or slope_of(lives) is None:
            rise = sum(life[-1][1] - min(value for _, value in life) for life in lives if life)
            grows = rise >= resource.least_rise
        else:
            grows = slope.low > 0 and slope.rise >= resource.least_rise
        if grows:
            found.append(resource)
    return found
