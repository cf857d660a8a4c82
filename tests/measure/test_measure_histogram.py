"""Histograms agree with sorted lists, and with what the library records, encodes and decodes."""

from __future__ import annotations

import base64
import json
import random
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from smtpbench.measure.histogram import DIGITS, HIGHEST_US, LOWEST_US, Histogram

PERCENTS = (0.1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
HOUR_NS = HIGHEST_US * 1000


def distribution(name: str, count: int) -> list[int]:
    draw = random.Random(f"{name} {count}")
    make: Callable[[], int] = {
        "uniform": lambda: draw.randrange(1, 50_000_000),
        "lognormal": lambda: int(draw.lognormvariate(0, 1.5) * 3_000_000),
        "two humps": lambda: draw.choice((200_000, 1_000_000_000)) + draw.randrange(50_000),
        "constant": lambda: 20_000_123,
        "under a microsecond": lambda: draw.randrange(1, 1000),
        "edges of buckets": lambda: (1 << draw.randrange(10, 32)) * 1000 + draw.randrange(-1000, 1001),
        "all magnitudes": lambda: int(10 ** draw.uniform(2, 12.5)),
    }[name]
    return [make() for _ in range(count)]


DISTRIBUTIONS = (
    "uniform", "lognormal", "two humps", "constant", "under a microsecond", "edges of buckets", "all magnitudes",
)  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [1, 2, 7, 120, 5000])
def test_percentiles_are_those_of_the_sorted_samples(name: str, count: int) -> None:
    samples = distribution(name, count)
    ordered = sorted(samples)
    found = Histogram.of(samples).percentiles_ms(PERCENTS)
    for percent in PERCENTS:
        rank = max(1, int(percent / 100 * count + 0.5))
        exact_ns = ordered[rank - 1]
        least_ns = min(max(exact_ns // 1000 * 1000, 1000), max(samples))
        assert least_ns <= round(found[percent] * 1e6) <= least_ns * 1.001 + 1, percent
        assert round(found[percent] * 1e6) <= max(samples)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_count_sum_and_extremes_are_exact(name: str) -> None:
    samples = distribution(name, 999)
    histogram = Histogram.of(samples)
    assert (histogram.count, histogram.sum_ns) == (999, sum(samples))
    assert (histogram.min_ns, histogram.max_ns) == (min(samples), max(samples))
    assert sum(histogram.counts.values()) == 999


def test_values_are_counted_in_the_buckets_of_the_library() -> None:
    edges = [value for power in range(32) for value in ((1 << power) - 1, 1 << power, (1 << power) + 1)]
    draw = random.Random(3)
    values_us = [value for value in edges if LOWEST_US <= value <= HIGHEST_US] + [HIGHEST_US]
    values_us += [int(10 ** draw.uniform(0, 9.5)) for _ in range(2000)]
    hdr = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for value_us in values_us:
        assert hdr.record_value(value_us)
    ours = Histogram.of([value_us * 1000 + draw.randrange(1000) for value_us in values_us])
    assert ours.counts == {index: count for index, count in enumerate(hdr.counts) if count}


@pytest.mark.parametrize("pieces", [2, 3, 50])
def test_sum_of_histograms_equals_histogram_of_all_samples(pieces: int) -> None:
    samples = distribution("all magnitudes", 1000)
    merged, recorded = Histogram(), Histogram()
    for piece in range(pieces):
        merged.add(Histogram.of(samples[piece::pieces]))
        merged.add(Histogram())
        recorded.record(samples[piece::pieces])
    whole = Histogram.of(samples).to_data()
    for data in (merged.to_data(), recorded.to_data()):
        assert data[:5] == whole[:5]
        assert dict(zip(*data[5:], strict=True)) == dict(zip(*whole[5:], strict=True))


def test_adding_does_not_change_the_added_histogram() -> None:
    one, other = Histogram.of([1000]), Histogram.of([5000])
    total = Histogram()
    total.add(one)
    total.add(other)
    assert (one.count, one.counts) == (1, {1: 1})


def test_merged_percentiles_are_not_averaged() -> None:
    fast, slow = Histogram.of([1_000_000] * 99), Histogram.of([1_000_000_000])
    fast.add(slow)
    assert fast.percentiles_ms([50, 99, 100]) == pytest.approx({50: 1.0, 99: 1.0, 100: 1000.0}, rel=1e-3)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_library_decodes_an_encoded_histogram(name: str) -> None:
    histogram = Histogram.of(distribution(name, 3000))
    decoded = HdrHistogram.decode(histogram.encode())
    assert decoded.get_total_count() == 3000
    assert {index: count for index, count in enumerate(decoded.counts) if count} == histogram.counts
    assert decoded.get_value_at_percentile(99) == histogram.to_hdr().get_value_at_percentile(99)


@pytest.mark.parametrize("count", [63, 64, 127, 128, 8191, 8192, 1 << 40])
def test_counts_of_every_size_are_encoded(count: int) -> None:
    histogram = Histogram()
    histogram.counts, histogram.count = Counter({1: count, 2: 1, 20_000: count}), 2 * count + 1
    decoded = HdrHistogram.decode(histogram.encode())
    assert {index: found for index, found in enumerate(decoded.counts) if found} == histogram.counts


def test_converted_histogram_is_encoded_by_the_library() -> None:
    histogram = Histogram.of(distribution("lognormal", 500))
    again = HdrHistogram.decode(histogram.to_hdr().encode())
    assert {index: count for index, count in enumerate(again.counts) if count} == histogram.counts


def test_samples_out_of_range_are_counted() -> None:
    histogram = Histogram.of([1_000_000, HOUR_NS + 999, HOUR_NS + 1000, 3 * HOUR_NS])
    assert (histogram.count, histogram.out_of_range, histogram.max_ns) == (4, 2, 3 * HOUR_NS)
    assert sum(histogram.counts.values()) == 4
    assert histogram.percentiles_ms([100])[100] == pytest.approx(3_600_000, rel=1e-3)


def test_data_is_read_back_from_json() -> None:
    histogram = Histogram.of(distribution("lognormal", 700))
    again = Histogram.from_data(json.loads(json.dumps(histogram.to_data())))
    assert again.to_data() == histogram.to_data()
    again.add(histogram)
    assert (again.count, histogram.count) == (1400, 700)


def test_histogram_without_samples() -> None:
    empty = Histogram.of([])
    assert empty.percentiles_ms([50, 99]) == {50: 0.0, 99: 0.0}
    assert HdrHistogram.decode(empty.encode()).get_total_count() == 0
    assert Histogram.from_data(empty.to_data()).to_data() == empty.to_data()


def test_table_of_indices_agrees_with_the_computation() -> None:
    near, far = Histogram(), Histogram()
    values_us = [*range(70_000)]
    near.record([1000 * value_us for value_us in values_us if value_us < 65_536])
    far.record([1000 * value_us for value_us in values_us])
    assert far.counts != near.counts
    far_of_near = Histogram.of([1000 * value_us for value_us in values_us if value_us >= 65_536])
    near.add(far_of_near)
    assert near.counts == far.counts


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_encoded_histogram_is_decoded(name: str) -> None:
    samples = [min(sample, HOUR_NS - 1) for sample in distribution(name, 2000)]
    histogram, read = Histogram.of(samples), Histogram.decode(Histogram.of(samples).encode())
    assert read.counts == histogram.counts
    assert read.count == 2000
    # a bucket is exact to three digits and to a microsecond
    for one, other in ((read.min_ns, min(samples)), (read.max_ns, max(samples)), (read.sum_ns, sum(samples))):
        assert abs(one - other) <= 0.001 * other + 2000 * 1000
    assert Histogram.decode(Histogram().encode()).count == 0


def test_histogram_of_the_library_is_decoded() -> None:
    hdr = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    values_us = [1, 5, 2047, 2048, 70_000, 3_000_000]
    for value_us in values_us:
        hdr.record_value(value_us)
    assert Histogram.decode(hdr.encode().decode()).counts == Histogram.of([value_us * 1000 for value_us in values_us]).counts


@pytest.mark.parametrize("text", ["", "no base64", "AAAA", "HISTFAAAAB542pNp", HdrHistogram(1, 99, 1).encode().decode()])
def test_text_that_is_not_a_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        Histogram.decode(text)


def forged(counts: bytes, size: int | None = None, length: int | None = None) -> str:
    """Return an encoded text with these bytes of counts, and with sizes that may be wrong."""
    header = struct.pack(
        ">iiiiqqd", 0x1C849313, len(counts) if size is None else size, 0, DIGITS, LOWEST_US, HIGHEST_US, 1.0
    )
    packed = zlib.compress(header + counts)
    return base64.b64encode(struct.pack(">ii", 0x1C849314, len(packed) if length is None else length) + packed).decode()


@pytest.mark.parametrize(
    "text",
    [
        None, 7, ["HISTFAAAAB"], "é", "A" * 10_000_000,
        forged(b"\x02", size=2), forged(b"\x02", size=-1), forged(b"\x02", length=-1), forged(b"\x02", length=9),
        forged(b"\x82"), forged(b"\xff" * 10 + b"\x01\x02"), forged(b"\xff\xff\xff\x7f\x02"), forged(b"\x02" * 23_553),
        forged((b"\xfe" + b"\xff" * 8 + b"\x01") * 2),
        forged(b"\x02")[:-8] + "AAAA" + forged(b"\x02")[-4:],
    ],
)  # fmt: skip
def test_forged_histogram_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        Histogram.decode(text)
    assert Histogram.decode(forged(b"\x02")).count == 1


def test_decompression_bomb_is_refused_with_little_memory() -> None:
    bomb = forged(bytes(100_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="larger than a full histogram"):
        Histogram.decode(bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_buckets_have_their_bounds_and_contain_all_samples() -> None:
    samples = [min(sample, HOUR_NS - 1) for sample in distribution("lognormal", 500)]
    buckets = list(Histogram.of(samples).buckets())
    assert sum(count for _, _, count in buckets) == 500
    assert all(high - low <= low / 1000 for low, high, _ in buckets)
    for sample in samples:
        assert sum(low <= sample // 1000 <= high for low, high, _ in buckets) == 1
