"""Latency histograms with the buckets of HdrHistogram, filled in bulk.

The hdrhistogram library needs microseconds of CPU time to record one value. That is too much for 100,000 samples a second.
This module counts samples by the index of their bucket in an HdrHistogram of 1 µs to 1 h with three significant digits.
Count, sum, minimum and maximum are exact. `to_hdr` converts the counts to a histogram of the library. A run does not call
it: a histogram of the library takes 190 KB and is part of a reference cycle, and during a run the garbage collector hardly
ever runs.

Percentile p of n samples is defined as in HdrHistogram: the highest value of the bucket with the sample of rank p/100 · n,
rounded to the nearest whole rank and at least 1. Samples are truncated to whole microseconds. A percentile is therefore less
than 1 µs below that sample, or at most 0.1 % above it, and never above the maximum.

Only buckets that are in use take memory, about 0.1 KB each. A metric whose values spread over two orders of magnitude uses
some 4,000 of them. So a histogram takes 0.4 KB to 0.4 MB.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3
_HALF_BITS = 10  # half of the 2048 sub-buckets that three digits need
_SUB_BITS = 11
_TABLE_US = 1 << 16
_SUB_BUCKETS = 1 << _SUB_BITS  # below this many microseconds every one has a bucket of its own

_V2_COOKIE = 0x1C849303 | 0x10
_V2_COMPRESSED_COOKIE = 0x1C849304 | 0x10
_HEADER = ">iiiiqqd"  # cookie, size of what follows, normalizing offset, digits, lowest, highest, conversion ratio
_HEADER_BYTES = struct.calcsize(_HEADER)
#: Limits of an encoded histogram: a count is an int64, which takes at most ten bytes.
_MAX_COUNT = (1 << 63) - 1
_MAX_SHIFT = 63


def index_of(value_us: int) -> int:
    """Return the index of the bucket of a value."""
    if value_us < _SUB_BUCKETS:
        return value_us or LOWEST_US
    value_us = min(value_us, HIGHEST_US)
    bucket = value_us.bit_length() - _SUB_BITS
    return (bucket << _HALF_BITS) + (value_us >> bucket)


_BUCKETS = ((index_of(HIGHEST_US) >> _HALF_BITS) + 1) << _HALF_BITS  # number of buckets of the library
_MAX_BYTES = _HEADER_BYTES + 10 * _BUCKETS


def _lowest_us(index: int) -> int:
    """Return the lowest value of a bucket."""
    if index < _SUB_BUCKETS:
        return index
    bucket = (index >> _HALF_BITS) - 1
    return (index - (bucket << _HALF_BITS)) << bucket


def highest_us(index: int) -> int:
    """Return the highest value of a bucket, microseconds."""
    return _lowest_us(index + 1) - 1


@cache
def _table() -> list[int]:
    """Return the bucket indices of all values below `_TABLE_US`; the table halves the cost of a sample."""
    table = [LOWEST_US, *range(1, _SUB_BUCKETS)]
    while len(table) < _TABLE_US:
        width = 2 * len(table) // _SUB_BUCKETS
        table += [index for index in range(table[-1] + 1, table[-1] + 1 + _SUB_BUCKETS // 2) for _ in range(width)]
    return table


class Histogram:
    """Counts by bucket, with exact count, sum, minimum and maximum.

    Attributes:
        counts: Bucket index → number of samples.
        count: Number of samples.
        sum_ns: Sum of the samples.
        min_ns: Smallest sample; 0 without samples.
        max_ns: Largest sample; 0 without samples.
        out_of_range: Number of samples above one hour. They are part of count, sum and maximum, and are counted in the last
            bucket.
    """

    __slots__ = ("count", "counts", "max_ns", "min_ns", "out_of_range", "sum_ns")

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.count = 0
        self.sum_ns = 0
        self.min_ns = 0
        self.max_ns = 0
        self.out_of_range = 0

    @classmethod
    def of(cls, samples_ns: Sequence[int]) -> Histogram:
        """Return a histogram of samples."""
        histogram = cls()
        histogram.record(samples_ns)
        return histogram

    def record(self, samples_ns: Sequence[int]) -> None:
        """Add samples, nanoseconds; those under 1 µs are counted in the bucket of 1 µs."""
        if not samples_ns:
            return
        self._update_extremes(min(samples_ns), max(samples_ns))
        self.count += len(samples_ns)
        self.sum_ns += sum(samples_ns)
        if self.max_ns < 1000 * _TABLE_US:
            table = _table()
            self.counts.update([table[sample // 1000] for sample in samples_ns])
            return
        for value_us, count in Counter([sample // 1000 for sample in samples_ns]).items():
            if value_us > HIGHEST_US:
                self.out_of_range += count
            self.counts[index_of(value_us)] += count

    def _update_extremes(self, min_ns: int, max_ns: int) -> None:
        self.min_ns = min(self.min_ns, min_ns) if self.count else min_ns
        self.max_ns = max(self.max_ns, max_ns)

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        if other.count:
            self._update_extremes(other.min_ns, other.max_ns)
            self.count += other.count
            self.sum_ns += other.sum_ns
            self.out_of_range += other.out_of_range
            counts = self.counts
            count_so_far = counts.get
            for index, count in other.counts.items():  # takes half the time of Counter.update
                counts[index] = count_so_far(index, 0) + count

    def to_hdr(self) -> Any:
        """Return this histogram as a histogram of the library, in microseconds."""
        hdr = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        for index, count in self.counts.items():
            hdr.counts[index] = count
        if self.counts:
            hdr.set_internal_tacking_values(min(self.counts), max(self.counts), self.count)
        return hdr

    def percentiles_ms(self, wanted: Iterable[float]) -> dict[float, float]:
        """Return percentiles in milliseconds, by percent; 0 without samples."""
        found = dict.fromkeys(wanted, 0.0)
        if self.count:
            indices = iter(sorted(self.counts))
            seen = index = 0
            for percent in sorted(found):
                rank = max(1, int(percent / 100 * self.count + 0.5))
                while seen < rank:
                    index = next(indices)
                    seen += self.counts[index]
                # the highest value of a bucket may exceed the maximum, which is known exactly
                found[percent] = min(highest_us(index) * 1000, self.max_ns) / 1e6
        return found

    def encode(self) -> str:
        """Return HdrHistogram's compressed V2 encoding as base64, which every HdrHistogram library reads."""
        payload, last, counts = bytearray(), -1, self.counts
        for index in sorted(counts):
            gap, count = index - last - 1, counts[index]
            last = index
            # zigzag: a run of empty buckets is a negative number (2 · gap - 1), a count is a positive number (2 · count)
            if gap:
                _append_varint(payload, 2 * gap - 1)
            if count < 64:
                payload.append(2 * count)
            else:
                _append_varint(payload, 2 * count)
        header = struct.pack(_HEADER, _V2_COOKIE, len(payload), 0, DIGITS, LOWEST_US, HIGHEST_US, 1.0)
        packed = zlib.compress(header + bytes(payload), 1)
        return base64.b64encode(struct.pack(">ii", _V2_COMPRESSED_COOKIE, len(packed)) + packed).decode()

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """Return the histogram of an encoded text: from `encode`, or from another library with the same range and precision.

        Sum, minimum and maximum are those of the buckets. Raises ValueError for any other text.
        """
        payload = _decompress(text)
        try:
            inner, size, _, digits, lowest, highest, _ = struct.unpack_from(_HEADER, payload)
        except struct.error as error:
            raise ValueError(f"not an HdrHistogram: {error}") from None
        if (inner, digits, lowest, highest) != (_V2_COOKIE, DIGITS, LOWEST_US, HIGHEST_US):
            raise ValueError("HdrHistogram with another encoding, range or number of digits")
        counts = payload[_HEADER_BYTES:]
        if not 0 <= size <= len(counts):
            raise ValueError("truncated HdrHistogram")
        histogram = cls()
        at = 0
        for number in _varints(counts[:size]):
            if number & 1:
                at += (number + 1) >> 1
            else:
                if number:
                    histogram.counts[at] = number >> 1
                at += 1
            if at > _BUCKETS:
                raise ValueError("HdrHistogram with more buckets than its range has")
        if histogram.counts.total() > _MAX_COUNT:
            raise ValueError("HdrHistogram with a count that exceeds 64 bits")
        if histogram.counts:
            lows_us = {index: _lowest_us(index) for index in histogram.counts}
            histogram.count = histogram.counts.total()
            histogram.sum_ns = sum(lows_us[index] * count for index, count in histogram.counts.items()) * 1000
            histogram.min_ns = min(lows_us.values()) * 1000
            histogram.max_ns = (_lowest_us(max(lows_us) + 1) - 1) * 1000
        return histogram

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield lowest value, highest value (microseconds) and count of each bucket in use, in ascending order."""
        for index in sorted(self.counts):
            yield _lowest_us(index), _lowest_us(index + 1) - 1, self.counts[index]

    def to_data(self) -> list[Any]:
        """Return the histogram as data for JSON; `from_data` reads it."""
        figures = [self.count, self.sum_ns, self.min_ns, self.max_ns, self.out_of_range]
        return [*figures, list(self.counts), list(self.counts.values())]

    @classmethod
    def from_data(cls, data: Sequence[Any]) -> Histogram:
        """Return the histogram that `to_data` wrote."""
        histogram = cls()
        histogram.count, histogram.sum_ns, histogram.min_ns, histogram.max_ns, histogram.out_of_range = data[:5]
        histogram.counts = Counter(dict(zip(*data[5:], strict=True)))
        return histogram


def _append_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _decompress(text: str) -> bytes:
    """Return header and counts of an encoded text; their size is limited to that of a full histogram. Raises ValueError."""
    if not isinstance(text, str) or len(text) > 2 * _MAX_BYTES:
        raise ValueError("not an HdrHistogram: not a text, or longer than a full histogram")
    try:
        packed = base64.b64decode(text, validate=True)
        cookie, length = struct.unpack_from(">ii", packed)
        if cookie != _V2_COMPRESSED_COOKIE or length < 0:
            raise ValueError("another encoding")
        decompressor = zlib.decompressobj()
        payload = decompressor.decompress(packed[8 : 8 + length], _MAX_BYTES)
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"not an HdrHistogram: {error}") from None
    if not decompressor.eof:
        raise ValueError("not an HdrHistogram: truncated, or larger than a full histogram")
    return payload


def _varints(octets: bytes) -> Iterator[int]:
    """Yield LEB128 numbers (https://en.wikipedia.org/wiki/LEB128), as HdrHistogram writes them. Raises ValueError."""
    number = shift = 0
    for octet in octets:
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            yield number
            number = shift = 0
        elif shift >= _MAX_SHIFT:
            raise ValueError("HdrHistogram with a number of more than 64 bits")
        else:
            shift += 7
    if shift:
        raise ValueError("truncated HdrHistogram: it ends within a number")
